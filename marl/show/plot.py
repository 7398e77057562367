"""Learning curves with confidence bands over seeds, and their summary. matplotlib is imported only when drawing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from marl.core.intervals import bootstrap_bounds, bootstrap_interval, limits
from marl.run.files import replacing
from marl.run.metrics import read_rows
from marl.run.progress import quiet
from marl.show.gather import LeftOut, Rows, Tasks
from marl.show.labels import plain

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")  # Okabe & Ito
STYLES = ("-", "--", ":")  # of lines that share a colour


def curve(rows: Rows, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (env_steps, values) of one scalar, in order. A step that was tested twice counts once, with its later row:
    the final test has more episodes."""
    points = {int(r["env_steps"]): float(r[key]) for r in rows if r.get(key) is not None}
    steps = np.array(sorted(points), dtype=np.int64)
    return steps, np.array([points[s] for s in steps])


def on_grid(runs: list[Rows], key: str, points: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate runs, which test at slightly different steps, on common x [points]; return x and [runs, points]. Runs
    with fewer than two tests are left out, and so are those whose tests share no span of steps with most others."""
    curves = [c for c in (curve(rows, key) for rows in runs) if len(c[0]) > 1]
    if not curves:
        return np.zeros(0), np.zeros((0, 0))
    firsts, lasts = (np.array([c[0][end] for c in curves]) for end in (0, -1))
    together = (firsts <= firsts[:, None]) & (firsts[:, None] < lasts)  # [k, j]: j is tested around k's first test
    spans = np.where(together, lasts, np.inf).min(1) - firsts
    kept = together[max(range(len(curves)), key=lambda k: (together[k].sum(), spans[k]))]
    grid = np.linspace(firsts[kept].max(), lasts[kept].min(), points)
    return grid, np.stack([np.interp(grid, *c) for c, there in zip(curves, kept, strict=True) if there])


def count_text(drawn: int, seeds: int, unfinished: int) -> str:
    """Return, as text, how many of a group's seeds a curve covers, and how many of all its seeds are unfinished."""
    few = f"{drawn} of " if drawn < seeds else ""
    return f"{few}{seeds} seed{'s' * (seeds != 1)}" + (f", {unfinished} unfinished" if unfinished else "")


def band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean and 95% bootstrap interval over axis 0; a single run has no band."""
    mean = values.mean(0)
    return (mean, mean, mean) if len(values) < 2 else (mean, *bootstrap_bounds(values))


def save_pictures(figure: Any, path: Path, formats: Sequence[str] = ()) -> list[Path]:
    """Write a matplotlib figure as ``path``, or with each of the endings ``formats`` in place of its own, and return
    the files. Equal figures give identical files, and text stays text in a PDF. Raise WriteError."""
    import matplotlib

    paths = [path.with_suffix(f".{ending}") for ending in formats] or [path]
    dated = {".pdf": "CreationDate", ".svg": "Date"}
    for one in paths:
        metadata = {dated[one.suffix]: None} if one.suffix in dated else None
        looks = matplotlib.rc_context({"pdf.fonttype": 42, "svg.hashsalt": "marl"})
        with looks, quiet("fontTools"), replacing(one) as file:
            figure.savefig(file, dpi=120, format=one.suffix.removeprefix(".") or "png", metadata=metadata)
    return paths


def learning_curves(
    groups: dict[str, list[Rows]], path: Path, keys: tuple[str, ...] | None = None,
    short: dict[str, int] | None = None, formats: Sequence[str] = (),
) -> Path | None:  # fmt: skip
    """Draw one panel per scalar and one line per group; None where there is nothing to draw. The legend says how many
    of a group's runs take part (``on_grid``). ``short`` says how many of them are unfinished, ``formats`` which files
    to write (``save_pictures``); the first one is returned."""
    present = {k for runs in groups.values() for rows in runs for row in rows for k in row}
    wanted = keys or tuple(k for k in ("eval/win_rate", "eval/return") if k in present)
    wanted = tuple(k for k in wanted if k in present)
    if not wanted:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, MaxNLocator

    many = len(groups) > 6  # their names go next to the curves, not over them
    figure = Figure(figsize=(5.2 * len(wanted) + 3.4 * many, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, key in zip(figure.subplots(1, len(wanted), squeeze=False)[0], wanted, strict=True):
        for i, (label, runs) in enumerate(sorted(groups.items())):
            x, values = on_grid(runs, key)
            if not any(len(curve(rows, key)[0]) for rows in runs):
                continue
            mean, low, high = band(values) if len(x) else (x, x, x)
            colour = COLOURS[i % len(COLOURS)]
            count = count_text(len(values), len(runs), (short or {}).get(label, 0))
            style = STYLES[i // len(COLOURS) % len(STYLES)]
            axis.plot(x, mean, color=colour, linestyle=style, label=f"{plain(label, 40)} ({count})")
            if len(values) > 1:
                axis.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
        axis.set_xlabel("environment steps")
        axis.xaxis.set_major_locator(MaxNLocator(6))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.set_ylabel({"eval/win_rate": "test win rate", "eval/return": "test return"}.get(key, plain(key)))
        if limits(key) == (0, 1):
            axis.set_ylim(-0.02, 1.02)
        axis.grid(alpha=0.3)
        if not many:
            axis.legend(frameon=False, fontsize=8)
    if many:
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
    return save_pictures(figure, path, formats)[0]


def run_curve(run_dir: Path) -> Path | None:
    """Draw the learning curve of one run into its folder."""
    return learning_curves({"this run": [read_rows(run_dir / "eval.jsonl")]}, run_dir / "learning_curve.png")


def final_values(runs: list[Rows], key: str, last: int = 1) -> np.ndarray:
    """Return the mean of the ``last`` values of each run that has any."""
    return np.array([c[1][-last:].mean() for c in (curve(rows, key) for rows in runs) if len(c[0])])


def provenance(tasks: Tasks, left: list[LeftOut]) -> dict[str, list[Any]]:
    """Return the commits that the runs were trained with, the commands that started them, the versions of the games'
    rules (1 before runs recorded them), and what was left out."""
    metas = [run.meta for groups in tasks.values() for members in groups.values() for run in members]
    return {
        "commits": sorted({meta["commit"] for meta in metas}),
        "commands": sorted({meta["command"] for meta in metas}),
        "physics": sorted({int(meta["physics"]) for meta in metas}),
        "left_out": [f"{one.folder}: {one.why}" for one in left],
    }


def summary(tasks: Tasks, last: int = 1, also: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Return, for each group, its seeds and, for each test scalar and the training scalars ``also``, the mean over runs
    of the mean of their ``last`` values with its 95% interval. ``unfinished`` lists the unfinished seeds; a scalar that
    only some seeds have also lists the ``seeds`` of its ``per_seed``."""
    document = []
    for task, groups in tasks.items():
        for label, members in groups.items():
            runs, seeds = [run.rows for run in members], [run.seed for run in members]
            keys = {key for rows in runs for row in rows for key in row if key.startswith("eval") or key in also}
            metrics = {}
            for key in sorted(k for k in keys if not k.endswith(("_low", "_high"))):
                values = final_values(runs, key, last if key.startswith("eval") else 1)
                if len(values):
                    having = [run.seed for run in members if len(curve(run.rows, key)[0])]
                    metrics[key] = {**bootstrap_interval(values).as_dict(), "per_seed": values.tolist()}
                    metrics[key] |= {"seeds": having} if having != seeds else {}
            short = [run.seed for run in members if run.unfinished is not None]
            document.append({"task": task, "group": label, "seeds": seeds, "unfinished": short, "metrics": metrics})
    return document
