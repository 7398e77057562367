"""A robustness matrix as people and programs read it: a table, CSV, JSON, a heatmap and TensorBoard scalars."""

from __future__ import annotations

import json
import math
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from marl.core.intervals import Interval
from marl.measure.robustness_scores import Matrix, Row, Score
from marl.show import tables
from marl.show.heatmap import draw

AGENT_WIDTH, COLUMN_WIDTH = 40, 26  # characters
CSV_COLUMNS = (
    "level", "task", "agent", "seeds", "column", "possible", "why", "episodes", "win_rate", "win_low", "win_high",
    "return", "return_std", "return_low", "return_high", "length", "attacked_steps", "attacked_actions", "drop",
    "drop_low", "drop_high", "lead", "lead_low", "lead_high", "worst",
)  # fmt: skip


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _score_dict(score: Score) -> dict[str, Any]:
    return {
        "possible": True, "win_rate": score.win_rate.as_dict(),
        "return": {**score.returns.as_dict(), "std": score.return_std}, "length": score.length,
        "attacked_steps": score.attacked_steps, "attacked_actions": score.attacked_actions,
        "drop": score.drop.as_dict() if score.drop else None,
    }  # fmt: skip


def document(matrix: Matrix) -> dict[str, Any]:
    """Return everything, for JSON."""
    rows = []
    for row in matrix.rows:
        cells = {
            name: _score_dict(cell) if isinstance(cell, Score) else {"possible": False, "why": cell}
            for name, cell in row.cells.items()
        }
        rows.append(
            {"level": row.level, "task": row.task, "agent": row.label, "seeds": list(row.seeds), "source": row.source,
             "worst": row.worst(matrix.metric, matrix.baseline), "cells": cells,
             **({"leads": {name: lead.as_dict() for name, lead in row.leads.items()}} if row.leads else {})}
        )  # fmt: skip
    return {
        "name": matrix.name, **matrix.about, "episodes": matrix.episodes, "metric": matrix.metric,
        "baseline": matrix.baseline, "versus": matrix.versus, "complete": matrix.complete, "rows": rows,
    }  # fmt: skip


def csv_text(matrix: Matrix) -> str:
    """Return CSV with one line per row and column; what does not exist is empty."""
    lines = []
    for row in matrix.rows:
        worst = row.worst(matrix.metric, matrix.baseline)
        for name, cell in row.cells.items():
            line: dict[str, Any] = {
                "level": row.level, "task": row.task, "agent": row.label, "seeds": " ".join(map(str, row.seeds)),
                "column": name, "possible": isinstance(cell, Score), "worst": name == worst,
            }  # fmt: skip
            line |= _csv_score(cell, matrix.episodes) if isinstance(cell, Score) else {"why": cell}
            if name in row.leads:
                line |= {"lead": row.leads[name].mean, **_bounds("lead", row.leads[name])}
            lines.append(line)
    return tables.csv_text(CSV_COLUMNS, lines)


def _bounds(name: str, interval: Interval) -> dict[str, Any]:
    return {f"{name}_low": _number(interval.low), f"{name}_high": _number(interval.high)}


def _csv_score(score: Score, episodes: int) -> dict[str, Any]:
    line = {"episodes": episodes, "win_rate": score.win_rate.mean, **_bounds("win", score.win_rate)}
    line |= {"return": score.returns.mean, "return_std": score.return_std, **_bounds("return", score.returns)}
    line |= {"length": score.length, "attacked_steps": score.attacked_steps, "attacked_actions": score.attacked_actions}
    return line | ({"drop": score.drop.mean, **_bounds("drop", score.drop)} if score.drop else {})


def _cell_text(name: str, row: Row, matrix: Matrix, notes: list[str]) -> Text:
    cell = row.cells[name]
    if isinstance(cell, str):
        if cell not in notes:
            notes.append(cell)
        return Text(f"{cell.partition(':')[0]} ({notes.index(cell) + 1})", "dim")
    lines = tables.interval_lines(cell.metric(matrix.metric))
    if row.level == "run":
        lines = [" ".join(lines)]
    else:
        if cell.drop is not None and name != matrix.baseline:
            lines.append(f"drop {cell.drop.mean:.2f}")
        if matrix.metric != "return":
            lines.append(f"return {cell.returns.mean:.2f}")
        if cell.attacked_steps:
            lines.append(f"hits {cell.attacked_steps:.1f}/{cell.attacked_actions:.1f}")
        if name in row.leads:
            lines.append("lead " + " ".join(tables.interval_lines(row.leads[name])))
    return Text("\n".join(lines), "bold" if name == row.worst(matrix.metric, matrix.baseline) else "")


