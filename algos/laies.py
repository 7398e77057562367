"""LAIES pays agents for their influence on external state features that the user names, and for changing them.

Liu, Pu, Pan, Yi, Ma, Wang, Zhang 2023 (ICML), "Lazy Agents: A New Perspective on Solving Sparse Reward Problem in
Multi-agent Reinforcement Learning". The model and the influence are shared with FIM (``algos.shared.influence``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import Parameter

from algos.shared.features import matching
from algos.shared.influence import Anneal, Dynamics, one_process
from marl.core.checks import require_at_least, require_choice, require_positive
from marl.core.protocols import NoHook
from marl.core.seeding import derive
from marl.core.types import ConfigError, EnvSpec, EpisodeBatch, Forward, Metrics

ClipOn = Literal["sum", "influence"]
CHANGE_CAP = 0.06  # on the change divided by 100, as published


class LAIES(NoHook):
    """A hook that adds the intrinsic reward

    r_int = min(``influence_scale`` * sum_i min(I_i, ``agent_clip``)
    + ``change_scale`` * min(min(sum_d (s'_d - s_d)^2, ``change_clip``) / 100, ``CHANGE_CAP``), ``total_clip``),
    both over the features ``external`` (patterns: ``algos.shared.features.matching``);
    I_i = sum_d (f_d(s, a) - mean f_d(s, a', a^-i))^2, 0 for the dead. With ``clip_on`` influence,
    ``total_clip`` applies to the first term alone, and there is no ``CHANGE_CAP``.
    """

    def __init__(
        self,
        spec: EnvSpec,
        *,
        external: list[str],
        model: Callable[[EnvSpec, int], Dynamics],
        influence_scale: float,
        agent_clip: float,
        total_clip: float,
        clip_on: ClipOn,
        change_scale: float,
        change_clip: float,
        anneal_steps: int | None,
    ) -> None:
        one_process("algo.hooks.laies")
        require_at_least("laies", 0, influence_scale=influence_scale, change_scale=change_scale)
        require_positive("laies", agent_clip=agent_clip, total_clip=total_clip, change_clip=change_clip)
        require_choice("laies", get_args(ClipOn), clip_on=clip_on)
        if not external:
            raise ConfigError("laies.external is empty; name the state features that the task is about")
        self.chosen = matching(spec, external, "laies.external")
        self.influence_scale, self.agent_clip, self.total_clip = influence_scale, agent_clip, total_clip
        self.change_scale, self.change_clip, self.clip_on = change_scale, change_clip, clip_on
        self.anneal = Anneal(anneal_steps)
        self.dynamics = model(spec, derive(torch.initial_seed(), "laies"))
        self.facts: Metrics = {}

    @property
    def whole_because(self) -> str | None:
        """Return why it needs whole episodes, or None if it does not."""
        if self.dynamics.model.kind == "mlp":
            return None
        return "its model of kind gru remembers what preceded a step (one of kind mlp need not)"

    def parameters(self) -> Iterable[Parameter]:
        return self.dynamics.model.parameters()

    def annotate(self, fresh: EpisodeBatch) -> None:
        self.anneal.observe(fresh)

    @torch.no_grad()
    def reward(self, batch: EpisodeBatch, fwd: Forward) -> Tensor | float:
        """Return the intrinsic reward [M, T, 1]; 0 before the model's first update, when the influence is noise."""
        if not self.dynamics.updates:
            return 0.0
        self.dynamics.to(batch.state.device)
        dims, filled = self.chosen.nonzero().flatten().to(batch.state.device), batch.filled[:, :-1, None]
        contrast, _ = self.dynamics.contrast(batch, dims)  # [M, T, n, C]
        each = contrast.square().sum(-1).clamp(max=self.agent_clip)
        influence = self.influence_scale * each.sum(-1, keepdim=True)
        moved = (batch.state[:, 1:] - batch.state[:, :-1])[..., dims].square().sum(-1, keepdim=True)
        moved = moved.clamp(max=self.change_clip)
        if self.clip_on == "influence":
            influence = influence.clamp(max=self.total_clip)
            change = torch.where(filled, self.change_scale / 100 * moved, 0.0)
            paid = influence + change
        else:
            change = torch.where(filled, self.change_scale * (moved / 100).clamp(max=CHANGE_CAP), 0.0)
            paid = (influence + change).clamp(max=self.total_clip)
        factor = self.anneal.factor()
        self.facts = {
            "laies/influence": factor * influence.sum() / len(batch),
            "laies/change": factor * change.sum() / len(batch),
            "laies/paid": factor * paid.sum() / len(batch),
            "laies/anneal": torch.tensor(factor),
        }
        return factor * paid

    def update(self, batch: EpisodeBatch, fwd: Forward) -> Metrics:
        """Train the forward model on the same batch and return its loss and the parts of the reward."""
        device = batch.state.device
        self.dynamics.to(device)
        loss = self.dynamics.learn(
            self.dynamics.transitions(batch), self.chosen.to(device), torch.ones(len(self.chosen), device=device)
        )
        return self.facts | {"laies/model_loss": loss}

    def state_dict(self) -> dict[str, Any]:
        return {"dynamics": self.dynamics.state_dict(), "anneal": self.anneal.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.dynamics.load_state_dict(state["dynamics"])
        self.anneal.load_state_dict(state["anneal"])
