"""The robustness matrix: every agent against every attack, the same episodes in every cell.

A cell is known by what decides its outcome: the agent's weights, the attack, the game, the episodes. It is measured
once and kept; whatever changes makes another cell. An attack that has networks is fitted before, and kept likewise.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from marl.core.config import resolved
from marl.core.protocols import Fitting
from marl.core.seeding import derive
from marl.core.types import ConfigError
from marl.measure.cells import Episodes, Outcome, Tell, commits, content_key, measure_cell, missing, one_pass
from marl.measure.entrants import Agent, Tree, same_game
from marl.measure.fitting import fit_attack, load_fit, save_fit
from marl.run.build import check_call, factory
from marl.run.checkpoint import write_atomic
from marl.run.evaluate import evaluate
from marl.run.resume import command_line, git_commit
from marl.run.runs import open_team, with_options

FIT_TO = ("victim", "reference")


@dataclass(frozen=True)
class Column:
    """An attack, what it is fitted to ("victim", "reference" or nothing), and what it changes in the game's
    configuration. ``tasks``: by task, what of ``attack`` and ``env`` differs there."""

    name: str
    attack: Tree
    fit: str | None
    env: Tree
    tasks: dict[str, Tree] = field(default_factory=dict)

    def on(self, task: str) -> Column:
        """The column as it is on one task."""
        other = self.tasks.get(task, {})
        attack, env = (merged(mine, other.get(key)) for key, mine in (("attack", self.attack), ("env", self.env)))
        return replace(self, attack=attack, env=env, tasks={})


@dataclass(frozen=True)
class Setting:
    """What all cells share. ``device`` and ``threads`` say where they are computed, and change no cell.
    ``fit_envs``, ``fit_replay``: lanes and kept episodes of fitting."""

    episodes: int
    n_envs: int
    seed: int
    fit_envs: int
    fit_replay: int
    device: str
    threads: int | None
    out: Path


@dataclass(frozen=True)
class Fit:
    """An attack to be fitted to a team, and the file that keeps it."""

    title: str
    key: str
    path: Path
    team: Tree
    setting: Setting

    def done(self) -> bool:
        return self.path.exists()


@dataclass(frozen=True)
class Cell:
    """An agent under an attack, and the file that keeps what came out. ``why``: it is known not to be possible."""

    title: str
    key: str
    path: Path
    team: Tree
    fit: Fit | None
    setting: Setting
    why: str | None = None

    def done(self) -> bool:
        return self.path.exists()


def read_suite(suite: DictConfig, only: Iterable[str] | None) -> tuple[list[Column], str | None]:
    """Columns of a ``suite`` configuration, those that ``only`` names, and the name of the one that others are compared
    with. ConfigError names what is wrong, before anything is measured."""
    tree = OmegaConf.to_container(suite, resolve=True)
    assert isinstance(tree, dict)
    given = tree.get("columns") or {}
    columns = [_column(str(name), node) for name, node in given.items()]
    names = [column.name for column in columns]
    if only is not None:
        for name in only:
            if name not in names:
                raise ConfigError(f"only={name} is not a column of this suite; there are {', '.join(names)}")
        columns = [column for column in columns if column.name in only]
    if not columns:
        raise ConfigError("the suite has no columns")
    baseline = tree.get("baseline")
    if baseline is not None and baseline not in names:
        raise ConfigError(f"suite.baseline={baseline} is not a column; there are {', '.join(names)}")
    return columns, baseline


def merged(tree: Tree, changes: Tree | None) -> Tree:
    """A configuration with some of its options changed, at any depth."""
    return resolved(DictConfig(OmegaConf.merge(tree, changes or {})))


def _column(name: str, node: Any) -> Column:
    section = f"suite.columns.{name}"
    if not isinstance(node, dict) or "attack" not in node:
        raise ConfigError(f"{section} has no attack; give +attack@{section}.attack=NAME")
    _refuse_unknown(section, node, ("attack", "env", "fit", "tasks"))
    fit = node.get("fit")
    if fit is not None and fit not in FIT_TO:
        raise ConfigError(f"{section}.fit={fit} is not known; choose one of {', '.join(FIT_TO)}, or null")
    tasks = node.get("tasks") or {}
    if not isinstance(tasks, dict):
        raise ConfigError(f"{section}.tasks={tasks} must be options by task; give +{section}.tasks.TASK.attack.OPTION")
    column = Column(name, node["attack"], fit, node.get("env") or {}, tasks)
    check_call(factory(DictConfig(column.attack), f"{section}.attack"), f"{section}.attack", None, None)
    for task, changes in column.tasks.items():
        where = f"{section}.tasks.{task}"
        _refuse_unknown(where, changes, ("attack", "env"))
        check_call(factory(DictConfig(column.on(task).attack), f"{where}.attack"), f"{where}.attack", None, None)
    return column


def _refuse_unknown(section: str, node: Any, known: tuple[str, ...]) -> None:
    if not isinstance(node, dict):
        raise ConfigError(f"{section}={node} must be options; it has {', '.join(known)}")
    for key in node:
        if key not in known:
            raise ConfigError(f"{section}.{key} is not known; it has {', '.join(known)}")


def team_config(agent: Agent, column: Column, setting: Setting, seed: int) -> Tree:
    """What ``open_team`` reads, for an agent under a column's attack, in the game as the column changes it."""
    env = resolved(with_options(DictConfig(agent.env), column.env))
    where = {"device": setting.device, "threads": setting.threads, "seed": seed}
    return {**agent.opens, **where, "env": env, "env_options": {}, "attack": column.attack}


