"""A trained team that does not learn, for training an attacker against a fixed victim."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor, nn

from marl.core.checks import require_name
from marl.core.protocols import Policy, Replay
from marl.core.types import Carry, Clock, EnvSpec, EpisodeBatch, Field, Metrics, Obs
from marl.learn.policy import EpsilonGreedy
from marl.run.folders import run_folder
from marl.run.teams import load_team


class Frozen:
    """The team of the newest checkpoint in the run folder ``run``. It plays greedily, in training too, and updates
    nothing. Raises ConfigError if ``run`` is not a run folder or its team does not fit the environment."""

    def __init__(self, spec: EnvSpec, device: torch.device | str, gen: Generator, *, run: str) -> None:
        require_name(**{"algo.run": run})
        self.team, self.clock = load_team(run_folder(run), "algo.run", spec, device, gen)

    def fields(self) -> dict[str, Field]:
        return {}

    def policy(self, clock: Clock) -> Policy:
        """Return the team's policy at the end of its training, with its white-box view for attacks, never exploring."""
        policy = self.team.policy(self.clock)
        if type(policy) is EpsilonGreedy:  # its own act, so that compiled code can collect
            policy.epsilon = 0.0
            return policy
        act = policy.act

        def greedy(obs: Obs, carry: Carry, *, explore: bool, gen: Generator) -> tuple[Tensor, Carry, dict[str, Tensor]]:
            return act(obs, carry, explore=False, gen=gen)

        policy.act = greedy  # type: ignore[method-assign]
        return policy

    def annotate(self, fresh: EpisodeBatch) -> None:
        return None

    def update(self, replay: Replay, fresh: EpisodeBatch, clock: Clock) -> Metrics:
        return {}

    def networks(self) -> dict[str, nn.Module]:
        return self.team.networks()

    def state_dict(self) -> dict[str, Any]:
        return self.team.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.team.load_state_dict(state)
