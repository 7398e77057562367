"""Learning curves with confidence bands over seeds, and their summary. matplotlib is imported only when drawing."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from marl.core.config import resolved
from marl.core.intervals import mean_interval
from marl.run import folders
from marl.run.metrics import read_rows

Rows = list[dict[str, Any]]  # one run's eval.jsonl
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")  # Okabe & Ito


def curve(rows: Rows, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (env_steps, values) of one scalar, in order. A step that was tested twice counts once, with its later row:
    the final test has more episodes."""
    points = {int(r["env_steps"]): float(r[key]) for r in rows if r.get(key) is not None}
    steps = np.array(sorted(points), dtype=np.int64)
    return steps, np.array([points[s] for s in steps])


def on_grid(runs: list[Rows], key: str, points: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate runs, which test at slightly different steps, on common x [points]; return x and [runs, points]."""
    curves = [c for c in (curve(rows, key) for rows in runs) if len(c[0])]
    if not curves:
        return np.zeros(0), np.zeros((0, 0))
    grid = np.linspace(max(c[0][0] for c in curves), min(c[0][-1] for c in curves), points)
    return grid, np.stack([np.interp(grid, *c) for c in curves])


def band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean and 95% interval over axis 0; a single run has no band."""
    mean = values.mean(0)
    if len(values) < 2:
        return mean, mean, mean
    intervals = [mean_interval(column) for column in values.T]
    return mean, np.array([i.low for i in intervals]), np.array([i.high for i in intervals])


def learning_curves(groups: dict[str, list[Rows]], path: Path, keys: tuple[str, ...] | None = None) -> Path | None:
    """Draw one panel per scalar and one line per group; None where there is nothing to draw."""
    present = {k for runs in groups.values() for rows in runs for row in rows for k in row}
    wanted = keys or tuple(k for k in ("eval/win_rate", "eval/return") if k in present)
    wanted = tuple(k for k in wanted if k in present)
    if not wanted:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, MaxNLocator

    figure = Figure(figsize=(5.2 * len(wanted), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, key in zip(figure.subplots(1, len(wanted), squeeze=False)[0], wanted, strict=True):
        for i, (label, runs) in enumerate(sorted(groups.items())):
            x, values = on_grid(runs, key)
            if not len(x):
                continue
            mean, low, high = band(values)
            colour = COLOURS[i % len(COLOURS)]
            axis.plot(x, mean, color=colour, label=f"{fill(label, 40)} ({len(values)} seed{'s' * (len(values) > 1)})")
            if len(values) > 1:
                axis.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
        axis.set_xlabel("environment steps")
        axis.xaxis.set_major_locator(MaxNLocator(6))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.set_ylabel({"eval/win_rate": "test win rate", "eval/return": "test return"}.get(key, key))
        if key.endswith("win_rate"):
            axis.set_ylim(-0.02, 1.02)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def run_curve(run_dir: Path) -> Path | None:
    """Draw the learning curve of one run into its folder."""
    return learning_curves({"this run": [read_rows(run_dir / "eval.jsonl")]}, run_dir / "learning_curve.png")


def final_values(runs: list[Rows], key: str, last: int = 1) -> np.ndarray:
    """Return the mean of the ``last`` values of each run that has any."""
    return np.array([c[1][-last:].mean() for c in (curve(rows, key) for rows in runs) if len(c[0])])


Tasks = dict[str, dict[str, list[tuple[int, Rows]]]]  # environment -> group of runs -> (seed, rows)


def find_runs(pattern: str, also: tuple[str, ...] = ()) -> Tasks:
    """Return the runs below every path that ``pattern`` matches, by environment and, within it, by everything but the
    seed. Their rows are those of tests, and those of training that have a scalar of ``also``."""
    tasks: Tasks = {}
    for folder in folders.find_runs(pattern, folders.TESTED):
        task, label, seed = folders.identify(resolved(folders.read_config(folder)))
        rows = read_rows(folder / "eval.jsonl")
        if also:
            rows += [row for row in read_rows(folder / "metrics.jsonl") if any(key in row for key in also)]
        tasks.setdefault(task, {}).setdefault(label, []).append((seed, rows))
    for groups in tasks.values():
        for members in groups.values():
            members.sort(key=lambda member: member[0])  # folders sort as text: 10 before 2
    return tasks


def provenance(pattern: str) -> dict[str, list[str]]:
    """Return the commits that the runs below ``pattern`` were trained with and the commands that started them."""
    found = folders.find_runs(pattern, folders.TESTED)
    metas = [folders.read_meta(folder) for folder in found]
    return {
        "commits": sorted({meta["commit"] for meta in metas}),
        "commands": sorted({meta["command"] for meta in metas}),
    }


def summary(tasks: Tasks, last: int = 1, also: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Return, for each group, its seeds and, for each test scalar and the training scalars ``also``, the mean over runs
    of the mean of their ``last`` values with its 95% interval."""
    document = []
    for task, groups in tasks.items():
        for label, members in groups.items():
            runs = [rows for _, rows in members]
            keys = {key for rows in runs for row in rows for key in row if key.startswith("eval") or key in also}
            metrics = {}
            for key in sorted(k for k in keys if not k.endswith(("_low", "_high"))):
                values = final_values(runs, key, last if key.startswith("eval") else 1)
                metrics[key] = {**mean_interval(values).as_dict(), "per_seed": values.tolist()}
            seeds = [seed for seed, _ in members]
            document.append({"task": task, "group": label, "seeds": seeds, "metrics": metrics})
    return document
