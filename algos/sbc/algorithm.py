"""SBC, "Shaping Zero-Shot Coordination via State Blocking" (Kang, Lee, Jo, Han 2026): an ego learns to play with
partners who have been told to avoid some states, each its own. What is published and what is ours: docs/sbc.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from algos.sbc.ego import EgoAlgorithm, Training, draw_epsilon, require_probabilities, role_learner
from algos.sbc.roles import PARTNER, tell, told_of, with_roles
from algos.sbc.sets import BlockedSets
from marl.core.protocols import NoHook, Policy, Replay
from marl.core.types import Carry, Clock, ConfigError, EnvSpec, EpisodeBatch, Field, Forward, Metrics, Obs
from marl.learn.agents import RecurrentAgent
from marl.learn.learner import ValueLearner, best_available
from marl.learn.mixers import Mixer
from marl.learn.policy import EpsilonGreedy, random_available

READERS = ("partner", "team")


class Penalty(NoHook):
    """Lowers a learner's reward by ``weight`` times the share of the partners on blocked features."""

    def __init__(self, sets: BlockedSets, weight: float) -> None:
        self.sets, self.weight = sets, weight

    def reward(self, batch: EpisodeBatch, fwd: Forward) -> Tensor:
        return -self.weight * self.sets.penalty(batch)[:, :-1, None]


class Partner(EpsilonGreedy):
    """Plays what the partner's networks say for the blocked sets that ``draw`` gives for every episode, bool [B, n, C];
    exploring, each episode has its own epsilon, one of ``floors`` and at least ``epsilon``. Its sets are the field
    ``blocked``."""

    def __init__(
        self, learner: ValueLearner, draw: Callable[[int, Generator], Tensor], epsilon: float, floors: Sequence[float]
    ) -> None:
        super().__init__(learner.agent, learner.mixer, epsilon, learner.last_action)
        self.draw, self.floors = draw, floors

    def begin(self, n_envs: int, gen: Generator) -> Carry:
        noise = draw_epsilon(n_envs, self.floors, gen).clamp(min=self.epsilon)
        return super().begin(n_envs, gen) | {"blocked": self.draw(n_envs, gen), "noise": noise}

    @torch.no_grad()
    def act(self, obs: Obs, carry: Carry, *, explore: bool, gen: Generator) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        q, h = self.agent.step(self.agent.inputs(tell(obs.obs, carry["blocked"]), carry["last"]), carry["h"])
        actions = best_available(q, obs.avail)
        if explore:
            coin = torch.rand(actions.shape, generator=gen, device=actions.device)
            actions = torch.where(coin < carry["noise"], random_available(obs.avail, gen), actions)
        return actions, {**carry, "h": h}, {"blocked": carry["blocked"]}

    def after(self, carry: Carry, intended: Tensor, executed: Tensor) -> Carry:
        return {**carry, **super().after(carry, intended, executed)}


