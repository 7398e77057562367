"""E3T, "Efficient End-to-End Training for Zero-Shot Human-AI Coordination" (Yan et al. 2023): the ego's partner is the
ego itself, which at every step acts at random with probability ``noise``. The prediction of the partner's actions that
the paper adds is left out: the recurrent ego remembers what it saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from algos.sbc.ego import EgoAlgorithm, Noisy, require_probabilities
from marl.core.protocols import Policy
from marl.core.types import Clock
from marl.learn.policy import EpsilonGreedy


class E3T(EgoAlgorithm):
    """``noise``: probabilities of random actions (the paper's epsilon); each episode draws one."""

    def __init__(self, *args: Any, noise: Sequence[float], **base: Any) -> None:
        require_probabilities("algo", noise=noise)
        self.noise = list(noise)
        super().__init__(*args, **base)

    def partners(self, clock: Clock, ego: EpsilonGreedy) -> list[Policy]:
        return [Noisy(ego, self.noise)]
