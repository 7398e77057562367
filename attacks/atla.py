"""ATLA: an observation attacker trained by policy gradient on the negative team reward, while the team learns.

After Zhang, Chen, Boning, Hsieh 2021, "Robust Reinforcement Learning on State Observations with Learned Optimal
Adversary", ICLR (arXiv 2101.08452), adapted to teams: one network perturbs every agent's observation, given what that
agent sees. docs/ibal.md says which parts are reconstructed. Axis letters: ``R`` rows (steps of lanes).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from attacks.base import LaneDraws
from marl.core.checks import require_at_least, require_positive, require_share
from marl.core.distributed import world
from marl.core.optimizers import Adam
from marl.core.protocols import Policy, Replay, View
from marl.core.seeding import restore
from marl.core.types import Clock, ConfigError, EnvSpec, EpisodeBatch, Field, Metrics
from marl.learn.returns import td_lambda


class Adversary(nn.Module):
    """A network for the means [*, n, O] of the perturbations, before squashing, and the value [*] of the whole state.

    All agents share the actor, which also reads the agent's one-hot. Each feature has one learnt standard deviation.
    """

    def __init__(self, spec: EnvSpec, width: int) -> None:
        super().__init__()
        self.register_buffer("ids", torch.eye(spec.n_agents))
        self.actor = nn.Sequential(
            nn.Linear(spec.obs_dim + spec.n_agents, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(),
            nn.Linear(width, spec.obs_dim),
        )  # fmt: skip
        self.log_spread = nn.Parameter(torch.full((spec.obs_dim,), -0.5))
        self.critic = nn.Sequential(
            nn.Linear(spec.state_dim, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)
        )

    def mean(self, obs: Tensor) -> Tensor:
        ids = self.get_buffer("ids").expand(*obs.shape[:-1], -1)
        return self.actor(torch.cat([obs, ids], -1))

    def log_density(self, obs: Tensor, drawn: Tensor, counted: Tensor) -> Tensor:
        """Return the log density [*] of ``drawn`` [*, n, O], before squashing; summed over agents ``counted`` bool [*,
        n]."""
        error = (drawn - self.mean(obs)) / self.log_spread.exp()
        each = -0.5 * error.square() - self.log_spread - 0.5 * math.log(2.0 * math.pi)
        return (each.sum(-1) * counted).sum(-1)

    def entropy(self) -> Tensor:
        """Return the entropy of one agent's perturbation before squashing, 0-d."""
        return (self.log_spread + 0.5 * math.log(2.0 * math.pi * math.e)).sum()

    def value(self, state: Tensor) -> Tensor:
        return self.critic(state).squeeze(-1)


