"""The five seams of the framework: environment, policy, algorithm, learner hook, attack.

``marl`` calls these and knows no implementation by name. Implementations need not subclass them, only have the methods.
No-op bases exist where most methods are usually empty: ``NoHook`` and ``NoAttack``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import Parameter

from marl.core.rolling import Harm
from marl.core.types import Carry, Clock, EnvSpec, EpisodeBatch, Field, Forward, Metrics, Obs, Step


class VectorEnv(Protocol):
    """``n_envs`` independent games ("lanes") stepped together. ``envs.base.check_env`` enforces the contract:

    1. No auto-reset: ``reset(mask=...)`` restarts the lanes that the caller names.
    2. A finished lane may be stepped: reward 0, nobody alive, the no-op available, nothing changes.
    3. Lane ``b`` draws from its own stream seeded by ``(seed, b)``: its trajectory does not depend on ``n_envs``.
    4. The next call may overwrite returned tensors; callers copy what they keep.
    5. An unavailable action raises ``ValueError`` with lane, agent, action and what was available.
    6. The same seed and actions give the same tensors.
    """

    spec: EnvSpec
    n_envs: int
    device: torch.device
    resumable: bool  # its random state can be saved and restored between episodes
    # optional, ``vouched: bool``: true if ``marl.run.incoming`` need not check what it returns

    def reset(self, seed: int | None = None, mask: Tensor | None = None) -> Obs: ...

    def step(self, actions: Tensor) -> Step: ...  # long [B, n]

    def render(self, lane: int = 0) -> np.ndarray: ...  # uint8 [height, width, 3]

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class Yardstick(Protocol):
    """Another simulator of the same game, which ``marl.measure.bench`` measures next to an environment."""

    name: str

    def absent(self) -> str | None: ...  # why it cannot be measured here, in one line; None if it can

    def measure(self, lanes: int, threads: int, seconds: float) -> tuple[float, float, float]:
        """Play random actions for about ``seconds``; return (steps of all lanes, wall seconds, CPU seconds). Raise
        RuntimeError, with the reason, on failure."""
        ...


@runtime_checkable
class Moving(Protocol):
    """A game that changes during training. Evaluation takes place in the game as it is at that time."""

    def follow(self, training: Any) -> None: ...  # copies the progress of the change from the training game, its twin


@runtime_checkable
class Locating(Protocol):
    """An environment that knows where its agents are in its rendered frames."""

    def agent_places(self, lane: int = 0) -> np.ndarray:
        """Return the centre (x, y) and the radius of every agent in ``render(lane)``, f64 [n, 3], in pixels."""
        ...


class Policy(Protocol):
    """Chooses joint actions for all lanes. All its memory between calls is in ``carry``."""

    def begin(self, n_envs: int, gen: Generator) -> Carry: ...

    def act(self, obs: Obs, carry: Carry, *, explore: bool, gen: Generator) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        """Return actions long [B, n], the next carry, and values for the fields that the algorithm declares."""
        ...

    def after(self, carry: Carry, intended: Tensor, executed: Tensor) -> Carry:
        """Return the carry with the last action, executed or intended, as the next input. Called after ``act``."""
        ...


@runtime_checkable
class Victim(Policy, Protocol):
    """A white-box view of a value-based policy, for attacks that use values or gradients."""

    def q_values(self, obs: Tensor, carry: Carry) -> Tensor: ...  # [B, n, O] -> [B, n, A], differentiable in obs

    def q_total(self, q: Tensor, state: Tensor, **kwargs: Tensor) -> Tensor: ...  # [B, n], [B, S] -> [B, m]

    def params(self) -> dict[str, Tensor]: ...

    def q_with(self, params: dict[str, Tensor], obs: Tensor, carry: Carry) -> Tensor: ...  # functional: vmap over lanes


@runtime_checkable
class Traceable(Victim, Protocol):
    """A victim that can be run, without gradients, over stored or imagined episodes."""

    def unroll(self, batch: EpisodeBatch) -> tuple[Tensor, Carry]: ...  # q [M, T+1, n, A], carry before every slot

    def advance(self, obs: Tensor, carry: Carry) -> tuple[Tensor, Carry]: ...  # q [B, n, A], carry after reading obs


class Replay(Protocol):
    """Stored episodes as algorithms, attacks and samplers see them; implemented by ``EpisodeReplay``."""

    capacity: int  # episodes

    def __len__(self) -> int: ...

    def sample(self, size: int, gen: Generator, device: torch.device | str) -> EpisodeBatch: ...

    def ages(self) -> Tensor: ...  # long [len(self)], on the CPU: episodes added after each; 0 for the newest

    def lengths(self) -> Tensor: ...  # long [len(self)], on the CPU: steps of each episode

    def clear(self) -> None: ...


class Sampler(Protocol):
    """Chooses the stored episodes of a batch. One with a state of its own, such as priorities, is also ``Stateful``."""

    def draw(self, replay: Replay, size: int, gen: Generator) -> Tensor:
        """Return ``size`` slots of ``replay``, long [size] on the CPU, drawn with ``gen``."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """Something whose state is part of a checkpoint: tensors, numbers, text, None; lists, tuples and dicts of such."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Algorithm(Protocol):
    """Learns a policy from episodes. ``marl.learn.algorithm.ValueAlgorithm`` is the usual implementation."""

    def fields(self) -> dict[str, Field]: ...

    def policy(self, clock: Clock) -> Policy: ...

    def annotate(self, fresh: EpisodeBatch) -> None: ...

    def update(self, replay: Replay, fresh: EpisodeBatch, clock: Clock) -> Metrics: ...  # 0..k gradient steps

    def networks(self) -> dict[str, torch.nn.Module]: ...  # by the names that messages use

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class MultiPolicy(Protocol):
    """An algorithm that trains further policies besides the one that is evaluated."""

    def member(self, name: str) -> Policy:
        """Return the policy ``name`` with its present weights. Raise ConfigError if there is none."""
        ...


