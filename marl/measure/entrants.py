"""The entrants in the rows of a matrix: runs found on disk and policies trained elsewhere."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, get_args

from omegaconf import DictConfig, OmegaConf

from marl.core.checks import require_choice, require_name
from marl.core.config import resolved
from marl.core.types import ConfigError
from marl.learn.actor import Act
from marl.measure.importers import mixer_beside
from marl.run import checkpoint
from marl.run.folders import (
    identify,
    names,
    pick_checkpoint,
    read_config,
    refuse_equal_seeds,
    run_folder,
    trained_runs,
)
from marl.run.renames import same_rules

log = logging.getLogger(__name__)
Tree = dict[str, Any]  # plain, resolved configuration
RUN_POLICY = "marl.run.teams.run_policy"


@dataclass(frozen=True)
class Entrant:
    """One trained policy and the game that it plays. Entrants with the same task and label are seeds of one method."""

    task: str
    label: str
    seed: int
    source: Tree  # where it came from, for the record
    opens: Tree  # what marl.run.teams.open_team needs to know about it
    content: Tree  # what decides how it plays: digests and networks' configuration, no paths
    env: Tree

    @property
    def name(self) -> str:
        return f"{self.task} {self.who}"

    @property
    def who(self) -> str:
        """Return its name among the entrants of one game."""
        return f"{self.label} seed {self.seed}"


def entries(given: Any, key: str = "runs") -> list[tuple[str | None, str]]:
    """Return (name, pattern) of every entry of the option ``key``: a pattern, or a list of patterns and of
    ``{name: ..., path: ...}``. None gives no entries."""
    found: list[tuple[str | None, str]] = []
    for item in given if isinstance(given, list) else [] if given is None else [given]:
        if isinstance(item, dict) and item.keys() == {"name", "path"}:
            found.append((str(item["name"]), str(item["path"])))
        elif isinstance(item, str):
            found.append((None, item))
        else:
            raise ConfigError(f"{key} has {item}; an entry is a folder, a pattern, or {{name: ..., path: ...}}")
    return found


def from_run(
    folder: Path, name: str | None, env: Tree | None, env_name: str | None, step: int | None = None
) -> Entrant:
    """Return the team of a run's newest checkpoint (or of the one at ``step``), in ``env`` or else in the game that it
    was trained in."""
    config = resolved(read_config(folder))
    try:
        task, label, seed = identify(config)
        meta = checkpoint.verify(picked := pick_checkpoint(folder, step))
        step = int(picked.name.removeprefix("step_"))
        return Entrant(
            env_name or task, name or label, seed, {"run": str(folder), "env_steps": step},
            {"run": str(folder), "policy": None, "checkpoint": step},
            {"state": meta["digests"]["state.pt"], "algo": config["algo"]}, env or config["env"],
        )  # fmt: skip
    except KeyError as error:
        raise ConfigError(f"{folder} is damaged: it does not say its {error}") from error


def by_content(tree: Any) -> Any:
    """Return a configuration for the key of a cell: files and runs that policies within it are read from are replaced
    by their content, at any depth. Raise ConfigError for a run that does not exist."""
    if not isinstance(tree, dict):
        return tree
    found = {key: by_content(value) for key, value in tree.items()}
    if tree.get("_target_") == RUN_POLICY:
        require_name(run=str(tree.get("run")))
        found["run"] = from_run(run_folder(str(tree.get("run"))), None, None, None, tree.get("step")).content
    elif isinstance(tree.get("path"), str) and Path(tree["path"]).is_file():
        found["path"] = checkpoint.digest(Path(tree["path"]))
    return found


def from_runs(given: Any, env: Tree | None, env_name: str | None, key: str = "runs") -> list[Entrant]:
    """Return every run that ``given`` names, each once, with seeds in order within their method. Methods of the same
    name in different folders are told apart by the folder. Damaged runs are left out and logged. Raise ConfigError
    where no run is named or left, and for two runs of a method with the same seed."""
    found: dict[Path, tuple[Path, str | None]] = {}
    for name, pattern in entries(given, key):
        for folder in trained_runs(pattern, key):
            _, known = found.get(folder.resolve(), (folder, None))
            if known is not None and name not in (None, known):
                raise ConfigError(f"{key}: {folder} is named {known} and {name}; give it one name")
            found[folder.resolve()] = (folder, known or name)
    if not found:
        raise ConfigError(f"{key} is missing: give {key}=[DIR, ...] (run folders or patterns)")
    entrants: dict[Path, Entrant] = {}
    why: list[ConfigError | checkpoint.CheckpointError] = []
    for folder, name in found.values():
        try:
            entrants[folder] = from_run(folder, name, env, env_name)
        except (ConfigError, checkpoint.CheckpointError) as error:
            log.warning("left out: %s: %s", folder, error)
            why.append(error)
    if not entrants and why:
        raise ConfigError(f"{key}: no run can be used: {why[0]}") from why[0]
    unnamed = [(one, resolved(read_config(one))) for one, name in found.values() if name is None and one in entrants]
    for (folder, _), (_, label, _) in zip(unnamed, names(unnamed), strict=True):
        entrants[folder] = replace(entrants[folder], label=label)
    refuse_equal_seeds([(folder, one.task, one.label, one.seed) for folder, one in entrants.items()], key)
    return _by_method(entrants.values())


def acting(entrants: list[Entrant], act: str | None) -> list[Entrant]:
    """Return the same teams, those of actors acting as ``act`` says, greedy or sample (None: as ``algo.act`` says).
    Raise ConfigError where no team has actors."""
    if act is None:
        return entrants
    require_choice("", get_args(Act), act=act)
    choosing = {id(one) for one in entrants if "act" in one.content.get("algo", {})}
    if not choosing:
        raise ConfigError(f"act={act}: no team is one of actors; the others act by values, greedily")
    return [
        replace(one, opens=one.opens | {"act": act}, content=one.content | {"algo": one.content["algo"] | {"act": act}})
        if id(one) in choosing
        else one
        for one in entrants
    ]


def imported(item: Tree, policy: DictConfig, env: Tree, task: str, others: list[Entrant]) -> Entrant:
    """Return the policy of an entry of ``imports=``: ``policy`` with the entry's other keys. A mixer saved next to the
    agent is found. Files and runs are identified by content; a policy without a file is named after its configuration.
    Entries with the same name and task are seeds of one method, each the first number that ``others`` leave free."""
    label = str(item.get("name", Path(item["path"]).stem if "path" in item else item["policy"]))
    options = {key: value for key, value in item.items() if key not in ("name", "env", "policy")}
    if "mixer" in policy.keys() and "mixer" not in options and "path" in item:
        options["mixer"] = mixer_beside(Path(item["path"]))
    for key in options:
        if key not in policy.keys():  # "in policy" does not see keys that are still ???
            raise ConfigError(f"imports: {key} is not an option of the policy; there are {', '.join(map(str, policy))}")
    made = DictConfig(OmegaConf.merge(policy, options))
    for option in map(str, made):
        if OmegaConf.is_missing(made, option):
            raise ConfigError(f"imports: {option} is missing, which the policy of {item} needs")
    tree, files = resolved(made), {}
    for key in ("path", "mixer"):
        if tree.get(key) is not None:
            if not Path(tree[key]).is_file():
                raise ConfigError(f"imports: {key}={tree[key]} is not a file")
            files[key] = checkpoint.digest(Path(tree[key]))
    taken = {one.seed for one in others if (one.task, one.label) == (task, label)}
    seed = next(seed for seed in count() if seed not in taken)
    opens = {"run": None, "policy": tree, "checkpoint": None}
    return Entrant(
        task, label, seed, {"policy": str(tree.get("path", tree["_target_"]))}, opens, by_content(tree) | files, env
    )


def _by_method(entrants: Iterable[Entrant]) -> list[Entrant]:
    """Return the same entrants, grouped by task and method in order of first appearance, with seeds sorted."""
    groups: dict[tuple[str, str], list[Entrant]] = {}
    for entrant in entrants:
        groups.setdefault((entrant.task, entrant.label), []).append(entrant)
    return [entrant for group in groups.values() for entrant in sorted(group, key=lambda one: one.seed)]


def same_game(a: Tree, b: Tree) -> bool:
    """Return whether two configurations describe the same environment."""
    return json.dumps(same_rules(a), sort_keys=True) == json.dumps(same_rules(b), sort_keys=True)
