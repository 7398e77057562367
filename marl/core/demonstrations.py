"""What somebody else did in a game, as examples to imitate; where they come from is a plug-in's business."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from marl.core.types import EnvSpec


@dataclass(frozen=True)
class Demonstrations:
    """N decisions, each of one agent: what it saw, what it could do, what it did, and in which game (whole games are
    held out together)."""

    obs: Tensor  # f32 [N, O]
    avail: Tensor  # bool [N, A]
    actions: Tensor  # long [N]
    game: Tensor  # long [N]

    def __len__(self) -> int:
        return len(self.actions)

    def take(self, chosen: Tensor) -> Demonstrations:
        """Those that ``chosen`` (long or bool) selects."""
        return Demonstrations(self.obs[chosen], self.avail[chosen], self.actions[chosen], self.game[chosen])


class Source(Protocol):
    """Finds demonstrations for a game; ConfigError says why there are none."""

    def load(self, spec: EnvSpec) -> Demonstrations: ...
