"""Curves of a robustness matrix over the budget, for people and programs: a table, JSON, CSV and a picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from marl.core.intervals import Interval
from marl.measure.robustness_scores import Curves, Matrix, Row, Score
from marl.run.files import save_figure
from marl.show import tables
from marl.show.labels import plain
from marl.show.plot import COLOURS

CSV_COLUMNS = (
    "level", "task", "agent", "seeds", "column", "budget", "mean", "low", "high", "attacked_steps", "attacked_actions",
    "area", "area_low", "area_high",
)  # fmt: skip


def points(curves: Curves, index: int, column: str, metric: str) -> Iterator[tuple[int, Score, Interval]]:
    """Yield budget, score and metric of a column of row ``index``, for each budget that has a score."""
    for budget, rows in curves.rows.items():
        cell = rows[index].cells.get(column)
        if isinstance(cell, Score):
            yield budget, cell, cell.metric(metric)


def rows_of(curves: Curves) -> list[Row]:
    """Return the rows, in the order of ``points``; their cells are those of the first budget."""
    return next(iter(curves.rows.values()))


def document(curves: Curves, metric: str) -> dict[str, Any]:
    """Return everything, for JSON."""
    rows = []
    for i, row in enumerate(rows_of(curves)):
        found = {
            name: {
                "area": curves.areas[i][name].as_dict() if name in curves.areas[i] else None,
                "points": [
                    {"budget": budget, metric: value.as_dict(), "attacked_steps": score.attacked_steps,
                     "attacked_actions": score.attacked_actions}
                    for budget, score, value in points(curves, i, name, metric)
                ],
            }
            for name in curves.columns
        }  # fmt: skip
        rows.append(
            {"level": row.level, "task": row.task, "agent": row.label, "seeds": list(row.seeds), "curves": found}
        )
    return {"budgets": list(curves.rows), "metric": metric, "columns": curves.columns, "rows": rows}


def csv_text(curves: Curves, metric: str) -> str:
    """Return CSV with one line per row, column and budget; what does not exist is empty."""
    lines: list[dict[str, Any]] = []
    for i, row in enumerate(rows_of(curves)):
        about = {"level": row.level, "task": row.task, "agent": row.label, "seeds": " ".join(map(str, row.seeds))}
        for name in curves.columns:
            area = curves.areas[i].get(name)
            ends = {} if area is None else {"area": area.mean, **_ends("area_", area)}
            for budget, score, value in points(curves, i, name, metric):
                hits = {"attacked_steps": score.attacked_steps, "attacked_actions": score.attacked_actions}
                point = {"column": name, "budget": budget, "mean": value.mean, **_ends("", value)}
                lines.append({**about, **point, **hits, **ends})
    return tables.csv_text(CSV_COLUMNS, lines)


def _ends(name: str, interval: Interval) -> dict[str, Any]:
    return {f"{name}low": interval.low, f"{name}high": interval.high} if interval.bounded else {}


def table(curves: Curves, matrix: Matrix) -> Table:
    """Return the table of areas: methods by columns."""
    first, *_, last = curves.rows
    made = Table(title=f"area under the curve: mean {matrix.metric.replace('_', ' ')} over budgets {first} to {last}")
    made.add_column("agent", overflow="fold", max_width=40)
    for name in curves.columns:
        made.add_column(Text(name))
    for row, areas in zip(rows_of(curves), curves.areas, strict=True):
        if row.level != "run":
            texts = ["\n".join(tables.interval_lines(areas[n])) if n in areas else "-" for n in curves.columns]
            made.add_row(*map(Text, (f"{row.label}\n{row.task}", *texts)))
    return made


def draw(curves: Curves, matrix: Matrix, path: Path) -> Path:
    """Draw a row of panels for every task, with a panel for every column: a line for each method, with its interval at
    every budget."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    methods = [(i, row) for i, row in enumerate(rows_of(curves)) if row.level == "method"]
    tasks, labels = (
        list(dict.fromkeys(values)) for values in zip(*((r.task, r.label) for _, r in methods), strict=True)
    )
    figure = Figure(figsize=(0.8 + 3.0 * len(curves.columns), 1.0 + 2.6 * len(tasks)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(tasks), len(curves.columns), squeeze=False, sharex=True, sharey=True)
    for i, row in methods:
        for name, ax in zip(curves.columns, panels[tasks.index(row.task)], strict=True):
            place = labels.index(row.label)
            _line(ax, [*points(curves, i, name, matrix.metric)], row.label, COLOURS[place % len(COLOURS)])
    for line, task in zip(panels, tasks, strict=True):
        line[0].set_ylabel(f"{plain(task)}\n{matrix.metric.replace('_', ' ')}")
    for name, ax in zip(curves.columns, panels[0], strict=True):
        ax.set_title(plain(name), fontsize=10)
    for ax in panels[-1]:
        ax.set_xticks(list(curves.rows))
    if matrix.metric == "win_rate":
        panels[0, 0].set_ylim(-0.02, 1.02)
    figure.supxlabel("budget", fontsize=10)
    shown = {text: handle for ax in panels.flat for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)}
    if shown:
        figure.legend([*shown.values()], [*shown], loc="outside upper center", ncols=min(len(shown), 3), frameon=False)
    save_figure(figure, path, 120)
    return path


def _line(ax: Any, found: list[tuple[int, Score, Interval]], label: str, colour: str) -> None:
    if not found:
        return
    x = [budget for budget, _, _ in found]
    ax.plot(x, [value.mean for _, _, value in found], marker="o", markersize=3, color=colour, label=plain(label, 40))
    if all(value.bounded for _, _, value in found):
        low, high = (np.array([getattr(value, end) for _, _, value in found]) for end in ("low", "high"))
        ax.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
