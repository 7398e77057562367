"""``Skirmish``: many StarCraft-like battles at once, as a ``marl.core.protocols.VectorEnv``.

Observations, states, masks, rewards and endings follow SMAC; the battle itself is simulated here (docs/skirmish.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs.kernels.game import LaneGame
from envs.kernels.lanes import allocate_outputs
from envs.skirmish.battle import KERNELS
from envs.skirmish.layout import build_spec, capability_names
from envs.skirmish.maps import find_map
from envs.skirmish.options import describe_battle, read_options
from envs.skirmish.physics import VERSION
from envs.skirmish.records import ATTACK_MOVE, Outputs
from envs.skirmish.render import camera, draw, places
from envs.skirmish.setup import allocate_lanes, build_world
from envs.skirmish.units import TYPE_ID, kind_of
from marl.core.checks import require_at_least
from marl.core.types import ConfigError, Obs
from marl.show.window import Window, WindowClosed

CAPABILITIES = ("attack_probability", "health_level")
NUMBERS = (
    "x",
    "y",
    "health",
    "shield",
    "cooldown",
    "energy",
    *CAPABILITIES,
)  # fields that UnitView shares with the record
RENDER_FPS = 4.0  # steps per second in a window; the game's own speed "faster" is 2.8


@dataclass(frozen=True)
class UnitView:
    """One unit as seen from outside the kernels; can be read from a lane and placed on it."""

    owner: str  # "ally" or "enemy"
    type: str  # a name in units.UNIT_TYPES
    x: float
    y: float
    health: float
    shield: float = 0.0
    cooldown: float = 0.0  # game loops until the weapon is ready
    energy: float = 0.0
    facing: float = 0.0  # radians, 0 = east
    attack_probability: float = 1.0  # agents only, with the option of that name
    health_level: float = 0.0


class Skirmish(LaneGame):
    """``n_envs`` lanes of the SMAC map ``map``; see ``VectorEnv`` for the calls. A step is eight game loops.

    Action 0 (no-op) is the only action of a dead agent and never available to a living one. An attack that makes a
    living agent absent has it take action 1 (stop), which is always available; a stopped unit does not move and, unless
    it is a Colossus, does not shoot.

    The keyword arguments, their meaning and their defaults are the fields of ``options.Options``.
    """

    physics = VERSION

    def __init__(self, map: str, n_envs: int, *, seed: int = 0, **options: Any) -> None:
        self.map = find_map(map)
        self.options = read_options(self.map, options)
        require_at_least("", 1, n_envs=n_envs)
        self._world = build_world(self.map, self.options)
        self._lanes = allocate_lanes(n_envs, self.map.n_agents, self.map.n_enemies)
        self._window: Window | None = None
        plan = describe_battle(self.map, self.options)
        spec = replace(build_spec(self._world.rules[0]), floor_plan=plan)
        fallen = {side: np.zeros(n_envs, np.int32) for side in ("dead_allies", "dead_enemies")}
        outputs = Outputs(**allocate_outputs(spec, n_envs), **fallen)
        outputs.avail[:] = False  # until the first reset
        super().__init__(spec, self._world, KERNELS, self._lanes, outputs, fallen, n_envs, seed)

    def observe(self) -> Obs:
        """Return what the last reset or step returned."""
        return self._obs

    def units(self, lane: int = 0) -> list[UnitView]:
        """Return all units of a lane, agents first; the dead have health 0."""
        views = []
        for index, unit in enumerate(self._lanes.units[lane]):
            owner = "ally" if index < self.spec.n_agents else "enemy"
            facing = math.atan2(unit["facing_y"], unit["facing_x"])
            numbers = {name: float(unit[name]) for name in NUMBERS}
            views.append(UnitView(owner, kind_of(unit["type"]).name, **numbers, facing=facing))
        return views

    @property
    def cap_size(self) -> int:
        """Return the number of features per agent in ``capabilities``."""
        rules = self._world.rules[0]
        return len(capability_names(rules)) + int(rules["type_bits"])

    def capabilities(self) -> Tensor:
        """Return the agents' capabilities, f32 [B, n * cap_size], the dead included (SMACv2's get_capabilities).

        Per agent: its attack probability and its health level, if the battle has them, and its type as a one-hot.
        """
        agents = self._lanes.units[:, : self.spec.n_agents]
        rules = self._world.rules[0]
        bits = self._world.types["ally_bit"][agents["type"]][..., None] == np.arange(rules["type_bits"])  # [B, n, bits]
        numbers = [agents[name.replace(" ", "_")][..., None] for name in capability_names(rules)]  # each [B, n, 1]
        both = np.concatenate([*numbers, bits], axis=2, dtype=np.float32)
        return torch.from_numpy(both.reshape(self.n_envs, -1))

    def place(
        self,
        units: Sequence[UnitView],
        lane: int = 0,
        last_action: Sequence[int] | None = None,
        hidden: Sequence[Sequence[int]] | None = None,
    ) -> Obs:
        """Put exactly these units on a lane, each side in its index order, and recompute what is seen.

        Slots that the list does not fill stay dead. Units have no orders, except that the enemy has its attack-move if
        the map gives one. ``last_action`` [n] is what the agents did last (None, or -1: nothing yet). With the option
        ``enemy_mask``, ``hidden`` [n, enemies] says which agent sees only the position of which enemy (None: all is
        seen). A lane that had ended restarts at step 0, any other keeps its time. Units of types that the map does not
        have are shown without a type. Raise ConfigError for units that do not fit, and ValueError for actions that do
        not exist.
        """
        acted = np.full(self.spec.n_agents, -1) if last_action is None else np.asarray(last_action)
        if acted.shape != (self.spec.n_agents,) or not ((acted >= -1) & (acted < self.spec.n_actions)).all():
            allowed = f"{self.spec.n_agents} actions, from -1 to {self.spec.n_actions - 1}"
            raise ValueError(f"last_action={last_action} must be {allowed}")
        slots = {"ally": range(self.spec.n_agents), "enemy": range(self.spec.n_agents, len(self._world.template))}
        lined_up = self._lanes.units[lane]
        lined_up[:] = self._world.template
        lined_up["health"] = lined_up["shield"] = 0.0
        used = {"ally": 0, "enemy": 0}
        for view in units:
            if view.owner not in slots or view.type not in TYPE_ID or used[view.owner] >= len(slots[view.owner]):
                room = f"{self.map.n_agents} against {self.map.n_enemies}"
                raise ConfigError(f"{view} does not fit: {self.map.name} has room for {room}")
            for name in CAPABILITIES:
                has_option = view.owner == "ally" and getattr(self.options, name) is not None
                if not has_option and getattr(view, name) != getattr(UnitView, name):
                    raise ConfigError(f"{view} has a {name}, which is for agents and needs the option of that name")
            unit = lined_up[slots[view.owner][used[view.owner]]]
            used[view.owner] += 1
            unit["type"] = TYPE_ID[view.type] + (self._world.rules[0]["enemy_types"] if view.owner == "enemy" else 0)
            for name in NUMBERS:
                unit[name] = getattr(view, name)
            unit["facing_x"], unit["facing_y"] = math.cos(view.facing), math.sin(view.facing)
            if self.map.attack_move and unit["scripted"]:
                unit["order"] = ATTACK_MOVE
                unit["goal_x"], unit["goal_y"] = self.map.attack_move[0]
        if self._lanes.lanes[lane]["finished"]:
            self._lanes.lanes[lane]["finished"] = self._lanes.lanes[lane]["t"] = 0
        self._lanes.last_action[lane] = acted
        self._lanes.owner[lane], self._lanes.seen[lane] = -1, 0
        self._lanes.hidden[lane] = 0 if hidden is None else np.asarray(hidden).T
        self._started = True
        self._kernels.observe(self._world, self._lanes, self._out, lane)
        return self._obs

    def render(self, lane: int = 0) -> np.ndarray:
        """Draw a lane, uint8 [height, width, 3]."""
        record = self._lanes.lanes[lane]
        caption = f"{self.map.name}  step {record['t']}/{self.spec.episode_limit}"
        units = self._lanes.units[lane]
        return draw(units, self._world, self.spec.n_agents, caption, camera(units, self._world))

    def agent_places(self, lane: int = 0) -> np.ndarray:
        """Return centres and radii of the agents on the picture of a lane, in pixels, f64 [n, 3]."""
        units = self._lanes.units[lane]
        return places(units[: self.spec.n_agents], camera(units, self._world))

    def render_window(self, lane: int = 0, fps: float = RENDER_FPS) -> bool:
        """Show the picture of a lane in a window at ``fps`` frames per second; return False once it has been closed.

        Raise ConfigError, naming the extra to install, if pygame is missing.
        """
        if self._window is None:
            self._window = Window(self.map.name, fps)
        try:
            self._window.show(self.render(lane))
        except WindowClosed:
            return False
        return True

    def close(self) -> None:
        """Close the window, if one is open."""
        if self._window is not None:
            self._window.close()
