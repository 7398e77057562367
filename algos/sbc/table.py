"""SBC, E3T and self-play with tables instead of networks, for the smallest games (docs/sbc.md, "With tables").

Every seat has its own values Q of joint cells, independent of the others'; those of partners also depend on the blocked
set b:

    Q(s, b, a) += lr · mean over the lanes at (s, b, a) of [ r + gamma · max_a' Q(s', b, a') - Q(s, b, a) ]

step by step through each new episode. A table has no memory: it cannot tell partners apart by what they did before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor, nn

from algos.sbc.policies import EgoLineup, NoisyPolicy
from algos.sbc.roles import EGO, PARTNER, draw_partners
from algos.sbc.sets import BlockedSets
from marl.core.checks import require_share
from marl.core.protocols import Policy, Replay
from marl.core.types import Carry, Clock, ConfigError, EnvSpec, EpisodeBatch, Field, Metrics, Obs
from marl.learn.learner import best_available, gather_actions
from marl.learn.policy import LinearSchedule, mix_random

LARGEST = 10**7  # values in a table


def joint_cell(state: Tensor, n_agents: int) -> Tensor:
    """Return the number, long [*], of a state [*, S] that holds one of C cells for each agent, one-hot."""
    cell = state.unflatten(-1, (n_agents, -1))
    found = torch.zeros_like(state[..., 0], dtype=torch.long)
    for i in range(n_agents):
        found = found * cell.shape[-1] + cell[..., i, :].argmax(-1)
    return found


def set_number(blocked: Tensor) -> Tensor:
    """Return the number, long [*], of sets bool [*, C] of at most one feature: 0 for an empty set, 1 + c for {c}."""
    return torch.where(blocked.any(-1), blocked.long().argmax(-1) + 1, 0)


class Table(nn.Module):
    """Q [n, K, X, A], the values of each seat's actions in X joint cells with K blocked sets."""

    q: Tensor

    def __init__(self, spec: EnvSpec, sets: int) -> None:
        super().__init__()
        states = (spec.state_dim // spec.n_agents) ** spec.n_agents
        size = (spec.n_agents, sets, states, spec.n_actions)
        if spec.n_agents * sets * states * spec.n_actions > LARGEST:
            raise ConfigError(f"tables of {states} joint cells and {sets} sets are too large; this is for small games")
        self.register_buffer("q", torch.zeros(size))

    def values(self, number: Tensor, state: Tensor) -> Tensor:
        """Return the values [B, n, A] at sets long [B, n] and joint cells long [B]."""
        return self.q[torch.arange(self.q.shape[0], device=state.device), number, state[:, None]]

    def learn(self, number: Tensor, state: Tensor, actions: Tensor, target: Tensor, mask: Tensor, lr: float) -> Tensor:
        """Move the values at sets [B, n], joint cells [B] and actions [B, n] towards ``target`` [B, n] where ``mask``
        [B, n] holds, and return the errors [B, n], zero elsewhere. Lanes at the same value are averaged."""
        n, K, X, A = self.q.shape
        seat = torch.arange(n, device=state.device)
        place = ((seat * K + number) * X + state[:, None]) * A + actions  # [B, n]
        flat = self.q.view(-1)
        error = torch.where(mask, target - flat[place], 0.0)
        where, which, count = place[mask].unique(return_inverse=True, return_counts=True)
        flat[where] += lr * torch.zeros_like(flat[where]).index_add(0, which, error[mask]) / count
        return error


class TablePolicy:
    """A greedy policy on a table; exploring, each agent plays a random action with probability ``epsilon``. ``draw``
    samples the blocked sets of an episode, bool [B, n, C], kept in the field ``blocked``; None: all are empty."""

    def __init__(self, table: Table, epsilon: float, draw: Callable[[int, Generator], Tensor] | None = None) -> None:
        self.table, self.epsilon, self.draw = table, epsilon, draw

    def begin(self, n_envs: int, gen: Generator) -> Carry:
        return {} if self.draw is None else {"blocked": self.draw(n_envs, gen)}

    def act(self, obs: Obs, carry: Carry, *, explore: bool, gen: Generator) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        B, n, _ = obs.avail.shape
        number = set_number(carry["blocked"]) if carry else torch.zeros(B, n, dtype=torch.long, device=obs.avail.device)
        actions = best_available(self.table.values(number, joint_cell(obs.state, n)), obs.avail)
        if explore:
            actions = mix_random(actions, obs.avail, self.epsilon, gen)
        return actions, carry, dict(carry)

    def after(self, carry: Carry, intended: Tensor, executed: Tensor) -> Carry:
        return carry


class Tables:
    """An ego that plays by a table. In all but a share ``p_self`` of the exploring episodes partners play other seats.
    They are a separate table that reads ``sets`` and loses ``penalty`` on them (SBC), or the ego itself with random
    actions at the rate ``noise`` (E3T); with ``p_self`` 1 there are none. Both learn once from the same fresh episodes;
    the replay is not used. ``lr`` and ``epsilon`` are schedules.

    Raises ConfigError if the state is not one cell per agent, sets have more than one feature, partners are missing, or
    there are both sets and noise.
    """

    def __init__(
        self, spec: EnvSpec, device: torch.device | str, gen: Generator, *, p_self: float,
        sets: Callable[[EnvSpec], BlockedSets] | None, penalty: float, noise: float | None, gamma: float,
        lr: LinearSchedule, epsilon: LinearSchedule,
    ) -> None:  # fmt: skip
        n = spec.n_agents
        require_share("algo", p_self=p_self, gamma=gamma)
        require_share("algo", noise=noise, or_null=True)
        if "cells" not in spec.blockable or spec.state_dim != n * spec.blockable["cells"].mask.shape[1]:
            raise ConfigError("tables need a game whose state is a cell for each agent, such as mds_mini")
        if (sets is None) + (noise is None) != 1 and p_self < 1:
            raise ConfigError("algo.p_self below 1 needs partners: give one of algo.sets and algo.noise")
        self.n_agents, self.device = n, torch.device(device)
        self.p_self, self.penalty, self.noise = p_self, penalty, noise
        self.gamma, self.lr, self.epsilon = gamma, lr, epsilon
        self.sets = None if sets is None else sets(spec)
        if self.sets is not None and self.sets.m_max != 1:
            raise ConfigError(f"algo.sets.m_max is {self.sets.m_max}; tables know sets of one feature only")
        self.ego = Table(spec, 1).to(self.device)
        self.partner = None if self.sets is None else Table(spec, 1 + self.sets.mask.shape[1]).to(self.device)

    def fields(self) -> dict[str, Field]:
        blocked = {} if self.sets is None else self.sets.fields()
        return {"assign": Field((self.n_agents,), torch.int64, "episode"), **blocked}

    def policy(self, clock: Clock) -> Policy:
        epsilon = self.epsilon(clock.env_steps)
        ego = TablePolicy(self.ego, epsilon)
        partners: list[Policy] = []
        if self.partner is not None and self.sets is not None:
            partners = [TablePolicy(self.partner, epsilon, self.sets.draw)]
        elif self.noise is not None:
            partners = [NoisyPolicy(ego, [self.noise])]
        return EgoLineup([ego, *partners], self.assign)

    def assign(self, n_envs: int, gen: Generator) -> Tensor:
        """Sample which policy plays which seat in the next episodes, long [B, n]."""
        return draw_partners(n_envs, self.n_agents, self.p_self, gen) * PARTNER

    def annotate(self, fresh: EpisodeBatch) -> None:
        return None

    def update(self, replay: Replay, fresh: EpisodeBatch, clock: Clock) -> Metrics:
        lr, fresh = self.lr(clock.env_steps), fresh.to(self.device)
        none = torch.zeros_like(fresh.assign)
        metrics = {"table/td_abs": self.learn(self.ego, EGO, none, fresh.reward, fresh, lr)}
        if self.partner is not None and self.sets is not None:
            reward = fresh.reward - self.penalty * self.sets.penalty(fresh)
            number = set_number(fresh.blocked)
            metrics["partner/td_abs"] = self.learn(self.partner, PARTNER, number, reward, fresh, lr)
            self.sets.observe(fresh)
            metrics |= self.sets.metrics(fresh)
        schedules = {"train/epsilon": self.epsilon(clock.env_steps), "train/lr": lr}
        return metrics | {name: torch.tensor(value) for name, value in schedules.items()}

    def learn(self, table: Table, role: int, number: Tensor, reward: Tensor, fresh: EpisodeBatch, lr: float) -> Tensor:
        """Fit the seats of ``role`` to ``reward`` [B, T+1] with sets long [B, n]; return their mean absolute error."""
        state, actions = joint_cell(fresh.state, self.n_agents), fresh.intended.long()
        total = torch.zeros((), device=self.device)
        seats = fresh.assign == role  # [B, n]
        for t in range(fresh.horizon):
            following = table.values(number, state[:, t + 1])  # [B, n, A]
            best = gather_actions(following, best_available(following, fresh.avail[:, t + 1]))
            goes_on = ~fresh.terminated[:, t, None]
            mask = seats & fresh.filled[:, t, None]
            target = reward[:, t, None] + self.gamma * goes_on * best
            total += table.learn(number, state[:, t], actions[:, t], target, mask, lr).abs().sum()
        return total / (seats[:, None] & fresh.filled[..., None]).sum().clamp(min=1)

    def networks(self) -> dict[str, nn.Module]:
        nets: dict[str, nn.Module] = {"ego": self.ego}
        return nets if self.partner is None else nets | {"partner": self.partner}

    def state_dict(self) -> dict[str, Any]:
        state = {name: table.state_dict() for name, table in self.networks().items()}
        return state if self.sets is None else {**state, "sets": self.sets.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, table in self.networks().items():
            table.load_state_dict(state[name])
        if self.sets is not None:
            self.sets.load_state_dict(state["sets"])
