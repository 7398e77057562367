"""An ego that learns to play with partners who have their own policies: what SBC, E3T and best responses share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from algos.sbc.policies import ValueEgoLineup
from algos.sbc.roles import PARTNER, RoleLearner, draw_partners, with_roles
from marl.core.checks import require_share
from marl.core.protocols import LearnerHook, Policy
from marl.core.types import Clock, ConfigError, EnvSpec, Field
from marl.learn.agents import RecurrentAgent
from marl.learn.algorithm import Factories, ValueAlgorithm
from marl.learn.learner import ValueLearner
from marl.learn.mixers import Mixer
from marl.learn.policy import EpsilonGreedy


def require_shares(section: str, **lists: Sequence[float]) -> None:
    """Refuse lists that are empty or have a value outside [0, 1]; raise ConfigError naming the first."""
    for name, values in lists.items():
        if len(values) == 0 or not all(0 <= value <= 1 for value in values):
            raise ConfigError(f"{section}.{name}={list(values)} must be one or more values within [0, 1]")


class EgoAlgorithm(ValueAlgorithm):
    """The ego learns from the true reward in the seats that it plays. With probability ``p_self`` it plays all seats of
    an exploring episode; otherwise partners play 1..n-1 seats, drawn anew.

    Subclasses say who the partners are. The field ``assign`` long [n] says who played; 0 is the ego.
    """

    published = None  # PPO's rhythm is no value learner's

    def __init__(self, spec: EnvSpec, *args: Any, p_self: float, **base: Any) -> None:
        if spec.n_agents < 2:
            raise ConfigError("an ego and partners need an environment with at least 2 agents; this one has 1")
        require_share("algo", p_self=p_self)
        self.p_self, self.n_agents = p_self, spec.n_agents
        super().__init__(spec, *args, **base)

    def make_learner(self, spec: EnvSpec, make: Factories) -> ValueLearner:
        return role_learner(make.learner, spec, make.agent(spec), make.mixer(with_roles(spec)), self.hooks, self.device)

    def fields(self) -> dict[str, Field]:
        return super().fields() | {"assign": Field((self.n_agents,), torch.int64, "episode")}

    @abstractmethod
    def partners(self, clock: Clock, ego: EpsilonGreedy) -> list[Policy]:
        """Return the policies 1, 2, ... of a lineup."""

    def assign(self, n_envs: int, gen: Generator) -> Tensor:
        """Draw which policy plays which seat in the next episodes, long [B, n]."""
        return draw_partners(n_envs, self.n_agents, self.p_self, gen) * PARTNER

    def policy(self, clock: Clock) -> ValueEgoLineup:  # type: ignore[override]
        ego = super().policy(clock)
        return ValueEgoLineup(ego, self.partners(clock, ego), self.assign)


def role_learner(
    make: Callable[..., ValueLearner], spec: EnvSpec, agent: RecurrentAgent, mixer: Mixer,
    hooks: Sequence[LearnerHook], device: torch.device,
) -> RoleLearner:  # fmt: skip
    """Make the learner of one role; raise ConfigError where ``learner._target_`` is another class."""
    made = make(spec, agent, mixer, hooks, device=device)
    if not isinstance(made, RoleLearner):
        raise ConfigError(f"algo.learner is {type(made).__name__}; it must be algos.sbc.roles.RoleLearner")
    return made
