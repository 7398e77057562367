"""Several attacks side by side: every lane is under one of them, drawn by weight for each episode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor

from attacks.base import Attack, LaneDraws, View
from marl.core.protocols import Policy, Replay
from marl.core.types import Clock, ConfigError, EnvSpec, EpisodeBatch, Field, Metrics, Step


class Mixture(LaneDraws):
    """A mixture of attacks. ``attacks``: factories called with the EnvSpec and the device; ``weights``: how often each
    is drawn, not necessarily adding up to one. An attack sees the lanes of others as not attacked, both when it plays
    and when it learns; each part has its own budget. Mixtures can be nested. An attack of weight 0 is not built.

    ``attack_id`` int8, per episode: the index of the attack in the configuration, counting those of weight 0.
    """

    def __init__(
        self,
        spec: EnvSpec,
        device: torch.device | str,
        *,
        attacks: Mapping[str, Callable[[EnvSpec, torch.device | str], Attack]],
        weights: Mapping[str, float],
    ) -> None:
        super().__init__(spec, device)
        if set(attacks) != set(weights):
            raise ConfigError(f"attack.weights names {', '.join(weights)}; attack.attacks names {', '.join(attacks)}")
        share = torch.tensor([float(weights[name]) for name in attacks])
        if not (share >= 0).all() or share.sum() <= 0:
            raise ConfigError(f"attack.weights={dict(weights)} must be at least 0, and one of them above")
        self.up_to = (share / share.sum()).cumsum(0).to(self.device)
        self.numbers = {name: k for k, name in enumerate(attacks) if share[k] > 0}
        self.attacks = {name: attacks[name](spec, device) for name in self.numbers}

    def parts(self) -> dict[str, Attack]:
        """Return the attacks that may be drawn."""
        return dict(self.attacks)

    def fields(self) -> dict[str, Field]:
        """Declare ``hit``, ``attack_id`` and the fields of the parts; raise ConfigError if two parts disagree."""
        fields = super().fields() | {"attack_id": Field((), torch.int8, "episode")}
        for name, part in self.attacks.items():
            for key, field in part.fields().items():
                if fields.setdefault(key, field) != field:
                    raise ConfigError(
                        f"attack.attacks.{name} declares field '{key}' as {field}; another as {fields[key]}"
                    )
        return fields

    def begin(self, n_envs: int, victim: Policy, gen: Generator) -> None:
        super().begin(n_envs, victim, gen)
        drawn = (self.uniform()[:, None] >= self.up_to).sum(-1)  # [B]
        self.chosen = drawn.clamp(max=max(self.numbers.values()))  # the last bound may round to less than 1
        for part in self.attacks.values():
            part.begin(n_envs, victim, gen)

    def drew(self, name: str) -> Tensor:
        """Return the lanes of a part, bool [B]."""
        return self.chosen == self.numbers[name]

    def views(self, view: View) -> dict[str, View]:
        """Return the view of each part: only its own lanes are active."""
        return {name: replace(view, active=view.active & self.drew(name)) for name in self.attacks}

    def perturb_obs(self, view: View) -> Tensor:
        seen = view.obs.obs
        for name, own in self.views(view).items():
            seen = torch.where(self.drew(name)[:, None, None], self.attacks[name].perturb_obs(own), seen)
        return seen

    def perturb_actions(self, view: View, intended: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        executed, stored = intended, {"attack_id": self.chosen.to(torch.int8)}
        for name, own in self.views(view).items():
            mine = self.drew(name)  # [B]
            actions, extras = self.attacks[name].perturb_actions(own, intended)
            executed = torch.where(mine[:, None], actions, executed)
            for key, value in extras.items():
                if key == "attack_id":  # from a nested mixture
                    continue
                lanes = mine.view(-1, *[1] * (value.dim() - 1))
                stored[key] = torch.where(lanes, value, stored.get(key, torch.zeros_like(value)))
        return executed, stored

    def after_step(self, view: View, executed: Tensor, step: Step) -> None:
        for name, own in self.views(view).items():
            self.attacks[name].after_step(own, executed, step)

    def update(self, replay: Replay, fresh: EpisodeBatch, victim: Policy, clock: Clock) -> Metrics:
        """Let every part learn from the newest collection, in which it has attacked its own lanes only."""
        metrics: Metrics = {}
        for name, part in self.attacks.items():
            own = fresh.attacked & self.drew(name).to(fresh.attacked.device)
            found = part.update(replay, EpisodeBatch({**fresh.data, "attacked": own}, fresh.fields), victim, clock)
            metrics |= {f"{key}_{name}": value for key, value in found.items()}
        return metrics

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.attacks.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self.attacks.items():
            part.load_state_dict(state[name])