def _row_name(row: Row) -> Text:
    if row.level == "run":
        return Text(f"  seed {row.seeds[0]}", "dim")
    where = f"mean of {row.task}" if row.level == "tasks" else row.task
    return Text(f"{row.label}\n{where}, {len(row.seeds)} seed{'s' * (len(row.seeds) != 1)}")


def table(matrix: Matrix) -> tuple[Table, list[str]]:
    """Return the table, and the notes that its numbers in brackets refer to. A method of one run is not shown twice."""
    over = f"; leads over {matrix.versus}" if matrix.versus else ""
    made = Table(title=f"{matrix.name}: {matrix.metric.replace('_', ' ')} over {matrix.episodes} episodes a cell{over}")
    notes: list[str] = []
    made.add_column("agent", overflow="fold", max_width=AGENT_WIDTH)
    for title in (*matrix.columns, "worst"):
        made.add_column(title)
    for row in matrix.rows:
        if row.level == "run" and _runs_of(row, matrix) == 1:
            continue
        cells = [_cell_text(name, row, matrix, notes) for name in matrix.columns]
        made.add_row(_row_name(row), *cells, row.worst(matrix.metric, matrix.baseline) or "-")
    return made, [f"({k + 1}) {note}" for k, note in enumerate(notes)]


def show(matrix: Matrix) -> None:
    """Print the table; where no terminal limits its width, as wide as it is."""
    console = tables.wide_console(AGENT_WIDTH + COLUMN_WIDTH * (len(matrix.columns) + 1))
    made, notes = table(matrix)
    console.print(made)
    for note in notes:
        console.print(note, markup=False, highlight=False)


def _runs_of(row: Row, matrix: Matrix) -> int:
    return sum(one.level == "run" and (one.task, one.label) == (row.task, row.label) for one in matrix.rows)


def heatmap(matrix: Matrix, path: Path) -> Path:
    """Draw methods (and their means over tasks) by columns, coloured by the metric; grey where there is no score."""
    rows = [row for row in matrix.rows if row.level != "run"]
    values = np.full((len(rows), len(matrix.columns)), np.nan)
    why: list[list[str | None]] = [[None] * len(matrix.columns) for _ in rows]
    heavy = set()
    for i, row in enumerate(rows):
        for j, name in enumerate(matrix.columns):
            cell = row.cells[name]
            if isinstance(cell, Score):
                values[i, j] = cell.metric(matrix.metric).mean
            else:
                why[i][j] = cell.partition(":")[0]
            if name == row.worst(matrix.metric, matrix.baseline):
                heavy.add((i, j))
    low, high = tables.colour_ends(values, matrix.metric)
    names = [f"{fill(row.label, 34)}\n{'mean of tasks' if row.level == 'tasks' else row.task}" for row in rows]
    return draw(
        path, values, names, matrix.columns, label=matrix.metric.replace("_", " "), low=low, high=high, why=why,
        heavy=heavy,
    )  # fmt: skip


def tensorboard(matrix: Matrix, folder: Path) -> None:
    """Write the scalars ``robustness/<column>/<metric>`` of every run, at the step of its checkpoint."""
    runs: dict[str, tuple[int, dict[str, float]]] = {}
    for row in matrix.rows:
        if row.level != "run":
            continue
        scalars = {}
        for column, cell in row.cells.items():
            if isinstance(cell, Score):
                scalars[f"robustness/{column}/win_rate"] = cell.win_rate.mean
                scalars[f"robustness/{column}/return"] = cell.returns.mean
                if cell.drop is not None:
                    scalars[f"robustness/{column}/drop"] = cell.drop.mean
        step = int((row.source or {}).get("env_steps", 0))
        runs[f"{row.task} {row.label} seed{row.seeds[0]}"] = (step, scalars)
    tables.write_scalars(folder, runs)


def write(matrix: Matrix, folder: Path) -> Path:
    """Write everything but the table into ``folder``."""
    tables.write_files(folder, {"matrix.csv": csv_text(matrix), "matrix.json": json.dumps(document(matrix), indent=1)})
    heatmap(matrix, folder / "matrix.png")
    tensorboard(matrix, folder / "tensorboard")
    return folder


def publish(matrix: Matrix, path: Path) -> Path:
    """Write the matrix as ``path`` (.json), named after it, and its picture beside it."""
    named = {**document(matrix), "name": path.stem, "suite": matrix.name}
    return tables.publish(path, named, lambda picture: heatmap(matrix, picture))
