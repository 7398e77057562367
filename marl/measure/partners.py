"""Populations of held-out partners: runs, their early checkpoints, single members of a run, scripted policies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from marl.core.config import resolved
from marl.core.types import ConfigError
from marl.measure.entrants import Entrant, Tree, by_content, entries, from_run, from_runs
from marl.run.build import check_call, factory
from marl.run.folders import nearest_steps, trained_runs

KNOWN = ("runs", "checkpoints", "members", "policies", "responses")


@dataclass(frozen=True)
class Partner:
    """A player that the rows did not meet in training. ``responses``: runs that were trained to play with exactly this
    partner; the best of them shows how much is possible."""

    population: str
    name: str
    entrant: Entrant
    responses: tuple[Entrant, ...] = ()


def read_populations(given: Any, env: Tree, task: str) -> list[Partner]:
    """Return the partners of ``partners=``, a mapping from the names of populations to their contents:

    ``runs`` (folders or patterns), at the shares ``checkpoints`` of their training (the nearest checkpoint that was
    kept; null: the newest), as the ``members`` that their algorithm names (null: the team itself); ``policies``,
    configurations of plug-ins by name; ``responses``, runs by the name of the partner that they answer. Raise
    ConfigError naming what is wrong, before anything is measured.
    """
    found: list[Partner] = []
    for population, node in (given or {}).items():
        section = f"partners.{population}"
        if not isinstance(node, dict) or not node.keys() & {"runs", "policies"}:
            raise ConfigError(f"{section} has neither runs nor policies")
        for key in node:
            if key not in KNOWN:
                raise ConfigError(f"{section}.{key} is not known; a population has {', '.join(KNOWN)}")
        for key in ("policies", "responses"):
            if not isinstance(node.get(key) or {}, dict):
                raise ConfigError(f"{section}.{key}={node[key]} must be given by name: +{section}.{key}.NAME=...")
        members = _from_runs(node, section, env, task) if node.get("runs") is not None else []
        members += [scripted(name, policy, section, env, task) for name, policy in (node.get("policies") or {}).items()]
        found += _answered(population, members, node.get("responses") or {}, section, env, task)
    return found


def _from_runs(node: Tree, section: str, env: Tree, task: str) -> list[Entrant]:
    """Return the teams of the runs that a population names, each once, and its members and checkpoints."""
    entrants, known = [], set()
    for name, pattern in entries(node["runs"], f"{section}.runs"):
        for folder in trained_runs(pattern, f"{section}.runs"):
            if folder.resolve() in known:
                continue
            known.add(folder.resolve())
            steps = [None] if node.get("checkpoints") is None else nearest(folder, node["checkpoints"], section)
            for step in steps:
                entrant = from_run(folder, name, env, task, step)
                entrants += [with_member(entrant, str(member)) for member in node.get("members") or []] or [entrant]
    return entrants


def nearest(folder: Path, shares: Any, section: str) -> list[int]:
    """Return the steps of the checkpoints of a run that are nearest to shares of its training, each once, in order."""
    if not isinstance(shares, list) or not all(isinstance(s, int | float) and 0 <= s <= 1 for s in shares):
        raise ConfigError(f"{section}.checkpoints={shares} is not a list of shares of a run's training, 0 to 1")
    return nearest_steps(folder, shares, f"{section}.runs")


def with_member(entrant: Entrant, member: str) -> Entrant:
    """Return one of the policies that the algorithm of a run trains alongside its team's."""
    return replace(
        entrant, label=f"{entrant.label} {member}", source=entrant.source | {"member": member},
        opens=entrant.opens | {"member": member}, content=entrant.content | {"member": member},
    )  # fmt: skip


def scripted(name: str, policy: Tree, section: str, env: Tree, task: str) -> Entrant:
    """Return a policy that a plug-in's configuration describes; a file given as its ``path`` is identified by its
    content."""
    if not isinstance(policy, dict) or "_target_" not in policy:
        raise ConfigError(f"{section}.policies.{name} has no _target_; give +policy@{section}.policies.{name}=NAME")
    tree = resolved(DictConfig(policy))
    check_call(factory(DictConfig(tree), f"{section}.policies.{name}"), f"{section}.policies.{name}", None, None)
    if tree.get("path") is not None and not Path(tree["path"]).is_file():
        raise ConfigError(f"{section}.policies.{name}.path={tree['path']} is not a file")
    content = by_content(tree)
    opens = {"run": None, "policy": tree, "checkpoint": None}
    return Entrant(task, name, 0, {"policy": tree["_target_"]}, opens, content, env)


def _answered(
    population: str, members: list[Entrant], responses: Tree, section: str, env: Tree, task: str
) -> list[Partner]:
    names = [entrant.label if entrant.opens["run"] is None else entrant.who for entrant in members]
    names = [
        name if names.count(name) == 1 or entrant.opens["run"] is None else f"{name} at {entrant.source['env_steps']}"
        for name, entrant in zip(names, members, strict=True)
    ]  # checkpoints of one run have their steps in their names
    for name in responses:
        if name not in names:
            raise ConfigError(f"{section}.responses.{name} answers nobody; there are {', '.join(names)}")
    return [
        Partner(population, name, entrant, tuple(
            from_runs(responses[name], env, task, f"{section}.responses.{name}") if name in responses else ()))
        for name, entrant in zip(names, members, strict=True)
    ]  # fmt: skip
