"""The first stage of HSP, "Learning Zero-Shot Cooperation with Humans, Assuming Humans Are Biased" (Yu et al. 2023): a
policy with hidden preferences and one that learns to play with it, as in ZSC-Eval's training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor, nn

from algos.sbc.rewards import HiddenReward
from algos.sbc.roles import PARTNER
from algos.sbc.seats import ActorSeats, Seats, ValueSeats
from marl.core.protocols import Policy
from marl.core.types import Clock, ConfigError, EnvSpec, EpisodeBatch, Metrics
from marl.learn.lineup import Lineup


class WishingPair(Seats):
    """A wishing policy and its helper. In every episode the wishing policy plays one randomly sampled seat and learns
    from its hidden reward (``HiddenReward``) alone; the helper plays the other seats and learns from the true reward
    and the other hooks.

    Tests play both, with seats sampled in the same way. ``member``: "wishes" or "helper".
    """

    def make_learner(self, spec: EnvSpec, make: Any) -> Any:
        if spec.n_agents < 2:
            raise ConfigError("a wishing agent and its helper need an environment with at least 2 agents")
        wishes = [hook for hook in self.hooks if isinstance(hook, HiddenReward)]
        if not wishes or any(hook.paid_for != "own" for hook in wishes):
            raise ConfigError("algo.hooks needs an algos.sbc.rewards.HiddenReward with paid_for=own")
        self.n_agents, others = spec.n_agents, [hook for hook in self.hooks if hook not in wishes]
        helper = self.role(spec, make, others)
        self.wisher = self.role(spec, make, wishes, PARTNER)
        return helper

    def assign(self, n_envs: int, gen: Generator) -> Tensor:
        """Sample the seat of the wishing policy in each lane, long [B, n]."""
        seat = torch.randint(self.n_agents, (n_envs, 1), generator=gen, device=gen.device)
        return (torch.arange(self.n_agents, device=gen.device) == seat).long() * PARTNER

    def policy(self, clock: Clock) -> Lineup:
        return Lineup([self.play(role, clock) for role in (self.learner, self.wisher)], self.assign)

    def member(self, name: str) -> Policy:
        """Return the policy that wishes, or its helper, as it plays without exploring."""
        found = {"wishes": self.wisher, "helper": self.learner}.get(name)
        if found is None:
            raise ConfigError(f"member '{name}' is not known; there are wishes, helper")
        return self.play(found, Clock())

    def learn(self, batch: EpisodeBatch, clock: Clock) -> Metrics:
        """Update both policies on the same episodes, each on its own seats."""
        wished = {f"wishes/{name}": value for name, value in self.fit(self.wisher, batch, clock).items()}
        return self.fit(self.learner, batch, clock) | wished

    def networks(self) -> dict[str, nn.Module]:
        return super().networks() | {f"wishes_{name}": net for name, net in self.wisher.networks().items()}

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"wisher": self.wisher.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.wisher.load_state_dict(state["wisher"])


class Wishing(WishingPair, ValueSeats):
    """The pair as value learners."""


class ActorWishing(WishingPair, ActorSeats):
    """The pair as actors, as published."""
