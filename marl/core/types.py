"""Data that passes between environments, policies, attacks and learners.

Axis letters, used in every shape comment of the project: ``B`` lanes (parallel environments), ``M`` sampled episodes,
``T`` decision steps, ``N`` rows (slots of a batch that matter: ``marl.core.rows``), ``n`` agents, ``A`` actions, ``O``
observation features, ``S`` state features, ``H`` hidden units, ``m`` mixer outputs (1, or ``n`` without a mixer).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from marl.core.rows import Rows

Metrics = dict[str, Tensor]  # detached 0-d tensors; only the writer calls .item()
ActedOn = Literal["executed", "intended"]  # by the environment, or by the policy; they differ under attack
Carry = dict[str, Tensor]  # a policy's memory within an episode; the first axis of every tensor is B


class ConfigError(ValueError):
    """Bad input by the user; one line names the value and what is allowed. Scripts exit with code 2."""


class GameError(RuntimeError):
    """A game returned something that breaks the contract of environments, or cannot be kept alive; one line names it.
    Scripts exit with code 1; a training run saves first."""


@dataclass(frozen=True)
class Blockable:
    """A family of C state features that agents can be told to avoid. ``info`` names the entry of ``Step.info`` with the
    feature that each agent has just met, long [B, n], -1 for none. ``mask`` bool [n, C] says which features count for
    which agent."""

    info: str
    mask: Tensor


@dataclass(frozen=True)
class EnvSpec:
    """Sizes and meaning of an environment's tensors; the same for all lanes.

    ``obs_low``/``obs_high`` [O] bound legal observations (observation attacks clip to them). ``about`` bool [n, n, O]
    says that feature ``o`` of agent ``i``'s observation describes agent ``j``; None if that is unknown.
    ``noop_action`` is the only action of a dead agent; None where agents cannot die. ``idle_action`` lets a living
    agent do nothing and is always available to it; None refuses agent-missing attacks. ``info_names`` lists the
    entries of ``Step.info`` besides "won"; episodes store those for which a plug-in declares a field of that name.
    ``blockable`` maps names to families of features for state blocking. ``floor_plan`` is a map that never changes, in
    the game's own notation, for scripted policies; no network reads it. ``physics`` is the version of the game's
    rules, which runs record: results of different versions are not comparable.
    """

    n_agents: int
    n_actions: int
    obs_dim: int
    state_dim: int
    episode_limit: int
    obs_low: Tensor
    obs_high: Tensor
    noop_action: int | None = None
    idle_action: int | None = None
    about: Tensor | None = None
    obs_names: tuple[str, ...] = ()
    state_names: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()
    info_names: tuple[str, ...] = ()
    blockable: Mapping[str, Blockable] = field(default_factory=dict)
    floor_plan: str = ""
    physics: int = 1

    def family(self, name: str) -> Blockable:
        """Return the family ``name`` of ``blockable``. Raise ConfigError, listing the families, if there is none."""
        if name not in self.blockable:
            there = ", ".join(self.blockable) or "none"
            raise ConfigError(f"family '{name}' cannot be blocked in this environment; there are {there}")
        return self.blockable[name]


@dataclass
class Obs:
    """What policies need in order to act."""

    obs: Tensor  # f32  [B, n, O]
    state: Tensor  # f32  [B, S]
    avail: Tensor  # bool [B, n, A]; every row has at least one True, also for dead agents
    alive: Tensor  # bool [B, n]

    def to(self, device: torch.device | str) -> Obs:
        return Obs(self.obs.to(device), self.state.to(device), self.avail.to(device), self.alive.to(device))


@dataclass
class Step:
    """The result of one joint action in every lane."""

    next: Obs
    reward: Tensor  # f32  [B] team reward
    terminated: Tensor  # bool [B]; the task ended: nothing to bootstrap from
    truncated: Tensor  # bool [B]; the time limit ended the episode; never True together with terminated
    info: dict[str, Tensor] = field(default_factory=dict)  # each [B, ...]; "won" bool [B] is always there; "lost" bool
    # [B] marks lanes whose game has crashed since their reset: their episode does not count


@dataclass(frozen=True)
class Field:
    """One tensor stored per step ([T+1, *shape]) or per episode ([*shape])."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    per: Literal["step", "episode"] = "step"


def core_fields(spec: EnvSpec) -> dict[str, Field]:
    """Return the fields that every episode has; algorithms and attacks declare more."""
    n, A = spec.n_agents, spec.n_actions
    return {
        "obs": Field((n, spec.obs_dim)),
        "state": Field((spec.state_dim,)),
        "avail": Field((n, A), torch.bool),
        "alive": Field((n,), torch.bool),
        "actions": Field((n,), torch.int16),  # executed in the environment
        "intended": Field((n,), torch.int16),  # chosen by the policy
        "reward": Field(()),
        "terminated": Field((), torch.bool),
        "filled": Field((), torch.bool),  # transition t really happened
        "won": Field((), torch.bool, "episode"),
        "length": Field((), torch.int32, "episode"),
        "attacked": Field((), torch.bool, "episode"),
    }


