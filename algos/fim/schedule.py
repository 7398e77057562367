"""The exploration schedule under which FIM identifies features."""

from __future__ import annotations

from dataclasses import dataclass

from marl.learn.policy import LinearSchedule


@dataclass(frozen=True)
class RandomFirst(LinearSchedule):
    """A ``LinearSchedule`` that stays at its start for the first ``hold`` environment steps, which serve to identify
    features."""

    hold: int

    def __call__(self, env_steps: int) -> float:
        return super().__call__(max(0, env_steps - self.hold))
