"""A curriculum on the budget: a stronger attack as soon as the team wins under the current one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch

from attacks.base import Budget
from attacks.shared.successes import Successes
from attacks.shared.wrapper import Wrapper
from marl.core.protocols import Policy, Replay, attacks_within
from marl.core.types import Clock, ConfigError, EpisodeBatch, Metrics


class BudgetCurriculum(Wrapper):
    """A wrapped attack that starts with the first of ``budgets`` and moves on to the next one once more than a share
    ``success`` of the last ``window`` episodes attacked with the current one were won (or reached ``success_return``).

    The budgets replace those of all parts of the wrapped attack. Ours; the idea is that an attack that cannot be beaten
    from the start teaches nothing (docs/robustness.md).
    """

    def __init__(
        self, *args: Any, budgets: Sequence[int], success: float, success_return: float | None, window: int,
        **wrapped: Any,
    ) -> None:  # fmt: skip
        super().__init__(*args, **wrapped)
        rising = all(low < high for low, high in pairwise(budgets))
        if not budgets or budgets[0] < 0 or not rising:
            raise ConfigError(f"attack.budgets={list(budgets)} must be numbers that rise, the first at least 0")
        owned = (getattr(part, "budget", None) for _, part in attacks_within(self.attack))
        self.limited = [budget for budget in owned if isinstance(budget, Budget)]
        if not self.limited:
            raise ConfigError(f"attack.attack={type(self.attack).__name__} has no budget that could grow")
        self.successes = Successes("attack", success=success, success_return=success_return, window=window)
        self.budgets = [int(budget) for budget in budgets]
        self.reach(0)

    def reach(self, level: int) -> None:
        """Give all parts the budget with index ``level``."""
        self.level = level
        for budget in self.limited:
            budget.limit = self.budgets[level]
        self.successes.forget()

    def update(self, replay: Replay, fresh: EpisodeBatch, victim: Policy, clock: Clock) -> Metrics:
        metrics = super().update(replay, fresh, victim, clock)
        self.successes.add(fresh.won[fresh.attacked], fresh.reward.sum(1)[fresh.attacked])
        if self.successes.enough and self.level + 1 < len(self.budgets):
            self.reach(self.level + 1)
        return metrics | {"attack/budget": torch.tensor(float(self.budgets[self.level]))}

    def state_dict(self) -> dict[str, Any]:
        return {"attack": self.attack.state_dict(), "level": self.level, "recent": self.successes.recent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.attack.load_state_dict(state["attack"])
        self.reach(min(int(state["level"]), len(self.budgets) - 1))
        self.successes.recent = state["recent"].cpu()
