"""The page of a report: options are checked, its contents are gathered, and a template becomes one file of HTML.

``page.html`` is the template (Jinja2, which escapes every text), ``page.css`` and ``page.js`` go into it unchanged.
The file loads nothing, and its Content-Security-Policy forbids it to.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from omegaconf import DictConfig

from marl.core.checks import require_at_least, require_choice, require_name, require_within, require_writable
from marl.core.config import pick_device, plain
from marl.core.types import ConfigError
from marl.learn.actor import Act
from marl.run.build import use_threads
from marl.run.files import write_atomic
from marl.run.resume import command_line, git_commit
from marl.show.gather import LeftOut, Tasks, gather
from marl.show.record import MOST_FPS
from marl.show.report import charts, facts, matrices, players
from marl.show.report.aggregates import Aggregates, aggregates
from marl.show.report.charts import Chart
from marl.show.report.facts import Difference, Efficiency, Final, Group, Origin
from marl.show.report.matrices import Matrix
from marl.show.report.players import Film
from marl.show.tables import interval_lines

HERE = Path(__file__).parent
MEGABYTE = 1_000_000
CONTENTS = (
    ("short", "In short"), ("missing", "What is missing"), ("what", "What was run"),
    ("configurations", "Configurations"), ("curves", "Learning curves"), ("finals", "Final scores"),
    ("efficiency", "Sample efficiency"), ("aggregates", "Aggregates"), ("robustness", "Robustness"),
    ("crossplay", "Cross-play"), ("episodes", "Episodes"),
)  # fmt: skip


@dataclass(frozen=True)
class Metric:
    """A scalar in one environment. ``levels`` are the fractions of the best, as text, and their values."""

    title: str
    curves: Chart | None
    bars: Chart | None
    finals: list[Final]
    efficiency: Efficiency | None
    levels: list[tuple[str, float]]


@dataclass(frozen=True)
class Task:
    """An environment: its groups, where they come from, how their configurations differ, and their scores."""

    name: str
    groups: list[Group]
    origins: list[Origin]
    differ: list[Difference]
    partial: list[Difference]
    configs: list[tuple[Group, str]]
    metrics: list[Metric]


@dataclass(frozen=True)
class Report:
    """Everything on the page."""

    title: str
    last: int
    fps: float
    attack: str  # that episodes were recorded under; "" for none
    no_films: str  # what the page says where there are none
    tasks: list[Task]
    aggregates: Aggregates | None
    robustness: list[Matrix]
    crossplay: list[Matrix]
    missing: list[str]
    short: list[str]
    films: list[Film] = field(default_factory=list)
    date: str = field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M"))
    commit: str = field(default_factory=git_commit)
    command: str = field(default_factory=command_line)


def make(options: DictConfig) -> Path:
    """Write the report that ``options`` (``conf/report.yaml``) ask for, and return its path. Raise ConfigError for bad
    options, before anything is written."""
    check(options)
    report, groups = contents(options)
    films, notes = players.films(groups, options)
    room = int(options.megabytes * MEGABYTE) - len(html(report))
    films, more = players.fitted(films, room)
    path = Path(options.out)
    write_atomic(path, html(with_films(report, films, [*notes, *more])))
    return path


def check(options: DictConfig) -> None:
    """Raise ConfigError for what can be refused before anything is read."""
    charts.require_plotly()
    require_at_least("", 1, last=options.last)
    require_at_least("", 0, episodes=options.episodes, seed=options.seed)
    require_within("", 1, MOST_FPS, fps=options.fps)
    require_at_least("", 1, megabytes=options.megabytes)
    for fraction in options.fractions:
        require_within("", 0, 1, ends="(]", fractions=fraction)
    require_choice("", get_args(Act), or_null=True, act=options.act)
    use_threads(options.threads)
    pick_device(options.device)
    require_name(out=options.out)
    if Path(options.out).suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"out={options.out} must end in .html")
    require_writable("", files=True, out=Path(options.out))
    if not any(several(options[key], key) for key in ("runs", "robustness", "crossplay")):
        raise ConfigError("runs is missing: give runs=['runs/study/**'], or robustness= or crossplay= alone")


def several(given: Any, key: str) -> list[str]:
    """Return the paths of the option ``key``, which takes one or several. Raise ConfigError for an empty one."""
    found = plain(given)
    paths = [] if found is None else [str(one) for one in found] if isinstance(found, list) else [str(found)]
    for path in paths:
        require_name(**{key: path})
    return paths


def contents(options: DictConfig) -> tuple[Report, list[Group]]:
    """Return everything on the page except its recordings, and the groups to record."""
    tested = [matrices.read_robustness(Path(one)) for one in several(options.robustness, "robustness")]
    crossed = [matrices.read_crossplay(Path(one)) for one in several(options.crossplay, "crossplay")]
    tasks: Tasks = {}
    left: list[LeftOut] = []
    if patterns := several(options.runs, "runs"):
        tasks, left = gather(patterns, unfinished=options.unfinished, also=tuple(options.metrics or ()), metas=True)
    groups = facts.groups_of(tasks)
    refuse_unknown(groups, options.metrics)
    found = [task_of(tasks, name, members, options) for name, members in facts.by_task(groups).items()]
    together, why = compared(tasks, groups, options)
    missing = facts.missing(groups, left) + why
    missing += [f"{one.name}: {note}" for one in (*tested, *crossed) for note in one.notes]
    missing += [] if tested else ["No robustness matrix was given: nothing is known of the teams under attack."]
    missing += [] if crossed else ["No cross-play matrix was given: nothing is known of the teams with other partners."]
    name = str(options.attack["_target_"]).rpartition(".")[2]
    return Report(
        title_of(options.title, groups, [*tested, *crossed]), options.last, options.fps,
        "" if name == "NoAttack" else name, no_films(options, groups), found, together, tested, crossed, missing,
        in_short(found, groups, left, [*tested, *crossed]),
    ), groups  # fmt: skip


def compared(tasks: Tasks, groups: Sequence[Group], options: DictConfig) -> tuple[Aggregates | None, list[str]]:
    """Return how groups compare over all environments in the first of the scalars, or None and why there is nothing to
    compare."""
    keys = facts.metrics_of(groups, options.metrics)
    if not options.statistics:
        return None, ["Aggregates: not computed (statistics=false)."]
    if not keys:
        return None, []
    return aggregates(tasks, groups, keys[0], options.last)


def no_films(options: DictConfig, groups: Sequence[Group]) -> str:
    """Return what the page says where it has no recordings."""
    if not options.episodes:
        return "No episodes were recorded (episodes=0)."
    return "No episode could be recorded; see What is missing." if groups else "There are no runs to film."


def refuse_unknown(groups: Sequence[Group], wanted: Sequence[str] | None) -> None:
    """Raise ConfigError for a scalar that no run has."""
    known = sorted({key for group in groups for rows in group.rows for row in rows for key in row if "/" in key})
    for key in wanted or ():
        if key not in known:
            raise ConfigError(f"metrics: no run has the scalar {key}; there are {', '.join(known)}")


def title_of(given: str | None, groups: Sequence[Group], found: Sequence[Matrix]) -> str:
    """Return the title: the given one, or else the names of the studies, or those of the matrices."""
    names = dict.fromkeys(str(run.config.get("name", "")) for group in groups for run in group.runs)
    return given or ", ".join(name for name in names if name) or ", ".join(one.name for one in found)


def task_of(tasks: Tasks, name: str, groups: list[Group], options: DictConfig) -> Task:
    """Return what the page says about one environment."""
    metrics = []
    for key in facts.metrics_of(groups, options.metrics):
        finals = facts.finals(tasks, groups, key, options.last)
        soon = facts.efficiency(groups, key, options.fractions, options.last)
        levels = zip((f"{fraction:g}" for fraction in options.fractions), soon.levels if soon else (), strict=False)
        bars = charts.final_bars(finals, key) if finals else None
        metrics.append(Metric(facts.title_of(key), charts.learning_curves(groups, key), bars, finals, soon, [*levels]))
    differ, partial = facts.differences(groups)
    configs = [(group, facts.whole_config(group)) for group in groups]
    return Task(name, groups, [facts.origin(group) for group in groups], differ, partial, configs, metrics)


def in_short(
    tasks: Sequence[Task], groups: Sequence[Group], left: Sequence[LeftOut], found: Sequence[Matrix]
) -> list[str]:
    """Return what a reader should know first."""
    runs = sum(len(group.runs) for group in groups)
    said = [f"{runs} run{'s' * (runs != 1)} in {len(groups)} group{'s' * (len(groups) != 1)} and {len(tasks)} "
            f"environment{'s' * (len(tasks) != 1)}; {len(left) or 'none'} left out."] if groups else []  # fmt: skip
    for task in tasks:
        if task.metrics and (finals := task.metrics[0].finals):
            said.append(f"{task.name}: the highest final {task.metrics[0].title} is {leaders(finals)}.")
    return said + [line for one in found for line in one.short]


def leaders(finals: Sequence[Final]) -> str:
    """Return the highest mean and the groups that have it to the precision shown; of one group with its interval."""
    best = max(final.interval.mean for final in finals)
    first = next(final for final in finals if final.interval.mean == best)
    equal = [final.group.label for final in finals if f"{final.interval.mean:.2f}" == f"{best:.2f}"]
    if len(equal) > 1:
        return f"{best:.2f}, of {len(equal)} of {len(finals)} groups: {', '.join(equal)}"
    return f"{' '.join(interval_lines(first.interval))}, of {equal[0]}"


def with_films(report: Report, films: list[Film], notes: list[str]) -> Report:
    """Return the report with its recordings, and with notes on those that are missing."""
    return replace(report, films=films, missing=[*report.missing, *notes])


def html(report: Report) -> str:
    """Return the page."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )  # fmt: skip
    parts = {name: (HERE / f"page.{ending}").read_text(encoding="utf8") for name, ending in
             (("style", "css"), ("script", "js"))}  # fmt: skip
    return environment.get_template("page.html").render(
        report=report, contents=CONTENTS, library=charts.library(), **parts
    )  # fmt: skip
