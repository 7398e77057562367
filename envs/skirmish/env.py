"""``Skirmish``: many StarCraft-like battles at once behind ``marl.core.protocols.VectorEnv``.

Observations, states, masks, rewards and endings follow SMAC; the battle itself is simulated here (docs/skirmish.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs.base import refuse_unavailable
from envs.skirmish.battle import find_unavailable, observe_only, reset_lanes, seed_lanes, step_lanes
from envs.skirmish.layout import build_spec, capability_names
from envs.skirmish.maps import find_map
from envs.skirmish.options import read_options
from envs.skirmish.paths import NO_ROUTES, routes_on
from envs.skirmish.records import ATTACK_MOVE, LANE, UNIT, Lanes, Outputs, World
from envs.skirmish.render import draw, places
from envs.skirmish.setup import battle_rules, line_up_template, map_types, random_team, spawn_lattice
from envs.skirmish.terrain import ground_height, walkable_cells
from envs.skirmish.units import TYPE_ID, UNIT_TYPES
from marl.core.types import ConfigError, Obs, Step
from marl.show.window import Window, WindowClosed

CAPABILITIES = ("attack_probability", "health_level")
NUMBERS = ("x", "y", "health", "shield", "cooldown", "energy", *CAPABILITIES)  # what UnitView shares with the record
RENDER_FPS = 4.0  # steps a second in a window; the game's own "faster" makes 2.8


@dataclass(frozen=True)
class UnitView:
    """One unit, outside the kernels: what can be read from a lane and put on it."""

    owner: str  # "ally" or "enemy"
    type: str  # a name in units.UNIT_TYPES
    x: float
    y: float
    health: float
    shield: float = 0.0
    cooldown: float = 0.0  # game loops until the weapon is ready
    energy: float = 0.0
    facing: float = 0.0  # radians, 0 = east
    attack_probability: float = 1.0  # of agents, with the option of that name
    health_level: float = 0.0


class Skirmish:
    """``n_envs`` lanes of the SMAC map ``map``; see ``VectorEnv`` for the calls.

    Action 0 (no-op) is all that a dead agent can do and nothing that a living one may. An attack that makes a living
    agent absent gives it action 1 (stop): always available, and a stopped unit neither moves nor shoots.

    The keyword arguments, their meaning and their defaults are the fields of ``options.Options``.
    """

    device = torch.device("cpu")
    resumable = True

    def __init__(self, map: str, n_envs: int, *, seed: int = 0, **options: Any) -> None:
        self.map = find_map(map)
        self.options = read_options(self.map, options)
        if n_envs < 1:
            raise ConfigError(f"n_envs must be at least 1, got {n_envs}")
        self.n_envs = n_envs
        rules = battle_rules(self.map, self.options)
        types = map_types(self.map, self.options)
        ground = self.options.terrain or self.map.terrain
        cells, routes, lattice = walkable_cells(ground), routes_on(ground), spawn_lattice()
        rules[0]["routed"] = routes is not NO_ROUTES
        template = line_up_template(self.map, types, cells, lattice)
        team = random_team(self.map)
        self._world = World(rules, types, cells, routes, ground_height(ground), template, team, lattice)
        self.spec = build_spec(rules[0])
        n, enemies = self.map.n_agents, self.map.n_enemies
        self._lanes = Lanes(
            units=np.zeros((n_envs, n + enemies), UNIT),
            lanes=np.zeros(n_envs, LANE),
            last_action=np.full((n_envs, n), -1, np.int32),
            owner=np.full((n_envs, enemies), -1, np.int32),
            seen=np.zeros((n_envs, enemies, n), np.uint8),
            visit=np.zeros((n_envs, n), np.int32),
            hidden=np.zeros((n_envs, enemies, n), np.uint8),
        )
        self._lanes.lanes["finished"] = 1
        self._outputs = self._allocate()
        self._obs = Obs(*(torch.from_numpy(getattr(self._outputs, k)) for k in ("obs", "state", "avail", "alive")))
        self._info = {k: torch.from_numpy(getattr(self._outputs, k)) for k in ("won", "dead_allies", "dead_enemies")}
        self._everywhere = np.ones(n_envs, np.bool_)
        seed_lanes(self._lanes.lanes, np.uint64(seed % 2**64))
        self._started = False
        self._window: Window | None = None

    def _allocate(self) -> Outputs:
        B, n = self.n_envs, self.spec.n_agents
        return Outputs(
            obs=np.zeros((B, n, self.spec.obs_dim), np.float32),
            state=np.zeros((B, self.spec.state_dim), np.float32),
            avail=np.zeros((B, n, self.spec.n_actions), np.bool_),
            alive=np.zeros((B, n), np.bool_),
            reward=np.zeros(B, np.float32),
            terminated=np.zeros(B, np.bool_),
            truncated=np.zeros(B, np.bool_),
            won=np.zeros(B, np.bool_),
            dead_allies=np.zeros(B, np.int32),
            dead_enemies=np.zeros(B, np.int32),
        )

    def reset(self, seed: int | None = None, mask: Tensor | None = None) -> Obs:
        """Restart all lanes, or those where ``mask`` bool [B]; a seed begins their random streams anew."""
        self._started = True
        where = self._everywhere if mask is None else mask.cpu().numpy()
        reset_lanes(self._world, self._lanes, self._outputs, where, np.uint64((seed or 0) % 2**64), seed is not None)
        return self._obs

    def step(self, actions: Tensor) -> Step:
        """Joint actions long [B, n]; eight game loops in every running lane."""
        if not self._started:
            raise RuntimeError("reset() the battle before the first step()")
        given = actions.detach().cpu().numpy()
        if given.shape != (self.n_envs, self.spec.n_agents) or given.dtype != np.int64:
            expected = f"int64 [{self.n_envs}, {self.spec.n_agents}]"
            raise ValueError(f"actions are {given.dtype} {list(given.shape)}, expected {expected}")
        given = np.ascontiguousarray(given)
        if find_unavailable(self._lanes.lanes, self._outputs.avail, given) >= 0:
            running = torch.from_numpy(self._lanes.lanes["finished"] == 0)
            refuse_unavailable(actions.cpu(), self._obs.avail, running, self.spec.action_names)
        step_lanes(self._world, self._lanes, self._outputs, given)
        out = self._outputs
        reward, terminated, truncated = map(torch.from_numpy, (out.reward, out.terminated, out.truncated))
        return Step(self._obs, reward, terminated, truncated, dict(self._info))

    def observe(self) -> Obs:
        """What the last reset or step returned."""
        return self._obs

    def units(self, lane: int = 0) -> list[UnitView]:
        """All units of a lane, agents first; the dead have health 0."""
        views = []
        for index, unit in enumerate(self._lanes.units[lane]):
            owner = "ally" if index < self.spec.n_agents else "enemy"
            facing = math.atan2(unit["facing_y"], unit["facing_x"])
            numbers = {name: float(unit[name]) for name in NUMBERS}
            views.append(UnitView(owner, UNIT_TYPES[unit["type"]].name, **numbers, facing=facing))
        return views

    @property
    def cap_size(self) -> int:
        """Numbers per agent in ``capabilities``."""
        rules = self._world.rules[0]
        return len(capability_names(rules)) + int(rules["type_bits"])

    def capabilities(self) -> Tensor:
        """What tells the agents from each other, f32 [B, n * cap_size], the dead included (SMACv2's get_capabilities).

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

        Slots that the list does not fill stay dead. Units have no orders, the enemy its attack-move if the map gives
        one; ``last_action`` [n] is what the agents did last (None: nothing yet); with the option ``enemy_mask``,
        ``hidden`` [n, enemies] says which agent sees nothing of which enemy but its place (None: all is seen).
        """
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
            unit["type"] = TYPE_ID[view.type]
            for name in NUMBERS:
                unit[name] = getattr(view, name)
            unit["facing_x"], unit["facing_y"] = math.cos(view.facing), math.sin(view.facing)
            if self.map.attack_move and unit["scripted"]:
                unit["order"] = ATTACK_MOVE
                unit["goal_x"], unit["goal_y"] = self.map.attack_move[0]
        self._lanes.lanes[lane]["finished"] = 0
        self._lanes.last_action[lane] = -1 if last_action is None else last_action
        self._lanes.owner[lane], self._lanes.seen[lane] = -1, 0
        self._lanes.hidden[lane] = 0 if hidden is None else np.asarray(hidden).T
        self._started = True
        observe_only(self._world, self._lanes, self._outputs, lane)
        return self._obs

    def render(self, lane: int = 0) -> np.ndarray:
        """Picture of a lane, uint8 [height, width, 3]."""
        record = self._lanes.lanes[lane]
        caption = f"{self.map.name}  step {record['t']}/{self.spec.episode_limit}"
        return draw(self._lanes.units[lane], self._world, self.spec.n_agents, caption)

    def agent_places(self, lane: int = 0) -> np.ndarray:
        """Centres and radii of the agents on the picture of a lane, in pixels, f64 [n, 3]."""
        return places(self._lanes.units[lane, : self.spec.n_agents], self._world)

    def render_window(self, lane: int = 0, fps: float = RENDER_FPS) -> bool:
        """Show the picture of a lane in a window, ``fps`` of them a second; False once the window has been closed.

        ConfigError names the extra to install if pygame is missing.
        """
        if self._window is None:
            self._window = Window(self.map.name, fps)
        try:
            self._window.show(self.render(lane))
        except WindowClosed:
            return False
        return True

    def state_dict(self) -> dict[str, Any]:
        """The lanes' random streams: all there is to save at an episode's edge."""
        return {"rng": torch.from_numpy(self._lanes.lanes["rng"].view(np.int64).copy())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from saved streams; every lane must be reset next."""
        if len(state["rng"]) != self.n_envs:
            raise ValueError(f"saved with {len(state['rng'])} lanes, this environment has {self.n_envs}")
        self._lanes.lanes["rng"] = state["rng"].numpy().view(np.uint64)
        self._lanes.lanes["finished"] = 1
        self._started = True

    def close(self) -> None:
        """Close the window, if one is open; nothing else to release."""
        if self._window is not None:
            self._window.close()
