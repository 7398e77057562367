"""The charts of a report, as figures of plotly: learning curves, final scores, heatmaps and curves over budgets.

A chart is returned as JSON that is safe inside a script element. Names are escaped, as plotly interprets some HTML.
"""

from __future__ import annotations

import html
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten, wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from marl.core.intervals import limits
from marl.core.types import ConfigError
from marl.show.heatmap import DENSE, GREY
from marl.show.plot import band, count_text, curve, on_grid
from marl.show.report.facts import Final, Group, title_of

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SEED = "seed"  # marks the line of a single seed, which the page shows and hides
LABEL_LETTERS = 30  # of a name next to an axis, before it continues on the next line
CELL_WIDTH, CELL_HEIGHT, SQUARE = 68, 46, 18  # of heatmaps, pixels; squares have no text


@dataclass(frozen=True)
class Chart:
    """A figure: ``json`` holds its traces and its layout, ``title`` describes it for readers who cannot see it. It
    is ``height`` pixels high, and scrolls where the page is narrower than ``width`` pixels."""

    json: str
    title: str
    height: int
    width: int = 0


def require_plotly() -> None:
    """Raise ConfigError that says what to type if plotly is not installed."""
    if importlib.util.find_spec("plotly") is None:
        raise ConfigError("a report needs the package 'plotly', which is not installed: pip install -e .[report]")


