"""What a policy, an attack and a game say of themselves so that their episodes can be one compiled loop.

Each class says it for itself: what a subclass inherits does not count, for it may do something else. The place that
asks is ``marl.run.rollout``.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

NOTHING, RANDOM, MISSING, SINGLE = range(4)  # kinds of harm


class Acting(NamedTuple):
    """A policy in its compiled form: its networks' scores, and how actions are chosen by them."""

    network: Any
    executed: bool  # networks see the last executed action, not the intended one
    epsilon: float = 0.0  # the probability of a random available action in place of the best
    sampled: bool = False  # actions are drawn from the softmax of the scores


class Choice(NamedTuple):
    """How actions are chosen by scores; see ``Acting``."""

    epsilon: float
    sampled: bool
    executed: bool
    seed: np.uint64  # of the lanes' random streams


class Harm(NamedTuple):
    """What an attack on actions does, as numbers (``envs.kernels.harm`` says what each kind makes of them)."""

    kind: int = NOTHING
    p: float = 0.0  # RANDOM: per agent and step; SINGLE: of a start
    number: int = 0  # MISSING: agents; SINGLE: steps after an effective start
    idle: int = 0  # MISSING: their action
    limit: int = 0  # the budget of an episode,
    by_step: bool = True  # in attacked steps, not agents


class Span(NamedTuple):
    """The part of its episode that each lane plays, and what its networks remember, before it and then after it."""

    row: np.ndarray  # int64 [B], where it is stored; no two alike
    limit: np.ndarray  # int64 [B], the most steps; 0: the lane stands still
    last: np.ndarray  # int64 [B, n], the last actions; -1: none
    h: np.ndarray  # f32 [B, n, H]


class Rolling(Protocol):
    """A game that plays episodes of all lanes at once."""

    @property
    def rolls(self) -> bool:
        """Return whether it does; a subclass may have changed what a step is."""
        ...

    def rollout(
        self,
        network: Any,
        choice: Choice,
        harm: Harm,
        attacked: Tensor,
        harm_seed: np.uint64,
        span: Span,
        data: dict[str, Tensor],
    ) -> Tensor:
        """Play on from where ``reset`` or the last call has left the lanes, until their episodes or spans end; return
        whose episodes have ended, bool [B]. Fill the fields ``data`` (zeros, [M, ...]) of an episode batch: the core
        ones but ``attacked``, "hit", and those that ``Step.info`` has."""
        ...
