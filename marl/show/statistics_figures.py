"""The figures of an aggregate: intervals, performance profiles, probabilities of improvement, sample efficiency.
matplotlib is imported only when drawing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from marl.show.labels import plain
from marl.show.plot import COLOURS, save_pictures
from marl.show.statistics import STATISTICS, Aggregate, Band, Estimate

TITLES = {"iqm": "IQM", "median": "median", "mean": "mean", "optimality_gap": "optimality gap"}


def short_name(key: str) -> str:
    """Return the name of a scalar as a part of a file's name: ``win_rate`` for ``eval/win_rate``."""
    return key.removeprefix("eval/").replace("/", "_")


def draw(aggregate: Aggregate, folder: Path, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Draw what ``aggregate`` holds into ``folder``, as ``intervals_<key>``, ``profile_<key>``, ``improvement_<key>``
    and ``efficiency_<key>`` in each of the ``formats``; return the files. An empty aggregate has none."""
    name, written = short_name(aggregate.key), []
    if aggregate.intervals:
        written += save_pictures(intervals(aggregate), folder / f"intervals_{name}.png", formats)
        written += save_pictures(profiles(aggregate), folder / f"profile_{name}.png", formats)
    if aggregate.pairs:
        written += save_pictures(improvements(aggregate), folder / f"improvement_{name}.png", formats)
    if aggregate.curves:
        written += save_pictures(efficiency(aggregate), folder / f"efficiency_{name}.png", formats)
    return written


def intervals(aggregate: Aggregate) -> Any:
    """Return a figure with a panel for each statistic and a row for each method."""
    labels = [plain(method, 28) for method in aggregate.methods]
    figure = _figure(10.4, 1.2 + 0.42 * len(labels))
    panels = figure.subplots(1, len(STATISTICS), sharey=True)
    for panel, name in zip(panels, STATISTICS, strict=True):
        found = [aggregate.intervals[method][name] for method in aggregate.methods]
        _rows(panel, found, [_colour(aggregate, method) for method in aggregate.methods])
        panel.set_title(TITLES[name], fontsize=10)
    panels[0].set_yticks(range(len(labels)), labels, fontsize=8)
    panels[0].invert_yaxis()
    figure.supxlabel(f"{_score(aggregate)}, 95% intervals, {_extent(aggregate)}", fontsize=9)
    return figure


def improvements(aggregate: Aggregate) -> Any:
    """Return a figure with a row for each pair of methods; the opposite pair is its complement and left out, unless
    all pairs are with one method."""
    second = {pair.second for pair in aggregate.pairs}
    shown = [pair for pair in aggregate.pairs if len(second) == 1 or pair.first < pair.second]
    figure = _figure(7.2, 1.2 + 0.42 * len(shown))
    axis = figure.subplots()
    _rows(axis, [pair.probability for pair in shown], [_colour(aggregate, pair.first) for pair in shown])
    labels = [f"{plain(pair.first, 28)}\n> {plain(pair.second, 28)}" for pair in shown]
    axis.set_yticks(range(len(shown)), labels, fontsize=8)
    axis.invert_yaxis()
    axis.axvline(0.5, color="black", linewidth=0.8, linestyle="dashed")
    axis.set_xlim(-0.02, 1.02)
    axis.set_xlabel(f"probability that the first scores higher ({_extent(aggregate)})", fontsize=9)
    return figure


def profiles(aggregate: Aggregate) -> Any:
    """Return a figure of the share of runs above each score."""
    figure = _figure(5.6, 3.6)
    axis = figure.subplots()
    for method, band in aggregate.profiles.items():
        _line(axis, band, method, _colour(aggregate, method), "steps-post")
    axis.set_xlabel(f"{_score(aggregate)} τ")
    axis.set_ylabel("share of runs with score > τ")
    axis.set_ylim(-0.02, 1.02)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=8)
    return figure


def efficiency(aggregate: Aggregate) -> Any:
    """Return a figure of the IQM along environment steps."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    figure = _figure(5.6, 3.6)
    axis = figure.subplots()
    for method, band in aggregate.curves.items():
        _line(axis, band, method, _colour(aggregate, method))
    axis.set_xlabel("environment steps")
    axis.xaxis.set_major_locator(MaxNLocator(6))
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.set_ylabel(f"IQM of the {_score(aggregate)}")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=8)
    return figure


def _figure(width: float, height: float) -> Any:
    """Return an empty figure; inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _colour(aggregate: Aggregate, method: str) -> str:
    """Return the colour of a method, the same in all figures."""
    return COLOURS[aggregate.methods.index(method) % len(COLOURS)]


def _score(aggregate: Aggregate) -> str:
    """Return what a score is: a rate, or a scalar that was normalised."""
    name = plain(short_name(aggregate.key).replace("_", " "))
    return f"test {name}" if set(aggregate.limits.values()) == {(0.0, 1.0)} else f"normalised {name}"


def _extent(aggregate: Aggregate) -> str:
    """Return how many tasks and seeds the numbers are over."""
    counts = {len(seeds) for held in aggregate.seeds.values() for seeds in held.values()}
    seeds = "-".join(str(n) for n in sorted({min(counts), max(counts)}))
    return f"{_plural(str(len(aggregate.tasks)), 'task')}, {_plural(seeds, 'seed')}"


def _plural(count: str, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != '1')}"


def _rows(axis: Any, found: Sequence[Estimate], colours: Sequence[str]) -> None:
    """Draw a bar from end to end of each interval, and a line at its value."""
    for place, (one, colour) in enumerate(zip(found, colours, strict=True)):
        if one.low is not None and one.high is not None:
            axis.barh(place, one.high - one.low, 0.6, left=one.low, color=colour, alpha=0.75)
        axis.vlines(one.value, place - 0.36, place + 0.36, color="black", linewidth=1.6)
    axis.set_ylim(-0.6, len(found) - 0.4)
    ends = [end for one in found for end in (one.value, one.low, one.high) if end is not None]
    room = 0.06 * (max(ends) - min(ends)) or 0.05
    axis.set_xlim(min(ends) - room, max(ends) + room)  # by default, bars begin at the frame
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="x", labelsize=8)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", alpha=0.3)


def _line(axis: Any, band: Band, label: str, colour: str, steps: str = "default") -> None:
    """Draw a line with its band."""
    axis.plot(band.x, band.value, color=colour, label=plain(label, 40), drawstyle=steps)
    if band.low is not None and band.high is not None:
        step = "post" if steps == "steps-post" else None
        axis.fill_between(band.x, band.low, band.high, color=colour, alpha=0.2, linewidth=0, step=step)


def lines(aggregate: Aggregate) -> Iterator[str]:
    """Yield what a terminal shows: a line for each method."""
    for method, found in aggregate.intervals.items():
        shown = (
            f"{TITLES[name]} {one.value:.3f}" + (f" [{one.low:.3f}, {one.high:.3f}]" if one.low is not None else "")
            for name, one in found.items()
        )
        yield f"{method}  {aggregate.key}  {_extent(aggregate)}:  {'  '.join(shown)}"
