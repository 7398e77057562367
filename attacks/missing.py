"""Missing agents (Dis-l of Lee, Kang, Jo, Han 2026, IBAL, arXiv 2605.18024): some do nothing for a whole episode.

The paper does not say how; "idle" and "removed" are our readings. An environment that can take units off the map before
the game begins (``env.absent_agents`` of the battle) is closer to "missing" than either.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Generator, Tensor

from attacks.base import DrawnAgents, LaneAttack, Unit, View, require_agents
from marl.core.checks import require_choice
from marl.core.protocols import Policy
from marl.core.rolling import MISSING, Harm
from marl.core.types import ConfigError, EnvSpec, Field

Mode = Literal["idle", "removed"]


class Missing(LaneAttack):
    """An attack that makes ``agents`` random agents do nothing. ``mode``: idle, the others still see them; removed, the
    others' features about them read 0 (or the nearest legal value), as if they were out of sight.

    A missing agent counts as hit in every step in which it is alive, whatever it intended.
    """

    in_hand = ("budget.spent", *(f"drawn.{name}" for name in DrawnAgents.in_hand), "hit")

    def __init__(
        self,
        spec: EnvSpec,
        device: torch.device | str,
        *,
        agents: int,
        mode: Mode,
        budget: int | None,
        budget_unit: Unit,
    ) -> None:
        super().__init__(spec, device, budget=budget, budget_unit=budget_unit)
        require_agents(agents, spec)
        require_choice("attack", get_args(Mode), mode=mode)
        if spec.idle_action is None:
            raise ConfigError(
                "attack=missing needs an action that does nothing (idle_action); this environment has none"
            )
        if mode == "removed" and spec.about is None:
            raise ConfigError(
                "attack.mode=removed needs to know which features describe whom (about); this environment does not "
                "say; attack.mode=idle works without"
            )
        self.agents, self.mode, self.idle = agents, mode, spec.idle_action
        self.drawn = DrawnAgents(agents)
        self.low, self.high = spec.obs_low.to(self.device), spec.obs_high.to(self.device)
        if spec.about is not None:
            others = ~torch.eye(spec.n_agents, dtype=torch.bool)[..., None]
            self.about = (spec.about & others).float().to(self.device)  # [n, n, O]

    def fields(self) -> dict[str, Field]:
        """Declare ``hit``, and with mode removed ``obs_seen`` [n, O]: the observations that the policy was shown."""
        seen = {"obs_seen": Field((self.spec.n_agents, self.spec.obs_dim))} if self.mode == "removed" else {}
        return super().fields() | seen

    def compiled(self) -> Harm | None:
        if self.mode != "idle":
            return None
        return Harm(MISSING, number=self.agents, idle=self.idle, **self.budget.compiled())

    def begin(self, n_envs: int, victim: Policy, gen: Generator) -> None:
        super().begin(n_envs, victim, gen)
        self.drawn.begin(self.uniform(self.spec.n_agents))

    def perturb_obs(self, view: View) -> Tensor:
        self.hit = self.pay(self.drawn.among(view.obs.alive), view)
        if self.mode == "idle":
            return view.obs.obs
        hidden = torch.einsum("ijo,bj->bio", self.about, self.hit.float()) > 0  # [B, n, O]
        nothing = torch.zeros_like(self.low).clamp(self.low, self.high)
        return torch.where(hidden & view.obs.alive[..., None], nothing, view.obs.obs)

    def perturb_actions(self, view: View, intended: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return torch.where(self.hit, self.idle, intended), {"hit": self.hit}
