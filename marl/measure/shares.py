"""Where the CPU time of training goes, by part: calls are timed for as long as they are watched."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import nn

from marl.core.protocols import attacks_within
from marl.learn.ppo import PPOLearner
from marl.run import collect, stretch
from marl.run.rollout import compiled_form
from marl.run.trainer import Run

Watched = tuple[str, Any, Sequence[str]]  # a part, and the class or module with the functions that make it up


class Shares:
    """CPU seconds by part. The time of a watched call inside another one counts for the inner part only."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner: list[float] = []  # for each call in progress, the seconds spent in calls within it

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``function`` with a clock around it."""

        @functools.wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            self._inner.append(0.0)
            began = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                spent = time.process_time() - began
                self.seconds[part] += spent - self._inner.pop()
                if self._inner:
                    self._inner[-1] += spent

        return call

    @contextmanager
    def watch(self, calls: Iterable[Watched]) -> Iterator[None]:
        """Time ``calls`` inside the context; afterwards classes and modules are as they were."""
        found = [(part, owner, name, getattr(owner, name)) for part, owner, names in calls for name in names]
        self.seconds.update({part: 0.0 for part, *_ in found})  # in their order
        with ExitStack() as stack:
            for part, owner, name, function in found:
                stack.enter_context(mock.patch.object(owner, name, self.timed(part, function)))
            yield


def parts_of(run: Run) -> Iterator[Watched]:
    """Yield the parts that the time of training is divided into; those of a learner only where there is one."""
    p = run.parts
    policy = p.algo.policy(run.clock)
    yield "collecting, the rest", Run, ("collect", "count")
    if compiled_form(p.env, policy, p.attack, p.fields, explore=True) is not None:  # watching parts would change them
        where, what = (collect, "roll") if run.stretches is None else (stretch, "roll_on")
        yield "environment, policy and attack as one loop", where, (what,)
        within: tuple[str, ...] = ("update",)
    else:
        yield "environment", type(p.env), ("reset", "step")
        yield "policy", type(policy), ("begin", "act")
        within = ("begin", "perturb_obs", "perturb_actions", "after_step", "update")
    for kind in {type(attack) for _, attack in attacks_within(p.attack)}:
        yield "attack", kind, within
    yield "learning, the rest", Run, ("learn",)
    yield "storing", type(run.replay), ("add",)
    yield "sampling", type(run.replay), ("sample",)
    learner: Any = getattr(p.algo, "learner", None)
    if learner is None:
        return
    actors = isinstance(learner, PPOLearner)
    yield "forward", type(learner), ("prepare", "step") if actors else ("forward", "losses")
    for kind in {type(hook) for hook in learner.hooks}:
        yield "hooks", kind, ("annotate", "reward", "loss", "update")
    yield "backward", torch.Tensor, ("backward",)
    yield "optimizer", nn.utils, ("clip_grad_norm_",)
    yield "optimizer", type(learner.optimizer), ("zero_grad", "step")
    if not actors:
        yield "optimizer", type(learner), ("_sync_targets",)
