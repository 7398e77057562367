"""Check what a game returns before it is stored: an error in the game is reported as one, with lane, agent and step,
instead of being broadcast, truncated, or blamed on the learner."""

from __future__ import annotations

import logging
from typing import ClassVar, NoReturn

import torch
from torch import Tensor

from marl.core.protocols import VectorEnv
from marl.core.types import EnvSpec, GameError, Obs, Step

log = logging.getLogger(__name__)


class Incoming:
    """Checks the observations and steps of one collection of ``env``. Games whose ``vouched`` is true are not checked:
    compiled ones write into tensors of the right form."""

    warned: ClassVar[set[type]] = set()

    def __init__(self, env: VectorEnv) -> None:
        self.spec, self.lanes, self.kind = env.spec, env.n_envs, type(env)
        self.off = bool(getattr(env, "vouched", False))

    def observation(self, t: int, obs: Obs) -> None:
        """Check what agents see in slot ``t``. Raise GameError."""
        if self.off:
            return
        _require_kind(t, "reset() and Step.next", obs, Obs, "Obs(obs, state, avail, alive)")
        spec, B = self.spec, self.lanes
        n = spec.n_agents
        _require_form(t, "obs", obs.obs, (B, n, spec.obs_dim), torch.float32)
        _require_form(t, "state", obs.state, (B, spec.state_dim), torch.float32)
        _require_form(t, "avail", obs.avail, (B, n, spec.n_actions), torch.bool)
        _require_form(t, "alive", obs.alive, (B, n), torch.bool)
        _require_all(t, "obs", obs.obs, obs.obs.isfinite(), "must be finite", spec)
        _require_all(t, "state", obs.state, obs.state.isfinite(), "must be finite", spec)
        some = obs.avail.any(-1)  # [B, n]
        _require_all(t, "avail", some, some, "must have at least one available action, also for the dead", spec)

    def step(self, t: int, step: Step) -> None:
        """Check the result of step ``t``, with the observation of slot t + 1. Raise GameError."""
        if self.off:
            return
        _require_kind(t, "step()", step, Step, "Step(next, reward, terminated, truncated, info)")
        _require_form(t, "reward", step.reward, (self.lanes,), torch.float32)
        for name in ("terminated", "truncated"):
            _require_form(t, name, getattr(step, name), (self.lanes,), torch.bool)
        for name in ("won", *self.spec.info_names):
            if name not in step.info:
                raise GameError(f"step {t}: info must hold '{name}'; it holds {', '.join(step.info) or 'nothing'}")
        _require_form(t, "info['won']", step.info["won"], (self.lanes,), torch.bool)
        _require_all(t, "reward", step.reward, step.reward.isfinite(), "must be finite", self.spec)
        one = ~(step.terminated & step.truncated)
        _require_all(t, "terminated and truncated", ~one, one, "must not both be true", self.spec)
        self.observation(t + 1, step.next)

    def limit(self, t: int, over: Tensor, length: Tensor) -> None:
        """Raise GameError for episodes that continue beyond the episode limit: not ``over`` bool [B] after step ``t``,
        when ``length`` long [B] has reached it."""
        if self.off:
            return
        late = ~over.cpu() & (length.cpu() >= self.spec.episode_limit)
        if bool(late.any()):
            lane, most = int(late.nonzero()[0]), self.spec.episode_limit
            raise GameError(
                f"lane {lane}, step {t}: the episode goes on after {most} steps, its episode_limit; end it there, as "
                "truncated"
            )

    def waiting(self, t: int, step: Step, running: Tensor) -> None:
        """Warn, once per class of games, about rewards and living agents after step ``t`` in lanes that were not
        ``running`` bool [B] before it and that nobody has reset: a game that resets itself shows the beginning of the
        next episode instead of the end of the last."""
        if self.off or self.kind in self.warned:
            return
        wrong = ~running & ((step.reward != 0) | step.next.alive.any(-1))
        if bool(wrong.any()):
            self.warned.add(self.kind)
            log.warning(
                "lane %d, step %d: %s gives a reward, or has somebody alive, where an episode has ended and nobody has "
                "reset it. If it resets itself, values are bootstrapped from the wrong observation; "
                "envs.base.check_env tells", int(wrong.nonzero()[0]), t, self.kind.__name__,
            )  # fmt: skip


def _require_kind(t: int, what: str, value: object, kind: type, form: str) -> None:
    if not isinstance(value, kind):
        raise GameError(f"step {t}: {what} must be {form}, the game returned a {type(value).__name__}")


def _require_form(t: int, part: str, value: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if not isinstance(value, Tensor):
        kind = f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")
        raise GameError(f"step {t}: {part} must be a torch.Tensor, {form_of(shape, dtype)}; the game returned a {kind}")
    if tuple(value.shape) != shape or value.dtype != dtype:
        got = form_of(tuple(value.shape), value.dtype)
        raise GameError(f"step {t}: {part} must be {form_of(shape, dtype)}, the game returned {got}")


def form_of(shape: tuple[int, ...], dtype: torch.dtype) -> str:
    """Format a type and shape for messages: ``float32 [4, 2, 18]``."""
    return f"{str(dtype).removeprefix('torch.')} {list(shape)}"


def _require_all(t: int, part: str, value: Tensor, holds: Tensor, rule: str, spec: EnvSpec) -> None:
    if not bool(holds.all()):
        _explain(t, part, value, holds, rule, spec)


def _explain(t: int, part: str, value: Tensor, holds: Tensor, rule: str, spec: EnvSpec) -> NoReturn:
    place = (~holds).nonzero()[0].tolist()  # lane; agent, except of state, reward and flags; feature
    names = ["lane", "feature"] if part == "state" else ["lane", "agent", "feature"]
    where = ", ".join(f"{name} {k}" for name, k in zip(names, place, strict=False))
    known = spec.state_names if part == "state" else ()
    label = f" ({known[place[-1]]})" if known else ""
    raise GameError(f"{where}{label}, step {t}: {part} {rule}; the game returned {value[tuple(place)].item()}")
