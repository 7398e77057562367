"""The robustness matrix: every entrant against every attack, the same episodes in every cell.

A cell's key covers what decides its outcome: the entrant's weights, the attack, the game and the episodes. An attack
that has networks is fitted first, and kept in the same way.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from marl.core.checks import require_at_least
from marl.core.config import flatten, plain, resolved
from marl.core.protocols import Fitting, attacks_within
from marl.core.seeding import derive
from marl.core.types import ConfigError
from marl.measure import curves, matrix, replays
from marl.measure.beforehand import ANY_GAME, Games, check_players, make_attack, why_impossible
from marl.measure.entrants import Entrant, Tree, acting, by_content, from_runs, imported, same_game
from marl.measure.fitting import fit_attack, load_fit
from marl.measure.matrix import Episodes, Results, Tell
from marl.measure.networks import refuse_twins
from marl.measure.robustness_scores import Matrix, add_leads, pick_versus, score_rows
from marl.measure.strangers import seated, who_sits
from marl.measure.suite import Column, read_suite
from marl.run.files import save_tensors, write_atomic
from marl.run.renames import same_rules
from marl.run.resume import git_commit
from marl.run.teams import open_team, with_options

log = logging.getLogger(__name__)
IMPORT = "{path: FILE, env: NAME}, and name, mixer or policy (of a policy without a file: {policy: NAME, env: NAME})"


@dataclass(frozen=True)
class Setting(matrix.Setting):
    """What every matrix has, plus the lanes (``fit_envs``) and replay capacity (``fit_replay`` episodes) of fitting."""

    fit_envs: int
    fit_replay: int


@dataclass(frozen=True)
class Fit:
    """An attack to be fitted to a team, and the file that keeps it."""

    title: str
    key: str
    path: Path
    team: Tree
    setting: Setting
    restarts: int = 1
    trials: int = 0

    def prepare(self, tell: Tell) -> str | None:
        """Fit the attack and keep it; return the reason where that is not possible."""
        started = time.perf_counter()
        try:
            how = (self.setting.fit_envs, self.setting.fit_replay, tell, self.restarts, self.trials)
            fitted = fit_attack(self.team, *how)
        except ConfigError as error:
            return str(error)
        save_tensors(fitted, self.path)
        about = {
            "title": self.title, "team": self.team, **fitted["clock"], "metrics": fitted["metrics"],
            "commit": git_commit(), "seconds": time.perf_counter() - started,
            **{name: fitted[name] for name in ("accepted", "tried") if name in fitted},
        }  # fmt: skip
        write_atomic(self.path.with_suffix(".json"), json.dumps(about, indent=1))
        return None


@dataclass(frozen=True)
class Cell:
    """An entrant under an attack, and the file that keeps its episodes. ``why``: the reason if it is known to be
    impossible. ``replay``: 0, or its number as a replay of the same episodes (``marl.measure.replays``)."""

    title: str
    key: str
    path: Path
    team: Tree
    fit: Fit | None
    setting: Setting
    why: str | None = None
    replay: int = 0

    @property
    def needs(self) -> Fit | None:
        return self.fit

    def about(self) -> Tree:
        fit = self.fit.key if self.fit else None
        return {"seed": self.setting.seed, "n": self.setting.episodes, "fit": fit, "team": self.team}

    def play(self, tell: Tell) -> Episodes:
        """Return per-episode values. Raise ConfigError where the attack and the team do not go together."""
        team = open_team(OmegaConf.create(self.team), self.setting.lanes)
        with closing(team.env):
            if self.fit is not None:
                load_fit(self.fit.path, team.attack)
            for name, attack in attacks_within(team.attack):
                if isinstance(attack, Fitting) and attack.needs_fit:
                    which = type(attack).__name__ + (f" ({name})" if name else "")
                    raise ConfigError(f"{which} must be fitted first: its column needs fit=victim")
            seed = derive(self.setting.seed, "robustness")
            results = replays.play(team, self.setting.episodes, seed, self.replay, tell)
        return {name: values.tolist() for name, values in results.items()}


def team_config(entrant: Entrant, column: Column, setting: Setting, seed: int) -> Tree:
    """Return what ``open_team`` reads for an entrant under a column's attack, in the game as the column changes it."""
    env = resolved(with_options(DictConfig(entrant.env), column.env))
    where = {"device": setting.device, "threads": setting.threads, "seed": seed}
    return {**entrant.opens, **where, "env": env, "env_options": {}, "attack": column.attack}


