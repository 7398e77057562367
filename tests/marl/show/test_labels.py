"""Names in the figures of matplotlib are shown letter by letter, in every figure that has names."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from marl.core.intervals import Interval
from marl.measure.robustness_scores import Curves, Row, score_run
from marl.show import heatmap, plot, robustness_curves, scoreboard, statistics_figures
from marl.show.bars import draw_bars
from tests.marl.show.test_scoreboard import board
from tests.support.robustness_parts import matrix
from tests.support.statistics_parts import aggregate_by_hand

FIRST, SECOND, THIRD = r"_under", "a$_^x$ b", r"_$c\$d"


def curves(path: Path) -> None:
    rows = [{"env_steps": step, "eval/$^$": 1.0} for step in (0, 100)]
    plot.learning_curves({FIRST: [rows], SECOND: [rows], THIRD: [rows]}, path, ("eval/$^$",))


def budget_curves(path: Path) -> None:
    results = {key: np.ones(4) for key in ("won", "return", "length", "hits", "hit_actions")}
    rows = [Row("method", THIRD, FIRST, (0, 1), {SECOND: score_run(results, None, "win_rate")})]
    found = Curves([SECOND], {0: rows, 2: rows}, [{SECOND: Interval(1.0, 1.0, 1.0, 2)}])
    robustness_curves.draw(found, matrix(rows), path)


def bars(path: Path) -> None:
    draw_bars(path, [THIRD], [FIRST, SECOND], [[Interval(0.5, 0.25, 0.75, 2)] * 2], label="win rate")


def cells(path: Path) -> None:
    values, why = np.array([[np.nan, 1.0], [1.0, 1.0]]), [["$^$", None], [None, None]]
    heatmap.draw(path, values, [FIRST, SECOND], [SECOND, THIRD], label="won", low=0, high=1, why=why)


def teams(path: Path) -> None:
    scoreboard.draw({**board(), "teams": [board(name)["teams"][0] for name in (FIRST, SECOND, THIRD)]}, path)


def statistics(name: str) -> Callable[[Path], None]:
    def draw(path: Path) -> None:
        whole = aggregate_by_hand("eval/$^$")
        names = dict(zip(whole.methods, (FIRST, SECOND + THIRD), strict=True))
        held = {field.name: getattr(whole, field.name) for field in fields(whole)}
        renamed = {part: {names.get(key, key): one for key, one in value.items()}
                   for part, value in held.items() if isinstance(value, dict)}  # fmt: skip
        pairs = [replace(pair, first=names[pair.first], second=names[pair.second]) for pair in whole.pairs]
        made: Any = replace(whole, **renamed, pairs=pairs)
        plot.save_pictures(getattr(statistics_figures, name)(made), path)

    return draw


FIGURES = {
    "curves": curves, "budget curves": budget_curves, "bars": bars, "cells": cells, "teams": teams,
    **{name: statistics(name) for name in ("intervals", "improvements", "profiles", "efficiency")},
}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_names_are_shown_letter_by_letter(name: str, tmp_path: Path) -> None:
    with matplotlib.rc_context({"svg.fonttype": "none"}), warnings.catch_warnings():
        warnings.simplefilter("error")
        FIGURES[name](tmp_path / "picture.svg")
    texts = [one.text or "" for one in ElementTree.parse(tmp_path / "picture.svg").iter() if one.tag.endswith("text")]
    shown = "\n".join(texts).replace("\u200b", "")
    assert FIRST in shown and SECOND in shown and THIRD in shown
    assert "$^$" in shown or name not in ("curves", "cells", "profiles", "efficiency")
