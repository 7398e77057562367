"""A table of results for a paper, in LaTeX: groups by tasks, with their intervals (package booktabs)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marl.show.statistics import Aggregate, Estimate

ESCAPES = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "[": "{[}", "]": "{]}", "*": "{*}",
}  # fmt: skip  # a row that began with [ or * would be an argument of the \\ before it


def escaped(text: str) -> str:
    """Return text that LaTeX typesets literally."""
    return "".join(ESCAPES.get(letter, letter) for letter in text)


def table(document: list[dict[str, Any]], key: str, aggregate: Aggregate | None, made_by: str) -> str:
    """Return a table of the scalar ``key``: "mean [low, high]" of each group (``marl.show.plot.summary``) on each task,
    and, where there is an ``aggregate``, the IQM over its tasks. ``made_by`` is the command, as a comment. A study that
    all groups belong to is named in a comment too, not in every row, which would seldom fit a page."""
    found = {(one["group"], one["task"]): one["metrics"].get(key) for one in document}
    groups, tasks = (sorted({pair[i] for pair in found}) for i in (0, 1))
    study = _shared(groups)
    heads = [*map(escaped, tasks), *(["IQM"] if aggregate else [])]
    lines = [
        rf"% {' '.join(made_by.split())}",
        rf"% {key}: mean over seeds with its 95% bootstrap interval; needs \usepackage{{booktabs}}",
        *([f"% IQM: over {', '.join(aggregate.tasks) or 'no task'}; {aggregate.scale}"] if aggregate else []),
        *([f"% study: {study.strip()}"] if study else []),
        rf"\begin{{tabular}}{{l{'c' * len(heads)}}}",
        r"\toprule",
        f"{''.join(f' & {head}' for head in heads)} \\\\",
        r"\midrule",
    ]
    for group in groups:
        cells = [_mean(found.get((group, task))) for task in tasks]
        if aggregate:
            cells.append(_estimate(aggregate.intervals.get(group, {}).get("iqm")))
        lines.append(f"{escaped(group.removeprefix(study))}{''.join(f' & {cell}' for cell in cells)} \\\\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _shared(groups: list[str]) -> str:
    """Return the first word of all groups, with its space, or nothing where they differ or one has no other word."""
    first = {group.partition(" ")[0] + " " for group in groups}
    return first.pop() if len(first) == 1 and all(" " in group for group in groups) else ""


def _mean(found: Mapping[str, Any] | None) -> str:
    return _cell(found["mean"], found["low"], found["high"]) if found else "--"


def _estimate(found: Estimate | None) -> str:
    return _cell(found.value, found.low, found.high) if found else "--"


def _cell(value: float, low: float | None, high: float | None) -> str:
    """Return a number with its interval; a single seed has none."""
    ends = "" if low is None or high is None else f" [{_number(low)}, {_number(high)}]"
    return f"{_number(value)}{ends}"


def _number(value: float) -> str:
    """Return two decimals, with LaTeX's minus."""
    text = f"{value:.2f}"
    return f"$-${text[1:]}" if text.startswith("-") and float(text) else text.removeprefix("-")
