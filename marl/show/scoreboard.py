"""The fidelity scoreboard: the results here of teams trained in another game, next to what their logs say.

Tables for a terminal, and a picture; matplotlib is imported only when drawing.

A board is a dict with ``episodes``, ``seed``, ``physics`` and the rows of ``teams`` and ``random``; a row has, by
measure, mean, low, high, n and log (``marl.measure.fidelity``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from marl.measure.fidelity import MEASURES, OF_RANDOM_PLAY
from marl.run.files import save_figure
from marl.show.labels import plain
from marl.show.tables import wide_console

WIDTH = 100  # characters, where there is no terminal
HEADS = {  # of a measure: the heading of its column, and decimal places
    "win_rate": ("win\nrate", 3), "return": ("return", 2), "length": ("length", 1), "deaths": ("dead\nallies", 2),
    "expected": ("V0:\nexpected", 2), "real": ("V0:\nobtained", 2), "residual": ("residual", 3),
    "residual_rms": ("its\nrms", 3),
}  # fmt: skip
LEGEND = """95%: interval of the mean above it; log: what the game's logs say of the team, - where nothing
V0: discounted return from the start, as Q_tot expects it and as obtained
residual: r + gamma Q' - Q, its mean a step and its root mean square"""
PANELS = (("win_rate", "win rate"), ("return", "return"), ("length", "length"), ("deaths", "dead allies at the end"),
          ("real", "discounted return"), ("residual", "residual a step, and its rms"))  # fmt: skip
OURS, THEIRS, BELIEF = "#0072B2", "#D55E00", "#009E73"
Row = dict[str, Any]


def number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def cell(measure: str, found: Row) -> tuple[str, str, str]:
    """Return the mean, its interval and what the logs say as text. Student's interval is symmetric; a rate's is not."""
    digits = HEADS[measure][1]
    if found["low"] is None:
        spread = ""
    elif measure == "win_rate":
        spread = f"{found['low']:.{digits}f}-{found['high']:.{digits}f}"
    else:
        spread = f"±{(found['high'] - found['low']) / 2:.{digits}f}"
    return number(found["mean"], digits), spread, number(found["log"], digits)


def table(title: str, head: str, rows: Sequence[tuple[str, Row]], measures: Sequence[str]) -> Table:
    """Return a table of named rows with three lines each: here, its interval, log."""
    made = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False, collapse_padding=True)
    heads = [head, "", *(HEADS[measure][0] for measure in measures)]
    lines = 1 + max(text.count("\n") for text in heads)
    for k, text in enumerate(heads):
        pad = "\n" * (lines - 1 - text.count("\n"))  # heads are aligned at the bottom
        made.add_column(pad + text, justify="left" if k < 2 else "right", no_wrap=k > 0, overflow="fold")
    for name, row in rows:
        here, spread, log = zip(*(cell(measure, row[measure]) for measure in measures), strict=True)
        made.add_row(Text(name), "here", *here)
        made.add_row("", "95%", *spread)
        made.add_row("", "log", *log, end_section=True)
    return made


def name_of(row: Row) -> str:
    """Return the name of a team's file, without its ending."""
    return Path(row["agent"]).stem


def show(board: dict[str, Any], console: Console | None = None) -> None:
    """Print a board: all teams, the same in the order of enemies that suits each best or that a search finds, and
    random play."""
    console, teams = console or wide_console(WIDTH), board["teams"]
    title = f"{board['episodes']} episodes a team, seed {board['seed']}, physics {board['physics']}"
    console.print(table(title, "team", [(name_of(row), row) for row in teams], MEASURES))
    console.print(LEGEND, highlight=False)
    if any("best" in row for row in teams):
        best = [(f"{name_of(row)}: {row['best']['chosen']}", row["best"]) for row in teams]
        title = f"in the order of the enemy that suits each team best over the same number of seed {board['seed'] + 1}"
        console.print(table(title, "team: order", best, MEASURES))
    searched = [(f"{name_of(row)}: {row['searched']['order']}", row["searched"]) for row in teams if "searched" in row]
    if searched:
        title = f"in the order of the enemy that a search over episodes of seed {board['seed'] + 2} finds"
        console.print(table(title, "team: order", searched, MEASURES))
    if board["random"]:
        rows = [(row["map"], row) for row in board["random"]]
        console.print(table("random play", "map", rows, OF_RANDOM_PLAY))


def draw(board: dict[str, Any], path: Path) -> Path:
    """Draw a panel per measure with a line per team: the mean here with its interval, and what the logs say."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    teams = board["teams"]
    figure = Figure(figsize=(11, 2.4 + 0.56 * len(teams)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3, sharey=True)
    for axis, (measure, title) in zip(axes.flat, PANELS, strict=True):
        axis.set_title(title, fontsize=10)
        axis.grid(axis="x", alpha=0.3)
        for i in range(0, len(teams), 2):
            axis.axhspan(i - 0.5, i + 0.5, color="0.96", zorder=0)
        _draw_random(axis, measure, board)
        for i, row in enumerate(teams):
            _draw_team(axis, measure, row, i)
    axes[0, 0].set_yticks(range(len(teams)), [plain(name_of(row)) for row in teams])
    axes[0, 0].set_ylim(len(teams) - 0.5, -0.5)
    axes[0, 0].set_xlim(-0.03, 1.03)
    axes[1, 2].axvline(0, color="0.4", linewidth=0.8, zorder=1)
    drawn = [axis.get_legend_handles_labels() for axis in axes.flat]
    marks = {label: mark for found in drawn for mark, label in zip(*found, strict=True)}
    figure.legend(marks.values(), marks.keys(), loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    save_figure(figure, path, 120)
    return path


def _draw_team(axis: Any, measure: str, row: Row, i: int) -> None:
    """Draw line ``i`` of a panel: a team."""
    found = row[measure]
    if measure == "residual":
        rms = row["residual_rms"]["mean"]
        axis.plot((-rms, rms), (i, i), color=OURS, alpha=0.25, linewidth=6, solid_capstyle="butt", label="± rms")
    if measure == "real":
        value = row["expected"]["mean"]
        axis.plot(value, i, "s", color=BELIEF, markersize=7, fillstyle="none", label="expected by the team")
    _draw_interval(axis, found, i, OURS, "here, 95%")
    _draw_log(axis, found, i, THEIRS, "the game's logs")


def _draw_interval(axis: Any, found: Row, y: float, colour: str, label: str) -> None:
    axis.plot(found["mean"], y, "o", color=colour, markersize=5, label=label, zorder=3)
    if found["low"] is not None:
        axis.plot((found["low"], found["high"]), (y, y), color=colour, linewidth=2, zorder=3)


def _draw_log(axis: Any, found: Row, y: float, colour: str, label: str, **style: Any) -> None:
    if found["log"] is not None:
        axis.plot(found["log"], y, "D", color=colour, markersize=6, label=label, zorder=4, **style)


def _draw_random(axis: Any, measure: str, board: dict[str, Any]) -> None:
    """Draw random play on the lines of the teams of its map, where it has the measure."""
    if measure not in OF_RANDOM_PLAY:
        return
    for i, team in enumerate(board["teams"]):
        for row in board["random"]:
            if row["map"] == team["map"]:
                _draw_interval(axis, row[measure], i, "0.55", "random play here")
                _draw_log(axis, row[measure], i, "0.55", "random play, the game's logs", fillstyle="none")
