"""A robustness matrix for people and programs: a table, CSV, JSON, a heatmap and TensorBoard scalars."""

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
from marl.measure.robustness_scores import SHARES, Every, Matrix, Replayed, Row, Score
from marl.show import robustness_curves, tables
from marl.show.bars import draw_bars
from marl.show.heatmap import draw

AGENT_WIDTH, COLUMN_WIDTH = 40, 26  # characters
EVERY, BY_LUCK = SHARES  # won in every column, and in as many plays without attack
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


def _every_dict(every: Every | None) -> dict[str, Any] | None:
    if every is None:
        return None
    return {**every.share.as_dict(), "columns": list(every.columns), "by_luck": list(every.luck)}


def _luck_dict(luck: Replayed | str | None) -> dict[str, Any] | None:
    if luck is None:
        return None
    if isinstance(luck, str):
        return {"possible": False, "why": luck}
    return {"possible": True, **luck.share.as_dict(), "replays": luck.replays, "alike": luck.alike}


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
             "worst": row.worst(matrix.metric, matrix.baseline), EVERY: _every_dict(row.every),
             BY_LUCK: _luck_dict(row.by_luck), "cells": cells,
             **({"leads": {name: lead.as_dict() for name, lead in row.leads.items()}} if row.leads else {})}
        )  # fmt: skip
    return {
        "name": matrix.name, **matrix.about, "episodes": matrix.episodes, "metric": matrix.metric,
        "baseline": matrix.baseline, "versus": matrix.versus, "complete": matrix.complete, "rows": rows,
        **({} if matrix.curves is None else {"curves": robustness_curves.document(matrix.curves, matrix.metric)}),
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
        for name, share in ((EVERY, row.every), (BY_LUCK, row.by_luck)):
            line = {"level": row.level, "task": row.task, "agent": row.label, "seeds": " ".join(map(str, row.seeds))}
            line |= {"column": name, "possible": not isinstance(share, str), "worst": False}
            if isinstance(share, str):
                lines.append(line | {"why": share})
            elif share is not None:
                line |= {"episodes": matrix.episodes, "win_rate": share.share.mean, **_bounds("win", share.share)}
                lines.append(line)
    return tables.csv_text(CSV_COLUMNS, lines)


def _bounds(name: str, interval: Interval) -> dict[str, Any]:
    return {f"{name}_low": _number(interval.low), f"{name}_high": _number(interval.high)}


def _csv_score(score: Score, episodes: int) -> dict[str, Any]:
    line = {"episodes": episodes, "win_rate": score.win_rate.mean, **_bounds("win", score.win_rate)}
    line |= {"return": score.returns.mean, "return_std": score.return_std, **_bounds("return", score.returns)}
    line |= {"length": score.length, "attacked_steps": score.attacked_steps, "attacked_actions": score.attacked_actions}
    return line | ({"drop": score.drop.mean, **_bounds("drop", score.drop)} if score.drop else {})


def _note(why: str, notes: list[str]) -> str:
    """Return the number in brackets that a reason has below the table."""
    if why not in notes:
        notes.append(why)
    return f"({notes.index(why) + 1})"


def _cell_text(name: str, row: Row, matrix: Matrix, notes: list[str]) -> Text:
    cell = row.cells[name]
    if isinstance(cell, str):
        return Text(f"{cell.partition(':')[0]} {_note(cell, notes)}", "dim")
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


def _has_every(matrix: Matrix) -> bool:
    """Return whether there is a share won under every attack to show: only the win rate has one."""
    return matrix.metric == "win_rate" and any(row.every is not None for row in matrix.rows)


def _every_text(row: Row, notes: list[str]) -> Text:
    if row.every is None:
        return Text("-")
    lines = tables.interval_lines(row.every.share)
    if row.level == "run":
        return Text(" ".join(lines))
    if isinstance(row.by_luck, Replayed):
        share, *bounds = tables.interval_lines(row.by_luck.share)
        lines += [f"by luck {share}", *(["replays alike"] if row.by_luck.alike else bounds)]
    else:
        why = "" if row.by_luck is None else " " + _note(row.by_luck, notes)
        lines.append("by luck {:.2f} to {:.2f}".format(*row.every.luck) + why)
    return Text("\n".join(lines))


def _row_name(row: Row) -> Text:
    if row.level == "run":
        return Text(f"  seed {row.seeds[0]}", "dim")
    where = f"mean of {row.task}" if row.level == "tasks" else row.task
    return Text(f"{row.label}\n{where}, {len(row.seeds)} seed{'s' * (len(row.seeds) != 1)}")


def table(matrix: Matrix) -> tuple[Table, list[str]]:
    """Return the table, and the notes that its numbers in brackets refer to. A method of one run is not shown twice."""
    over = f"; leads over {matrix.versus}" if matrix.versus else ""
    metric = matrix.metric.replace("_", " ")
    made = Table(title=Text(f"{matrix.name}: {metric} over {matrix.episodes} episodes a cell{over}"))
    notes: list[str] = []
    made.add_column("agent", overflow="fold", max_width=AGENT_WIDTH)
    together = [EVERY] if _has_every(matrix) else []
    for title in (*matrix.columns, "worst", *together):
        made.add_column(Text(title))
    for row in matrix.rows:
        if row.level == "run" and _runs_of(row, matrix) == 1:
            continue
        cells = [_cell_text(name, row, matrix, notes) for name in matrix.columns]
        cells += [Text(row.worst(matrix.metric, matrix.baseline) or "-"), *(_every_text(row, notes) for _ in together)]
        made.add_row(_row_name(row), *cells)
    return made, [f"({k + 1}) {note}" for k, note in enumerate(notes)]


def show(matrix: Matrix) -> None:
    """Print the table, at its full width where no terminal limits it."""
    console = tables.wide_console(AGENT_WIDTH + COLUMN_WIDTH * (len(matrix.columns) + 2))
    made, notes = table(matrix)
    console.print(made)
    for note in notes:
        console.print(note, markup=False, highlight=False)
    if matrix.curves is not None:
        console.print(robustness_curves.table(matrix.curves, matrix))


def _runs_of(row: Row, matrix: Matrix) -> int:
    return sum(one.level == "run" and (one.task, one.label) == (row.task, row.label) for one in matrix.rows)


def heatmap(matrix: Matrix, path: Path) -> Path:
    """Draw methods (and their means over tasks) by columns, coloured by the metric, each with its interval and its
    dose: attacked steps and attacked agent actions per episode. Grey where there is no score."""
    rows = [row for row in matrix.rows if row.level != "run"]
    titles = [*matrix.columns, *([EVERY] if _has_every(matrix) else [])]
    values = np.full((len(rows), len(titles)), np.nan)
    why: list[list[str | None]] = [[None] * len(titles) for _ in rows]
    heavy, below = set(), {}
    for i, row in enumerate(rows):
        for j, name in enumerate(matrix.columns):
            cell = row.cells[name]
            if isinstance(cell, Score):
                values[i, j] = cell.metric(matrix.metric).mean
                if text := _below(cell, matrix.metric):
                    below[i, j] = text
            else:
                why[i][j] = cell.partition(":")[0]
            if name == row.worst(matrix.metric, matrix.baseline):
                heavy.add((i, j))
        if len(titles) > len(matrix.columns):
            values[i, -1] = math.nan if row.every is None else row.every.share.mean
            why[i][-1] = "-"
            if row.every is not None and row.every.share.bounded:
                below[i, len(titles) - 1] = tables.interval_lines(row.every.share)[1]
    low, high = tables.colour_ends(values, matrix.metric)
    names = [f"{fill(row.label, 34)}\n{'mean of tasks' if row.level == 'tasks' else row.task}" for row in rows]
    return draw(
        path, values, names, titles, label=matrix.metric.replace("_", " "), low=low, high=high, why=why,
        heavy=heavy, below=below, lines=[len(matrix.columns)] if len(titles) > len(matrix.columns) else (),
    )  # fmt: skip


def _below(cell: Score, metric: str) -> str:
    """Return the text below a number in the picture: its interval and the hits, where there are any."""
    lines = tables.interval_lines(cell.metric(metric))[1:]
    if cell.attacked_steps:
        lines.append(f"hits {cell.attacked_steps:.1f}/{cell.attacked_actions:.1f}")
    return "\n".join(lines)


def bars(matrix: Matrix, path: Path) -> Path:
    """Draw for every method, in each task, the win rate without attack, under the weakest column, and in all of them,
    with their intervals, and a mark for what luck alone would leave of the last."""
    groups, names, marks = [], [], []
    for row in matrix.rows:
        weakest = row.cells.get(row.worst("win_rate", matrix.baseline) or "")
        natural = row.cells.get(matrix.baseline or "")
        if row.level == "method" and isinstance(natural, Score) and isinstance(weakest, Score) and row.every:
            groups.append([natural.win_rate, weakest.win_rate, row.every.share])
            names.append(f"{fill(row.label, 20)}\n{fill(row.task, 20)}")
            marks.append(row.by_luck.share.mean if isinstance(row.by_luck, Replayed) else math.nan)
    titles = [matrix.baseline or "", "weakest column", "every column"]
    return draw_bars(path, names, titles, groups, label="win rate", marks=marks, mark="every column, by luck")


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
        if row.every is not None:
            scalars[f"robustness/{EVERY}/win_rate"] = row.every.share.mean
        if isinstance(row.by_luck, Replayed):
            scalars[f"robustness/{BY_LUCK}/win_rate"] = row.by_luck.share.mean
        step = int((row.source or {}).get("env_steps", 0))
        runs[f"{row.task} {row.label} seed{row.seeds[0]}"] = (step, scalars)
    tables.write_scalars(folder, runs)


def write(matrix: Matrix, folder: Path) -> Path:
    """Write everything but the table into ``folder``."""
    tables.write_files(folder, {"matrix.csv": csv_text(matrix), "matrix.json": json.dumps(document(matrix), indent=1)})
    heatmap(matrix, folder / "matrix.png")
    if _has_every(matrix):
        bars(matrix, folder / "bars.png")
    if matrix.curves is not None:
        tables.write_files(folder, {"curves.csv": robustness_curves.csv_text(matrix.curves, matrix.metric)})
        robustness_curves.draw(matrix.curves, matrix, folder / "curves.png")
    tensorboard(matrix, folder / "tensorboard")
    return folder


def publish(matrix: Matrix, path: Path) -> Path:
    """Write the matrix as ``path`` (.json), named after it, and its picture next to it."""
    named = {**document(matrix), "name": path.stem, "suite": matrix.name}
    if matrix.curves is not None:
        robustness_curves.draw(matrix.curves, matrix, path.with_name(f"{path.stem}_curves.png"))
    return tables.publish(path, named, lambda picture: heatmap(matrix, picture))
