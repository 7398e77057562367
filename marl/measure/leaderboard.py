"""The robustness leaderboard: a file of teams with their win rates under a suite of attacks.

An entry is a method in one game: the digests of its weights, the setting it was measured in, and its win rates.
``marl.measure.leaderboard_check`` measures entries again.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from marl.core.checks import require_name, require_writable
from marl.core.intervals import Interval
from marl.core.types import ConfigError
from marl.measure import matrix
from marl.measure.entrants import Entrant, by_content
from marl.measure.networks import plays_by
from marl.measure.robustness import find_entrants, measured
from marl.measure.robustness_scores import Matrix, Replayed, Row, Score
from marl.measure.suite import Column, read_suite
from marl.run.files import write_atomic
from marl.run.renames import same_rules

KIND, VERSION = "robustness", 1  # of the file; raise the version when the meaning of a key changes
NOT_ASKED = {"metric": "win_rate", "versus": None, "budgets": None, "fit_on": None, "results": None, "env": None}
Finder = Callable[[], tuple[list[Entrant], list[Entrant]]]


@dataclass(frozen=True)
class Weakest:
    """The column with the lowest win rate, excluding the baseline."""

    column: str
    win_rate: Interval


@dataclass(frozen=True)
class Entry:
    """A method in one game. The fields are the keys of the file (docs/robustness.md); win rates are shares of
    episodes, from 0 to 1, with 95% intervals as in the matrix. A text in ``columns`` says why there is no win rate."""

    name: str
    by: str
    task: str
    game: str  # digest of the game's options
    physics: int  # version of the game's rules
    seeds: tuple[int, ...]
    weights: tuple[str, ...]  # digest of each run's content, in the order of the seeds
    suite: str
    baseline: str
    attacks: str  # digest of the columns' settings
    episodes: int
    seed: int
    n_envs: int  # lanes that were played
    act: str | None
    fit: dict[str, int]
    commit: str
    date: str  # UTC
    without_attack: Interval
    weakest: Weakest
    every: Interval | None  # None where the runs were not measured in the same columns
    by_luck: Interval | None
    columns: dict[str, Interval | str]

    @property
    def identity(self) -> tuple[Any, ...]:
        """Return what an entry shares with the one it replaces: weights (``act`` included), game and setting."""
        setting = (self.baseline, self.attacks, self.episodes, self.seed, self.n_envs)
        return (self.task, self.game, tuple(sorted(self.weights)), *setting, tuple(sorted(self.fit.items())))

    @property
    def measured(self) -> tuple[str, ...]:
        """Return the names of the columns with a win rate: only entries that share them all can be ranked."""
        return tuple(sorted(name for name, value in self.columns.items() if isinstance(value, Interval)))

    @property
    def rank(self) -> tuple[Any, ...]:
        """Return the key that the file is sorted by."""
        every = -self.every.mean if self.every else math.inf
        return (self.task, -len(self.measured), every, -self.weakest.win_rate.mean, self.name)

    def as_dict(self) -> dict[str, Any]:
        """Return a dict for JSON."""
        tree = {field.name: getattr(self, field.name) for field in fields(self)}
        tree["weakest"] = {"column": self.weakest.column, **self.weakest.win_rate.as_dict()}
        for key in ("without_attack", "every", "by_luck"):
            tree[key] = None if tree[key] is None else tree[key].as_dict()
        tree["columns"] = {
            name: {"why": value} if isinstance(value, str) else value.as_dict() for name, value in self.columns.items()
        }
        return tree

    @classmethod
    def from_dict(cls, tree: Any) -> Entry:
        """Read an entry back from JSON. Raise ValueError saying what is wrong with it."""
        if not isinstance(tree, dict):
            raise ValueError("it is no JSON object")
        names = [field.name for field in fields(cls)]
        if wrong := [*(name for name in names if name not in tree), *(key for key in tree if key not in names)]:
            raise ValueError(f"{wrong[0]} is {'missing' if wrong[0] in names else 'not a key of an entry'}")
        for key, kind in _KINDS.items():
            if not isinstance(tree[key], kind) or isinstance(tree[key], bool):
                raise ValueError(f"{key}={tree[key]} has the wrong type")
        if not tree["seeds"] or len(tree["seeds"]) != len(tree["weights"]):
            raise ValueError("seeds and weights must be as many, and at least one")
        if not all(isinstance(value, int) for value in (*tree["seeds"], *tree["fit"].values())):
            raise ValueError("seeds and fit must be whole numbers")
        if not all(isinstance(value, str) for value in tree["weights"]) or tree["fit"].keys() != {"n_envs", "replay"}:
            raise ValueError("weights must be digests, and fit has n_envs and replay")
        for key in ("seeds", "weights"):
            if len(set(tree[key])) < len(tree[key]):
                raise ValueError(f"{key}={tree[key]} must differ: one run counts once")
        if min(tree["episodes"], tree["n_envs"], *tree["fit"].values()) < 1 or tree["seed"] < 0:
            raise ValueError("episodes, n_envs and fit must be at least 1, seed at least 0")
        columns = {name: _column_from(name, value) for name, value in tree["columns"].items()}
        column = tree["weakest"].get("column")
        for key, name in (("baseline", tree["baseline"]), ("weakest", column)):
            if not isinstance(name, str) or not isinstance(columns.get(name), Interval):
                raise ValueError(f"{key}={name} is not a column with a win rate")
        return cls(**tree | {
            "seeds": tuple(tree["seeds"]), "weights": tuple(tree["weights"]), "columns": columns,
            "without_attack": _interval("without_attack", tree["without_attack"]),
            "weakest": Weakest(column, _interval("weakest", tree["weakest"])),
            **{key: None if tree[key] is None else _interval(key, tree[key]) for key in ("every", "by_luck")},
        })  # fmt: skip


_KINDS: dict[str, Any] = {
    **dict.fromkeys(("name", "by", "task", "game", "suite", "baseline", "attacks", "commit", "date"), str),
    **dict.fromkeys(("physics", "episodes", "seed", "n_envs"), int), "act": str | None,
    **dict.fromkeys(("seeds", "weights"), list), **dict.fromkeys(("fit", "weakest", "columns"), dict),
}  # fmt: skip


def _interval(key: str, tree: Any) -> Interval:
    try:
        found = Interval.from_dict(tree)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ValueError(f"{key}={tree} must have mean, low, high and n") from None
    if not 0 <= found.mean <= 1:
        raise ValueError(f"{key}: mean={found.mean} must be within [0, 1]")
    return found


def _column_from(name: str, tree: Any) -> Interval | str:
    if isinstance(tree, dict) and tree.keys() == {"why"} and isinstance(tree["why"], str):
        return tree["why"]
    return _interval(f"columns.{name}", tree)


def read(path: Path, *, new: bool = False) -> list[Entry]:
    """Return the entries of a board, in order; with ``new``, a file that does not exist is an empty board.
    Raise ConfigError for a file that is not a leaderboard, is of another version, or has a damaged entry."""
    if not path.exists():
        if new:
            return []
        raise ConfigError(f"file={path} does not exist; runs=[...] by=NAME makes it")
    try:
        found = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"file={path} is not a leaderboard: {error}") from error
    if not isinstance(found, dict) or found.get("leaderboard") != KIND:
        raise ConfigError(f'file={path} is not a leaderboard: it does not say "leaderboard": "{KIND}"')
    if found.get("version") != VERSION:
        raise ConfigError(f"file={path} is a leaderboard of version {found.get('version')}; {VERSION} can be read here")
    if not isinstance(found.get("entries"), list):
        raise ConfigError(f"file={path} is not a leaderboard: it has no list of entries")
    entries = []
    for k, tree in enumerate(found["entries"]):
        try:
            entries.append(Entry.from_dict(tree))
        except ValueError as error:
            raise ConfigError(f"file={path}: entry {k + 1} is damaged: {error}") from error
    return entries


def write(path: Path, entries: Iterable[Entry]) -> None:
    """Replace the file by these entries, sorted, in one step. Raise WriteError."""
    ranked = [entry.as_dict() for entry in sorted(entries, key=lambda entry: entry.rank)]
    write_atomic(path, json.dumps({"leaderboard": KIND, "version": VERSION, "entries": ranked}, indent=1) + "\n")


def add(path: Path, entries: list[Entry], known: Mapping[str, str]) -> list[Entry]:
    """Add entries to the board in ``path``, which is read again: others may have written to it meanwhile. Return the
    older entries that they replace; ``known`` maps the digests by which earlier versions knew teams to those of today.
    Raise ConfigError for a file that is no longer a leaderboard, and WriteError."""
    same = {entry.identity for entry in entries}
    old = read(path, new=True)
    replaced = [
        entry for entry in old
        if replace(entry, weights=tuple(known.get(one, one) for one in entry.weights)).identity in same
    ]  # fmt: skip
    write(path, [*(entry for entry in old if entry not in replaced), *entries])
    return replaced


def check_options(cfg: DictConfig) -> list[Entry]:
    """Return the board that ``cfg`` (conf/leaderboard.yaml) names. Raise ConfigError for a file that cannot be read or
    written, and for options that lack one that they need, before anything is measured."""
    require_name(file=cfg.file)
    given, path = has_runs(cfg), Path(cfg.file)
    if not given and (cfg.check or cfg.by is not None):
        raise ConfigError("runs is missing: give runs=[DIR, ...] (run folders or patterns), or imports=[...]")
    adding = given and not cfg.check
    if adding and not (cfg.by or "").strip():
        raise ConfigError("by is missing: say who trained the runs, by='Our group'; check=true measures entries again")
    if adding:
        require_writable("", files=True, file=path)
    return read(path, new=adding)


def has_runs(cfg: DictConfig) -> bool:
    """Return whether there are teams to measure."""
    return cfg.runs is not None or cfg.imports is not None


def matrix_config(cfg: DictConfig, **changes: Any) -> DictConfig:
    """Return the options of ``scripts.robustness`` that those of a leaderboard stand for, with ``changes``."""
    tree = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(tree, dict)
    return OmegaConf.create({**tree, **NOT_ASKED, **changes})


def require_baseline(columns: list[Column], baseline: str | None) -> str:
    """Return the baseline. Raise ConfigError where it is missing, or no attack is among the columns."""
    names = [column.name for column in columns]
    if baseline is None:
        raise ConfigError("suite.baseline=null: a leaderboard needs the win rate without attack")
    if len(names) < 2:
        raise ConfigError(f"only={names[0]}: a leaderboard needs the baseline {baseline} and at least one attack")
    return baseline


def measure(
    cfg: DictConfig, suite_name: str, option: Callable[[str, str], DictConfig]
) -> tuple[Matrix, list[Entry], list[str], dict[str, str]]:
    """Measure the runs that ``cfg`` names; return the matrix, its entries, the reason for each method without one, and
    the digests of weights by those of earlier versions. The arguments are as for ``marl.measure.robustness.run``. An
    incomplete matrix has no entries. Raise ConfigError for bad options, before anything is measured."""
    full = matrix_config(cfg)
    rows: list[Entrant] = []

    def find() -> tuple[list[Entrant], list[Entrant]]:
        found, references = find_entrants(full, None, option)
        rows.extend(found)
        methods = defaultdict[tuple[str, str], list[Entrant]](list)
        for one in found:
            methods[one.label, one.task].append(one)
        for (label, task), teams in methods.items():
            if (twins := same_seeds(teams)) is not None:
                raise ConfigError(f"runs: {label} in {task}: {twins}")
        return found, references

    made, entries, reasons = measure_rows(full, suite_name, find, rows, str(cfg.by))
    return made, entries, reasons, {former_weights(one): weights_of(one) for one in rows} if entries else {}


def measure_rows(
    cfg: DictConfig, suite_name: str, find: Finder, rows: list[Entrant], by: str
) -> tuple[Matrix, list[Entry], list[str]]:
    """Do the same as ``measure``, from options of ``scripts.robustness``; ``rows`` are complete once ``find`` ran."""
    full_names = set(map(str, cfg.suite.get("columns") or {}))
    if cfg.only is not None and cfg.suite.get("baseline") in full_names - set(cfg.only):
        raise ConfigError(f"only={','.join(cfg.only)} leaves out {cfg.suite.baseline}, the win rate without attack")
    columns, found = read_suite(cfg.suite, cfg.only, suite_name)
    baseline = require_baseline(columns, found)
    made = measured(cfg, suite_name, find)
    if not made.complete:
        return made, [], []
    entries, reasons = [], []
    for row in made.rows:
        if row.level != "method":
            continue
        teams = [one for one in rows if (one.task, one.label) == (row.task, row.label)]
        why = _why_not(row, made, baseline)
        if why is not None:
            reasons.append(f"{row.label} on {row.task}: {why}")
        else:
            entries.append(_entry(cfg, row, made, teams, attacks_digest(columns, baseline, row.task), by))
    return made, entries, reasons


def attacks_digest(columns: list[Column], baseline: str, task: str) -> str:
    """Return the digest of the columns' settings on one task: attacks, what they are fitted to, changes to the game.
    Files and runs within them are identified by content."""
    there = {column.name: column.on(task) for column in columns}
    tree = {
        name: {
            "attack": by_content(c.attack), "env": c.env, "fit": c.fit, "restarts": c.restarts, "trials": c.trials,
            **({"policy_of": c.policy_of} if c.policy_of else {}),
        }
        for name, c in there.items()
    }  # fmt: skip
    return matrix.digest({"columns": tree, "baseline": baseline})


def weights_of(entrant: Entrant) -> str:
    """Return the digest of what decides how a team plays: a packed team has that of its run."""
    return matrix.digest(plays_by(entrant))


def same_seeds(teams: list[Entrant]) -> str | None:
    """Return which seeds of a method are the same team, and would count twice; None where all differ."""
    seeds: dict[str, int] = {}
    for one in teams:
        other = seeds.setdefault(weights_of(one), one.seed)
        if other != one.seed:
            return f"seeds {other} and {one.seed} are the same team; it counts once"
    return None


def former_weights(entrant: Entrant) -> str:
    """Return the digest by which entries of earlier versions know a team: it includes its checkpoint's file."""
    return matrix.digest(entrant.content)


