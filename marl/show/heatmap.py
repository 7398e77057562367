"""A table of numbers as a picture: a coloured cell for each with the number in it, grey where there is none."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from marl.run.files import save_figure
from marl.show.labels import plain

GREY = "#c8c8c8"
DENSE = 30  # rows or columns beyond which cells are small squares without numbers


def draw(
    path: Path,
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    label: str,
    low: float,
    high: float,
    why: Sequence[Sequence[str | None]],
    heavy: Collection[tuple[int, int]] = (),
    lines: Sequence[int] = (),
    below: Mapping[tuple[int, int], str] | None = None,
) -> Path:
    """Draw ``values`` [rows, columns], nan where ``why`` says what is written instead. ``low`` and ``high`` are the
    ends of the colour scale, ``heavy`` cells are in bold, ``lines`` between groups are drawn left of these columns, and
    ``below`` is the text below some numbers. More than ``DENSE`` rows or columns leave no room for text in the cells.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns = ([plain(name) for name in names] for names in (rows, columns))
    dense = max(values.shape) > DENSE
    width, height = (0.17, 0.17) if dense else (1.15, 0.62)  # of a cell, inches
    figure = Figure(figsize=(3.2 + width * len(columns), 1.4 + height * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.set_facecolor(GREY)
    image = axis.imshow(values, cmap="viridis", vmin=low, vmax=high, aspect="auto")
    for i, j in [] if dense else np.ndindex(*values.shape):
        known = bool(np.isfinite(values[i, j]))
        bright = known and values[i, j] > (low + high) / 2
        text = f"{values[i, j]:.2f}" if known else plain(why[i][j] or "", 8)
        weight, colour = "bold" if (i, j) in heavy else "normal", "black" if bright or not known else "white"
        more = (below or {}).get((i, j))
        place: dict[str, Any] = {"xy": (j, i), "textcoords": "offset points", "ha": "center", "va": "center"}
        more_lines = more.count("\n") + 1 if more else 0  # one is below the number, of two the first is in the middle
        rise = (0, 5, 10)[min(more_lines, 2)]
        axis.annotate(text, xytext=(0, rise), fontsize=8, fontweight=weight, color=colour, **place)
        if more:
            axis.annotate(more, xytext=(0, -6), fontsize=7 if more_lines < 2 else 6, color=colour, **place)
    for column in lines:
        axis.axvline(column - 0.5, color="white", linewidth=3)
    if dense:
        rows, columns = ([" ".join(name.split()) for name in names] for names in (rows, columns))
        axis.set_xticks(range(len(columns)), columns, rotation=90, fontsize=7)
    else:
        axis.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
    axis.set_yticks(range(len(rows)), rows, fontsize=7 if dense else 8)
    figure.colorbar(image, ax=axis, label=plain(label))
    save_figure(figure, path, 120)
    return path
