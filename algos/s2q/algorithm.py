"""S2Q: successive sub-value Q-learning, and its variant with messages, S2Q-Comm.

Jo, Lee, Han 2026 (ICLR), arXiv 2602.17062. The losses are in ``s2q_learner``, acting is in ``s2q_policy``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from algos.s2q.learner import S2QLearner, Structure
from algos.s2q.nets import EncoderDecoder
from algos.s2q.policy import EXECUTE, Execute, S2QPolicy
from algos.shared.central import CentralAlgorithm, CentralValue, one_of, within_unit
from marl.core.protocols import Replay
from marl.core.types import Clock, ConfigError, EnvSpec, EpisodeBatch, Field, Metrics, require_positive
from marl.learn.agents import RecurrentAgent
from marl.learn.learner import ValueLearner
from marl.learn.mixers import Mixer


class S2Q(CentralAlgorithm):
    """``K`` sub-values besides the deployed one; ``execute`` and ``p_mixed``: see ``S2QPolicy``. ``comm`` appends the
    encoder's latent of the step before, ``latent_dim`` numbers, to what the agents see, also when they are tested."""

    learner: S2QLearner

    def __init__(
        self,
        *args: Any,
        K: int,
        execute: Execute,
        p_mixed: float,
        comm: bool,
        latent_dim: int,
        decoder_dim: int,
        **base: Any,
    ) -> None:
        if not 0 <= K <= 100:
            raise ConfigError(f"algo.K={K} must be within 0..100")
        one_of("algo.execute", execute, EXECUTE)
        within_unit("algo.p_mixed", p_mixed)
        require_positive("algo", latent_dim=latent_dim, decoder_dim=decoder_dim)
        self.K, self.execute, self.p_mixed, self.comm = K, execute, p_mixed, comm
        self.latent_dim, self.decoder_dim = latent_dim, decoder_dim
        super().__init__(*args, **base)

    def make_learner(
        self,
        spec: EnvSpec,
        agent: Callable[[EnvSpec], RecurrentAgent],
        mixer: Callable[[EnvSpec], Mixer],
        learner: Callable[..., ValueLearner],
    ) -> ValueLearner:
        heard = with_message(spec, self.latent_dim) if self.comm else spec
        first, mix = agent(heard), mixer(spec)  # in the base algorithm's order: the same initial weights
        structure = Structure(
            K=self.K,
            comm=self.comm,
            head=lambda: (agent(heard), mixer(spec)),
            central=lambda: CentralValue(spec, agent(spec), embed_dim=self.central_dim),
            decoder=lambda: EncoderDecoder(
                spec.n_agents * first.hidden_dim,
                spec.state_dim,
                self.K + 1,
                hidden_dim=self.decoder_dim,
                latent_dim=self.latent_dim,
            ),
        )
        return learner(spec, first, mix, self.hooks, structure, device=self.device)

    def fields(self) -> dict[str, Field]:
        """For the metrics alone: which head every agent followed, what head 0 wanted, and whether the episode mixed."""
        n = self.learner.spec.n_agents
        own = {
            "s2q_head": Field((n,), torch.int8),
            "s2q_greedy": Field((n,), torch.int16),
            "s2q_mixed": Field((), torch.bool, "episode"),
        }
        return super().fields() | (own if self.K else {})

    def policy(self, clock: Clock) -> S2QPolicy:
        return S2QPolicy(self.learner, self.epsilon(clock.env_steps), self.execute, self.p_mixed)

    def update(self, replay: Replay, fresh: EpisodeBatch, clock: Clock) -> Metrics:
        metrics = super().update(replay, fresh, clock)
        return metrics | behaviour_metrics(fresh, self.K) if metrics and self.K else metrics


def with_message(spec: EnvSpec, width: int) -> EnvSpec:
    """What networks are built for when observations end in a message of ``width`` numbers."""
    return replace(spec, obs_dim=spec.obs_dim + width)


def behaviour_metrics(fresh: EpisodeBatch, K: int) -> Metrics:
    """How often each head was followed, and what mixed and plain episodes returned (where there were both)."""
    steps = fresh.filled[:, :, None].expand_as(fresh.s2q_head)
    metrics = {f"behaviour/head_{k}": (fresh.s2q_head[steps] == k).float().mean() for k in range(K + 1)}
    returns, mixed = fresh.reward.sum(1), fresh.s2q_mixed
    if bool(mixed.any()) and not bool(mixed.all()):
        metrics |= {"behaviour/return_mixed": returns[mixed].mean(), "behaviour/return_plain": returns[~mixed].mean()}
    return metrics
