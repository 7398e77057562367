"""How often IBAL may force actions: more often once the team succeeds under the current rate."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from attacks.shared.successes import Successes
from marl.core.checks import require_at_least


class Curriculum:
    """A schedule of ``p_max``, which starts at 1/k_max. Every ``every`` environment steps it is multiplied by
    ``growth``, up to 1, if the attacked episodes since it last grew succeeded often enough
    (``attacks.shared.successes.Successes``).
    """

    def __init__(
        self, k_max: int, *, growth: float, success: float, success_return: float | None, window: int, every: int
    ) -> None:
        require_at_least("attack.curriculum", 1, every=every, growth=growth)
        self.successes = Successes("attack.curriculum", success=success, success_return=success_return, window=window)
        self.growth, self.every = growth, every
        self.p_max, self.checked = 1.0 / k_max, 0

    def add(self, won: Tensor, returns: Tensor, env_steps: int) -> None:
        """Count the attacked episodes just played: won bool [M], returns [M]."""
        self.successes.add(won, returns)
        if env_steps // self.every == self.checked:
            return
        self.checked = env_steps // self.every
        if self.successes.enough:
            self.p_max = min(1.0, self.growth * self.p_max)
            self.successes.forget()

    def state_dict(self) -> dict[str, Any]:
        return {"p_max": self.p_max, "checked": self.checked, "recent": self.successes.recent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.p_max, self.checked = float(state["p_max"]), int(state["checked"])
        self.successes.recent = state["recent"].cpu()
