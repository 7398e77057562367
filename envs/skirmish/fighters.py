"""Scripted teams for the battle: they attack the nearest or the weakest enemy in reach, and may step back while they
cannot shoot; Medivacs heal.

Fighters read the state, which shows all units wherever they are. ``e`` is the number of enemies.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Generator, Tensor

from envs.skirmish.layout import MOVES
from envs.skirmish.maps import Map
from envs.skirmish.observe import CENTRE, FIRST_LOOK, NORTH, SPAN, STOP_ACTION
from envs.skirmish.options import read_battle
from envs.skirmish.setup import map_types
from envs.skirmish.units import TYPE_ID, UNIT_TYPES
from marl.core.checks import require_choice
from marl.core.types import Carry, ConfigError, EnvSpec, Obs
from marl.learn.scripted import Memoryless

Target = Literal["nearest", "weakest"]
STEPS = ((0.0, 1.0), (0.0, -1.0), (1.0, 0.0), (-1.0, 0.0))  # in the order of MOVES
FAR = 1e9
ROUNDING = 1e-3  # tolerance for rounding in the state: map units, points of health
MELEE = 1.0  # units whose weapons reach no farther do not step back
READY = 4.0  # loops: a weapon that is ready within half a step counts as cooled down
CLOSE = 2.0  # a Medivac without a patient stays this near to the nearest friend
FACES = 0.99  # cosine: an agent this close to the direction already faces it


class Side(NamedTuple):
    """The units of one side; the dead are at (16, 16) and have no life."""

    place: Tensor  # f32 [B, units, 2], map units
    kind: Tensor  # long [B, units], row of the unit table
    share: Tensor  # f32 [B, units], of its full health
    life: Tensor  # f32 [B, units], points of health and shield


class Reader:
    """A reader of the ``count`` units of a side ("ally", "enemy") from states [B, S], by feature names."""

    def __init__(self, spec: EnvSpec, side: str, count: int, types: np.ndarray, only: int, device: torch.device):
        place = {name: k for k, name in enumerate(spec.state_names)}

        def columns(*parts: str) -> Tensor:
            return torch.tensor([[place[f"{side} {i} {part}"] for part in parts] for i in range(count)], device=device)

        bits = sum(f"{side} 0 type {bit}" in place for bit in range(len(types)))
        self.place, self.health = columns("x", "y"), columns("health")[:, 0]
        self.shield = columns("shield")[:, 0] if f"{side} 0 shield" in place else None
        self.bits = columns(*(f"type {bit}" for bit in range(bits))) if bits else None
        row = 0 if side == "ally" else -1  # of a type: the enemy's own follows the shared one
        kinds = [int(np.flatnonzero(types[f"{side}_bit"] == bit)[row]) for bit in range(bits)] or [only]
        self.kinds = torch.tensor(kinds, device=device)  # [bits], or the one type that the side has
        self.full_health, self.full_shield = (number(types, name, device) for name in ("health", "shield"))

    def read(self, state: Tensor) -> Side:
        """Return the side in all lanes."""
        share = state[:, self.health]
        which = torch.zeros_like(share, dtype=torch.long) if self.bits is None else state[:, self.bits].argmax(-1)
        kind = self.kinds[which]
        life = share * self.full_health[kind]
        if self.shield is not None:
            life = life + state[:, self.shield] * self.full_shield[kind]
        return Side(state[:, self.place] * SPAN + CENTRE, kind, share, life)


def number(types: np.ndarray, name: str, device: torch.device) -> Tensor:
    """Return a field of the unit table, f32 [types]."""
    return torch.tensor(types[name].astype(np.float32), device=device)


def least(values: Tensor, among: Tensor) -> Tensor:
    """Return the argmin of ``values`` [..., k] over those where ``among`` bool [..., k] is true, long [...]."""
    return values.masked_fill(~among, FAR).argmin(-1)


def distances(one: Tensor, two: Tensor) -> Tensor:
    """Return the distances from places [B, k, 2] to places [B, l, 2], f32 [B, k, l]."""
    return (one[:, :, None] - two[:, None]).norm(dim=-1)


def chosen(places: Tensor, index: Tensor) -> Tensor:
    """Return the places [B, k, 2] that ``index`` [B, n] selects, f32 [B, n, 2]."""
    return places.gather(1, index[..., None].expand(-1, -1, 2))


class Fighters(Memoryless):
    """A team that attacks the ``target`` among the enemies in reach, "nearest" or "weakest" (the least health and
    shield, then the nearest), and walks to the nearest enemy if none is in reach.

    With ``kite``, ranged units with an enemy in reach step away from the nearest enemy while their weapon cools down.
    Medivacs heal the worst hurt friend in reach; otherwise they follow the nearest hurt friend or, if nobody is hurt,
    the nearest friend. A unit is in reach if an order may name it. With a field of view, an agent with nobody in reach
    first turns towards the unit that it walks to.

    Raises ConfigError for other games, and if the state is made of observations.
    """

    def __init__(self, spec: EnvSpec, device: torch.device | str, *, target: Target, kite: bool) -> None:
        super().__init__(spec, device)
        if spec.action_names[NORTH:FIRST_LOOK] != MOVES or not spec.floor_plan:
            raise ConfigError("fighters play the embedded battle only (env=skirmish/MAP)")
        require_choice("", get_args(Target), target=target)
        scenario, options = read_battle(spec.floor_plan)
        if options.obs_instead_of_state:
            raise ConfigError("fighters read the state, which obs_instead_of_state=true replaces by observations")
        self.weakest, self.kite = target == "weakest", kite
        self.looks = options.num_fov_actions if options.conic_fov else 0
        self.first = FIRST_LOOK + self.looks
        types = map_types(scenario, options)
        self._read_sides(scenario, types)
        self.reach = number(types, "shoot", self.device) + ROUNDING
        self.heals = number(types, "heals", self.device) > 0
        self.shoots = number(types, "range", self.device) > MELEE
        hits = (types["targets"][:, None] & types["layers"]) != 0
        self.hits = torch.tensor(hits, device=self.device)  # [types, types]
        self.loops = number(types, "cooldown_norm", self.device)
        self.steps = torch.tensor(STEPS, device=self.device)

    def _read_sides(self, scenario: Map, types: np.ndarray) -> None:
        """Look up where the state shows the units, their cooldowns and where they look."""
        names, n = self.spec.state_names, self.spec.n_agents
        ours, theirs = (TYPE_ID[groups[0][0]] if groups else 0 for groups in (scenario.allies, scenario.enemies))
        theirs += len(types) - len(UNIT_TYPES)  # the enemy's own row, where it has one
        self.us = Reader(self.spec, "ally", n, types, ours, self.device)
        self.them = Reader(self.spec, "enemy", scenario.n_enemies, types, theirs, self.device)
        self.cooldown = torch.tensor([names.index(f"ally {i} cooldown") for i in range(n)], device=self.device)
        if self.looks:
            facing = [[names.index(f"ally {i} facing {axis}") for axis in "xy"] for i in range(n)]
            self.facing = torch.tensor(facing, device=self.device)  # [n, 2]

    def act(self, obs: Obs, carry: Carry, *, explore: bool, gen: Generator) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        us, them = self.us.read(obs.state), self.them.read(obs.state)
        actions = self.fight(obs, us, them)
        if self.heals[self.us.kinds].any():
            actions = torch.where(self.heals[us.kind], self.heal(obs, us), actions)
        usable = obs.avail.gather(2, actions[..., None]).squeeze(2)
        others = torch.where(obs.avail[..., STOP_ACTION], STOP_ACTION, obs.avail.long().argmax(-1))
        return torch.where(usable, actions, others), carry, {}

    def fight(self, obs: Obs, us: Side, them: Side) -> Tensor:
        """Return what agents with weapons do, long [B, n]."""
        gap = distances(us.place, them.place)  # [B, n, e]
        alive = (them.share > 0.0)[:, None].expand_as(gap)
        foes = alive & self.hits[us.kind[..., None], them.kind[:, None]]
        near = foes & self.in_reach(obs, us, them.place, gap)
        best = near
        if self.weakest:
            life = them.life[:, None].expand_as(gap).masked_fill(~near, FAR)
            best = near & (life <= life.amin(-1, keepdim=True) + ROUNDING)
        attack, engaged = self.first + least(gap, best), near.any(-1)
        approach = self.approach(obs, us, chosen(them.place, least(gap, foes)))
        actions = torch.where(engaged, attack, approach)
        if self.kite:
            away = self.walk(obs, us, chosen(them.place, least(gap, alive)), -1.0)
            actions = torch.where(engaged & self.shoots[us.kind] & self.cools(obs, us), away, actions)
        return actions

    def cools(self, obs: Obs, us: Side) -> Tensor:
        """Return whose weapon is cooling down, bool [B, n]."""
        return obs.state[:, self.cooldown] * self.loops[us.kind] > READY

    def heal(self, obs: Obs, us: Side) -> Tensor:
        """Return what Medivacs do, long [B, n]."""
        gap = distances(us.place, us.place)  # [B, n, n]
        friends = (obs.alive & ~self.heals[us.kind])[:, None].expand_as(gap)
        hurt = friends & (us.share < 1.0 - ROUNDING)[:, None]
        near = hurt & self.in_reach(obs, us, us.place, gap)
        treat = self.first + least(us.share[:, None].expand_as(gap), near)
        wanted = torch.where(hurt.any(-1, keepdim=True), hurt, friends)
        follow = self.approach(obs, us, chosen(us.place, least(gap, wanted)))
        close = gap.masked_fill(~wanted, FAR).amin(-1) < CLOSE
        return torch.where(near.any(-1), treat, torch.where(close, STOP_ACTION, follow))

    def in_reach(self, obs: Obs, us: Side, places: Tensor, gap: Tensor) -> Tensor:
        """Return which units at ``places`` f32 [B, k, 2], ``gap`` [B, n, k] away, an order may name, bool [B, n, k]."""
        named = obs.avail[..., self.first : self.first + gap.shape[2]] & (gap <= self.reach[us.kind][..., None])
        if not self.looks:
            return named
        ahead = ((places[:, None] - us.place[:, :, None]) * obs.state[:, self.facing][:, :, None]).sum(-1)
        return named & (ahead >= math.cos(math.pi / self.looks) * gap - ROUNDING)

    def approach(self, obs: Obs, us: Side, goal: Tensor) -> Tensor:
        """Return the step towards ``goal`` f32 [B, n, 2], or with a field of view the turn towards it, long [B, n]."""
        step = self.walk(obs, us, goal, 1.0)
        if not self.looks:
            return step
        way, turn = goal - us.place, 2.0 * math.pi / self.looks
        look = (torch.atan2(way[..., 1], way[..., 0]) / turn).round().long() % self.looks
        seen = torch.stack([(look * turn).cos(), (look * turn).sin()], -1)
        faces = (obs.state[:, self.facing] * seen).sum(-1) > FACES
        return torch.where(faces, step, FIRST_LOOK + look)

    def walk(self, obs: Obs, us: Side, goal: Tensor, sign: float) -> Tensor:
        """Return the open direction in which a step ends nearest to ``goal`` f32 [B, n, 2] or, with ``sign`` -1,
        farthest from it, long [B, n]."""
        left = (us.place[:, :, None] + self.steps - goal[:, :, None]).norm(dim=-1)  # [B, n, 4]
        return NORTH + least(sign * left, obs.avail[..., NORTH:FIRST_LOOK])
