"""The base class of attacks that change when, or how much, another one attacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

from marl.core.protocols import Attack, NoAttack, Policy, Replay, View
from marl.core.types import Clock, EnvSpec, EpisodeBatch, Field, Metrics, Step


class Wrapper(NoAttack):
    """A wrapper around another attack, which sees what ``narrow`` leaves of the view."""

    def __init__(
        self,
        spec: EnvSpec,
        device: torch.device | str,
        *,
        attack: Callable[[EnvSpec, torch.device | str], Attack],
    ) -> None:
        super().__init__(spec, device)
        self.attack = attack(spec, device)

    def narrow(self, view: View) -> View:
        """Return ``view`` as the wrapped attack sees it."""
        return view

    def compiled(self) -> None:
        return None

    def parts(self) -> dict[str, Attack]:
        return {"attack": self.attack}

    def fields(self) -> dict[str, Field]:
        return self.attack.fields()

    def begin(self, n_envs: int, victim: Policy, gen: Generator) -> None:
        self.attack.begin(n_envs, victim, gen)

    def perturb_obs(self, view: View) -> Tensor:
        return self.attack.perturb_obs(self.narrow(view))

    def perturb_actions(self, view: View, intended: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.attack.perturb_actions(self.narrow(view), intended)

    def after_step(self, view: View, executed: Tensor, step: Step) -> None:
        self.attack.after_step(self.narrow(view), executed, step)

    def update(self, replay: Replay, fresh: EpisodeBatch, victim: Policy, clock: Clock) -> Metrics:
        return self.attack.update(replay, fresh, victim, clock)

    def state_dict(self) -> dict[str, Any]:
        return self.attack.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.attack.load_state_dict(state)
