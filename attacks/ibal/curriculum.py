"""How often IBAL may force actions: more, once the team succeeds under what it meets now."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from marl.core.checks import require_at_least, require_share


class Curriculum:
    """``p_max`` starts at 1/k_max. Every ``every`` environment steps it is multiplied by ``growth``, up to 1, if of the
    last ``window`` attacked episodes since it last grew (as many must have been played) more than ``success``
    succeeded: were won, or reached ``success_return`` if that is given.
    """

    def __init__(
        self, k_max: int, *, growth: float, success: float, success_return: float | None, window: int, every: int
    ) -> None:
        require_at_least("attack.curriculum", 1, window=window, every=every, growth=growth)
        require_share("attack.curriculum", success=success)
        self.growth, self.success, self.success_return = growth, success, success_return
        self.window, self.every = window, every
        self.p_max, self.checked = 1.0 / k_max, 0
        self.recent = torch.zeros(0, dtype=torch.bool)

    def add(self, won: Tensor, returns: Tensor, env_steps: int) -> None:
        """Count attacked episodes just played: won bool [M], returns [M]."""
        succeeded = won if self.success_return is None else returns >= self.success_return
        self.recent = torch.cat([self.recent, succeeded.cpu()])[-self.window :]
        if env_steps // self.every == self.checked:
            return
        self.checked = env_steps // self.every
        if len(self.recent) == self.window and float(self.recent.float().mean()) > self.success:
            self.p_max = min(1.0, self.growth * self.p_max)
            self.recent = self.recent[:0]

    def state_dict(self) -> dict[str, Any]:
        return {"p_max": self.p_max, "checked": self.checked, "recent": self.recent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.p_max, self.checked, self.recent = float(state["p_max"]), int(state["checked"]), state["recent"].cpu()
