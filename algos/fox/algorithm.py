"""FoX: formation-aware exploration. Rare formations are rewarded, and so are latents that predict the formation.

Jo, Lee, Yeom, Han 2024 (AAAI), arXiv 2308.11272. Equations as implemented, and what is reconstructed: docs/fox.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from algos.fox.hook import FoXHook
from algos.fox.policy import Act, SampledLatent, check_act
from marl.core.protocols import Policy
from marl.core.seeding import derive
from marl.core.types import Clock, EnvSpec
from marl.learn.algorithm import Factories, ValueAlgorithm
from marl.learn.learner import ValueLearner
from marl.learn.rhythm import Rhythm


class FoX(ValueAlgorithm):
    """A ``ValueAlgorithm`` with the hook that ``fox`` makes; ``agent=gru`` leaves out the formation-aware agent.

    ``act``: the latent that agents read when they act: its mean (mean), or a sample while they explore (explore) or
    always (sample, as published).
    """

    published = Rhythm(batch_size=32, episodes_per_update=1, target_every=200)

    def __init__(self, *args: Any, fox: Callable[..., FoXHook], act: Act = "mean", **base: Any) -> None:
        self.make_fox, self.act = fox, act
        super().__init__(*args, **base)

    def make_learner(self, spec: EnvSpec, make: Factories) -> ValueLearner:
        agent, mixer = make.agent(spec), make.mixer(spec)  # the base algorithm's order keeps its initial weights
        check_act(self.act, agent)
        self.fox = self.make_fox(spec, agent, self.device, derive(self.gen.initial_seed(), "fox"))
        self.hooks.append(self.fox)
        return make.learner(spec, agent, mixer, self.hooks, device=self.device)

    def policy(self, clock: Clock) -> Policy:
        if self.act == "mean":
            return super().policy(clock)
        learner = self.learner
        policy = SampledLatent(learner.agent, learner.mixer, self.epsilon(clock.env_steps), learner.last_action)
        policy.always = self.act == "sample"
        return policy

    def networks(self) -> dict[str, nn.Module]:
        return super().networks() | self.fox.aware.networks()
