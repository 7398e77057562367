"""A cross-play matrix for people and programs: tables, CSV, JSON, a heatmap and TensorBoard scalars."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import fill, shorten
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from marl.core.intervals import Interval
from marl.measure.crossplay_scores import CrossMatrix, Held, Method, Pair, Sheet, Worst
from marl.show import tables
from marl.show.heatmap import draw

LABEL_WIDTH, COLUMN_WIDTH = 40, 24  # characters
PICTURE_LETTERS = 68  # of a name
PAIR_COLUMNS = (
    "row", "row_seed", "population", "column", "column_seed", "possible", "why", "mean", "std", "episodes",
    "worst_seat", "limit", "limit_trained", "br_prox",
)  # fmt: skip
METHOD_COLUMNS = ("method", "seeds", "what", "mean", "low", "high", "n", "who")


def _interval(interval: Interval | None) -> dict[str, Any] | None:
    return None if interval is None else interval.as_dict()


def _worst(worst: Worst | None) -> dict[str, Any] | None:
    return None if worst is None else {**worst.value.as_dict(), "who": worst.who}


def _held_dict(held: Held) -> dict[str, Any]:
    return {
        "mean": held.mean.as_dict(), "worst": _worst(held.worst), "worst_seat": held.worst_seat.as_dict(),
        "br_prox": _interval(held.br_prox), "br_prox_iqm": _interval(held.br_prox_iqm),
        "best_responses_trained": held.trained,
    }  # fmt: skip


def _method_dict(method: Method) -> dict[str, Any]:
    return {
        "method": method.label, "seeds": list(method.seeds),
        "self_play": None if method.self_play is None else {**method.self_play.as_dict(), "std": method.self_std},
        "cross_play": None if method.cross is None else {**method.cross.as_dict(), "std": method.cross_std},
        "ratio": _interval(method.ratio), "worst_pair": _worst(method.worst),
        "with": {name: interval.as_dict() for name, interval in method.with_others.items()},
        "populations": {held.population: _held_dict(held) for held in method.held},
        "held_out": _interval(method.held_out),
    }  # fmt: skip


def _names(sheet: Sheet) -> list[tuple[str, str, int | None]]:
    """Return (population, name, seed) of every column; the rows' own runs have no population."""
    own = [("", entrant.label, entrant.seed) for entrant in sheet.rows]
    return [*own, *((partner.population, partner.name, None) for partner in sheet.partners)]


def document(report: CrossMatrix) -> dict[str, Any]:
    """Return everything, for JSON."""
    sheet = report.sheet

    def cell(one: Any) -> Any:
        if isinstance(one, Pair):
            return {"mean": one.mean, "std": one.std, "episodes": one.n, "seats": list(one.seats)}
        return None if one is None else {"why": one}

    return {
        "game": report.game, **report.about, "episodes": report.episodes, "metric": sheet.metric,
        "complete": report.complete, "methods": [_method_dict(method) for method in report.methods],
        "rows": [{"method": a.label, "seed": a.seed, "source": a.source} for a in sheet.rows],
        "partners": [
            {"population": p.population, "name": p.name, "source": p.entrant.source,
             "limit": None if np.isnan(best) else best, "limit_trained": trained,
             "responses": [one.source for one in p.responses]}
            for p, (best, trained) in zip(sheet.partners, sheet.limits, strict=True)
        ],
        "matrix": [[cell(one) for one in row] for row in sheet.cells],
    }  # fmt: skip


def pairs_csv(sheet: Sheet) -> str:
    """Return CSV with one line per pair that was asked for; what does not exist is empty."""
    lines, names = [], _names(sheet)
    for entrant, row in zip(sheet.rows, sheet.cells, strict=True):
        for k, ((population, name, seed), cell) in enumerate(zip(names, row, strict=True)):
            line: dict[str, Any] = {
                "row": entrant.label, "row_seed": entrant.seed, "population": population, "column": name,
                "column_seed": seed, "possible": isinstance(cell, Pair),
            }  # fmt: skip
            if isinstance(cell, Pair):
                line |= {"mean": cell.mean, "std": cell.std, "episodes": cell.n, "worst_seat": min(cell.seats)}
                best, trained = sheet.limits[k - len(sheet.rows)] if k >= len(sheet.rows) else (0.0, False)
                if best > 0:
                    line |= {"limit": best, "limit_trained": trained, "br_prox": cell.mean / best}
            elif cell is not None:
                line["why"] = cell
            if cell is not None:
                lines.append(line)
    return tables.csv_text(PAIR_COLUMNS, lines)


def facts(method: Method) -> list[tuple[str, Interval, str]]:
    """Return all numbers of a method: name, value, and with whom where it is a worst case."""
    found: list[tuple[str, Interval | None, str]] = [
        ("self", method.self_play, ""), ("cross", method.cross, ""), ("ratio", method.ratio, ""),
        ("worst", method.worst.value if method.worst else None, method.worst.who if method.worst else ""),
    ]  # fmt: skip
    found += [(f"with/{name}", interval, "") for name, interval in method.with_others.items()]
    for held in method.held:
        found += [
            (f"{held.population}/mean", held.mean, ""), (f"{held.population}/worst", held.worst.value, held.worst.who),
            (f"{held.population}/worst_seat", held.worst_seat, ""), (f"{held.population}/br_prox", held.br_prox, ""),
            (f"{held.population}/br_prox_iqm", held.br_prox_iqm, ""),
        ]  # fmt: skip
    found.append(("held_out", method.held_out, ""))
    return [(what, interval, who) for what, interval, who in found if interval is not None]