def plan_fit(agent: Agent, column: Column, setting: Setting, references: list[Agent]) -> Fit | None:
    """How the column's attack is fitted before it meets ``agent``: to the agent itself, or to the reference of its game
    (where there are ``references``). ConfigError where the game has no reference."""
    if column.fit is None:
        return None
    target = agent
    if column.fit == "reference" and references:
        found = [one for one in references if same_game(one.env, agent.env)]
        if len(found) != 1:
            raise ConfigError(f"fit_on= names {len(found)} runs of the game of {agent.name}; one is needed")
        target = found[0]
    team = team_config(target, column, setting, derive(setting.seed, "fit") & 0x7FFFFFFF)
    content = {
        "victim": target.content, "attack": column.attack, "env": team["env"], "seed": setting.seed,
        "n_envs": setting.fit_envs, "replay": setting.fit_replay,
    }  # fmt: skip
    key = content_key(content)
    return Fit(f"fit {column.name} to {target.name}", key, setting.out / "fits" / f"{key}.pt", team, setting)


def plan_cell(agent: Agent, column: Column, setting: Setting, references: list[Agent]) -> Cell:
    """The cell of ``agent`` under ``column``."""
    column = column.on(agent.task)
    team = team_config(agent, column, setting, setting.seed)
    why, fit = None, None
    try:
        fit = plan_fit(agent, column, setting, references)
    except ConfigError as error:
        why = str(error)
    content = {
        "victim": agent.content, "attack": column.attack, "env": team["env"], "fit": fit.key if fit else None,
        "episodes": setting.episodes, "n_envs": min(setting.n_envs, setting.episodes), "seed": setting.seed,
    }  # fmt: skip
    key = content_key(content)
    title = f"{agent.name} under {column.name}"
    return Cell(title, key, setting.out / "cells" / f"{key}.json", team, fit, setting, why)


def run_fit(fit: Fit, tell: Tell) -> str | None:
    """Fit and keep it; the reason where that is not possible."""
    started = time.perf_counter()
    try:
        fitted = fit_attack(fit.team, fit.setting.fit_envs, fit.setting.fit_replay, tell)
    except ConfigError as error:
        return str(error)
    save_fit(fit.path, fitted)
    about = {
        "title": fit.title, "team": fit.team, **fitted["clock"], "metrics": fitted["metrics"], "commit": git_commit(),
        "seconds": time.perf_counter() - started,
    }  # fmt: skip
    write_atomic(fit.path.with_suffix(".json"), json.dumps(about, indent=1))
    return None


def run_cell(cell: Cell, tell: Tell) -> str | None:
    """Measure a cell and keep it; the reason where that is not possible."""
    about = {
        "seed": cell.setting.seed, "n": cell.setting.episodes, "fit": cell.fit.key if cell.fit else None,
        "team": cell.team,
    }  # fmt: skip
    return cell.why or measure_cell(cell, lambda: play(cell, tell), about)


def play(cell: Cell, tell: Tell) -> Episodes:
    """Per-episode values of a cell; ConfigError where its attack and its team do not go together."""
    episodes = cell.setting.episodes
    team = open_team(OmegaConf.create(cell.team), min(cell.setting.n_envs, episodes))
    with closing(team.env):
        if cell.fit is not None:
            load_fit(cell.fit.path, team.attack, team.device)
        if isinstance(team.attack, Fitting) and team.attack.needs_fit:
            raise ConfigError(f"{type(team.attack).__name__} must be fitted first: its column needs fit=victim")
        results = evaluate(
            team.env, team.policy, team.attack, team.fields, episodes=episodes, policy_gen=team.streams["eval"],
            attack_gen=team.streams["eval_attack"], device=team.device, on_round=lambda done: tell(done / episodes),
            seed=derive(cell.setting.seed, "robustness"),
        )  # fmt: skip
    return {name: values.tolist() for name, values in results.items()}


def measure(cells: list[Cell], processes: int) -> Outcome:
    """Fit and measure whatever is not there yet. A signal stops after the round in hand; finished cells stay."""
    pending = missing(cells)
    fits = missing(cell.fit for cell in pending if cell.fit)
    with one_pass(len(fits) + len(pending), processes) as (outcome, do):
        do(run_fit, fits)
        failed = outcome.impossible
        do(run_cell, [replace(c, why=failed[c.fit.key]) if c.fit and c.fit.key in failed else c for c in pending])
    for fit in fits:
        outcome.impossible.pop(fit.key, None)
    return outcome


def provenance(columns: list[Column], cells: list[Cell], setting: Setting) -> dict[str, Any]:
    """How a matrix came about: commits of the cells and of this pass, the command, seeds, attacks and fits."""
    return {
        "commit": git_commit(), "commits": commits(cells), "command": command_line(),
        "seed": setting.seed, "n_envs": min(setting.n_envs, setting.episodes),
        "columns": {c.name: {"attack": c.attack, "fit": c.fit, "env": c.env, "tasks": c.tasks} for c in columns},
        "fits": sorted({cell.fit.title for cell in cells if cell.fit is not None}),
    }  # fmt: skip
