"""What a policy, an attack and a game declare so that their episodes can run as one compiled loop.

Each class declares it for itself: what a subclass inherits does not count, since it may behave differently.
``marl.run.rollout`` reads the declarations.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

NOTHING, RANDOM, MISSING, SINGLE = range(4)  # kinds of ``Harm``


class Acting(NamedTuple):
    """A policy in its compiled form: its networks, and how actions are chosen from their scores."""

    network: Any
    executed: bool  # networks see the last executed action, not the intended one
    epsilon: float = 0.0  # the probability of a random available action in place of the best
    sampled: bool = False  # actions are sampled from the softmax of the scores


class Choice(NamedTuple):
    """How actions are chosen from scores; see ``Acting``."""

    epsilon: float
    sampled: bool
    executed: bool
    seed: np.uint64  # of the lanes' random streams


class Harm(NamedTuple):
    """What an attack on actions does, as numbers (``envs.kernels.harm`` implements each kind)."""

    kind: int = NOTHING
    p: float = 0.0  # probability; RANDOM: per agent and step; SINGLE: of a start
    number: int = 0  # MISSING: agents; SINGLE: steps after an effective start
    idle: int = 0  # MISSING: their action
    limit: int = 0  # the budget per episode,
    by_step: bool = True  # counted in attacked steps, not agents


class Span(NamedTuple):
    """The part of its episode that each lane plays, and its networks' memory, updated in place."""

    row: np.ndarray  # int64 [B], the row where it is stored; all different
    limit: np.ndarray  # int64 [B], the maximum number of steps; 0: the lane pauses
    last: np.ndarray  # int64 [B, n], the last actions; -1: none
    h: np.ndarray  # f32 [B, n, H]


class Rolling(Protocol):
    """A game that can play the episodes of all lanes in one call."""

    @property
    def rolls(self) -> bool:
        """Return whether it really can; a subclass may have changed what a step does."""
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
        """Play on from where ``reset`` or the last call left the lanes, until their episodes or spans end; return which
        episodes have ended, bool [B]. Fill ``data`` (zeros, [M, ...]), the fields of an episode batch: the core ones
        except ``attacked``, and also "hit" and the entries of ``Step.info``."""
        ...
