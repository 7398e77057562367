"""Demonstrations: recorded decisions to imitate. A plug-in (``Source``) loads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from marl.core.types import EnvSpec


@dataclass(frozen=True)
class Demonstrations:
    """N decisions of single agents: observation, available actions, chosen action, and the index of the game that it
    was made in (whole games are held out together)."""

    obs: Tensor  # f32 [N, O]
    avail: Tensor  # bool [N, A]
    actions: Tensor  # long [N]
    game: Tensor  # long [N]

    def __len__(self) -> int:
        return len(self.actions)

    def take(self, chosen: Tensor) -> Demonstrations:
        """Return the decisions that ``chosen`` (long or bool) selects."""
        return Demonstrations(self.obs[chosen], self.avail[chosen], self.actions[chosen], self.game[chosen])


class Source(Protocol):
    """A loader of demonstrations for a game."""

    def load(self, spec: EnvSpec) -> Demonstrations:
        """Return the demonstrations for the game of ``spec``. Raise ConfigError, with the reason, if there are none."""
        ...
