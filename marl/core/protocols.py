"""The five seams of the framework: environment, policy, algorithm, learner hook, attack.

``marl`` calls these and knows no implementation by name. Implementations subclass nothing: they have the methods.
No-op bases exist where most methods are usually empty: ``NoHook`` and ``NoAttack``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import Parameter

from marl.core.types import Carry, Clock, EnvSpec, EpisodeBatch, Field, Forward, Metrics, Obs, Step


class VectorEnv(Protocol):
    """``n_envs`` independent games ("lanes") stepped together. ``envs.base.check_env`` enforces the contract:

    1. No auto-reset: ``reset(mask=...)`` restarts the lanes that the caller names.
    2. A finished lane may be stepped: reward 0, nobody alive, the no-op available, nothing changes.
    3. Lane ``b`` draws from its own stream seeded by ``(seed, b)``: its trajectory does not depend on ``n_envs``.
    4. Returned tensors may be overwritten by the next call; whoever keeps them copies.
    5. An unavailable action raises ``ValueError`` with lane, agent, action and what was available.
    6. The same seed and actions give the same tensors.
    """

    spec: EnvSpec
    n_envs: int
    device: torch.device
    resumable: bool  # its random state can be saved and restored at an episode's edge

    def reset(self, seed: int | None = None, mask: Tensor | None = None) -> Obs: ...

    def step(self, actions: Tensor) -> Step: ...  # long [B, n]

    def render(self, lane: int = 0) -> np.ndarray: ...  # uint8 [height, width, 3]

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class Yardstick(Protocol):
    """Another simulator of the same game, measured beside an environment by ``marl.measure.bench``."""

    name: str

    def absent(self) -> str | None: ...  # one line: why it cannot be measured here; None: it can

    def measure(self, lanes: int, threads: int, seconds: float) -> tuple[float, float, float]:
        """Random actions for about ``seconds``: (steps of all lanes, wall seconds, CPU seconds); ``RuntimeError`` says
        why it failed."""
        ...


@runtime_checkable
class Moving(Protocol):
    """A game that changes while training goes on. Its tests take place in the game as it is now."""

    def follow(self, training: Any) -> None:
        """Take over from the training environment, of the same class, how far the change has come."""
        ...


@runtime_checkable
class Locating(Protocol):
    """An environment that knows where its agents are on its pictures."""

    def agent_places(self, lane: int = 0) -> np.ndarray:
        """f64 [n, 3]: centre (x, y) and radius of every agent on ``render(lane)``, in pixels."""
        ...


class Policy(Protocol):
    """Chooses joint actions for all lanes; keeps nothing between calls but what is in ``carry``."""

    def begin(self, n_envs: int, gen: Generator) -> Carry: ...

    def act(self, obs: Obs, carry: Carry, *, explore: bool, gen: Generator) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        """Actions long [B, n], the next carry, and values for the fields that the algorithm declares."""
        ...

    def after(self, carry: Carry, intended: Tensor, executed: Tensor) -> Carry:
        """Called once the environment has acted; keeps the last action as input (executed or intended)."""
        ...


@runtime_checkable
class Victim(Policy, Protocol):
    """White-box view of a value-based policy, needed by attacks that use values or gradients."""

    def q_values(self, obs: Tensor, carry: Carry) -> Tensor: ...  # [B, n, O] -> [B, n, A], differentiable in obs

    def q_total(self, q: Tensor, state: Tensor, **kwargs: Tensor) -> Tensor: ...  # [B, n], [B, S] -> [B, m]

    def params(self) -> dict[str, Tensor]: ...

    def q_with(self, params: dict[str, Tensor], obs: Tensor, carry: Carry) -> Tensor: ...  # functional: vmap over lanes


@runtime_checkable
class Traceable(Victim, Protocol):
    """A victim that can be led through episodes that were stored, or are only imagined; without gradients."""

    def unroll(self, batch: EpisodeBatch) -> tuple[Tensor, Carry]: ...  # q [M, T+1, n, A], carry before every slot

    def advance(self, obs: Tensor, carry: Carry) -> tuple[Tensor, Carry]: ...  # q [B, n, A], carry with obs read


class Replay(Protocol):
    """Stored episodes as algorithms, attacks and samplers see them; implemented by ``EpisodeReplay``."""

    capacity: int  # episodes

    def __len__(self) -> int: ...

    def sample(self, size: int, gen: Generator, device: torch.device | str) -> EpisodeBatch: ...

    def ages(
        self,
    ) -> Tensor: ...  # long [len(self)], on the CPU: episodes added after each; the newest has 0

    def lengths(self) -> Tensor: ...  # long [len(self)], on the CPU: steps of each episode


class Sampler(Protocol):
    """Chooses which stored episodes a batch is made of. A sampler with a memory of its own, such as priorities, is also
    ``Stateful``."""

    def draw(self, replay: Replay, size: int, gen: Generator) -> Tensor:
        """Return ``size`` slots of ``replay``, long [size] on the CPU, drawn with ``gen``."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """Something whose state is part of a checkpoint."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Algorithm(Protocol):
    """Whatever learns from episodes. ``marl.learn.algorithm.ValueAlgorithm`` is the usual one."""

    def fields(self) -> dict[str, Field]: ...

    def policy(self, clock: Clock) -> Policy: ...

    def annotate(self, fresh: EpisodeBatch) -> None: ...

    def update(self, replay: Replay, fresh: EpisodeBatch, clock: Clock) -> Metrics: ...  # 0..k gradient steps

    def networks(self) -> dict[str, torch.nn.Module]: ...  # by the names that messages use

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class MultiPolicy(Protocol):
    """An algorithm that trains more policies than the one that it is tested with."""

    def member(self, name: str) -> Policy:
        """One of them as it plays by now; ConfigError says which there are."""
        ...


