"""What a policy, an attack and a game declare so that their episodes can run as one compiled loop.

Each class declares it for itself (``declared``): what a subclass inherits does not count, since it may behave
differently. ``marl.run.rollout`` reads the declarations.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from marl.core.types import Carry

NOTHING, RANDOM, MISSING, SINGLE = range(4)  # kinds of ``Harm``


def declared(thing: Any, name: str, *args: Any) -> Any:
    """Call the method ``name`` that the class of ``thing`` itself declares, with ``args``, and return its result; None
    if the class declares none, or if methods have been replaced on ``thing``."""
    return None if replaced(thing) or name not in vars(type(thing)) else vars(type(thing))[name](thing, *args)


def replaced(thing: Any) -> bool:
    """Return whether a method has been replaced on this object alone."""
    return any(inspect.isroutine(getattr(type(thing), name, None)) for name in vars(thing))


class Seats(NamedTuple):
    """How each agent acts in the current episodes, and its networks' memory.

    ``last`` and ``h`` of a single policy are its carry's own tensors, so that what is written there is remembered. A
    team of several policies gives new tensors, and its ``parts`` say where they come from; see ``remember``.
    """

    last: Tensor  # long [B, n], the last actions; -1: none
    h: Tensor  # f32 [B, n, H]
    network: Tensor  # long [B, n], the number of the network that plays the agent
    epsilon: Tensor  # f64 [B, n], the probability of a random available action in place of the chosen one
    sampled: Tensor  # bool [B, n], the action is sampled from the softmax of the scores; otherwise the best is chosen
    fields: dict[str, Tensor]  # those that the policy stores once per episode, lane first
    shift: Tensor | None = None  # f32 [B, n, H], added to the first layer
    parts: tuple[tuple[Tensor, Seats], ...] = ()  # (the agents of a policy, bool [B, n], its own seats)

    def noisier(self, epsilon: Tensor | float) -> Seats:
        """Return the seats of agents who also play a random action with probability ``epsilon``, which broadcasts
        against [B, n]."""
        return self._replace(epsilon=1.0 - (1.0 - self.epsilon) * (1.0 - epsilon))

    def remember(self) -> None:
        """Write ``last`` and ``h`` into the carries of the policies that have played."""
        for own, seats in self.parts:
            seats.last.copy_(torch.where(own.any(1, keepdim=True), self.last, seats.last))
            seats.h.copy_(torch.where(own[..., None], self.h, seats.h))
            seats.remember()


class Acting(NamedTuple):
    """A policy in its compiled form: its networks, numbered, and a function from its carry to how its agents act."""

    network: Any  # None: all agents act at random
    executed: bool  # networks see the last executed action, not the intended one
    seats: Callable[[Carry], Seats]
    alone: bool = True  # one policy plays all agents, so that attacks may read its scores


def nobody(carry: Carry) -> Seats:
    """Refuse: agents at random have no seats of their own."""
    raise RuntimeError("a policy without a network has a compiled form only within a lineup")


AT_RANDOM = Acting(None, False, nobody)


def changed(form: Acting | None, change: Callable[[Seats, Carry], Seats]) -> Acting | None:
    """Return the form of a policy around another: its seats are what ``change`` makes of the inner one's, given the
    carry. Agents at random stay random."""
    if form is None or form.network is None:
        return form
    inner = form.seats
    return form._replace(seats=lambda carry: change(inner(carry), carry))


class Choice(NamedTuple):
    """How actions are chosen; see ``Seats``."""

    network: np.ndarray
    epsilon: np.ndarray
    sampled: np.ndarray
    shift: np.ndarray
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