def methods_csv(report: CrossMatrix) -> str:
    """Return CSV with one line per method and number."""
    lines = []
    for method in report.methods:
        for what, interval, who in facts(method):
            seeds = " ".join(map(str, method.seeds))
            lines.append({"method": method.label, "seeds": seeds, "what": what, **interval.as_dict(), "who": who})
    return tables.csv_text(METHOD_COLUMNS, lines)


def table(report: CrossMatrix) -> tuple[Table, list[str]]:
    """Return the table of methods by numbers, and the notes below it."""
    populations = list(dict.fromkeys(partner.population for partner in report.sheet.partners))
    metric = report.sheet.metric.replace("_", " ")
    made = Table(title=Text(f"{report.game}: {metric}, {report.episodes} episodes a seating"))
    made.add_column("method", overflow="fold", max_width=LABEL_WIDTH)
    several = ["all held out"] if len(populations) > 1 else []
    for title in ("self-play", "cross-play", "XP/SP", "worst pair", *populations, *several):
        made.add_column(Text(title))
    bound = set()
    for method in report.methods:
        held = {one.population: one for one in method.held}
        bound |= {one.population for one in method.held if not one.trained}
        plain = [_text(one) for one in (method.self_play, method.cross, method.ratio)]
        count = len(method.seeds)
        cells = (f"{method.label}\n{count} seed{'s' * (count != 1)}", *plain, _worst_text(method.worst),
                 *(_held_text(held.get(name)) for name in populations),
                 *(_text(method.held_out) for _ in several))  # fmt: skip
        made.add_row(*map(Text, cells))
    notes = [f"{name}: BR-Prox is an upper bound, for not every partner has a trained best response"
             for name in populations if name in bound]  # fmt: skip
    holes = {cell for row in report.sheet.cells for cell in row if isinstance(cell, str)}
    return made, [*notes, *sorted(holes)]


def _text(interval: Interval | None) -> str:
    return "-" if interval is None else "\n".join(tables.interval_lines(interval))


def _worst_text(worst: Worst | None) -> str:
    return "-" if worst is None else f"{worst.value.mean:.2f}\n{worst.who}"


def _held_text(held: Held | None) -> str:
    if held is None:
        return "-"
    share = [] if held.br_prox is None else [f"BR-Prox {held.br_prox.mean:.2f}"]
    worst = [f"worst {held.worst.value.mean:.2f}, {held.worst.who}", f"worst seat {held.worst_seat.mean:.2f}"]
    return "\n".join([*tables.interval_lines(held.mean), *worst, *share])


def between(report: CrossMatrix) -> Table | None:
    """Return the table of methods by methods; None where there is only one."""
    if len(report.methods) < 2:
        return None
    made = Table(title="one agent of the row's method with a team of the column's")
    made.add_column("", overflow="fold", max_width=LABEL_WIDTH)
    for method in report.methods:
        made.add_column(Text(method.label), overflow="fold")
    for method in report.methods:
        found = {**method.with_others, method.label: method.cross}
        cells = (_text(found.get(other.label)) for other in report.methods)
        made.add_row(*map(Text, (method.label, *cells)))
    return made


def show(report: CrossMatrix) -> None:
    """Print the tables, at their full width where no terminal limits them."""
    made, notes = table(report)
    console = tables.wide_console(LABEL_WIDTH + COLUMN_WIDTH * max(len(made.columns), len(report.methods) + 1))
    console.print(made)
    if (methods := between(report)) is not None:
        console.print(methods)
    for note in notes:
        console.print(note, markup=False, highlight=False)


def _wrapped(name: str) -> str:
    return fill(shorten(name, PICTURE_LETTERS, placeholder="...") if " " in name else name[:PICTURE_LETTERS], 34)


def heatmap(report: CrossMatrix, path: Path) -> Path:
    """Draw runs by runs and partners, coloured by the metric; grey where there is no number; self-play in bold."""
    sheet = report.sheet
    values = sheet.values()
    why = [[cell.partition(":")[0] if isinstance(cell, str) else None for cell in row] for row in sheet.cells]
    low, high = tables.colour_ends(values, sheet.metric)
    rows = [f"{_wrapped(entrant.label)}\nseed {entrant.seed}" for entrant in sheet.rows]
    columns = [_wrapped(name) if seed is None else f"{_wrapped(name)} {seed}" for _, name, seed in _names(sheet)]
    groups = [partner.population for partner in sheet.partners]
    lines = [len(rows) + k for k, name in enumerate(groups) if k == 0 or name != groups[k - 1]]
    heavy = {(i, i) for i in range(len(rows))}
    return draw(path, values, rows, columns, label=sheet.metric.replace("_", " "), low=low, high=high, why=why,
                heavy=heavy, lines=lines)  # fmt: skip


def write(report: CrossMatrix, folder: Path) -> Path:
    """Write everything but the tables into ``folder``."""
    texts = {"pairs.csv": pairs_csv(report.sheet), "methods.csv": methods_csv(report)}
    tables.write_files(folder, texts | {"crossplay.json": json.dumps(document(report), indent=1)})
    heatmap(report, folder / "crossplay.png")
    scalars = {}
    for method in report.methods:
        steps = [int(a.source.get("env_steps", 0)) for a in report.sheet.rows if a.label == method.label]
        scalars[method.label] = (max(steps), {f"crossplay/{what}": one.mean for what, one, _ in facts(method)})
    tables.write_scalars(folder / "tensorboard", scalars)
    return folder


def publish(report: CrossMatrix, path: Path) -> Path:
    """Write the matrix as ``path`` (.json), and its picture next to it."""
    return tables.publish(path, {"name": path.stem, **document(report)}, lambda picture: heatmap(report, picture))
