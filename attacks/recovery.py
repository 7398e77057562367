"""An attack that ends before the episode does: whether a team recovers from what was done to it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor

from marl.core.checks import require_share
from marl.core.protocols import Attack, NoAttack, Policy, Replay, View
from marl.core.types import Clock, EnvSpec, EpisodeBatch, Field, Metrics, Step


class Recovery(NoAttack):
    """Another attack, which acts only in the first ``share`` of an episode's longest possible length."""

    def __init__(
        self,
        spec: EnvSpec,
        device: torch.device | str,
        *,
        attack: Callable[[EnvSpec, torch.device | str], Attack],
        share: float,
    ) -> None:
        super().__init__(spec, device)
        require_share("attack", share=share)
        self.attack, self.last = attack(spec, device), math.ceil(share * spec.episode_limit)

    def compiled(self) -> None:
        return None

    def parts(self) -> dict[str, Attack]:
        return {"attack": self.attack}

    def fields(self) -> dict[str, Field]:
        return self.attack.fields()

    def begin(self, n_envs: int, victim: Policy, gen: Generator) -> None:
        self.age = torch.zeros(n_envs, dtype=torch.long, device=self.device)  # [B] steps of the episode so far
        self.attack.begin(n_envs, victim, gen)

    def still(self, view: View) -> View:
        """Return the view in which only lanes whose time is not up are attacked."""
        return replace(view, active=view.active & (self.age < self.last))

    def perturb_obs(self, view: View) -> Tensor:
        return self.attack.perturb_obs(self.still(view))

    def perturb_actions(self, view: View, intended: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.attack.perturb_actions(self.still(view), intended)

    def after_step(self, view: View, executed: Tensor, step: Step) -> None:
        self.attack.after_step(self.still(view), executed, step)
        self.age = self.age + 1

    def update(self, replay: Replay, fresh: EpisodeBatch, victim: Policy, clock: Clock) -> Metrics:
        return self.attack.update(replay, fresh, victim, clock)

    def state_dict(self) -> dict[str, Any]:
        return self.attack.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.attack.load_state_dict(state)
