"""A trained team that does not learn: to train an attacker against a fixed victim."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from marl.core.protocols import Algorithm, Policy, Replay
from marl.core.types import Carry, Clock, ConfigError, EnvSpec, EpisodeBatch, Field, Metrics, Obs
from marl.run import checkpoint
from marl.run.build import call, factory
from marl.run.runs import pick_checkpoint, read_config


class Frozen:
    """The team of the run folder ``run``, as its newest checkpoint has it: plays greedily, also in training, and
    updates nothing. Raises ConfigError where ``run`` is no run folder or its team does not fit the environment."""

    def __init__(self, spec: EnvSpec, device: torch.device | str, gen: Generator, *, run: str) -> None:
        config = read_config(Path(run), "algo.run")
        state = checkpoint.load_state(pick_checkpoint(Path(run), None, "algo.run"), device)
        self.team: Algorithm = call(factory(config.algo, "algo"), "algo", spec, device, gen)
        try:
            self.team.load_state_dict(state["algo"])
        except RuntimeError as error:  # torch's message lists every tensor
            raise ConfigError(
                f"algo.run={run} does not fit this environment: {str(error).splitlines()[-1].strip()}"
            ) from error
        self.clock = Clock()
        self.clock.load_state_dict(state["clock"])

    def fields(self) -> dict[str, Field]:
        return {}

    def policy(self, clock: Clock) -> Policy:
        """The team's own policy at the end of its training, with whatever it shows to attacks, but never exploring."""
        policy = self.team.policy(self.clock)
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
