"""The columns of a robustness matrix, as a suite (conf/suite/NAME.yaml) and the command line describe them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from omegaconf import DictConfig, OmegaConf

from marl.core.checks import require_at_least, require_choice
from marl.core.config import flatten, resolved
from marl.core.types import ConfigError
from marl.measure.entrants import Tree
from marl.measure.robustness_scores import SHARES
from marl.run.build import check_call, factory

PARTS = ("columns", "baseline", "budget", "budget_unit")  # of a suite, apart from what its values refer to
FitTo = Literal["victim", "reference"]  # what an attack is fitted to: the row itself, or one team for all rows
PolicyOf = Literal["next_run"]  # whose team an attack's ``policy`` is (marl.measure.strangers)
OF_COLUMN = ("attack", "env", "fit", "tasks", "restarts", "trials", "policy_of")


@dataclass(frozen=True)
class Column:
    """An attack, what it is fitted to ("victim", "reference" or nothing), and what it changes in the game's
    configuration. ``tasks``: by task, what of ``attack`` and ``env`` differs there. ``restarts`` and ``trials`` of
    fitting are those of ``fit_attack``. ``policy_of``: the attack's option ``policy`` is the team of another row,
    which ``marl.measure.strangers`` chooses."""

    name: str
    attack: Tree
    fit: str | None
    env: Tree
    tasks: dict[str, Tree] = field(default_factory=dict)
    restarts: int = 1
    trials: int = 0
    policy_of: str | None = None

    def on(self, task: str) -> Column:
        """Return the column as it is on one task."""
        other = self.tasks.get(task, {})
        attack, env = (merged(mine, other.get(key)) for key, mine in (("attack", self.attack), ("env", self.env)))
        return replace(self, attack=attack, env=env, tasks={})


def read_suite(suite: DictConfig, only: Iterable[str] | None, called: str = "") -> tuple[list[Column], str | None]:
    """Return the columns of a ``suite`` configuration that ``only`` names, and the name of the one that others are
    compared with. Raise ConfigError naming what is wrong, and the suite by what it is ``called``, before anything is
    measured."""
    if not suite.get("columns"):
        has = ", ".join(str(key) for key in suite if key != "columns") or "nothing"
        raise ConfigError(f"suite{called and f'={called}'} has no columns; it has {has}")
    _refuse_unused(suite)
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
        raise ConfigError("only=[] leaves no column of this suite")
    baseline = tree.get("baseline")
    for name in {*names} & {*SHARES}:
        raise ConfigError(f"suite.columns.{name}: reports have a column of that name; choose another one")
    if baseline is not None and baseline not in names:
        raise ConfigError(f"suite.baseline={baseline} is not a column; there are {', '.join(names)}")
    return columns, baseline


def _refuse_unused(suite: DictConfig) -> None:
    """Refuse keys of a suite that are not part of it and that no other value refers to."""
    raw = [str(value) for value in flatten(OmegaConf.to_container(suite)).values()]
    if any("${" in value for value in raw):  # otherwise references are already resolved and cannot be checked
        for key in map(str, suite):
            if key not in PARTS and not any(f".{key}}}" in value for value in raw):
                raise ConfigError(f"suite.{key} changes nothing; a suite has {', '.join(PARTS)}")


def merged(tree: Tree, changes: Tree | None) -> Tree:
    """Return a configuration with some of its options changed, at any depth."""
    return resolved(DictConfig(OmegaConf.merge(tree, changes or {})))


def _column(name: str, node: Any) -> Column:
    section = f"suite.columns.{name}"
    if not isinstance(node, dict) or "attack" not in node:
        raise ConfigError(f"{section} has no attack; give +attack@{section}.attack=NAME")
    _refuse_unknown(section, node, OF_COLUMN)
    if not isinstance(node.get("env") or {}, dict):
        raise ConfigError(f"{section}.env={node['env']} must be options of the game; give +{section}.env.OPTION=VALUE")
    fit = node.get("fit")
    require_choice(section, get_args(FitTo), fit=fit, or_null=True)
    tasks = node.get("tasks") or {}
    if not isinstance(tasks, dict):
        raise ConfigError(f"{section}.tasks={tasks} must be options by task; give +{section}.tasks.TASK.attack.OPTION")
    restarts, trials = node.get("restarts", 1), node.get("trials", 0)
    require_at_least(section, 1, restarts=restarts)
    require_at_least(section, 0, trials=trials)
    if (restarts > 1 and not trials) or (trials and fit is None):
        lacks = f"{section}.fit" if fit is None else f"{section}.trials, the episodes that choose among them,"
        raise ConfigError(f"{section}: restarts={restarts} and trials={trials} of fitting need {lacks}")
    policy_of = node.get("policy_of")
    require_choice(section, get_args(PolicyOf), policy_of=policy_of, or_null=True)
    if policy_of is not None and node["attack"].get("policy", "") is not None:
        given = "is given" if node["attack"].get("policy") else "is no option of it"
        raise ConfigError(f"{section}.policy_of={policy_of} fills the attack's option policy, which {given}")
    column = Column(name, node["attack"], fit, node.get("env") or {}, tasks, restarts, trials, policy_of)
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