def plan_fit(entrant: Entrant, column: Column, setting: Setting, references: list[Entrant]) -> Fit | None:
    """Return how the column's attack is fitted before it meets ``entrant``: to the entrant itself, or to the reference
    of its game (where there are ``references``). Raise ConfigError where the game has no reference."""
    if column.fit is None:
        return None
    target = entrant
    if column.fit == "reference" and references:
        found = [one for one in references if same_game(one.env, entrant.env)]
        if len(found) != 1:
            raise ConfigError(f"fit_on= names {len(found)} runs of the game of {entrant.name}; one is needed")
        target = found[0]
    team = team_config(target, column, setting, derive(setting.seed, "fit") & 0x7FFFFFFF)
    content = {
        "victim": target.content, "attack": by_content(column.attack), "env": team["env"], "seed": setting.seed,
        "n_envs": setting.fit_envs, "replay": setting.fit_replay,
        **({"restarts": column.restarts, "trials": column.trials} if column.trials else {}),
    }  # fmt: skip
    key = matrix.content_key(content)
    path = setting.out / "fits" / f"{key}.pt"
    return Fit(f"fit {column.name} to {target.name}", key, path, team, setting, column.restarts, column.trials)


def plan_cell(
    entrant: Entrant, column: Column, setting: Setting, references: list[Entrant], rows: Sequence[Entrant] = ()
) -> Cell:
    """Return the cell of ``entrant`` under ``column``; ``rows`` are the teams that may replace its teammates."""
    column = column.on(entrant.task)
    why, fit = None, None
    try:
        column = seated(column, entrant, rows)
    except ConfigError as error:
        why = str(error)
    team = team_config(entrant, column, setting, setting.seed)
    try:
        fit = plan_fit(entrant, column, setting, references)
    except ConfigError as error:
        why = str(error)
    content = {
        "victim": entrant.content, "attack": by_content(column.attack), "env": team["env"],
        "fit": fit.key if fit else None, "episodes": setting.episodes, "n_envs": setting.lanes, "seed": setting.seed,
    }  # fmt: skip
    key = matrix.content_key(content)
    title = f"{entrant.name} under {column.name}"
    return Cell(title, key, setting.out / "cells" / f"{key}.json", team, fit, setting, why)


def find_entrants(
    cfg: DictConfig, env_name: str | None, option: Callable[[str, str], DictConfig]
) -> tuple[list[Entrant], list[Entrant]]:
    """Return the rows, and what ``fit_on`` names; all in the game of ``cfg.env`` where one is given (``env_name``).
    ``option(group, name)`` gives the configuration that ``group=name`` selects."""
    env, runs, imports, fit_on = (plain(cfg[key]) for key in ("env", "runs", "imports", "fit_on"))
    if not isinstance(imports or [], list):
        raise ConfigError(f"imports={imports} must be a list of {IMPORT}")
    task = env_name.replace("/", "-") if env is not None and env_name is not None else None
    entrants = [] if runs in (None, []) else acting(from_runs(runs, env, task), cfg.act)
    for item in imports or []:
        if not isinstance(item, dict) or not item.keys() & {"path", "policy"} or (env is None and "env" not in item):
            raise ConfigError(f"imports has {item}; an entry is {IMPORT}")
        policy = option("policy", item.get("policy", "pymarl"))
        given = item.get("env", "game")
        for name in [task or given] if env is not None else given if isinstance(given, list) else [given]:
            game = env if env is not None else plain(option("env", name))
            entrants.append(imported(item, policy, game, str(name).replace("/", "-"), entrants))
    if not entrants:
        raise ConfigError("runs is missing: give runs=[DIR, ...] (run folders or patterns), or imports=[...]")
    return entrants, [] if fit_on is None else from_runs(fit_on, env, task, "fit_on")


def run(cfg: DictConfig, suite_name: str, env_name: str | None, option: Callable[[str, str], DictConfig]) -> Matrix:
    """Measure what is still missing of the matrix that ``cfg`` (conf/robustness.yaml) describes, and score it.

    ``suite_name`` and ``env_name`` are the names of the configurations ``cfg.suite`` and ``cfg.env``; ``option`` is as
    for ``find_entrants``. Raise ConfigError for bad options, before anything is measured.
    """
    return measured(cfg, suite_name, lambda: find_entrants(cfg, env_name, option))


