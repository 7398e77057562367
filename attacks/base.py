"""Base of every attack. ``NoAttack`` is the empty one: subclass it and override what the attack does."""

from __future__ import annotations

from typing import Any

from torch import Generator, Tensor

from marl.protocols import Policy, View
from marl.replay import Replay
from marl.types import Clock, EpisodeBatch, Field, Metrics, Step


class NoAttack:
    """Leaves observations and actions as they are."""

    def fields(self) -> dict[str, Field]:
        return {}

    def begin(self, n_envs: int, victim: Policy, gen: Generator) -> None:
        return None

    def perturb_obs(self, view: View) -> Tensor:
        return view.obs.obs

    def perturb_actions(self, view: View, intended: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return intended, {}

    def after_step(self, view: View, executed: Tensor, step: Step) -> None:
        return None

    def update(self, replay: Replay, fresh: EpisodeBatch, victim: Policy, clock: Clock) -> Metrics:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        return None
