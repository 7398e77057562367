"""What the reports of matrices share: names are printed letter by letter, and long ones are those of folders too."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from marl.core.intervals import Interval
from marl.measure.crossplay_scores import CrossMatrix, methods
from marl.measure.robustness_scores import Curves, Row, score_run
from marl.show import crossplay_report, robustness_report, tables
from tests.support.crossplay_parts import by_hand
from tests.support.robustness_parts import matrix

NAMES = ("qmix [a,b]", "[/tmp/a]", "x [red]", ":smile: [bold]")


def printed(show: Any, report: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what ``show`` prints."""
    console = Console(file=io.StringIO(), width=400)
    monkeypatch.setattr(tables, "wide_console", lambda width: console)
    show(report)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_tables_of_cross_play_have_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, partner, population = NAMES
    sheet = by_hand([[2, 1, 1], [1, 2, 0]], [first, second], [(population, partner)])
    report = CrossMatrix(sheet, methods(sheet), "a [game]", 6, True, {})
    text = printed(crossplay_report.show, report, monkeypatch)
    assert [text.count(name) for name in NAMES] == [3, 3, 2, 1] and "a [game]: return" in text


def test_the_tables_of_robustness_have_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    label, column, task, name = NAMES
    results = {key: np.ones(4) for key in ("won", "return", "length", "hits", "hit_actions")}
    cells = {column: score_run(results, None, "win_rate")}
    rows = [Row("method", task, label, (0, 1), {**cells, "natural": cells[column]})]
    curves = Curves([column], {0: rows, 2: rows}, [{column: Interval(0.5, 0.25, 0.75, 2)}])
    made = replace(matrix(rows), name=name, versus=label, curves=curves)
    text = printed(robustness_report.show, made, monkeypatch)
    assert [text.count(one) for one in NAMES] == [3, 3, 2, 1]


def test_scalars_of_runs_with_long_names_are_written(tmp_path: Path) -> None:
    names = ["a/b", "é" * 100, "é" * 130, "é" * 130 + "x"]
    for _ in range(2):
        tables.write_scalars(tmp_path / "tensorboard", {name: (3, {"x": 1.0}) for name in names})
    found = sorted(path.name for path in (tmp_path / "tensorboard").iterdir())
    short, *long, whole = sorted(found, key=lambda name: (name != "a-b", "~" not in name))
    assert (short, whole, len(long)) == ("a-b", names[1], 2) and long[0] != long[1]
    assert all(name.startswith("é" * 93 + "~") and len(name.encode()) <= 200 for name in long)