class SBC(EgoAlgorithm):
    """One partner network reads which features its seat has to avoid, and so is as many partners as there are sets
    (``sets``, a factory of ``BlockedSets``). It learns from the reward less ``penalty`` times the share of the
    partners that are on theirs; the ego from the true reward (``penalise: team``: from the same). Both learn from the
    same episodes at the same time.

    ``partner_steps``: first only partners, in every seat, for so many steps; then they are frozen and only the ego
    learns. ``partner_epsilon``: each episode's partners act at random with one of these probabilities.
    """

    def __init__(
        self, spec: EnvSpec, *args: Any, sets: Callable[[EnvSpec], BlockedSets], penalty: float, penalise: str,
        partner_epsilon: Sequence[float], partner_steps: int | None, **base: Any,
    ) -> None:  # fmt: skip
        if penalty < 0:
            raise ConfigError(f"algo.penalty is {penalty}; it must be at least 0")
        if penalise not in READERS:
            raise ConfigError(f"algo.penalise is '{penalise}'; it must be {' or '.join(READERS)}")
        if partner_steps is not None and partner_steps < 1:
            raise ConfigError(f"algo.partner_steps is {partner_steps}; it must be at least 1, or null")
        require_probabilities("algo", partner_epsilon=partner_epsilon)
        self.sets, self.penalty, self.penalise = sets(spec), penalty, penalise
        self.partner_epsilon, self.partner_steps = list(partner_epsilon), partner_steps
        super().__init__(spec, *args, **base)

    def make_learner(
        self,
        spec: EnvSpec,
        agent: Callable[[EnvSpec], RecurrentAgent],
        mixer: Callable[[EnvSpec], Mixer],
        learner: Callable[..., ValueLearner],
    ) -> ValueLearner:
        ego = super().make_learner(spec, agent, mixer, learner)
        penalty, told = Penalty(self.sets, self.penalty), told_of(spec, self.sets.mask.shape[1])
        hooks = [*self.hooks, penalty]
        self.partner = role_learner(learner, told, agent(told), mixer(with_roles(told)), hooks, self.device)
        self.partner.plays, self.partner.told = PARTNER, True
        if self.penalise == "team":
            ego.hooks.append(penalty)
        return ego

    def fields(self) -> dict[str, Field]:
        return super().fields() | self.sets.fields()

    def first_stage(self, clock: Clock) -> bool:
        """Whether only partners play and learn."""
        return self.partner_steps is not None and clock.env_steps < self.partner_steps

    def policy(self, clock: Clock) -> Training:  # type: ignore[override]
        policy = super().policy(clock)
        policy.ego.epsilon = self.ego_epsilon(clock)
        if self.first_stage(clock):
            policy.assign = lambda n_envs, gen: torch.full((n_envs, self.n_agents), PARTNER, device=gen.device)
        return policy

    def ego_epsilon(self, clock: Clock) -> float:
        return self.epsilon(max(0, clock.env_steps - (self.partner_steps or 0)))

    def partners(self, clock: Clock, ego: EpsilonGreedy) -> list[Policy]:
        return [Partner(self.partner, self.sets.draw, self.epsilon(clock.env_steps), self.partner_epsilon)]

    def member(self, name: str) -> Policy:
        """The partner that avoids the features of ``name`` in every seat: numbers with commas, or "none"."""
        n, C = self.sets.mask.shape
        parts = [] if name == "none" else name.split(",")
        if not all(part.strip().isdecimal() and int(part) < C for part in parts):
            raise ConfigError(f"member '{name}' is not known; give none, or numbers in 0..{C - 1} with commas")
        features = torch.tensor([int(part) for part in parts], dtype=torch.long)
        blocked = torch.isin(torch.arange(C), features).to(self.device)
        return Partner(self.partner, lambda n_envs, gen: blocked.expand(n_envs, n, C).clone(), 0.0, [0.0])

    def update(self, replay: Replay, fresh: EpisodeBatch, clock: Clock) -> Metrics:
        self.sets.observe(fresh)
        metrics = self.sets.metrics(fresh)
        if len(replay) < self.warmup_episodes:
            return metrics
        first = self.first_stage(clock)
        for _ in range(self.updates_per_collect):
            batch = replay.sample(self.batch_size, self.gen, self.device)
            if not first:
                metrics |= self.learner.update(batch)
            if first or self.partner_steps is None:
                metrics |= {f"partner/{name}": value for name, value in self.partner.update(batch).items()}
            clock.updates += 1
        return metrics | {"train/epsilon": torch.tensor(self.ego_epsilon(clock))}

    def networks(self) -> dict[str, nn.Module]:
        return super().networks() | {f"partner_{name}": net for name, net in self.partner.networks().items()}

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"partner": self.partner.state_dict(), "sets": self.sets.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.partner.load_state_dict(state["partner"])
        self.sets.load_state_dict(state["sets"])
