"""Small weighted QMIX teams that several tests share, and the inputs of a loss, written out step by step."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from algos.shared.central import CentralAlgorithm, CentralLearner
from algos.wqmix import WQMixLearner
from marl.core.types import EnvSpec, EpisodeBatch
from marl.learn.agents import RecurrentAgent
from marl.learn.algorithm import ValueAlgorithm
from marl.learn.learner import ValueLearner
from marl.learn.mixers import QMix
from marl.learn.policy import LinearSchedule
from marl.learn.returns import td_lambda
from tests.support.helpers import AGENT, LEARNER

MIXER = partial(QMix, embed_dim=8, hypernet_dim=8)


def build(kind: Any, learner: Any, spec: EnvSpec, mixer: Any, epsilon: float, **own: Any) -> Any:
    torch.manual_seed(0)
    return kind(
        spec, "cpu", torch.Generator().manual_seed(0), agent=partial(RecurrentAgent, **AGENT), mixer=mixer,
        learner=learner, hooks={}, epsilon=LinearSchedule(epsilon, epsilon, 1), batch_size=4, warmup_episodes=4,
        episodes_per_update=1, **own,
    )  # fmt: skip


def make_base(spec: EnvSpec, mixer: Any = MIXER, epsilon: float = 0.0, **learner: Any) -> ValueAlgorithm:
    return build(ValueAlgorithm, partial(ValueLearner, **{**LEARNER, **learner}), spec, mixer, epsilon)


def make_wqmix(spec: EnvSpec, rule: str, w: float, mixer: Any = MIXER, **learner: Any) -> CentralAlgorithm:
    options = {**LEARNER, "target_source": "qstar", "rule": rule, "w": w, **learner}
    return build(CentralAlgorithm, partial(WQMixLearner, **options), spec, mixer, 0.0, central_dim=8)


def terms_of(learner: CentralLearner, batch: EpisodeBatch) -> dict[str, Tensor]:
    """Return the terms of the loss by name, with their graphs."""
    fwd = learner.forward(batch)
    target = td_lambda(
        batch.reward[:, :-1, None], batch.terminated[:, :-1, None], batch.filled[:, :-1, None], fwd.target_v,
        learner.gamma, learner.td_lambda,
    )  # fmt: skip
    return learner.losses(batch, fwd, target)[0]


class ByHand:
    """The inputs of a loss from one episode, computed one step at a time with ``RecurrentAgent.step``."""

    def __init__(self, learner: CentralLearner, batch: EpisodeBatch, m: int) -> None:
        self.learner, self.length = learner, int(batch.length[m])
        self.state, self.avail = batch.state[m], batch.avail[m]
        self.actions = batch.actions[m].long()
        last = torch.cat([torch.full_like(self.actions[:1], -1), self.actions[:-1]])
        self.obs, self.last = batch.obs[m], last
        self.reward, self.terminated = batch.reward[m], batch.terminated[m]

    @torch.no_grad()
    def play(self, agent: RecurrentAgent) -> tuple[Tensor, Tensor]:
        """Return q [length + 1, n, A] and h [length + 1, n, H]."""
        h, q_all, h_all = agent.initial(), [], []
        for t in range(self.length + 1):
            q, h = agent.step(agent.inputs(self.obs[t], self.last[t]), h)
            q_all.append(q)
            h_all.append(h)
        return torch.stack(q_all), torch.stack(h_all)

    def greedy(self, q: Tensor) -> list[list[int]]:
        """Return the best available joint action at every step."""
        allowed = q.masked_fill(~self.avail[: self.length + 1], -1e9)
        return [[int(row.argmax()) for row in slot] for slot in allowed]

    @torch.no_grad()
    def central(self, target: bool, joint: list[list[int]]) -> list[Tensor]:
        """Return Q* of one joint action per step, from the online or the target network."""
        net = self.learner.target_central if target else self.learner.central
        u, _ = self.play(net.agent)
        chosen = [torch.stack([u[t, i, a] for i, a in enumerate(row)]) for t, row in enumerate(joint)]
        return [
            (net.mix(torch.cat([self.state[t], chosen[t]])) + net.value(self.state[t])).squeeze()
            for t in range(len(joint))
        ]

    def returns(self, v: list[Tensor]) -> list[float]:
        """Return the lambda-returns, computed backwards from the episode's own last step."""
        gamma, lam = self.learner.gamma, self.learner.td_lambda
        y, later = [0.0] * self.length, float(v[self.length])
        for t in reversed(range(self.length)):
            ahead = 0.0 if self.terminated[t] else gamma * ((1 - lam) * float(v[t + 1]) + lam * later)
            y[t] = later = float(self.reward[t]) + ahead
        return y

    @torch.no_grad()
    def mixed(self, mixer: Any, q: Tensor, t: int) -> Tensor:
        """Return the team value of the joint action taken at step t."""
        chosen = torch.stack([q[t, i, int(a)] for i, a in enumerate(self.actions[t])])
        return mixer(chosen, self.state[t]).squeeze()
