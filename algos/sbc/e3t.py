"""E3T, "Efficient End-to-End Training for Zero-Shot Human-AI Coordination" (Yan et al. 2023): the ego's partner is the
ego itself, acting at random with probability ``noise`` at each step. The paper's prediction of the partner's actions is
left out, because the recurrent ego remembers what it saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from algos.sbc.ego import Ego, require_shares
from algos.sbc.policies import NoisyPolicy
from algos.sbc.seats import ActorSeats, ValueSeats
from marl.core.protocols import Policy
from marl.core.types import Clock


class NoisyPartner(Ego):
    """An ego that plays with noisy copies of itself. ``noise``: probabilities of random actions (the paper's epsilon),
    one of which is sampled for each episode."""

    def __init__(self, *args: Any, noise: Sequence[float], **base: Any) -> None:
        require_shares("algo", noise=noise)
        self.noise = list(noise)
        super().__init__(*args, **base)

    def partners(self, clock: Clock, ego: Any) -> list[Policy]:
        return [NoisyPolicy(self.as_partner(ego), self.noise)]


class E3T(NoisyPartner, ValueSeats):
    """E3T with value learners."""


class ActorE3T(NoisyPartner, ActorSeats):
    """E3T with actors, as published."""
