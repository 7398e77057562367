"""``ValueAlgorithm``: agent, mixer, hooks and an epsilon schedule around one ``ValueLearner``.

IQL, VDN, QMIX and QPLEX are this class with different mixers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, nn

from marl.core.distributed import fewest, total, world
from marl.core.protocols import LearnerHook, Policy, Replay, Reporting
from marl.core.types import Clock, EnvSpec, EpisodeBatch, Field, Metrics
from marl.learn.agents import RecurrentAgent
from marl.learn.learner import Learner, ValueLearner
from marl.learn.mixers import Mixer
from marl.learn.policy import EpsilonGreedy, LinearSchedule
from marl.learn.rhythm import Rhythm


@dataclass(frozen=True)
class Factories:
    """The factories of a value-based team: networks, called with a spec, and the learner, called with
    (spec, agent, mixer, hooks, device=)."""

    agent: Callable[[EnvSpec], RecurrentAgent]
    mixer: Callable[[EnvSpec], Mixer]
    learner: Callable[..., ValueLearner]


class Hooked:
    """The common base of algorithms around one ``learner`` with ``hooks``."""

    learner: Learner
    hooks: list[LearnerHook]

    def fields(self) -> dict[str, Field]:
        return {name: field for hook in self.hooks for name, field in hook.fields().items()}

    def annotate(self, fresh: EpisodeBatch) -> None:
        for hook in self.hooks:
            hook.annotate(fresh)

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


class ValueAlgorithm(Hooked):
    """Makes an update with ``batch_size`` sampled episodes for every ``episodes_per_update`` collected ones, once
    there have been ``warmup_episodes`` (``Rhythm``).

    ``agent``, ``mixer`` and ``hooks`` are factories called with the EnvSpec; ``learner`` is a factory of
    ``ValueLearner`` that is called with (spec, agent, mixer, hooks, device). ``gen`` is the replay stream.
    ``published`` is the rhythm of the method's own code, None if there is none for value learners.
    """

    learner: ValueLearner
    published: Rhythm | None = Rhythm(batch_size=128, episodes_per_update=8, target_every=200)  # PyMARL2 on SMAC

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
        warmup_episodes: float,
        episodes_per_update: float,
    ) -> None:
        self.hooks = [make(spec) for make in hooks.values()]
        self.epsilon, self.gen, self.device = epsilon, gen, torch.device(device)
        rhythm = Rhythm(batch_size, episodes_per_update, warmup_episodes, ranks=world()[1])

        def paced(*args: Any, **options: Any) -> ValueLearner:
            made = learner(*args, **options)
            made.episodes_per_update = episodes_per_update
            return made

        self.learner = self.make_learner(spec, Factories(agent, mixer, paced))
        self.rhythm = replace(rhythm, target_every=self.learner.target_every, tau=self.learner.tau)

    def make_learner(self, spec: EnvSpec, make: Factories) -> ValueLearner:
        """Build the learner and its networks; algorithms with more networks override this."""
        return make.learner(spec, make.agent(spec), make.mixer(spec), self.hooks, device=self.device)

    def policy(self, clock: Clock) -> Policy:
        learner = self.learner
        return EpsilonGreedy(learner.agent, learner.mixer, self.epsilon(clock.env_steps), learner.last_action)

    def update(self, replay: Replay, fresh: EpisodeBatch, clock: Clock) -> Metrics:
        metrics = self.sampled_updates(replay, clock, self.learner.update)
        return metrics | {"train/epsilon": torch.tensor(self.epsilon(clock.env_steps))} if metrics else {}

    def sampled_updates(self, replay: Replay, clock: Clock, update: Callable[[EpisodeBatch], Metrics]) -> Metrics:
        """Call ``update`` with a sample for each update that is due, count them on the clock and return the last
        metrics. Nothing is due while the replay, which a resumed run may have to refill, is too small."""
        metrics: Metrics = {}
        if total(len(replay)) >= self.rhythm.start and fewest(len(replay)) >= self.rhythm.batch_size:
            for _ in range(self.rhythm.due(clock)):
                metrics = update(replay.sample(self.rhythm.batch_size, self.gen, self.device))
                clock.updates += 1
        return metrics
