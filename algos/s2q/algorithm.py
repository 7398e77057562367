"""S2Q: successive sub-value Q-learning, and its variant with messages, S2Q-Comm.

Jo, Lee, Han 2026 (ICLR), arXiv 2602.17062. The losses are in ``algos.s2q.learner``, acting is in ``algos.s2q.policy``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import torch

from algos.s2q.learner import S2QLearner, Structure
from algos.s2q.nets import EncoderDecoder
from algos.s2q.policy import Execute, S2QPolicy
from algos.shared.central import CentralAlgorithm, CentralValue
from marl.core.checks import require_at_least, require_choice, require_share, require_within
from marl.core.protocols import Replay
from marl.core.types import Clock, EnvSpec, EpisodeBatch, Field, Metrics
from marl.learn.algorithm import Factories
from marl.learn.learner import ValueLearner
from marl.learn.rhythm import Rhythm


class S2Q(CentralAlgorithm):
    """The algorithm with ``K`` sub-values in addition to the deployed one. ``execute``, ``p_mixed``: see ``S2QPolicy``.
    ``comm`` adds the encoder's latent of the previous step, ``latent_dim`` numbers, to what the agents see, in tests
    too."""

    learner: S2QLearner
    published = Rhythm(batch_size=128, episodes_per_update=8, target_every=200)

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
        require_within("algo", 0, 100, K=K)
        require_choice("algo", get_args(Execute), execute=execute)
        require_share("algo", p_mixed=p_mixed)
        require_at_least("algo", 1, latent_dim=latent_dim, decoder_dim=decoder_dim)
        self.K, self.execute, self.p_mixed, self.comm = K, execute, p_mixed, comm
        self.latent_dim, self.decoder_dim = latent_dim, decoder_dim
        super().__init__(*args, **base)

    def make_learner(self, spec: EnvSpec, make: Factories) -> ValueLearner:
        seen = with_message(spec, self.latent_dim) if self.comm else spec
        agent, mixer = make.agent(seen), make.mixer(spec)  # the base algorithm's order keeps its initial weights
        structure = Structure(
            K=self.K,
            comm=self.comm,
            head=lambda: (make.agent(seen), make.mixer(spec)),
            central=lambda: CentralValue(spec, make.agent(spec), embed_dim=self.central_dim),
            decoder=lambda: EncoderDecoder(
                spec.n_agents * agent.hidden_dim,
                spec.state_dim,
                self.K + 1,
                hidden_dim=self.decoder_dim,
                latent_dim=self.latent_dim,
            ),
        )
        return make.learner(spec, agent, mixer, self.hooks, structure, device=self.device)

    def fields(self) -> dict[str, Field]:
        """Declare fields for metrics: the head that each agent followed, head 0's actions, which episodes are mixed."""
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
    """Return the spec for networks whose observations end in a message of ``width`` numbers."""
    return replace(spec, obs_dim=spec.obs_dim + width)


def behaviour_metrics(fresh: EpisodeBatch, K: int) -> Metrics:
    """Return how often each head was followed, and the returns of mixed and plain episodes (where both occur)."""
    steps = fresh.filled[:, :, None].expand_as(fresh.s2q_head)
    metrics = {f"behaviour/head_{k}": (fresh.s2q_head[steps] == k).float().mean() for k in range(K + 1)}
    returns, mixed = fresh.reward.sum(1), fresh.s2q_mixed
    if bool(mixed.any()) and not bool(mixed.all()):
        metrics |= {"behaviour/return_mixed": returns[mixed].mean(), "behaviour/return_plain": returns[~mixed].mean()}
    return metrics
