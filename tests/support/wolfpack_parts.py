"""Pieces for the tests of Wolfpack: a victim whose values are a table, small networks, steps without a game."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from attacks.wolfpack.attack import Wolfpack
from attacks.wolfpack.planner import Foresight
from marl.core.protocols import View
from marl.core.types import Carry, EnvSpec, EpisodeBatch, Obs
from marl.learn.mixers import VDN, Mixer
from marl.learn.policy import EpsilonGreedy
from tests.support.builders import make_victim
from tests.support.helpers import make_spec

FORESIGHT: dict[str, Any] = {
    "window": 6, "dim": 8, "ff_dim": 16, "dropout": 0.1, "heads": "own", "planner_lr": 0.001, "qdiff_lr": 0.001,
    "batch_size": 4, "label_steps": 6, "episodes_per_update": 8,
}  # fmt: skip
OPTIONS: dict[str, Any] = {
    "budget": 8, "budget_unit": "step", "count": "changed", "pack_size": 2, "duration": 3, "followup": "kl",
    "followup_lr": 0.0005, "start": "random", "start_prob": 1.0, "temperature": 0.5, "init_agent": "random",
    "attack_action": "local", "exclude_dead": True, "fit_episodes": 8, "fit_updates": 4,
}  # fmt: skip
SPEC = make_spec(n=5, A=4, O=7, S=6, limit=30)


def make_attack(spec: EnvSpec = SPEC, foresight: dict[str, Any] | None = None, **changes: Any) -> Wolfpack:
    make = partial(Foresight, **{**FORESIGHT, **(foresight or {})})
    return Wolfpack(spec, "cpu", **{**OPTIONS, "foresight": make, **changes})


def decided_victim(spec: EnvSpec = SPEC, mixer: Mixer | None = None, **agent: Any) -> EpsilonGreedy:
    """Build a team whose values and policies differ clearly between observations."""
    return make_victim(spec, lambda spec: mixer or VDN(spec), scale=3.0, **agent)


class Table:
    """A victim that values actions alike everywhere: its only parameter is ``values`` [n, A]; the team's is their sum.

    It remembers how many steps it has seen, in ``h`` [*, n, 1].
    """

    def __init__(self, values: Any, weight: Any = 1.0) -> None:
        self.values, self.weight = torch.tensor(values), torch.as_tensor(weight)

    def begin(self, n_envs: int, gen: Generator) -> Carry:
        return {"h": torch.zeros(n_envs, len(self.values), 1)}

    def act(self, obs: Obs, carry: Carry, *, explore: bool, gen: Generator) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        q, carry = self.advance(obs.obs, carry)
        return q.masked_fill(~obs.avail, -torch.inf).argmax(-1), carry, {}

    def after(self, carry: Carry, intended: Tensor, executed: Tensor) -> Carry:
        return carry

    def q_values(self, obs: Tensor, carry: Carry) -> Tensor:
        return self.values.expand(*obs.shape[:-2], -1, -1)

    def q_total(self, q: Tensor, state: Tensor, **kwargs: Tensor) -> Tensor:
        return (self.weight * q).sum(-1, keepdim=True)

    def params(self) -> dict[str, Tensor]:
        return {"values": self.values}

    def q_with(self, params: dict[str, Tensor], obs: Tensor, carry: Carry) -> Tensor:
        return params["values"].expand(*obs.shape[:-2], -1, -1)

    def advance(self, obs: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        return self.q_values(obs, carry), {"h": carry["h"] + 1}

    def unroll(self, batch: EpisodeBatch) -> tuple[Tensor, Carry]:
        M, T1, n = batch.alive.shape
        steps = torch.arange(T1, dtype=torch.float).view(1, T1, 1, 1).expand(M, T1, n, 1)
        return self.values.expand(M, T1, n, -1), {"h": steps}


def random_obs(lanes: int, seed: int, spec: EnvSpec = SPEC) -> Obs:
    gen = Generator().manual_seed(seed)
    n = spec.n_agents
    return Obs(
        torch.randn(lanes, n, spec.obs_dim, generator=gen),
        torch.randn(lanes, spec.state_dim, generator=gen),
        torch.ones(lanes, n, spec.n_actions, dtype=torch.bool),
        torch.ones(lanes, n, dtype=torch.bool),
    )


def rows_of(obs: Obs, rows: slice) -> Obs:
    return Obs(obs.obs[rows], obs.state[rows], obs.avail[rows], obs.alive[rows])


class Episode:
    """Steps of an attack without a game: what is seen is random, whatever is done."""

    def __init__(self, attack: Wolfpack, victim: Any, lanes: int, seed: int = 0) -> None:
        self.attack, self.victim, self.lanes = attack, victim, lanes
        attack.begin(lanes, victim, Generator().manual_seed(seed))
        self.carry = victim.begin(lanes, Generator())
        self.t = 0

    def step(self, obs: Obs | None = None, active: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return (intended, executed, hit), each [B, n]."""
        obs = random_obs(self.lanes, 100 + self.t) if obs is None else obs
        active = torch.ones(self.lanes, dtype=torch.bool) if active is None else active
        intended, after, _ = self.victim.act(obs, self.carry, explore=False, gen=Generator())
        executed, fields = self.attack.perturb_actions(View(self.t, obs, self.carry, active, self.victim), intended)
        self.carry = self.victim.after(after, intended, executed)
        self.t += 1
        return intended, executed, fields["hit"]

    def hits(self, steps: int) -> Tensor:
        """Return the hits, bool [steps, B, n]."""
        return torch.stack([self.step()[2] for _ in range(steps)])