def episode_bytes(fields: dict[str, Field], episode_limit: int) -> int:
    """Return the size of one stored episode, in bytes."""
    return sum(
        math.prod(f.shape) * f.dtype.itemsize * (episode_limit + 1 if f.per == "step" else 1) for f in fields.values()
    )


@dataclass
class EpisodeBatch:
    """Whole episodes, or with ``train.rollout`` pieces of them, batch-major: step fields are [M, T+1, *shape], episode
    fields [M, *shape].

    Slot ``T`` of the step fields holds only what is needed to bootstrap (obs, state, avail, alive). There is no
    ``next_obs``: slot ``t + 1`` is the next observation. Every transition carries the flags of its own step. ``index``
    long [M], on the CPU, says in which slots of the replay the episodes of a sample are stored; None for other batches.
    """

    data: dict[str, Tensor]
    fields: dict[str, Field]
    index: Tensor | None = None

    def __getattr__(self, name: str) -> Tensor:
        data = self.__dict__.get("data", {})
        if name in data:
            return data[name]
        raise AttributeError(f"episode batch has no field '{name}'; it has {', '.join(sorted(data))}")

    def __getitem__(self, name: str) -> Tensor:
        return self.data[name]

    def __contains__(self, name: str) -> bool:
        return name in self.data

    def __len__(self) -> int:
        return self.data["filled"].shape[0]

    @property
    def horizon(self) -> int:
        """Return T, the number of transitions that fit."""
        return self.data["filled"].shape[1] - 1

    @property
    def policy_obs(self) -> Tensor:
        """Return the observations that the policy saw [M, T+1, n, O], perturbed if an attack stored perturbed ones."""
        return self.data.get("obs_seen", self.data["obs"])

    def acted(self, which: ActedOn) -> Tensor:
        """Return the actions that were ``executed`` or ``intended``, long [M, T+1, n]; they differ under an attack."""
        return (self.actions if which == "executed" else self.intended).long()

    def lanes(self, index: Tensor) -> EpisodeBatch:
        """Return the episodes that ``index`` (long or bool, on axis 0) selects."""
        slots = None if self.index is None else self.index[index.cpu()]
        return EpisodeBatch({k: v[index] for k, v in self.data.items()}, self.fields, slots)

    def trim(self, horizon: int) -> EpisodeBatch:
        """Return the same episodes cut to ``horizon`` transitions (views)."""
        cut = {k: v[:, : horizon + 1] if self.fields[k].per == "step" else v for k, v in self.data.items()}
        return EpisodeBatch(cut, self.fields, self.index)

    def to(self, device: torch.device | str) -> EpisodeBatch:
        moved = {k: v.to(device, non_blocking=True) for k, v in self.data.items()}
        return EpisodeBatch(moved, self.fields, self.index)


@dataclass
class Forward:
    """The results of one forward pass over a batch, as rows. ``q``, ``h``, ``target_v`` and ``greedy``, which hooks
    read, hold the same values in their slots [M, T+1, ...], 0 after an episode's end, and are made on first use."""

    rows: Rows
    row_q: Tensor  # [N, n, A] online values, with gradient; an actor's logits under PPO
    row_h: Tensor  # [N, n, H] hidden states, detached
    row_v: Tensor  # [N, m] bootstrap values, no gradient; the critic's own values under PPO
    row_greedy: Tensor  # long [N, n] best available actions of the online network

    @cached_property
    def q(self) -> Tensor:
        """Return the online values [M, T+1, n, A], with gradient even if first read under ``no_grad``."""
        with torch.enable_grad():
            return self.rows.spread(self.row_q)

    @cached_property
    def h(self) -> Tensor:
        """Return the hidden states [M, T+1, n, H], detached."""
        return self.rows.spread(self.row_h)

    @cached_property
    def target_v(self) -> Tensor:
        """Return the bootstrap values [M, T+1, m], without gradient."""
        return self.rows.spread(self.row_v)

    @cached_property
    def greedy(self) -> Tensor:
        """Return the best available actions of the online network, long [M, T+1, n]."""
        return self.rows.spread(self.row_greedy)


@dataclass
class Clock:
    """Counters that every schedule reads; checkpoints save them."""

    env_steps: int = 0
    episodes: int = 0
    updates: int = 0  # gradient steps
    fresh: int = 0  # episodes in the newest collection; like the others, summed over all ranks

    def state_dict(self) -> dict[str, Any]:
        return {"env_steps": self.env_steps, "episodes": self.episodes, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.env_steps, self.episodes = int(state["env_steps"]), int(state["episodes"])
        self.updates, self.fresh = int(state["updates"]), 0

    def count(self, episodes: int, env_steps: int) -> None:
        """Advance by one collection."""
        self.env_steps += env_steps
        self.episodes, self.fresh = self.episodes + episodes, episodes