def clipped_objective(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """Return PPO's surrogate [R] (Schulman et al. 2017): the smaller of the plain and the clipped product."""
    return torch.minimum(ratio * advantage, ratio.clamp(1.0 - clip, 1.0 + clip) * advantage)


class ATLA(LaneDraws):
    """An attack that adds ``epsilon`` tanh(u), u ~ N(mean, spread), to every feature that every living agent sees,
    within legal bounds; with ``greedy``, u is the mean except while fitting. It learns by PPO on the negative team
    reward of attacked lanes: ``epochs`` passes over every collection, in ``minibatches`` parts.

    Of every ``period`` collections the attacker learns in the last ``share``; the team learns throughout. On a frozen
    victim (``fitting``) it learns from ``fit_episodes`` episodes.
    """

    def __init__(
        self,
        spec: EnvSpec,
        device: torch.device | str,
        *,
        epsilon: float,
        width: int,
        lr: float,
        gamma: float,
        gae_lambda: float,
        clip: float,
        entropy: float,
        epochs: int,
        minibatches: int,
        grad_clip: float,
        period: int,
        share: float,
        fit_episodes: int,
        greedy: bool,
    ) -> None:
        super().__init__(spec, device)
        require_at_least("attack", 1, width=width, epochs=epochs, minibatches=minibatches, period=period,
                         fit_episodes=fit_episodes)  # fmt: skip
        require_share("attack", gamma=gamma, gae_lambda=gae_lambda, share=share)
        require_positive("attack", epsilon=epsilon, lr=lr, clip=clip, grad_clip=grad_clip)
        if world()[1] > 1:
            raise ConfigError("attack=atla does not run under torchrun: its attacker is trained by one process")
        self.epsilon, self.gamma, self.gae_lambda, self.clip = epsilon, gamma, gae_lambda, clip
        self.entropy, self.epochs, self.minibatches, self.grad_clip = entropy, epochs, minibatches, grad_clip
        self.period, self.share, self.fit_episodes, self.greedy = period, share, fit_episodes, greedy
        self.low, self.high = spec.obs_low.to(self.device), spec.obs_high.to(self.device)
        self.net = Adversary(spec, width).to(self.device)
        self.optimizer = Adam(self.net.parameters(), lr=lr, fused=True)
        self.collections = self.learnt_from = 0
        self.exploring = False  # inside ``fitting``
        self.order = Generator().manual_seed(torch.initial_seed() % 2**63)

    def fields(self) -> dict[str, Field]:
        """Declare ``hit`` bool [n]: this agent's observation was changed in this step; ``obs_seen`` [n, O]."""
        return super().fields() | {"obs_seen": Field((self.spec.n_agents, self.spec.obs_dim))}

    def begin(self, n_envs: int, victim: Policy, gen: Generator) -> None:
        super().begin(n_envs, victim, gen)
        self.drawn: list[Tensor] = []  # [B, n, O] of every step, before squashing

    @torch.no_grad()
    def perturb_obs(self, view: View) -> Tensor:
        obs, drawn = view.obs.obs, self.net.mean(view.obs.obs)
        if self.exploring or not self.greedy:
            drawn = drawn + self.net.log_spread.exp() * self.normal(*obs.shape[1:])
        self.drawn.append(drawn)
        seen = (obs + self.epsilon * drawn.tanh()).clamp(self.low, self.high)
        seen = torch.where((view.active[:, None] & view.obs.alive)[..., None], seen, obs)
        self.changed = (seen != obs).any(-1)
        return seen

    def perturb_actions(self, view: View, intended: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return intended, {"hit": self.changed}

    # learning

    @property
    def needs_fit(self) -> bool:
        """Return whether it has learnt from fewer than ``fit_episodes`` episodes."""
        return self.learnt_from < self.fit_episodes

    @property
    def fitted(self) -> float:
        """Return the share of ``fit_episodes`` done, 0 to 1."""
        return min(1.0, self.learnt_from / self.fit_episodes)

    @contextmanager
    def fitting(self) -> Iterator[None]:
        """Explore, and learn in every ``update``, while the context is open."""
        self.exploring = True
        try:
            yield
        finally:
            self.exploring = False

    def update(self, replay: Replay, fresh: EpisodeBatch, victim: Policy, clock: Clock) -> Metrics:
        turn = self.collections % self.period >= round(self.period * (1.0 - self.share))
        self.collections += 1
        attacked = fresh.attacked.to(self.device)
        if not (turn or self.exploring) or not bool(attacked.any()):
            return {}
        self.learnt_from += int(attacked.sum())
        drawn = torch.stack(self.drawn[: fresh.horizon], 1)[attacked]  # [M, T, n, O]
        return self.learn(fresh.to(self.device).lanes(attacked), drawn)

    def learn(self, batch: EpisodeBatch, drawn: Tensor) -> Metrics:
        """Run PPO on the episodes of ``batch`` with the perturbations drawn in them, [M, T, n, O]."""
        filled = batch.filled[:, :-1]
        with torch.no_grad():
            value = self.net.value(batch.state)  # [M, T+1]
            loss = -batch.reward[:, :-1, None]  # the team's reward is the attacker's loss
            target = td_lambda(loss, batch.terminated[:, :-1, None], filled[..., None], value[..., None], self.gamma,
                               self.gae_lambda)[filled][:, 0]  # fmt: skip
            advantage = target - value[:, :-1][filled]
            advantage = (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-6)
            obs, alive, state = batch.obs[:, :-1][filled], batch.alive[:, :-1][filled], batch.state[:, :-1][filled]
            drawn = drawn[filled]
            before = self.net.log_density(obs, drawn, alive)
        for _ in range(self.epochs):
            order = torch.randperm(len(obs), generator=self.order).to(self.device)
            for rows in order.chunk(self.minibatches):
                ratio = (self.net.log_density(obs[rows], drawn[rows], alive[rows]) - before[rows]).exp()
                gain = clipped_objective(ratio, advantage[rows], self.clip).mean() + self.entropy * self.net.entropy()
                miss = F.mse_loss(self.net.value(state[rows]), target[rows])
                self.optimizer.zero_grad(set_to_none=True)
                (miss - gain).backward()
                nn.utils.clip_grad_norm_(self.net.parameters(), self.grad_clip)
                self.optimizer.step()
        return {
            "atla/objective": gain.detach(),
            "atla/value_loss": miss.detach(),
            "atla/spread": self.net.log_spread.detach().exp().mean(),
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "collections": self.collections,
            "learnt_from": self.learnt_from,
            "order": self.order.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.collections, self.learnt_from = int(state["collections"]), int(state["learnt_from"])
        restore(self.order, state["order"], "atla")
