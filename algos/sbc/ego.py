"""An ego that learns to play with partners who have their own policies: what SBC, E3T and best responses share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Generator, Tensor

from algos.sbc.policies import EgoLineup
from algos.sbc.roles import PARTNER, draw_partners
from algos.sbc.seats import Seats
from marl.core.checks import require_share
from marl.core.protocols import Policy
from marl.core.types import Clock, ConfigError, EnvSpec


def require_shares(section: str, **lists: Sequence[float]) -> None:
    """Refuse lists that are empty or have a value outside [0, 1]; raise ConfigError naming the first."""
    for name, values in lists.items():
        if len(values) == 0 or not all(0 <= value <= 1 for value in values):
            raise ConfigError(f"{section}.{name}={list(values)} must be one or more values within [0, 1]")


class Ego(Seats):
    """An ego that learns from the true reward in the seats that it plays. With probability ``p_self`` it plays all
    seats of an exploring episode; otherwise partners play 1..n-1 seats, sampled for each episode.

    Subclasses define the partners, and come before ``ValueSeats`` or ``ActorSeats`` in lists of base classes.
    """

    def __init__(self, spec: EnvSpec, *args: Any, p_self: float, **base: Any) -> None:
        if spec.n_agents < 2:
            raise ConfigError("an ego and partners need an environment with at least 2 agents; this one has 1")
        require_share("algo", p_self=p_self)
        self.p_self, self.n_agents = p_self, spec.n_agents
        super().__init__(spec, *args, **base)  # type: ignore[call-arg]  # that of ValueSeats or ActorSeats

    @abstractmethod
    def partners(self, clock: Clock, ego: Any) -> list[Policy]:
        """Return the policies 1, 2, ... of a lineup."""

    def assign(self, n_envs: int, gen: Generator) -> Tensor:
        """Sample which policy plays which seat in the next episodes, long [B, n]."""
        return draw_partners(n_envs, self.n_agents, self.p_self, gen) * PARTNER

    def policy(self, clock: Clock) -> EgoLineup:
        ego = self.play(self.learner, clock)
        return self.beside(ego, self.partners(clock, ego), self.assign)
