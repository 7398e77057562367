"""The section of a report that compares groups over all environments together (``marl.show.statistics``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from marl.core.types import ConfigError
from marl.show.gather import Tasks
from marl.show.report.charts import Chart, Grid, Line, bands, heatmap
from marl.show.report.facts import Group, title_of
from marl.show.report.matrices import Table
from marl.show.statistics import STATISTICS, Aggregate, Band, Estimate, aggregate

HEADS = {"iqm": "interquartile mean", "median": "median", "mean": "mean", "optimality_gap": "optimality gap"}


@dataclass(frozen=True)
class Aggregates:
    """The results of groups in one scalar over environments: a table of statistics and their charts."""

    title: str
    about: str
    table: Table
    charts: list[tuple[str, Chart]]
    notes: list[str]


def aggregates(tasks: Tasks, groups: Sequence[Group], key: str, last: int) -> tuple[Aggregates | None, list[str]]:
    """Return how the groups compare in the scalar ``key``, or None and why there is nothing to compare."""
    try:
        found = aggregate(tasks, key, last=last)
    except ConfigError as error:
        return None, [f"Aggregates: {error}."]
    if not found.methods:
        return None, [f"Aggregates: {note}." for note in found.notes]
    return section(found, {group.label: (group.colour, group.dash) for group in groups}), []


def section(found: Aggregate, strokes: Mapping[str, tuple[str, str]]) -> Aggregates:
    """Return the table and the charts of an aggregate that has methods; ``strokes`` are the colours and dashes of their
    lines."""
    heads = ["group", "scores", *(HEADS[name] for name in STATISTICS)]
    counts = {method: sum(map(len, scores)) for method, scores in found.scores.items()}
    table = Table(heads, [
        [method, str(counts[method]), *(_text(estimates[name]) for name in STATISTICS)]
        for method, estimates in found.intervals.items()
    ])  # fmt: skip
    charts = []
    if len(found.methods) > 1:
        grid = _improvement(found)
        charts.append(("Probability of improvement: that a run of the row scores higher than one of the column",
                       heatmap(grid, "win_rate", "probability of improvement", "probability")))  # fmt: skip
    above = [_line(method, band, *strokes[method]) for method, band in found.profiles.items()]
    charts.append(("Performance profiles: the share of runs above a score",
                   bands(above, "normalised score", "share of runs", "performance profiles", rate=True)))  # fmt: skip
    if found.curves:
        along = [_line(method, band, *strokes[method]) for method, band in found.curves.items()]
        charts.append(("Interquartile mean over environment steps",
                       bands(along, "environment steps", "interquartile mean", "sample efficiency")))  # fmt: skip
    scale = ", ".join(f"{task} {low:.4g} to {high:.4g}" for task, (low, high) in found.limits.items())
    about = f"Over {', '.join(found.tasks)}. {found.scale} ({scale})."
    return Aggregates(title_of(found.key), about, table, charts, found.notes)


def _text(one: Estimate) -> str:
    return f"{one.value:.3f}" + ("" if one.low is None else f" [{one.low:.3f}, {one.high:.3f}]")


def _ends(one: Estimate | None) -> str:
    return "" if one is None or one.low is None else f"[{one.low:.2f}, {one.high:.2f}]"


def _line(method: str, band: Band, colour: str, dash: str) -> Line:
    none: list[float | None] = [None] * len(band.x)
    return Line(method, colour, band.x, band.value, [*band.low] if band.low else none,
                [*band.high] if band.high else none, dash)  # fmt: skip


def _improvement(found: Aggregate) -> Grid:
    """Return the probabilities that a run of a row's method scores higher than one of a column's."""
    pairs = {(pair.first, pair.second): pair.probability for pair in found.pairs}
    methods = found.methods
    whole = [[pairs.get((row, column)) for column in methods] for row in methods]
    return Grid(
        methods, methods, [[None if one is None else one.value for one in line] for line in whole],
        [[_ends(one) for one in line] for line in whole],
        [[f"{row} above {column}: {'the same group' if one is None else _text(one)}"
          for column, one in zip(methods, line, strict=True)] for row, line in zip(methods, whole, strict=True)],
        {(k, k): "-" for k in range(len(methods))},
    )  # fmt: skip
