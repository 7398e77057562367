"""A game with one weak spot, a team that never changes its mind, and how tests play attackers against it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from attacks.ega.attack import EGA
from marl.core.types import Carry, EnvSpec, EpisodeBatch, Metrics, Obs, Step, core_fields
from marl.learn.replay import EpisodeReplay
from marl.run.build import factory
from marl.run.collect import collect
from tests.support.helpers import clock_after, compose_train

LANES, STEPS, AGENTS = 16, 4, 3
WEAK_STEP, WEAK_AGENT = 2, 1


class WeakSpot:
    """Three agents, four steps, two actions; a step pays 1. Action 1 costs nothing, but that agent 1 must not do it in
    step 2: that costs 5. The state is the one-hot step; the last lane ends after one step."""

    device, resumable = torch.device("cpu"), False

    def __init__(self, n_envs: int = LANES) -> None:
        self.n_envs = n_envs
        self.spec = EnvSpec(AGENTS, 2, STEPS, STEPS, STEPS, torch.zeros(STEPS), torch.ones(STEPS))

    def observe(self) -> Obs:
        state = torch.eye(STEPS)[min(self.t, STEPS - 1)].expand(self.n_envs, -1)
        everyone = torch.ones(self.n_envs, AGENTS, dtype=torch.bool)
        return Obs(state[:, None].expand(-1, AGENTS, -1), state, everyone[..., None].expand(-1, -1, 2), everyone)

    def reset(self, seed: int | None = None, mask: Tensor | None = None) -> Obs:
        self.t = 0
        return self.observe()

    def step(self, actions: Tensor) -> Step:
        spoilt = (actions[:, WEAK_AGENT] == 1) & (self.t == WEAK_STEP)
        self.t += 1
        over = torch.full((self.n_envs,), self.t == STEPS)
        over[-1] = self.t == 1
        return Step(self.observe(), 1.0 - 5.0 * spoilt, over, torch.zeros_like(over), {"won": over})


class Steadfast:
    """A victim that always values action 0 above action 1."""

    def begin(self, n_envs: int, gen: Generator) -> Carry:
        return {"h": torch.zeros(n_envs, AGENTS, 1)}

    def act(self, obs: Obs, carry: Carry, *, explore: bool, gen: Generator) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        return torch.zeros(obs.obs.shape[:2], dtype=torch.long), carry, {}

    def after(self, carry: Carry, intended: Tensor, executed: Tensor) -> Carry:
        return carry

    def q_values(self, obs: Tensor, carry: Carry) -> Tensor:
        return torch.tensor([1.0, 0.0]).expand(*obs.shape[:2], 2)

    def q_total(self, q: Tensor, state: Tensor, **kwargs: Tensor) -> Tensor:
        return q.sum(-1, keepdim=True)

    def params(self) -> dict[str, Tensor]:
        return {}

    def q_with(self, params: dict[str, Tensor], obs: Tensor, carry: Carry) -> Tensor:
        return self.q_values(obs, carry)


def make(tmp_path: Path, *overrides: str, name: str = "ega", spec: EnvSpec | None = None, seed: int = 0) -> EGA:
    turns = (
        f"attack.{whose}_episodes={3 * LANES}" for whose in (["attacker"] if name == "ega" else ["attacker", "team"])
    )
    review = f"attack.review_episodes={LANES if name == 'ega' else 3 * LANES}"
    pace = f"attack.episodes_per_update={LANES / (8 if name == 'ega' else 1)}"
    cfg = compose_train(tmp_path, f"attack={name}", *turns, review, pace, *overrides)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        attack = factory(cfg.attack, "attack")(spec or WeakSpot().spec, "cpu")
    assert isinstance(attack, EGA)
    return attack


def play(attack: EGA, seed: int = 0, victim: Any = None, attacked: Tensor | None = None) -> EpisodeBatch:
    env, gen = WeakSpot(), torch.Generator().manual_seed(seed)
    lanes = torch.ones(LANES, dtype=torch.bool) if attacked is None else attacked
    return collect(
        env, victim or Steadfast(), attack, core_fields(env.spec) | attack.fields(), explore=False, attacked=lanes,
        policy_gen=gen, attack_gen=gen, device="cpu",
    )  # fmt: skip


def learn(attack: EGA, fresh: EpisodeBatch) -> Metrics:
    return attack.update(EpisodeReplay(4, STEPS, fresh.fields), fresh, Steadfast(), clock_after(len(fresh)))


def fit(attack: EGA) -> int:
    """Collect and update until the attack needs no more fitting."""
    count = 0
    with attack.fitting():
        while attack.needs_fit:
            learn(attack, play(attack, seed=count))
            count += 1
    return count
