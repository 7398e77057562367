"""Which teams are the same: those that play with the same networks, whatever file or folder holds them.

The content of a row, which keys of cells are made of, includes the digest of its checkpoint's file. A packed team is
stored in a different file from the run that it was packed from; here the two are one team.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from marl.core.types import ConfigError
from marl.measure.entrants import RUN_POLICY, Entrant, Tree
from marl.measure.zoo import slim
from marl.run import checkpoint
from marl.run.folders import pick_checkpoint, run_folder


def plays_by(entrant: Entrant) -> Tree:
    """Return what decides how a team plays, with its networks in place of the file that holds them; for a policy that
    is not the team of a run, its content."""
    found = _of_run(entrant)
    if found is None:
        return entrant.content
    folder, step, content = found
    return content | {"state": networks(folder, step, content["state"])}


def same_team(one: Entrant, other: Entrant) -> bool:
    """Return whether two entrants are the same team. Networks are read only where nothing else tells them apart."""
    if one.content == other.content:
        return True
    found = _of_run(one), _of_run(other)
    if found[0] is None or found[1] is None:
        return False
    mine, others = (run[2] | {"state": None} for run in found if run is not None)
    return mine == others and plays_by(one) == plays_by(other)


def refuse_twins(entrants: list[Entrant], key: str) -> None:
    """Raise ConfigError if two seeds of a method in one task are the same team, which an interval would count twice;
    ``key`` is the option that names them."""
    known: dict[str, Entrant] = {}
    for one in entrants:
        name = json.dumps([one.task, one.label, plays_by(one)], sort_keys=True, default=str)
        other = known.setdefault(name, one)
        if other is not one:
            raise ConfigError(
                f"{key}: {one.label} in {one.task}: seeds {other.seed} and {one.seed} are the same team; it counts once"
            )


def _of_run(entrant: Entrant) -> tuple[Path, int | None, Tree] | None:
    """Return the folder, step and content of the team of a run, including one that a policy names; else None."""
    opens, policy = entrant.opens, entrant.opens["policy"]
    if policy is None:
        return Path(opens["run"]), opens["checkpoint"], entrant.content
    if policy.get("_target_") != RUN_POLICY:
        return None
    content = dict(entrant.content["run"])
    if policy.get("act") is not None:
        content["algo"] = content["algo"] | {"act": policy["act"]}
    if policy.get("member") is not None:
        content["member"] = str(policy["member"])
    return run_folder(policy["run"]), policy.get("step"), content


@cache
def networks(folder: Path, step: int | None, state: str) -> str:
    """Return the digest of the state of a run's algorithm at ``step`` (None: the newest), over names, values and the
    bytes of tensors, ignoring the state of optimisers and how target networks differ; ``state`` is the digest of the
    file."""
    sha = hashlib.sha256()
    for name, value in _leaves(slim(checkpoint.load_state(pick_checkpoint(folder, step))["algo"])):
        if isinstance(value, Tensor):
            sha.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
            sha.update(value.detach().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            sha.update(f"{name} {value!r};".encode())
    return sha.hexdigest()


def _leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values within a state with their paths, in the order of their names."""
    if isinstance(tree, dict):
        for key in sorted(tree, key=str):
            yield from _leaves(tree[key], f"{name}/{key}")
    elif isinstance(tree, list | tuple):
        for k, value in enumerate(tree):
            yield from _leaves(value, f"{name}/{k}")
    else:
        yield name, tree