@runtime_checkable
class Reporting(Protocol):
    """An algorithm, learner hook or attack that writes reports for humans to read, for example on its own choices."""

    def report(self, folder: Path) -> None:
        """Write new findings into ``folder``, which may not exist yet. Called after every collection."""
        ...


class LearnerHook(Protocol):
    """A plug-in's additions to the value learner."""

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
    """The input of an attack at step ``t``; ``perturb_obs`` also gets the one after a lane's last step."""

    t: int
    obs: Obs
    carry: Carry
    active: Tensor  # bool [B]: the lane is attacked and running or, for perturb_obs, has just ended
    victim: Policy


class Attack(Protocol):
    """An adversary that changes observations, actions or both. It leaves inactive lanes unchanged, executes only
    available actions, never attacks dead agents, and gives results that do not depend on the order of lanes."""

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
    """An attack that must first learn about its victim. To fit it to a victim that no longer learns:
    ``with attack.fitting(): while attack.needs_fit:`` collect, add to a replay, ``attack.update(...)``."""

    @property
    def needs_fit(self) -> bool: ...  # whether it has not learnt enough yet

    @property
    def fitted(self) -> float: ...  # progress of the fitting, 0 to 1

    def fitting(self) -> AbstractContextManager[None]: ...  # inside, it explores and updates more often


@runtime_checkable
class Measured(Protocol):
    """A plug-in with parts that are worth timing separately (``marl.measure.bench``)."""

    def chores(self, view: View) -> dict[str, tuple[Callable[[], float], str]]:
        """Return (function, unit) by name; each call of the function returns how much work it did, in that unit."""
        ...


@runtime_checkable
class Alternating(Protocol):
    """An attack that takes turns with the team in learning."""

    def take_turn(self) -> bool:
        """Return whether the team learns from the next collection. Called before each collection of training, never
        before an evaluation."""
        ...


@runtime_checkable
class Composite(Protocol):
    """An attack made of others. Each of them is checked separately for further protocols (``attacks_within``)."""

    def parts(self) -> Mapping[str, Attack]: ...  # those that may be used, by name


def attacks_within(attack: Attack, name: str = "") -> Iterator[tuple[str, Attack]]:
    """Yield the attack and all those that it is made of, at any depth, with their paths (the outermost: "")."""
    yield name, attack
    if isinstance(attack, Composite):
        for key, part in attack.parts().items():
            yield from attacks_within(part, f"{name}/{key}".lstrip("/"))


class NoAttack:
    """Leaves observations and actions unchanged; the base of every attack."""

    in_hand: tuple[str, ...] = ()  # its memory of unfinished episodes, each [B, ...]: lanes need not begin together

    def __init__(self, spec: EnvSpec, device: torch.device | str) -> None:
        self.spec, self.device = spec, torch.device(device)

    def compiled(self) -> Harm | None:
        return Harm()

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
