"""Curves over the budget: areas by hand, each budget measured once, and what cannot be a curve."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from marl.core.types import ConfigError
from marl.measure import curves
from marl.measure.matrix import measure, read_cell
from marl.measure.robustness_scores import Score, score_rows
from marl.show.robustness_report import table, write
from tests.support.robustness_parts import NATURAL, TRIP, column, entrant, fake, matrix, plan, setting

TAX = column("tax", fake("Tax", budget=2, to=1))
BUDGETS = [0, 1, 2, 4]


def outcomes(*won: list[int]) -> dict[int, list[Any]]:
    """Return results of one entrant at the budgets 0, 2, 4 and 12, the wins of its episodes at each."""
    return {k: [{"natural": {}, "tax": {"won": np.array(w)}}] for k, w in zip((0, 2, 4, 12), won, strict=True)}


def test_areas_by_hand() -> None:
    """An episode that is lost between the budgets 2 and 4 has (2 + 2 / 2 + 0) / 12; points of unequal distance do not
    count alike, as in a mean of the points."""
    area = curves.episodes_area(outcomes([1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]), 0, "tax", "win_rate")
    assert area is not None and area.tolist() == pytest.approx([3 / 12, (1 + 1 + 8) / 12, 0.0])
    assert area[0] != np.mean([1, 1, 0, 0]), "the twin that takes the mean of the points"
    missing = outcomes([1], [1], [0], [0])
    missing[4][0]["tax"] = "not measured yet"
    assert curves.episodes_area(missing, 0, "tax", "win_rate") is None


def measured(where: Path, more: bool = True) -> Any:
    """Measure two seeds of the best joint action, six episodes each in four lanes, over the budgets."""
    entrants = [entrant([0, 0]), entrant([0, 0], seed=1), entrant([0, 1], label="worse")]
    columns = [NATURAL, TRIP, TAX]
    cells = plan(entrants, columns, setting(where))
    outcome = measure([cell for row in cells for cell in row], 1)
    found = [{c.name: read_cell(cell, outcome) for c, cell in zip(columns, row, strict=True)} for row in cells]
    by_name = [dict(zip([c.name for c in columns], row, strict=True)) for row in cells]
    results, extra, complete = curves.measure(by_name, found, "natural", BUDGETS, 1, more=more)
    scored = curves.score(results, entrants, "natural", "win_rate")
    return replace(matrix(score_rows(entrants, found, "natural", "win_rate")), curves=scored), extra, complete


def test_every_budget_is_measured_once_and_none_is_the_baseline(tmp_path: Path) -> None:
    """Lanes below the budget are lost: 0 of six episodes, then 2 (lane 0 plays twice), 4 and 6."""
    made, extra, complete = measured(tmp_path)
    assert complete and len(extra) == 9 and made.curves.columns == ["tax"], "attacks without a budget have no curve"
    files = list((tmp_path / "cells").iterdir())
    assert len(files) == 2 * (3 + 2), "two teams; the budget of the column itself is its cell, and 0 the baseline's"
    first = {k: rows[0].cells["tax"] for k, rows in made.curves.rows.items()}
    assert all(isinstance(cell, Score) for cell in first.values())
    assert [cell.win_rate.mean for cell in first.values()] == pytest.approx([1, 4 / 6, 2 / 6, 0])
    area = (1 + 4 / 6) / 2 + (4 / 6 + 2 / 6) / 2 + 2 * (2 / 6 + 0) / 2
    for row, areas in zip(made.curves.rows[0], made.curves.areas, strict=True):
        assert areas["tax"].mean == pytest.approx(0.0 if row.label == "worse" else area / 4)
    before = {path: path.stat().st_mtime_ns for path in files}
    again, _, _ = measured(tmp_path)
    assert again.curves == made.curves and before == {path: path.stat().st_mtime_ns for path in files}
    again, _, complete = measured(tmp_path / "elsewhere", more=False)
    assert not complete and again.curves.areas[0] == {}, "a pass that was stopped has no area, and no wrong one"


def test_curves_are_written_and_drawn(tmp_path: Path) -> None:
    made, _, _ = measured(tmp_path)
    out = write(made, tmp_path / "out")
    rows = json.loads((out / "matrix.json").read_text())["curves"]
    assert rows["budgets"] == BUDGETS and rows["rows"][0]["curves"]["tax"]["points"][1]["attacked_steps"] > 0
    lines = list(csv.DictReader((out / "curves.csv").read_text().splitlines()))
    assert len(lines) == 5 * 4 and [line["budget"] for line in lines[:4]] == ["0", "1", "2", "4"]
    assert lines[0]["area"] == str(rows["rows"][0]["curves"]["tax"]["area"]["mean"])
    assert Image.open(out / "curves.png").size[0] > 300
    assert "curves" not in json.loads((write(replace(made, curves=None), tmp_path / "two") / "matrix.json").read_text())
    assert table(made)[0].row_count > 0


@pytest.mark.parametrize(
    ("budgets", "message"),
    [
        ([4], "budgets=.4. must be at least two whole numbers"),
        ("4", "budgets=4 must be at least two"),
        ([0, 2.5], "whole numbers"),
        ([-1, 2], "budgets=-1 must be at least 0"),
        ([4, 2], "budgets=.4, 2. must rise"),
        ([2, 2], "must rise"),
    ],
)
def test_what_is_no_curve_is_refused(budgets: Any, message: str) -> None:
    attacks = {"natural": NATURAL.attack, "tax": TAX.attack}
    with pytest.raises(ConfigError, match=message):
        curves.read_budgets(budgets, attacks, "natural")


def test_a_curve_needs_a_baseline_and_a_budget() -> None:
    attacks = {"natural": NATURAL.attack, "tax": TAX.attack}
    assert curves.read_budgets(None, attacks, None) == [] and curves.read_budgets([0, 2], attacks, "natural") == [0, 2]
    for columns, baseline, message in (
        (attacks, None, "must be among the columns"), ({"tax": TAX.attack}, "natural", "must be among the columns"),
        ({"natural": NATURAL.attack, "trip": TRIP.attack}, "natural", "none of the columns has a budget"),
        ({"natural": NATURAL.attack, "tax": fake("Tax", budget=None, to=1)}, "natural", "none of the columns has a"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            curves.read_budgets([0, 2], columns, baseline)


MIXED = {
    "_target_": "attacks.mixture.Mixture", "_partial_": True, "weights": {"tax": 1.0, "trip": 1.0},
    "attacks": {"tax": TAX.attack, "trip": fake("Tax", budget=None, to=1)},
}  # fmt: skip


@pytest.mark.parametrize(
    ("columns", "attacked"),
    [
        ([NATURAL, column("mixed", MIXED)], True),
        ([column("natural", TRIP.attack), TAX], False),
        ([column("natural", fake("Tax", budget=4, to=1)), TAX], False),
        ([NATURAL, column("harder", TAX.attack, payoff=[[0, 2], [4, 0]])], False),
    ],
    ids=["a part without a budget", "a baseline that attacks", "a baseline with a budget", "another game"],
)
def test_a_budget_of_0_is_measured_where_it_is_not_the_baseline(
    columns: list[Any], attacked: bool, tmp_path: Path
) -> None:
    (cells,) = plan([entrant([0, 0])], columns, setting(tmp_path))
    outcome = measure(cells, 1)
    found = [{c.name: read_cell(cell, outcome) for c, cell in zip(columns, cells, strict=True)}]
    by_name = [dict(zip([c.name for c in columns], cells, strict=True))]
    results, extra, complete = curves.measure(by_name, found, "natural", [0, 1], 1, more=True)
    natural, other = (results[0][0][c.name] for c in columns)
    assert complete and len(extra) == 2 and not isinstance(natural, str) and not isinstance(other, str)
    assert all(one[0]["natural"] is found[0]["natural"] for one in results.values()), "at its own budget"
    assert bool(other["hits"].any()) == attacked and other["won"].tolist() != natural["won"].tolist()


def test_what_has_no_budget_left_is_the_baseline() -> None:
    def cell(attack: dict[str, Any], **env: int) -> Any:
        return replace(plan([entrant([0, 0])], [NATURAL], setting(Path()))[0][0], team={"attack": attack, "env": env})

    natural, free = cell(NATURAL.attack), fake("Tax", budget=None, to=1)
    parts = {**MIXED, "attacks": {"a": TAX.attack, "b": {"_target_": "x", "attack": TAX.attack}}}
    for attack in (TAX.attack, {"_target_": "x", "attack": TAX.attack}, parts, {"budgets": [2], "attack": MIXED}):
        assert curves.is_baseline(cell(attack), natural)
        assert not curves.is_baseline(cell(attack, n=1), natural) and not curves.is_baseline(cell(attack), cell(free))
    for attack in (free, MIXED, {"budgets": [2], "attack": {**MIXED, "attacks": {"a": TAX.attack, "b": TRIP.attack}}}):
        assert not curves.is_baseline(cell(attack), natural)


def test_parts_get_the_budget_too() -> None:
    inner = {"_target_": "x", "budget": 8, "part": {"budget": None, "budget_unit": "step"}}
    assert curves.own_budget({"attack": inner}) == 8
    assert curves.with_budget({"attack": inner}, 3) == {"attack": {**inner, "budget": 3}}
    growing = {"budgets": [2, 8], "attack": inner}
    assert curves.own_budget(growing) == 2, "what a curriculum begins with holds, not what its part has"
    assert curves.with_budget(growing, 3) == {"budgets": [3], "attack": {**inner, "budget": 3}}