def measured(cfg: DictConfig, suite_name: str, find: Callable[[], tuple[list[Entrant], list[Entrant]]]) -> Matrix:
    """Do the same as ``run``, with the rows and references that ``find`` returns; it is called once the other options
    have been checked."""
    require_at_least("fit", 1, n_envs=cfg.fit.n_envs, replay=cfg.fit.replay)
    setting = Setting(**matrix.read_options(cfg), fit_envs=cfg.fit.n_envs, fit_replay=cfg.fit.replay)
    columns, baseline = read_suite(cfg.suite, cfg.only, suite_name)
    entrants, references = find()
    if references and all(column.fit != "reference" for column in read_suite(cfg.suite, None)[0]):  # whatever only= is
        raise ConfigError(f"fit_on={plain(cfg.fit_on)}: no column of {suite_name} has fit=reference, which it is for")
    versus = pick_versus(cfg.versus, entrants)
    budgets = curves.read_budgets(plain(cfg.budgets), {column.name: column.attack for column in columns}, baseline)
    check_rows(entrants, columns, given_env=cfg.env is not None)
    note_absent(columns, {entrant.task for entrant in entrants})
    plan = [[plan_cell(one, column, setting, references, entrants) for column in columns] for one in entrants]
    every = [cell for cells in plan for cell in cells]
    outcome = matrix.measure(every, cfg.jobs)
    names = [column.name for column in columns]
    found = [{name: matrix.read_cell(cell, outcome) for name, cell in zip(names, cells, strict=True)} for cells in plan]
    again: list[list[Results | str]] | None = None
    complete = outcome.complete
    if cfg.luck and cfg.metric == "win_rate" and baseline is not None and baseline in names:
        natural = [cells[names.index(baseline)] for cells in plan]
        again, more, complete = replays.measure(natural, found, baseline, cfg.jobs, more=complete)
        every += more
    over_budgets = None
    if budgets and baseline is not None:
        by_name = [dict(zip(names, cells, strict=True)) for cells in plan]
        at_budgets, more, complete = curves.measure(by_name, found, baseline, budgets, cfg.jobs, more=complete)
        over_budgets = curves.score(at_budgets, entrants, baseline, cfg.metric)
        every += more
    rows = score_rows(entrants, found, baseline, cfg.metric, again)
    if versus is not None:
        rows = add_leads(rows, versus, cfg.metric)
    about = matrix.provenance(every, setting) | {
        "columns": {
            c.name: {
                "attack": c.attack,
                "fit": c.fit,
                "env": c.env,
                "tasks": c.tasks,
                "restarts": c.restarts,
                "trials": c.trials,
                **({"policy_of": c.policy_of} if c.policy_of else {}),
            }
            for c in columns
        },
        **who_sits(columns, entrants),
        "fits": sorted({cell.fit.title for cell in every if cell.fit is not None}),
        "physics": {one.task: matrix.physics_of(one.env) for one in entrants},
    }
    return Matrix(suite_name, rows, names, baseline, cfg.metric, cfg.episodes, complete, about, versus, over_budgets)


def check_rows(entrants: list[Entrant], columns: list[Column], *, given_env: bool) -> None:
    """Raise ConfigError for rows that do not fit their game (runs fit their own) or differ in it within a method, and
    for columns that are impossible for every row: options out of range, a fit where there is nothing to fit, or the
    other way round."""
    refuse_mixed_games(entrants)
    refuse_twins(entrants, "runs")
    games = Games()
    check_players([one for one in entrants if given_env or one.opens["run"] is None], games, "env")
    for column in columns:
        section = f"suite.columns.{column.name}"
        reasons: list[str | None] = []
        for entrant in {one.task: one for one in entrants}.values():
            here = column.on(entrant.task)
            try:
                here = seated(here, entrant, entrants)
            except ConfigError:  # no other team to take the seats: the cell says so
                reasons.append(None)
            else:
                reasons.append(why_impossible(here.attack, here.env, entrant.env, games))
        if (why := reasons[0]) is not None and None not in reasons:
            raise ConfigError(f"{section}: {why}")
        try:
            made = make_attack(column.attack, ANY_GAME)
        except ConfigError:  # this attack asks for more than ANY_GAME has
            continue
        learning = [part for _, part in attacks_within(made) if isinstance(part, Fitting)]
        if column.fit is not None and not learning:
            raise ConfigError(f"{section}.fit={column.fit}: {type(made).__name__} has nothing to fit; leave it out")
        for part in learning if column.fit is None else []:
            if part.needs_fit:
                raise ConfigError(f"{section}: {type(part).__name__} must be fitted first; give {section}.fit=victim")


def refuse_mixed_games(entrants: list[Entrant]) -> None:
    """Refuse seeds of one method that play one task with different options: their mean would mix two games. Raise
    ConfigError naming both and what differs."""
    first: dict[tuple[str, str], Entrant] = {}
    for one in entrants:
        other = first.setdefault((one.task, one.label), one)
        if not same_game(other.env, one.env):
            mine, others = flatten(same_rules(one.env)), flatten(same_rules(other.env))
            told: Tree = {key: (others.get(key, "not given"), mine.get(key, "not given")) for key in {**others, **mine}}
            key, values = next((key, pair) for key, pair in told.items() if not same_game(*pair))  # 1 is not 1.0
            raise ConfigError(
                f"runs: {other.who} and {one.who} play {one.task} with different options: env.{key} is {values[0]} "
                f"and {values[1]}; give them different names, {{name: ..., path: ...}}"
            )


def note_absent(columns: list[Column], tasks: set[str]) -> None:
    """Log options for tasks that no row plays: a suite may know more games than are measured, or a name is wrong."""
    for column in columns:
        for task in sorted(column.tasks.keys() - tasks):
            log.warning("suite.columns.%s.tasks.%s changes nothing: the rows play %s",
                        column.name, task, ", ".join(sorted(tasks)))  # fmt: skip
