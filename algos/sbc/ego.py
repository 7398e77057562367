"""An ego that learns to play with partners who have their own policies: what SBC, E3T and best responses share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from algos.sbc.roles import EGO, PARTNER, RoleLearner, draw_partners, with_roles
from marl.core.protocols import Policy
from marl.core.types import Carry, Clock, ConfigError, EnvSpec, EpisodeBatch, Field, Obs
from marl.learn.agents import RecurrentAgent
from marl.learn.algorithm import ValueAlgorithm
from marl.learn.learner import ValueLearner
from marl.learn.lineup import Lineup
from marl.learn.mixers import Mixer
from marl.learn.policy import EpsilonGreedy, random_available


class Exploring(Lineup):
    """Exploring episodes are played by the ego (policy 0) and its partners as ``assign`` says, all others by the ego
    alone, in every seat."""

    def act(self, obs: Obs, carry: Carry, *, explore: bool, gen: Generator) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        if not explore:
            carry = carry | {"assign": torch.full_like(carry["assign"], EGO)}
        return super().act(obs, carry, explore=explore, gen=gen)


class Training(Exploring):
    """``Exploring`` with an ego by networks, which is what attacks see."""

    def __init__(
        self, ego: EpsilonGreedy, partners: Sequence[Policy], assign: Callable[[int, Generator], Tensor]
    ) -> None:
        super().__init__([ego, *partners], assign)
        self.ego, self.mixer, self.last_action = ego, ego.mixer, ego.last_action

    def q_values(self, obs: Tensor, carry: Carry) -> Tensor:
        return self.ego.q_values(obs, self.egos(carry))

    def q_total(self, q: Tensor, state: Tensor, **kwargs: Tensor) -> Tensor:
        """q [*, n], state [*, S] -> [*, m], as if the ego played every seat."""
        return self.ego.q_total(q, torch.cat([state, torch.ones_like(q)], -1), **kwargs)

    def params(self) -> dict[str, Tensor]:
        return self.ego.params()

    def q_with(self, params: dict[str, Tensor], obs: Tensor, carry: Carry) -> Tensor:
        return self.ego.q_with(params, obs, self.egos(carry))

    def advance(self, obs: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        return self.ego.advance(obs, self.egos(carry))

    def unroll(self, batch: EpisodeBatch) -> tuple[Tensor, Carry]:
        return self.ego.unroll(batch)

    def egos(self, carry: Carry) -> Carry:
        """What the ego remembers, of a whole team's memory or of its own."""
        return carry if "h" in carry else self.of(carry, EGO)


class Noisy:
    """Another policy, never exploring; but with a probability that each episode draws from ``epsilon``, an agent takes
    a random available action instead."""

    def __init__(self, policy: Policy, epsilon: Sequence[float]) -> None:
        self.policy, self.epsilon = policy, list(epsilon)

    def begin(self, n_envs: int, gen: Generator) -> Carry:
        return self.policy.begin(n_envs, gen) | {"noise": draw_epsilon(n_envs, self.epsilon, gen)}

    def act(self, obs: Obs, carry: Carry, *, explore: bool, gen: Generator) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        inner = {name: value for name, value in carry.items() if name != "noise"}
        actions, inner, _ = self.policy.act(obs, inner, explore=False, gen=gen)
        coin = torch.rand(actions.shape, generator=gen, device=actions.device)
        actions = torch.where(coin < carry["noise"], random_available(obs.avail, gen), actions)
        return actions, inner | {"noise": carry["noise"]}, {}

    def after(self, carry: Carry, intended: Tensor, executed: Tensor) -> Carry:
        inner = {name: value for name, value in carry.items() if name != "noise"}
        return self.policy.after(inner, intended, executed) | {"noise": carry["noise"]}


def draw_epsilon(n_envs: int, epsilon: Sequence[float], gen: Generator) -> Tensor:
    """One of ``epsilon`` for each lane, equally likely, [B, 1]."""
    values = torch.tensor(list(epsilon), device=gen.device)
    return values[torch.randint(len(values), (n_envs, 1), generator=gen, device=gen.device)]


def require_probabilities(section: str, **values: float | Sequence[float]) -> None:
    """Refuse what is no probability, or a list without any; ConfigError names it."""
    for name, given in values.items():
        several = [given] if isinstance(given, int | float) else list(given)
        if not several or not all(0 <= value <= 1 for value in several):
            raise ConfigError(f"{section}.{name} is {given}; it must be within [0, 1]")


class EgoAlgorithm(ValueAlgorithm):
    """The ego learns from the true reward in the seats that it plays. In each exploring episode, with probability
    ``p_self``, these are all; otherwise 1..n-1 seats, drawn anew, are played by partners.

    Subclasses say who the partners are. The field ``assign`` long [n] says who played: 0 the ego.
    """

    def __init__(self, spec: EnvSpec, *args: Any, p_self: float, **base: Any) -> None:
        if spec.n_agents < 2:
            raise ConfigError("an ego and partners need an environment with at least 2 agents; this one has 1")
        require_probabilities("algo", p_self=p_self)
        self.p_self, self.n_agents = p_self, spec.n_agents
        super().__init__(spec, *args, **base)

    def make_learner(
        self,
        spec: EnvSpec,
        agent: Callable[[EnvSpec], RecurrentAgent],
        mixer: Callable[[EnvSpec], Mixer],
        learner: Callable[..., ValueLearner],
    ) -> ValueLearner:
        return role_learner(learner, spec, agent(spec), mixer(with_roles(spec)), self.hooks, self.device)

    def fields(self) -> dict[str, Field]:
        return super().fields() | {"assign": Field((self.n_agents,), torch.int64, "episode")}

    @abstractmethod
    def partners(self, clock: Clock, ego: EpsilonGreedy) -> list[Policy]:
        """The policies 1, 2, ... of a lineup."""

    def assign(self, n_envs: int, gen: Generator) -> Tensor:
        """Long [B, n]: who plays whom in the next episodes."""
        return draw_partners(n_envs, self.n_agents, self.p_self, gen) * PARTNER

    def policy(self, clock: Clock) -> Training:  # type: ignore[override]
        ego = super().policy(clock)
        return Training(ego, self.partners(clock, ego), self.assign)


def role_learner(
    make: Callable[..., ValueLearner], spec: EnvSpec, agent: RecurrentAgent, mixer: Mixer, hooks: Sequence[Any],
    device: torch.device,
) -> RoleLearner:  # fmt: skip
    """A learner of one role; ConfigError where ``learner._target_`` is another class."""
    made = make(spec, agent, mixer, hooks, device=device)
    if not isinstance(made, RoleLearner):
        raise ConfigError(f"algo.learner is {type(made).__name__}; it must be algos.sbc.roles.RoleLearner")
    return made
