"""Groups of bars with their intervals, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from marl.core.intervals import Interval
from marl.run.files import save_figure
from marl.show.labels import plain

WIDTH = 0.26  # of a bar, in units of the distance between groups


def draw_bars(
    path: Path,
    names: list[str],
    titles: list[str],
    groups: list[list[Interval]],
    *,
    label: str,
    marks: Sequence[float] = (),
    mark: str = "",
) -> Path:
    """Draw a group of bars for each name, a bar for each title, and write the picture to ``path``. ``marks``,
    labelled ``mark``, are lines across the last bar of each group; nan draws none."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names, titles, mark = [plain(name) for name in names], [plain(title) for title in titles], plain(mark)
    figure = Figure(figsize=(max(5.0, 1.2 + 1.3 * len(names)), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    places = np.arange(len(names))
    for k, title in enumerate(titles):
        bars = [group[k] for group in groups]
        means = np.array([bar.mean for bar in bars])
        ends = np.array([[bar.low, bar.high] for bar in bars]).clip(0.0, 1.0).T.reshape(2, -1)
        at = places + (k - (len(titles) - 1) / 2) * WIDTH
        ax.bar(at, means, 0.9 * WIDTH, label=title)
        ax.errorbar(at, means, np.abs(ends - means), fmt="none", ecolor="black", elinewidth=0.8, capsize=2)
    if np.isfinite(marks).any():
        at = places + (len(titles) - 1) / 2 * WIDTH
        ax.hlines(
            marks, at - 0.45 * WIDTH, at + 0.45 * WIDTH, colors="black", linestyles="dashed", linewidth=1.4, label=mark
        )
    ax.set_xticks(places, names, fontsize=8)
    ax.set_ylim(0.0, 1.02)
    ax.set_ylabel(plain(label))
    ax.spines[["top", "right"]].set_visible(False)
    named = sorted(zip(*ax.get_legend_handles_labels(), strict=True), key=lambda pair: [*titles, mark].index(pair[1]))
    figure.legend(*zip(*named, strict=True), loc="outside upper center", ncols=2, frameon=False)
    save_figure(figure, path, 120)
    return path