def library() -> str:
    """Return plotly's JavaScript, which draws the charts where the page is read."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def script_safe(text: str) -> str:
    """Return JSON in which nothing can end the script element that holds it, or open a comment."""
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def plain(text: str) -> str:
    """Return a name that plotly shows literally."""
    return html.escape(text, quote=False)


def lines(text: str, letters: int = LABEL_LETTERS) -> str:
    """Return a name over as many lines as it needs."""
    return "<br>".join(plain(line) for part in text.split("\n") for line in wrap(part, letters) or [""])


def _chart(figure: Figure, title: str, height: int, width: int = 0) -> Chart:
    figure.update_layout(
        template="none", height=height, autosize=True, paper_bgcolor="rgba(0,0,0,0)", hoverlabel_namelength=-1,
        uirevision="kept",  # what the reader has hidden stays hidden when the colours change
    )  # fmt: skip
    if figure.layout.plot_bgcolor is None:
        figure.update_layout(plot_bgcolor="rgba(0,0,0,0)")
    return Chart(script_safe(figure.to_json()), title, height, width)


def _share_range(key: str) -> dict[str, Any]:
    return {"range": [-0.02, 1.02]} if limits(key) == (0, 1) else {}


def _faded(colour: str, opacity: float) -> str:
    red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


# learning curves


def learning_curves(groups: Sequence[Group], key: str) -> Chart | None:
    """Draw the mean of each group over environment steps with its band, and, hidden at first, every seed; None where
    there is nothing to draw."""
    from plotly import graph_objects as go

    figure = go.Figure()
    for group in groups:
        if any(len(curve(rows, key)[0]) for rows in group.rows):
            figure.add_traces([*_lines(group, *on_grid(group.rows, key)), *_seed_lines(group, key)])
    if not figure.data:
        return None
    figure.update_layout(
        xaxis={"title": {"text": "environment steps"}, "rangemode": "tozero"},
        yaxis={"title": {"text": plain(title_of(key))}, **_share_range(key)}, hovermode="x unified",
        legend={"orientation": "h", "y": -0.2, "yanchor": "top"}, margin={"l": 60, "r": 30, "t": 15, "b": 60},
    )  # fmt: skip
    return _chart(figure, f"{title_of(key)} over environment steps, {groups[0].task}", 380 + 12 * len(groups))


def _lines(group: Group, x: np.ndarray, values: np.ndarray) -> Iterator[Any]:
    """Yield a band, where there are several seeds, and the mean above it; the legend switches both together."""
    from plotly import graph_objects as go

    at: list[float | None] = x.tolist() or [None]  # an empty trace is not in the legend
    mean, low, high = (end.tolist() for end in band(values)) if len(x) else ([None],) * 3
    several = len(values) > 1
    if several:
        around = {"x": [*at, *at[::-1]], "y": [*high, *low[::-1]], "fill": "toself", "line": {"width": 0}}
        yield go.Scatter(**around, mode="lines", fillcolor=_faded(group.colour, 0.2), hoverinfo="skip",
                         legendgroup=group.label, showlegend=False)  # fmt: skip
    ends = " [%{customdata[0]:.3f}, %{customdata[1]:.3f}]" if several else ""
    short = sum(run.unfinished is not None for run in group.runs)
    count = count_text(len(values), len(group.runs), short)
    yield go.Scatter(
        x=at, y=mean, mode="lines", name=plain(f"{group.label} ({count})"), legendgroup=group.label,
        line={"color": group.colour, "width": 2.2, "dash": group.dash}, customdata=[*zip(low, high, strict=True)],
        hovertemplate="%{y:.3f}" + ends,
    )  # fmt: skip


def _seed_lines(group: Group, key: str) -> Iterator[Any]:
    from plotly import graph_objects as go

    for rows in group.rows:
        x, y = curve(rows, key)
        line = {"color": group.colour, "width": 1, "dash": "dot"}
        yield go.Scatter(x=x.tolist(), y=y.tolist(), mode="lines", line=line, opacity=0, hoverinfo="skip",
                         legendgroup=group.label, showlegend=False, meta=SEED)  # fmt: skip


# final scores


def final_bars(finals: Sequence[Final], key: str) -> Chart:
    """Draw a bar for each group with its interval, and a dot for each seed."""
    from plotly import graph_objects as go

    figure = go.Figure()
    for k, final in enumerate(finals):
        value, colour = final.interval, final.group.colour
        ends = f" [{value.low:.3f}, {value.high:.3f}]" if value.bounded else ""
        whisker = {"type": "data", "symmetric": False, "array": [value.high - value.mean],
                   "arrayminus": [value.mean - value.low], "color": "#555555"}  # fmt: skip
        figure.add_trace(
            go.Bar(x=[value.mean], y=[k], orientation="h", width=0.6, marker={"color": _faded(colour, 0.75)},
                   error_x=whisker if value.bounded else None, customdata=[plain(final.group.label)],
                   hovertemplate="%{customdata}: %{x:.3f}" + ends + "<extra></extra>")
        )  # fmt: skip
        figure.add_trace(
            go.Scatter(x=[*final.per_seed.values()], y=[k] * len(final.per_seed), mode="markers",
                       marker={"color": colour, "size": 7, "line": {"color": "white", "width": 1}},
                       customdata=[*final.per_seed],
                       hovertemplate="seed %{customdata}: %{x:.3f}<extra></extra>")
        )  # fmt: skip
    names = [lines(final.group.label) for final in finals]
    figure.update_layout(
        showlegend=False, margin={"l": 10, "r": 15, "t": 10, "b": 50},
        xaxis={"title": {"text": plain(title_of(key))}, **_share_range(key)},
        yaxis={"tickvals": [*range(len(finals))], "ticktext": names, "autorange": "reversed", "automargin": True,
               "showgrid": False, "zeroline": False},
    )  # fmt: skip
    return _chart(figure, f"final {title_of(key)}, {finals[0].group.task}", 90 + 44 * len(finals))


# matrices


@dataclass(frozen=True)
class Grid:
    """Numbers by rows and columns, None where ``why`` says what is written instead. ``below`` is text under the number,
    ``hover`` is all that is known about a cell, ``heavy`` cells are in bold; lines are drawn left of the columns
    ``breaks``."""

    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]
    below: Sequence[Sequence[str]]
    hover: Sequence[Sequence[str]]
    why: Mapping[tuple[int, int], str]
    heavy: frozenset[tuple[int, int]] = frozenset()
    breaks: Sequence[int] = ()


def heatmap(grid: Grid, metric: str, title: str, bar: str | None = None) -> Chart:
    """Draw a matrix, coloured by ``metric``, which the colour bar calls ``bar`` (None: its own name); grey where there
    is no number. More than ``DENSE`` rows or columns leave no room for numbers, which then show on hovering."""
    from plotly import graph_objects as go

    known = [value for row in grid.values for value in row if value is not None]
    low, high = (0.0, 1.0) if limits(metric) == (0, 1) else (min([0.0, *known]), max(known, default=0.0) or 1.0)
    dense = max(len(grid.rows), len(grid.columns)) > DENSE
    texts = [[_cell_text(grid, i, j) for j in range(len(grid.columns))] for i in range(len(grid.rows))]
    word = bar or metric.replace("_", " ")
    figure = go.Figure(
        go.Heatmap(z=grid.values, zmin=low, zmax=high, colorscale="Viridis", xgap=1, ygap=1, hoverongaps=False,
                   text=None if dense else texts, texttemplate=None if dense else "%{text}", textfont={"size": 11},
                   customdata=[[lines(text, 60) for text in row] for row in grid.hover],
                   hovertemplate="%{customdata}<extra></extra>",
                   colorbar={"title": {"text": word, "side": "right"}, "thickness": 12})
    )  # fmt: skip
    for (i, j), why in ({} if dense else grid.why).items():
        figure.add_annotation(x=j, y=i, text=lines(why, 9), showarrow=False, hovertext=lines(grid.hover[i][j], 60),
                              font={"size": 10, "color": "#333333"})  # fmt: skip
    for column in grid.breaks:
        figure.add_vline(x=column - 0.5, line={"color": "white", "width": 4})
    fixed = {"showgrid": False, "zeroline": False, "automargin": True}
    rows, columns = ([_axis_name(name, dense, letters) for name in names]
                     for names, letters in ((grid.rows, LABEL_LETTERS), (grid.columns, 24)))  # fmt: skip
    figure.update_layout(
        plot_bgcolor=GREY, margin={"l": 10, "r": 10, "t": 10, "b": 10},
        xaxis={"tickvals": [*range(len(columns))], "ticktext": columns, "tickangle": -90 if dense else -40, **fixed},
        yaxis={"tickvals": [*range(len(rows))], "ticktext": rows, "autorange": "reversed", **fixed},
    )  # fmt: skip
    step = (SQUARE, SQUARE) if dense else (CELL_WIDTH, CELL_HEIGHT)
    return _chart(figure, title, 180 + step[1] * len(grid.rows), 280 + step[0] * len(grid.columns))


def _axis_name(name: str, dense: bool, letters: int) -> str:
    """Return a name over several lines, or, where only one fits, its beginning; the whole name is in the cells."""
    return plain(shorten(name, letters, placeholder="...") or name[:letters]) if dense else lines(name, letters)


def _cell_text(grid: Grid, i: int, j: int) -> str:
    value = grid.values[i][j]
    if value is None:
        return ""
    number = f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"
    small = f'<br><span style="font-size:9px">{plain(grid.below[i][j])}</span>' if grid.below[i][j] else ""
    return (f"<b>{number}</b>" if (i, j) in grid.heavy else number) + small


# curves with bands


@dataclass(frozen=True)
class Line:
    """The curve of a method: at each ``x`` a value and its interval; None where it is unbounded."""

    label: str
    colour: str
    x: list[float]
    means: list[float]
    lows: list[float | None]
    highs: list[float | None]
    dash: str = "solid"


def _banded(line: Line, mode: str, named: bool = True) -> Iterator[Any]:
    """Yield the band of a line, where it has one, and the line; the legend switches both together."""
    from plotly import graph_objects as go

    whole = None not in line.lows and None not in line.highs
    if whole:
        yield go.Scatter(x=[*line.x, *line.x[::-1]], y=[*line.highs, *line.lows[::-1]], fill="toself",
                         fillcolor=_faded(line.colour, 0.1), line={"width": 0}, mode="lines", hoverinfo="skip",
                         legendgroup=line.label, showlegend=False)  # fmt: skip
    ends = " [%{customdata[0]:.3f}, %{customdata[1]:.3f}]" if whole else ""
    yield go.Scatter(x=line.x, y=line.means, mode=mode, name=plain(line.label), legendgroup=line.label,
                     line={"color": line.colour, "width": 2, "dash": line.dash}, marker={"size": 5}, showlegend=named,
                     customdata=[*zip(line.lows, line.highs, strict=True)],
                     hovertemplate="%{y:.3f}" + ends)  # fmt: skip


def bands(lines: Sequence[Line], x: str, y: str, title: str, rate: bool = False) -> Chart:
    """Draw lines with their bands over ``x``; the values ``y`` of a ``rate`` lie within 0 and 1."""
    from plotly import graph_objects as go

    figure = go.Figure([trace for line in lines for trace in _banded(line, "lines")])
    figure.update_layout(
        xaxis={"title": {"text": x}}, yaxis={"title": {"text": y}, **({"range": [-0.02, 1.02]} if rate else {})},
        hovermode="x unified", legend={"orientation": "h", "y": -0.2, "yanchor": "top"},
        margin={"l": 60, "r": 30, "t": 15, "b": 60},
    )  # fmt: skip
    return _chart(figure, title, 380 + 12 * len(lines))


def budget_curves(panels: Mapping[str, Sequence[Line]], metric: str, task: str) -> Chart:
    """Draw a panel for every column, with a line for each method and its interval at every budget."""
    from plotly.subplots import make_subplots

    across = min(3, len(panels))
    down = -(-len(panels) // across)
    figure = make_subplots(down, across, shared_yaxes=True, subplot_titles=[plain(name) for name in panels],
                           horizontal_spacing=0.04, vertical_spacing=0.34 / down)  # fmt: skip
    shown: set[str] = set()
    for k, found in enumerate(panels.values()):
        for line in found:
            for trace in _banded(line, "lines+markers", named=line.label not in shown):
                figure.add_trace(trace, k // across + 1, k % across + 1)
            shown.add(line.label)
    figure.update_xaxes(title_text="budget", title_standoff=4)
    figure.update_yaxes(**_share_range(metric))
    figure.update_yaxes(title_text=metric.replace("_", " "), col=1)
    figure.update_layout(hovermode="x unified", margin={"l": 60, "r": 15, "t": 40, "b": 50},
                         legend={"orientation": "h", "y": -0.25 / down, "yanchor": "top"})  # fmt: skip
    return _chart(figure, f"{metric.replace('_', ' ')} over the budget, {task}", 90 + 260 * down, 620)
