"""Sizes, names, bounds and subjects of the observation, state and action features (SMAC's layout).

The kernels in ``observe.py`` write the same blocks in the same order; the golden vectors in the tests hold both to
the published layout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from envs.skirmish.physics import VERSION
from marl.core.types import EnvSpec

MOVES = ("north", "south", "east", "west")
GRID_POINTS = ("+0+4", "+0-4", "+4+0", "-4+0", "+2+2", "-2-2", "+2-2", "-2+2")  # where the surroundings are probed


@dataclass(frozen=True)
class Feature:
    """One observation feature: its name, legal range, and which agent it describes (slot; None: no agent)."""

    name: str
    low: float
    high: float
    ally_slot: int | None = None  # index among the other agents, in increasing order; -1: the observer itself


def capability_names(rules: np.void) -> list[str]:
    """Return the names of the agents' capabilities, in the order of all layouts."""
    switches = {"attack probability": "attack_probabilities", "health level": "health_levels"}
    return [name for name, switch in switches.items() if rules[switch]]


def least_health(rules: np.void) -> float:
    """Return the lowest health that an agent is shown: it is measured from the health level, and may fall below that
    for some loops before the agent is killed."""
    return float((0.0 - rules["level_high"]) / (1.0 - rules["level_high"]))


def unit_features(rules: np.void, prefix: str, first: str, shield: bool, slot: int | None) -> list[Feature]:
    """Return the features of another unit as an agent sees it; ``slot`` None: an enemy."""
    ally = slot is not None
    found = [Feature(f"{prefix} {first}", 0, 1, slot), Feature(f"{prefix} distance", 0, 1, slot)]
    found += [Feature(f"{prefix} {axis}", -1, 1, slot) for axis in ("dx", "dy")]
    found.append(Feature(f"{prefix} health", least_health(rules) if ally else 0, 1, slot))
    names = ["shield"] if shield else []
    names += capability_names(rules) if ally else []
    names += [f"type {bit}" for bit in range(rules["type_bits"])]
    return found + [Feature(f"{prefix} {name}", 0, 1, slot) for name in names]


def obs_features(rules: np.void, action_names: tuple[str, ...]) -> list[Feature]:
    """Return the observation's features in order, for a generic observer ("ally k" is the k-th other agent)."""
    bits, shield = int(rules["type_bits"]), bool(rules["shield_ally"])
    found = [Feature(f"can move {direction}", 0, 1, -1) for direction in MOVES]
    if rules["obs_pathing_grid"]:
        found += [Feature(f"walkable {point}", 0, 1, -1) for point in GRID_POINTS]
    if rules["obs_terrain_height"]:
        found += [Feature(f"height {point}", 0, 1, -1) for point in (*GRID_POINTS, "here")]
    for enemy in range(rules["n_enemies"]):
        found += unit_features(rules, f"enemy {enemy}", "attackable", bool(rules["shield_enemy"]), None)
    for slot in range(rules["n_agents"] - 1):
        found += unit_features(rules, f"ally {slot}", "visible", shield, slot)
        if rules["obs_last_action"]:
            found += [Feature(f"ally {slot} last {name}", 0, 1, slot) for name in action_names]
    found.append(Feature("own health", least_health(rules), 1, -1))
    if shield:
        found.append(Feature("own shield", 0, 1, -1))
    found += [Feature(f"own {name}", 0, 1, -1) for name in capability_names(rules)]
    if rules["obs_own_pos"]:
        found += [Feature(f"own {axis}", 0, 1, -1) for axis in ("x", "y")]
    if rules["conic"]:
        found += [Feature(f"own facing {axis}", -1, 1, -1) for axis in ("x", "y")]
    found += [Feature(f"own type {bit}", 0, 1, -1) for bit in range(bits)]
    if rules["obs_timestep"]:
        found.append(Feature("time", 0, 1))
    return found


def state_names(rules: np.void, obs_names: tuple[str, ...], action_names: tuple[str, ...]) -> tuple[str, ...]:
    """Return one name per state feature, in order."""
    n, bits = int(rules["n_agents"]), int(rules["type_bits"])
    if rules["obs_as_state"]:
        return tuple(f"agent {agent} {name}" for agent in range(n) for name in obs_names)
    types = [f"type {bit}" for bit in range(bits)]
    facing = ["facing x", "facing y"] if rules["conic"] else []
    shield = ["shield"] if rules["shield_ally"] else []
    ally = ["health", "cooldown", "x", "y", *shield, *capability_names(rules), *facing, *types]
    enemy = ["health", "x", "y", *(["shield"] if rules["shield_enemy"] else []), *types]
    names = [f"ally {agent} {name}" for agent in range(n) for name in ally]
    names += [f"enemy {index} {name}" for index in range(rules["n_enemies"]) for name in enemy]
    if rules["state_last_action"]:
        names += [f"ally {agent} last {name}" for agent in range(n) for name in action_names]
    if rules["state_timestep"]:
        names.append("time")
    return tuple(names)


def subjects(features: list[Feature], n_agents: int) -> Tensor:
    """Return bool [n, n, O]: feature ``o`` of agent ``i``'s observation describes agent ``j``."""
    about = torch.zeros(n_agents, n_agents, len(features), dtype=torch.bool)
    for i in range(n_agents):
        others = [j for j in range(n_agents) if j != i]
        for index, feature in enumerate(features):
            if feature.ally_slot is not None:
                about[i, i if feature.ally_slot < 0 else others[feature.ally_slot], index] = True
    return about


def build_spec(rules: np.void) -> EnvSpec:
    """Return sizes, names and bounds of the battle that ``rules`` (one RULES record) describes.

    ``noop_action`` is 0, the only action of the dead and never one of the living, who idle with action 1 (stop).
    """
    first_target, n_actions = int(rules["first_target"]), int(rules["n_actions"])
    looks = tuple(f"look {index}" for index in range(first_target - 6))
    targets = tuple(f"target {index}" for index in range(n_actions - first_target))
    actions = ("no-op", "stop", *MOVES, *looks, *targets)
    features = obs_features(rules, actions)
    names = tuple(feature.name for feature in features)
    states = state_names(rules, names, actions)
    return EnvSpec(
        n_agents=int(rules["n_agents"]),
        n_actions=n_actions,
        obs_dim=len(features),
        state_dim=len(states),
        episode_limit=int(rules["episode_limit"]),
        obs_low=torch.tensor([float(feature.low) for feature in features]),
        obs_high=torch.tensor([float(feature.high) for feature in features]),
        noop_action=0,
        idle_action=1,  # stop
        about=subjects(features, int(rules["n_agents"])),
        obs_names=names,
        state_names=states,
        action_names=actions,
        info_names=("dead_allies", "dead_enemies"),
        physics=VERSION,
    )