@runtime_checkable
class Reporting(Protocol):
    """An algorithm, learner hook or attack that finds something a person should read, such as what it chose by
    itself."""

    def report(self, folder: Path) -> None:
        """Write what is new into ``folder``, which may not exist yet; called after every collection."""
        ...


class LearnerHook(Protocol):
    """What a plug-in adds to the value learner."""

    def fields(self) -> dict[str, Field]: ...

    def annotate(self, fresh: EpisodeBatch) -> None: ...  # once per collected batch, vectorised over [B, T]

    def reward(self, batch: EpisodeBatch, fwd: Forward) -> Tensor | float: ...  # [M, T, 1 or m], added before targets

    def loss(self, batch: EpisodeBatch, fwd: Forward) -> Tensor | float: ...  # 0-d, added to the TD loss

    def update(self, batch: EpisodeBatch, fwd: Forward) -> Metrics: ...  # own networks, own optimizers

    def parameters(self) -> Iterable[Parameter]: ...  # owned here; the TD optimizer leaves them out

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class NoHook:
    """Empty versions of every hook method; subclass and override what the plug-in needs."""

    def fields(self) -> dict[str, Field]:
        return {}

    def annotate(self, fresh: EpisodeBatch) -> None:
        return None

    def reward(self, batch: EpisodeBatch, fwd: Forward) -> Tensor | float:
        return 0.0

    def loss(self, batch: EpisodeBatch, fwd: Forward) -> Tensor | float:
        return 0.0

    def update(self, batch: EpisodeBatch, fwd: Forward) -> Metrics:
        return {}

    def parameters(self) -> Iterable[Parameter]:
        return ()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        return None


@dataclass
class View:
    """What an attack sees at step ``t``; ``perturb_obs`` also what is seen after a lane's last step."""

    t: int
    obs: Obs
    carry: Carry
    active: Tensor  # bool [B]: the lane is under attack and runs; for perturb_obs also where it has just ended
    victim: Policy


class Attack(Protocol):
    """Adversary on observations, actions or both. Inactive lanes come back unchanged; executed actions are available;
    dead agents are not attacked; results do not depend on the order of lanes."""

    def fields(self) -> dict[str, Field]: ...

    def begin(self, n_envs: int, victim: Policy, gen: Generator) -> None: ...

    def perturb_obs(self, view: View) -> Tensor: ...  # [B, n, O]

    def perturb_actions(self, view: View, intended: Tensor) -> tuple[Tensor, dict[str, Tensor]]: ...  # executed [B, n]

    def after_step(self, view: View, executed: Tensor, step: Step) -> None: ...

    def update(self, replay: Replay, fresh: EpisodeBatch, victim: Policy, clock: Clock) -> Metrics: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class Fitting(Protocol):
    """An attack that learns about its victim before it is at its best. Against a victim that no longer learns:
    ``with attack.fitting(): while attack.needs_fit:`` collect, add to a replay, ``attack.update(...)``."""

    @property
    def needs_fit(self) -> bool: ...  # whether it has something to learn, and has not done so yet

    @property
    def fitted(self) -> float: ...  # how much of that is done, 0 to 1

    def fitting(self) -> AbstractContextManager[None]: ...  # meanwhile it explores, and updates as often as fits


@runtime_checkable
class Measured(Protocol):
    """A plug-in with work that is worth timing by itself (``marl.measure.bench``)."""

    def chores(self, view: View) -> dict[str, tuple[Callable[[], float], str]]:
        """By name: something to do again and again that returns how much was done, and the unit of that."""
        ...


@runtime_checkable
class Alternating(Protocol):
    """An attack that learns in turns with the team."""

    def take_turn(self) -> bool:
        """Called before a collection of training, never before a test: whether the team learns from it."""
        ...


class NoAttack:
    """Leaves observations and actions as they are; base of every attack."""

    def __init__(self, spec: EnvSpec, device: torch.device | str) -> None:
        self.spec, self.device = spec, torch.device(device)

    def fields(self) -> dict[str, Field]:
        return {}

    def begin(self, n_envs: int, victim: Policy, gen: Generator) -> None:
        return None

    def perturb_obs(self, view: View) -> Tensor:
        return view.obs.obs

    def perturb_actions(self, view: View, intended: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return intended, {}

    def after_step(self, view: View, executed: Tensor, step: Step) -> None:
        return None

    def update(self, replay: Replay, fresh: EpisodeBatch, victim: Policy, clock: Clock) -> Metrics:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        return None
