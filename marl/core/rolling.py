"""What a policy, an attack and a game say of themselves so that whole episodes can be one compiled loop.

Each class says it for itself: what a subclass inherits does not count, for it may do something else. The place that
asks is ``marl.run.rollout``.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

NOTHING, RANDOM, MISSING, SINGLE = range(4)  # kinds of harm


class Choice(NamedTuple):
    """How actions are chosen by values."""

    epsilon: float  # the probability of a random available one; 0 if greedy
    seed: np.uint64  # of the lanes' random streams
    executed: bool  # networks see the last executed action, not the intended one


class Harm(NamedTuple):
    """What an attack on actions does, as numbers (``envs.kernels.harm`` says what each kind makes of them)."""

    kind: int = NOTHING
    p: float = 0.0  # RANDOM: per agent and step; SINGLE: of a start
    number: int = 0  # MISSING: agents; SINGLE: steps after an effective start
    idle: int = 0  # MISSING: their action
    limit: int = 0  # the budget of an episode,
    by_step: bool = True  # in attacked steps, not agents


class Rolling(Protocol):
    """A game that plays whole episodes of all lanes at once."""

    @property
    def rolls(self) -> bool:
        """Return whether it does; a subclass may have changed what a step is."""
        ...

    def rollout(
        self, network: Any, choice: Choice, harm: Harm, attacked: Tensor, harm_seed: np.uint64, data: dict[str, Tensor]
    ) -> None:
        """Play one episode per lane from where ``reset`` has put them. Fill the fields ``data`` (zeros, [B, ...]) of an
        episode batch: the core ones but ``attacked``, "hit", and those that ``Step.info`` has."""
        ...