def _why_not(row: Row, made: Matrix, baseline: str) -> str | None:
    """Return why a method cannot be an entry; None where it can."""
    for one in made.rows:
        natural = one.cells[baseline]
        if one.level == "run" and (one.task, one.label) == (row.task, row.label) and isinstance(natural, str):
            return f"seed {one.seeds[0]} without attack: {natural}"
    return "no attack was possible" if row.worst("win_rate", baseline) is None else None


def _entry(cfg: DictConfig, row: Row, made: Matrix, teams: list[Entrant], attacks: str, by: str) -> Entry:
    columns = {name: cell.win_rate if isinstance(cell, Score) else cell for name, cell in row.cells.items()}
    weakest, baseline = row.worst("win_rate", made.baseline), str(made.baseline)
    assert weakest is not None
    natural, least = columns[baseline], columns[weakest]
    assert isinstance(natural, Interval) and isinstance(least, Interval)
    act = cfg.act if any("act" in one.content.get("algo", {}) for one in teams) else None  # others have no choice
    return Entry(
        row.label, by, row.task, matrix.digest({"env": same_rules(teams[0].env)}), matrix.physics_of(teams[0].env),
        tuple(one.seed for one in teams), tuple(map(weights_of, teams)), made.name, baseline, attacks, made.episodes,
        cfg.seed, min(cfg.n_envs, cfg.episodes), act, {"n_envs": cfg.fit.n_envs, "replay": cfg.fit.replay},
        made.about["commit"], datetime.now(UTC).isoformat(timespec="seconds"), natural, Weakest(weakest, least),
        row.every.share if row.every else None,
        row.by_luck.share if isinstance(row.by_luck, Replayed) else None, columns,
    )  # fmt: skip
