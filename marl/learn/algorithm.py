"""``ValueAlgorithm``: agent, mixer, hooks and an epsilon schedule around one ``ValueLearner``.

IQL, VDN, QMIX and QPLEX are this class with another mixer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, nn

from marl.core.checks import require_at_least
from marl.core.protocols import LearnerHook, Replay, Reporting
from marl.core.types import Clock, EnvSpec, EpisodeBatch, Field, Metrics
from marl.learn.agents import RecurrentAgent
from marl.learn.learner import ValueLearner
from marl.learn.mixers import Mixer
from marl.learn.policy import EpsilonGreedy, LinearSchedule


@dataclass(frozen=True)
class Factories:
    """The factories of a value-based team: networks, called with a spec, and the learner, called with
    (spec, agent, mixer, hooks, device=)."""

    agent: Callable[[EnvSpec], RecurrentAgent]
    mixer: Callable[[EnvSpec], Mixer]
    learner: Callable[..., ValueLearner]


class ValueAlgorithm:
    """Learns from ``updates_per_collect`` samples of ``batch_size`` episodes after every collection, once the replay
    holds ``warmup_episodes``.

    ``agent``, ``mixer`` and ``hooks`` are factories called with the EnvSpec; ``learner`` is a factory of
    ``ValueLearner`` that is called with (spec, agent, mixer, hooks, device). ``gen`` is the replay stream.
    """

    def __init__(
        self,
        spec: EnvSpec,
        device: torch.device | str,
        gen: Generator,
        *,
        agent: Callable[[EnvSpec], RecurrentAgent],
        mixer: Callable[[EnvSpec], Mixer],
        learner: Callable[..., ValueLearner],
        hooks: Mapping[str, Callable[[EnvSpec], LearnerHook]],
        epsilon: LinearSchedule,
        batch_size: int,
        warmup_episodes: int,
        updates_per_collect: int,
    ) -> None:
        require_at_least("algo", 1, batch_size=batch_size, updates_per_collect=updates_per_collect)
        self.hooks = [make(spec) for make in hooks.values()]
        self.epsilon, self.gen, self.device = epsilon, gen, torch.device(device)
        self.learner = self.make_learner(spec, Factories(agent, mixer, learner))
        self.batch_size, self.updates_per_collect = batch_size, updates_per_collect
        self.warmup_episodes = max(warmup_episodes, batch_size)

    def make_learner(self, spec: EnvSpec, make: Factories) -> ValueLearner:
        """Build the learner and its networks; algorithms with more networks override this."""
        return make.learner(spec, make.agent(spec), make.mixer(spec), self.hooks, device=self.device)

    def fields(self) -> dict[str, Field]:
        return {name: field for hook in self.hooks for name, field in hook.fields().items()}

    def policy(self, clock: Clock) -> EpsilonGreedy:
        learner = self.learner
        return EpsilonGreedy(learner.agent, learner.mixer, self.epsilon(clock.env_steps), learner.last_action)

    def annotate(self, fresh: EpisodeBatch) -> None:
        for hook in self.hooks:
            hook.annotate(fresh)

    def update(self, replay: Replay, fresh: EpisodeBatch, clock: Clock) -> Metrics:
        metrics = self.sampled_updates(replay, clock, self.learner.update)
        return metrics | {"train/epsilon": torch.tensor(self.epsilon(clock.env_steps))} if metrics else {}

    def sampled_updates(self, replay: Replay, clock: Clock, update: Callable[[EpisodeBatch], Metrics]) -> Metrics:
        """Call ``update`` with ``updates_per_collect`` samples, count them on the clock and return the last metrics; do
        nothing while the replay holds fewer than ``warmup_episodes``."""
        metrics: Metrics = {}
        if len(replay) >= self.warmup_episodes:
            for _ in range(self.updates_per_collect):
                metrics = update(replay.sample(self.batch_size, self.gen, self.device))
                clock.updates += 1
        return metrics

    def report(self, folder: Path) -> None:
        """Let the hooks write their reports into ``folder``."""
        for hook in self.hooks:
            if isinstance(hook, Reporting):
                hook.report(folder)

    def networks(self) -> dict[str, nn.Module]:
        return self.learner.networks()

    def state_dict(self) -> dict[str, Any]:
        return {"learner": self.learner.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state["learner"])
