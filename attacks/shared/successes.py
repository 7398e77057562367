"""The share of the latest attacked episodes that succeeded, which tells a curriculum when to advance."""

from __future__ import annotations

import torch
from torch import Tensor

from marl.core.checks import require_at_least, require_share


class Successes:
    """A record of the last ``window`` episodes. ``enough`` is true once that many have been played and more than a
    share ``success`` of them succeeded: were won, or reached ``success_return`` if given. Errors name options of
    ``section``."""

    def __init__(self, section: str, *, success: float, success_return: float | None, window: int) -> None:
        require_at_least(section, 1, window=window)
        require_share(section, success=success)
        self.success, self.success_return, self.window = success, success_return, window
        self.forget()

    def forget(self) -> None:
        self.recent = torch.zeros(0, dtype=torch.bool)

    def add(self, won: Tensor, returns: Tensor) -> None:
        """Add the episodes just played: won bool [M], returns [M]."""
        succeeded = won if self.success_return is None else returns >= self.success_return
        self.recent = torch.cat([self.recent, succeeded.cpu()])[-self.window :]

    @property
    def enough(self) -> bool:
        return len(self.recent) == self.window and float(self.recent.float().mean()) > self.success
