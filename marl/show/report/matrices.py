"""The matrices of a report: files of ``scripts.robustness`` and ``scripts.crossplay`` are read and checked here, and
become charts, tables and notes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marl.core.intervals import Interval
from marl.core.types import ConfigError
from marl.measure.robustness_scores import SHARES
from marl.run.folders import read_object
from marl.show.report.charts import Chart, Grid, Line, budget_curves, heatmap
from marl.show.report.facts import stroke
from marl.show.tables import interval_lines

EVERY, BY_LUCK = SHARES
Document = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """A table of texts, with a heading for each column."""

    heads: list[str]
    lines: list[list[str]]


@dataclass(frozen=True)
class Matrix:
    """A measurement on the page: where it comes from, its charts and tables, and what is missing from it."""

    name: str
    source: str
    about: list[tuple[str, str]]
    charts: list[tuple[str, Chart]] = field(default_factory=list)  # (what it shows, the chart)
    tables: list[tuple[str, Table]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    short: list[str] = field(default_factory=list)  # what a reader should know first


def read_robustness(path: Path, key: str = "robustness") -> Matrix:
    """Return the robustness matrix of a file, or of a folder that scripts.robustness wrote (``matrix.json``). Raise
    ConfigError, naming the option ``key``, where it is not one."""
    return _matrix(path, "matrix.json", key, "robustness", _robustness)


def read_crossplay(path: Path, key: str = "crossplay") -> Matrix:
    """Return the cross-play matrix of a file, or of a folder that scripts.crossplay wrote (``crossplay.json``). Raise
    ConfigError, naming the option ``key``, where it is not one."""
    return _matrix(path, "crossplay.json", key, "crossplay", _crossplay)


def _matrix(path: Path, name: str, key: str, kind: str, made: Callable[[Document, Path], Matrix]) -> Matrix:
    file, document = _read(path, name, key)
    try:
        return made(document, file)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise _refusal(key, path, kind, error) from error


def _read(path: Path, name: str, key: str) -> tuple[Path, Document]:
    file = path / name if path.is_dir() else path
    if not file.exists():
        raise ConfigError(f"{key}={path} " + (f"has no {name}" if path.is_dir() else "does not exist"))
    return file, read_object(file, f"{key}={path}", "matrix")


def _refusal(key: str, path: Path, script: str, error: Exception) -> ConfigError:
    lack = f" (it lacks {error})" if isinstance(error, KeyError) else ""
    return ConfigError(f"{key}={path} is no output of scripts.{script}{lack}")


def _about(document: Document) -> list[tuple[str, str]]:
    """Return where a matrix comes from."""
    physics = document.get("physics")
    versions = ", ".join(f"{task} {version}" for task, version in physics.items()) if isinstance(physics, dict) else ""
    return [
        ("episodes of each cell", f"{document['episodes']:,}"), ("metric", str(document["metric"]).replace("_", " ")),
        ("seed of the episodes", str(document.get("seed", "not recorded"))),
        ("version of the game's rules", versions or str(physics or "not recorded")),
        ("commit", str(document.get("commit", "not recorded"))),
        ("commits of the runs", ", ".join(document.get("commits", ())) or "not recorded"),
        ("command", str(document.get("command", "not recorded"))),
    ]  # fmt: skip


def _text(interval: Mapping[str, Any] | None) -> str:
    """Return a stored interval as text."""
    return "-" if interval is None else " ".join(interval_lines(Interval.from_dict(interval)))


def _bounds(interval: Mapping[str, Any]) -> str:
    return " ".join(interval_lines(Interval.from_dict(interval))[1:])


# robustness


def _robustness(document: Document, file: Path) -> Matrix:
    rows = [row for row in document["rows"] if row["level"] != "run"]
    metric, columns = str(document["metric"]), list(document["columns"])
    if not rows or not columns:
        raise ValueError("no rows")
    together = [EVERY] if metric == "win_rate" and any(row.get(EVERY) for row in rows) else []
    cells = [[_attacked(row, name, metric) for name in columns] + [_every(row) for _ in together] for row in rows]
    names = [f"{row['agent']}\n{'mean of tasks' if row['level'] == 'tasks' else row['task']}" for row in rows]
    heavy = frozenset(
        (i, columns.index(row["worst"])) for i, row in enumerate(rows) if row.get("worst") in columns
    )  # fmt: skip
    grid = _grid(names, [*columns, *together], cells, heavy, [len(columns)] if together else [])
    title = f"{metric.replace('_', ' ')} of each team under each attack, {document['name']}"
    charts = [("Teams by attacks", heatmap(grid, metric, title))]
    tables = [("All numbers", _all_numbers(rows, columns, metric))]
    if document.get("curves"):
        charts += _curves(document["curves"])
        tables.append(("Area under the curves over the budget", _areas(document["curves"])))
    about = [("suite", str(document.get("suite", document["name"]))), *_about(document)]
    if document.get("versus"):
        about.append(("leads are over", str(document["versus"])))
    notes = _robustness_notes(document, rows)
    return Matrix(str(document["name"]), str(file), about, charts, tables, notes, _strongest(document, rows, metric))


def _strongest(document: Document, rows: Sequence[Document], metric: str) -> list[str]:
    """Return, for each game, which team keeps most of the metric in its own weakest column."""
    said = []
    for task in dict.fromkeys(row["task"] for row in rows if row["level"] == "method"):
        kept = [(row["cells"][row["worst"]][metric], row) for row in rows
                if row["level"] == "method" and row["task"] == task and row.get("worst") is not None]  # fmt: skip
        if kept:
            value, row = max(kept, key=lambda one: float(one[0]["mean"]))
            word = metric.replace("_", " ")
            said.append(
                f"{document['name']}, {task}: of {len(kept)} teams {row['agent']} keeps the highest {word} in its "
                f"weakest column ({row['worst']}): {_text(value)}."
            )
    return said


Cell = tuple[float | None, str, str]  # the value, or None; the text below it; or, instead, why there is none


def _attacked(row: Document, name: str, metric: str) -> tuple[Cell, str]:
    """Return a cell and everything known about it."""
    where, cell = f"{row['agent']} ({row['task']}) under {name}", row["cells"][name]
    if not cell["possible"]:
        return (None, "", str(cell["why"]).partition(":")[0]), f"{where}: {cell['why']}"
    hits = f"; {cell['attacked_steps']:.1f} steps and {cell['attacked_actions']:.1f} actions attacked per episode"
    hits = hits if cell["attacked_steps"] else ""
    known = f"{where}: win rate {_text(cell['win_rate'])}; return {_text(cell['return'])}{hits}"
    return (float(cell[metric]["mean"]), _bounds(cell[metric]), ""), known


def _every(row: Document) -> tuple[Cell, str]:
    share = row.get(EVERY)
    if share is None:
        return (None, "", "-"), f"{row['agent']} ({row['task']}): not measured"
    luck = row.get(BY_LUCK) or {}
    chance = f"; luck alone would leave {_text(luck)}" if luck.get("possible") else ""
    known = f"{row['agent']} ({row['task']}): {_text(share)} of the episodes are won in every column{chance}"
    return (float(share["mean"]), _bounds(share), ""), known


def _grid(
    rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[tuple[Cell, str]]],
    heavy: frozenset[tuple[int, int]], breaks: Sequence[int],
) -> Grid:  # fmt: skip
    places = {(i, j): cell for i, line in enumerate(cells) for j, (cell, _) in enumerate(line)}
    why = {place: text for place, (value, _, text) in places.items() if value is None and text}
    values = [[value for (value, _, _), _ in line] for line in cells]
    below = [[text for (_, text, _), _ in line] for line in cells]
    return Grid(rows, columns, values, below, [[known for _, known in line] for line in cells], why, heavy, breaks)


def _all_numbers(rows: Sequence[Document], columns: Sequence[str], metric: str) -> Table:
    leads = any(row.get("leads") for row in rows)
    heads = ["team", "game", "seeds", "column", "win rate", "return", "drop", "attacked steps / actions"]
    lines = []
    for row in rows:
        for name in columns:
            cell = row["cells"][name]
            line = [row["agent"], row["task"], ", ".join(map(str, row["seeds"])), name]
            if cell["possible"]:
                hits = f"{cell['attacked_steps']:.1f} / {cell['attacked_actions']:.1f}"
                line += [_text(cell["win_rate"]), _text(cell["return"]), _text(cell["drop"]), hits]
                line += [_text((row.get("leads") or {}).get(name))] if leads else []
            else:
                line += [str(cell["why"]), *["-"] * (3 + leads)]
            lines.append(line)
    return Table(heads + [f"lead ({metric.replace('_', ' ')})"] * leads, lines)


def _robustness_notes(document: Document, rows: Sequence[Document]) -> list[str]:
    notes = [] if document.get("complete", True) else ["The matrix is not complete: cells are still to be measured."]
    for row in rows:
        notes += [f"{row['agent']} ({row['task']}) under {name}: {cell['why']}."
                  for name, cell in row["cells"].items() if not cell["possible"]]  # fmt: skip
    if not document.get("curves"):
        notes.append("No curves over budgets were measured (budgets=[0,2,4,8,12] of scripts.robustness).")
    return notes


def _curves(curves: Document) -> list[tuple[str, Chart]]:
    """Return a chart for each game: panels for columns, lines for methods."""
    methods = [row for row in curves["rows"] if row["level"] == "method"]
    labels = list(dict.fromkeys(row["agent"] for row in methods))
    metric, charts = curves["metric"], []
    for task in dict.fromkeys(row["task"] for row in methods):
        panels: dict[str, list[Line]] = {}
        for name in curves["columns"]:
            for row in (row for row in methods if row["task"] == task and row["curves"][name]["points"]):
                points = row["curves"][name]["points"]
                values = [point[metric] for point in points]
                colour, dash = stroke(labels.index(row["agent"]))
                panels.setdefault(name, []).append(
                    Line(row["agent"], colour,
                         [point["budget"] for point in points], [value["mean"] for value in values],
                         [value["low"] for value in values], [value["high"] for value in values], dash)
                )  # fmt: skip
        if panels:
            charts.append((f"Over the attack's budget, {task}", budget_curves(panels, metric, task)))
    return charts


def _areas(curves: Document) -> Table:
    lines = [
        [row["agent"], row["task"], *(_text(row["curves"][name]["area"]) for name in curves["columns"])]
        for row in curves["rows"] if row["level"] != "run"
    ]  # fmt: skip
    return Table(["team", "game", *curves["columns"]], lines)


# cross-play


def _crossplay(document: Document, file: Path) -> Matrix:
    rows, partners, metric = document["rows"], document["partners"], str(document["metric"])
    if not rows:
        raise ValueError("no rows")
    teams = [f"{row['method']}\nseed {row['seed']}" for row in rows]
    names = [f"{row['method']} {row['seed']}" for row in rows] + [str(one["name"]) for one in partners]
    cells = [
        [_pair(teams[i].replace("\n", ", "), names[j], cell, metric) for j, cell in enumerate(line)]
        for i, line in enumerate(document["matrix"])
    ]
    groups = [one["population"] for one in partners]
    breaks = [len(rows) + k for k, name in enumerate(groups) if k == 0 or name != groups[k - 1]]
    grid = _grid(teams, names, cells, frozenset((i, i) for i in range(len(rows))), breaks)
    title = f"{metric.replace('_', ' ')} of pairs, {document['game']}"
    holes = {str(cell["why"]) for line in document["matrix"] for cell in line if cell and "why" in cell}
    notes = [] if document.get("complete", True) else ["The matrix is not complete: pairs are still to be measured."]
    notes += sorted(holes) + ([] if partners else ["No held-out partners were measured (partners=NAME)."])
    return Matrix(
        str(document.get("name", document["game"])), str(file), [("game", str(document["game"])), *_about(document)],
        [("Each team with each team and with held-out partners", heatmap(grid, metric, title))],
        [("Methods", _methods(document))], notes,
    )  # fmt: skip


def _pair(row: str, column: str, cell: Document | None, metric: str) -> tuple[Cell, str]:
    if cell is None:
        return (None, "", ""), f"{row} with {column}: not asked for"
    if "why" in cell:
        return (None, "", str(cell["why"]).partition(":")[0]), f"{row} with {column}: {cell['why']}"
    seats = f"; by seat {', '.join(f'{seat:.2f}' for seat in cell['seats'])}" if len(cell["seats"]) > 1 else ""
    known = f"{row} with {column}: {metric.replace('_', ' ')} {cell['mean']:.2f}, standard deviation {cell['std']:.2f}"
    return (float(cell["mean"]), "", ""), f"{known} over {cell['episodes']} episodes{seats}"


def _methods(document: Document) -> Table:
    populations = list(dict.fromkeys(one["population"] for one in document["partners"]))
    heads = ["method", "seeds", "self-play", "cross-play", "cross-play / self-play", "worst pair"]
    lines = []
    for method in document["methods"]:
        worst = method.get("worst_pair")
        line = [method["method"], ", ".join(map(str, method["seeds"]))]
        line += [_text(method.get(key)) for key in ("self_play", "cross_play", "ratio")]
        line.append("-" if worst is None else f"{worst['mean']:.2f}, {worst['who']}")
        line += [_text((method["populations"].get(name) or {}).get("mean")) for name in populations]
        lines.append([*line, _text(method.get("held_out"))])
    return Table([*heads, *(f"with {name}" for name in populations), "all held out"], lines)
