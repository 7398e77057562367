"""Deliberately broken implementations, one per rule of a contract: each must fail the check that it breaks.

Learning: ``NanLoss``, ``OddMetrics``, ``LearnsInPieces``. Environments: every key of ``envs.base.RULES`` has at least
one twin of the corridor in ``BROKEN_ENVS``. Those of attacks are in ``tests/support/broken_attacks.py``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attacks.random import RandomActions
from envs.base import refuse_unavailable
from envs.streams import LaneStreams
from envs.toys.games import Corridor
from marl.core.protocols import NoHook
from marl.core.types import EnvSpec, EpisodeBatch, Metrics, Obs, Step


class NanLoss(NoHook):
    """A plug-in whose loss is not a number from its ``after``-th update on."""

    def __init__(self, spec: EnvSpec, *, after: int) -> None:
        self.left = after

    def loss(self, batch: EpisodeBatch, fwd: Any) -> Tensor:
        self.left -= 1
        return fwd.q.sum() * (0.0 if self.left > 0 else float("nan"))


class OddMetrics(NoHook):
    """A plug-in that reports ``value`` under ``name``, or returns nothing at all."""

    def __init__(self, spec: EnvSpec, *, name: str, value: Any) -> None:
        plain = isinstance(value, float | str | None)
        self.metrics = {name: value if plain else torch.tensor(list(value))} if name else None

    def update(self, batch: EpisodeBatch, fwd: Any) -> Any:
        return self.metrics


class LearnsInPieces(RandomActions):
    """An attack that says that its lanes need not begin together, and learns from whole episodes."""

    in_hand = ("budget.spent",)

    def update(self, *args: Any) -> Metrics:
        return {}


class Sound(Corridor):
    """The corridor that all twins are made of; passes every rule."""

    def __init__(self, n_envs: int, seed: int) -> None:
        super().__init__(n_agents=2, length=4, spread=3, fatal=True, episode_limit=8, n_envs=n_envs, seed=seed)


class WrongNames(Sound):
    def __init__(self, n_envs: int, seed: int) -> None:
        super().__init__(n_envs, seed)
        self.spec = replace(self.spec, state_names=self.spec.state_names[:-1])


class WrongAbout(Sound):
    def __init__(self, n_envs: int, seed: int) -> None:
        super().__init__(n_envs, seed)
        assert self.spec.about is not None
        self.spec = replace(self.spec, about=self.spec.about[0])


class DoubleReward(Sound):
    def step(self, actions: Tensor) -> Step:
        step = super().step(actions)
        return replace(step, reward=step.reward.double())


class NotFinite(Sound):
    def _observe(self) -> Obs:
        obs = super()._observe()
        return replace(obs, state=obs.state / obs.state)  # 0/0


class NothingForTheDead(Sound):
    def _observe(self) -> Obs:
        obs = super()._observe()
        return replace(obs, avail=obs.avail & self.lives[..., None])


class DeadMayNotRest(Sound):
    def _observe(self) -> Obs:
        obs = super()._observe()
        obs.avail[~obs.alive] = torch.tensor([False, True, False, False])
        return obs


class OutOfBounds(Sound):
    def _observe(self) -> Obs:
        obs = super()._observe()
        return replace(obs, obs=1.5 * obs.obs)


class BothFlags(Sound):
    def step(self, actions: Tensor) -> Step:
        step = super().step(actions)
        return replace(step, truncated=step.truncated | step.terminated)


class NoWon(Sound):
    def step(self, actions: Tensor) -> Step:
        return replace(super().step(actions), info={})


class PromisesInfo(Sound):
    def __init__(self, n_envs: int, seed: int) -> None:
        super().__init__(n_envs, seed)
        self.spec = replace(self.spec, info_names=("pushes",))


class Endless(Sound):
    """Promises eight steps, plays twelve."""

    def step(self, actions: Tensor) -> Step:
        promised = self.spec
        self.spec = replace(promised, episode_limit=12)
        step = super().step(actions)
        self.spec = promised
        step.next.obs[..., -1].clamp_(max=1.0)
        return step


class AutoReset(Sound):
    """What vectorised Gymnasium does by default."""

    def step(self, actions: Tensor) -> Step:
        step = super().step(actions)
        ended = step.terminated | step.truncated
        return replace(step, next=self.reset(mask=ended)) if ended.any() else step


class PaysTheFinished(Sound):
    def step(self, actions: Tensor) -> Step:
        step = super().step(actions)
        return replace(step, reward=step.reward + self.over)


class ClockRunsOn(Sound):
    def step(self, actions: Tensor) -> Step:
        step = super().step(actions)
        step.next.state[:, -1] += 0.01 * self.over
        return step


class ResetsEverything(Sound):
    def reset(self, seed: int | None = None, mask: Tensor | None = None) -> Obs:
        return super().reset(seed)


class ResetsNothing(Sound):
    def reset(self, seed: int | None = None, mask: Tensor | None = None) -> Obs:
        return super().reset(seed) if mask is None else self._observe()


class ClampsTheCaller(Sound):
    def step(self, actions: Tensor) -> Step:
        step = super().step(actions)
        actions.zero_()
        return step


class TakesAnything(Sound):
    def step(self, actions: Tensor) -> Step:
        avail = self._avail()
        inside = actions.clamp(0, 3)
        legal = avail.gather(2, inside[..., None]).squeeze(2) & (inside == actions)
        return super().step(torch.where(legal, actions, 0))


class RefusesTooLate(Sound):
    """Raises as it should, but after the clock has moved."""

    def step(self, actions: Tensor) -> Step:
        before = self.time
        self.time = before + (self.running & (before < 7))
        refuse_unavailable(actions, self._avail(), self.running)
        self.time = before
        return super().step(actions)


class SaysNothing(Sound):
    def step(self, actions: Tensor) -> Step:
        try:
            return super().step(actions)
        except ValueError:
            raise ValueError("illegal action") from None


class AmbientNoise(Sound):
    """Unseeded from the second step on, in one agent: a check of the first step would not see it."""

    def step(self, actions: Tensor) -> Step:
        slips = (self.time > 1) & self.running
        step = super().step(actions)
        slips &= self.running & self.lives[:, -1]
        self.cell[slips, -1] = torch.randint(4, (1,))
        return replace(step, next=self._observe())


class ForgetsTheSeed(Sound):
    def reset(self, seed: int | None = None, mask: Tensor | None = None) -> Obs:
        return super().reset(None, mask)


class DependsOnBatch(Sound):
    def __init__(self, n_envs: int, seed: int) -> None:
        super().__init__(n_envs, seed + n_envs)

    def reset(self, seed: int | None = None, mask: Tensor | None = None) -> Obs:
        return super().reset(None if seed is None else seed + self.n_envs, mask)


class CommonKey(LaneStreams):
    def restart(self, mask: np.ndarray, seed: int | None) -> None:
        super().restart(mask, seed)
        self.key[:] = self.key[0]


class OneStreamForAll(Sound):
    def __init__(self, n_envs: int, seed: int) -> None:
        super().__init__(n_envs, seed)
        self.streams = CommonKey(n_envs, seed)


class SavesNothing(Sound):
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        return None


class SavesObjects(Sound):
    def state_dict(self) -> dict[str, Any]:
        return {"streams": self.streams}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.streams = state["streams"]


class FloatPicture(Sound):
    def render(self, lane: int = 0) -> np.ndarray:
        return super().render(lane) / 255


class PlacesInCells(Sound):
    def agent_places(self, lane: int = 0) -> np.ndarray:
        return super().agent_places(lane)[:, :2] / 24


class ClosesOnce(Sound):
    closed = False

    def close(self) -> None:
        if self.closed:
            raise RuntimeError("already closed")
        self.closed = True


class OtherLanes(Sound):
    """It does not read how many lanes are asked for."""

    def __init__(self, n_envs: int, seed: int) -> None:
        super().__init__(8, seed)


class WithoutDevice(Sound):
    def __getattribute__(self, name: str) -> Any:
        if name == "device":
            raise AttributeError(name)
        return super().__getattribute__(name)


class TakesNoMask(Sound):
    def reset(self, seed: int | None = None) -> Obs:  # type: ignore[override]
        return super().reset(seed)


class GymnasiumReset(Sound):
    def reset(self, seed: int | None = None, mask: Tensor | None = None) -> Any:
        return super().reset(seed, mask), {}


class GymnasiumStep(Sound):
    def step(self, actions: Tensor) -> Any:
        step = super().step(actions)
        return step.next, step.reward, step.terminated, step.truncated, step.info


BROKEN_ENVS: tuple[tuple[str, type[Sound]], ...] = (
    ("parts", OtherLanes),
    ("parts", WithoutDevice),
    ("parts", TakesNoMask),
    ("parts", GymnasiumReset),
    ("parts", GymnasiumStep),
    ("spec", WrongNames),
    ("spec", WrongAbout),
    ("tensors", DoubleReward),
    ("tensors", NotFinite),
    ("avail", NothingForTheDead),
    ("avail", DeadMayNotRest),
    ("bounds", OutOfBounds),
    ("flags", BothFlags),
    ("won", NoWon),
    ("info", PromisesInfo),
    ("limit", Endless),
    ("finished", AutoReset),
    ("finished", PaysTheFinished),
    ("finished", ClockRunsOn),
    ("mask", ResetsEverything),
    ("mask", ResetsNothing),
    ("inputs", ClampsTheCaller),
    ("unavailable", TakesAnything),
    ("unavailable", RefusesTooLate),
    ("unavailable", SaysNothing),
    ("seed", AmbientNoise),
    ("seed", ForgetsTheSeed),
    ("lanes", DependsOnBatch),
    ("lanes", OneStreamForAll),
    ("resume", SavesNothing),
    ("resume", SavesObjects),
    ("render", FloatPicture),
    ("render", PlacesInCells),
    ("close", ClosesOnce),
)
