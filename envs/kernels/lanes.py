"""Shared by compiled games: the loops over lanes, the beginning and the end of a step, and random streams.

A game consists of three rules for one lane: reset, step and observe. A lane touches only its own rows and its own
random stream, so results depend neither on threads nor on the number of lanes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np
from numba import prange

from envs.kernels import rollout
from envs.kernels.compiled import Record, forget_stale, rule
from envs.kernels.rng import STRIDE, mix, seed_lane
from marl.core.caching import njit
from marl.core.threads import by_threads
from marl.core.types import EnvSpec

LANE = np.dtype([("rng", np.uint64), ("t", np.int64), ("finished", np.int64)])  # the fields that any lane's record has


class Outputs(NamedTuple):
    """The arrays that the kernels write; the tensors of ``Obs`` and ``Step`` share their memory."""

    obs: np.ndarray  # f32 [B, n, O]
    state: np.ndarray  # f32 [B, S]
    avail: np.ndarray  # bool [B, n, A]
    alive: np.ndarray  # bool [B, n]
    reward: np.ndarray  # f32 [B]
    terminated: np.ndarray  # bool [B]
    truncated: np.ndarray  # bool [B]
    won: np.ndarray  # bool [B]
    events: np.ndarray  # int64 [B, K]; the game's own columns of Step.info (overcooked: bool [B, n, K])


def allocate_outputs(spec: EnvSpec, n_envs: int) -> dict[str, np.ndarray]:
    """Return the arrays that every game's outputs have, by name: those of ``Outputs`` except ``events``."""
    B, n = n_envs, spec.n_agents
    return {
        "obs": np.zeros((B, n, spec.obs_dim), np.float32),
        "state": np.zeros((B, spec.state_dim), np.float32),
        "avail": np.ones((B, n, spec.n_actions), np.bool_),
        "alive": np.zeros((B, n), np.bool_),
        "reward": np.zeros(B, np.float32),
        "terminated": np.zeros(B, np.bool_),
        "truncated": np.zeros(B, np.bool_),
        "won": np.zeros(B, np.bool_),
    }


# --- a lane ----------------------------------------------------------------------------------------------------------


@rule
def begin_episode(lane: Record, out: Outputs, seed: np.uint64, reseed: bool, b: int) -> None:
    """Begin the next episode of lane ``b``, whose record is ``lane``: everybody alive, time 0."""
    if reseed:
        seed_lane(lane, seed, b)
    lane.t = 0
    lane.finished = 0
    out.alive[b] = True
    out.events[b] = 0


@rule
def rests(lane: Record, out: Outputs, b: int) -> bool:
    """Clear the results of lane ``b``'s last step and advance its clock. If its episode had ended, leave the clock
    as it is, mark everybody dead and return True."""
    out.reward[b] = 0.0
    out.terminated[b] = False
    out.truncated[b] = False
    out.won[b] = False
    if lane.finished:
        out.alive[b] = False
        return True
    lane.t += 1
    return False


@rule
def end_step(lane: Record, out: Outputs, over: bool, won: bool, limit: int, b: int) -> None:
    """Set the flags of a step: ``over`` terminates, otherwise the clock truncates."""
    out.won[b] = won
    out.terminated[b] = over
    out.truncated[b] = not over and lane.t >= limit
    lane.finished = over or lane.t >= limit


# --- all lanes -------------------------------------------------------------------------------------------------------


class Kernels(NamedTuple):
    """A game's compiled loops; all begin with (rules, board, outputs)."""

    reset: Callable[..., None]  # mask bool [B], seed uint64, reseed bool
    step: Callable[..., None]  # actions int64 [B, n], available
    observe: Callable[..., None]  # lane
    rollout: Callable[..., None]  # see ``rollout.rollout_lanes``


reset_lane: Any = None  # placeholders in the three loops below for a game's own rules
step_lane: Any = None
observe_lane: Any = None


def reset_lanes(rules: Any, board: Any, out: Any, mask: np.ndarray, seed: np.uint64, reseed: bool) -> None:
    for index in prange(mask.shape[0]):
        b = np.int64(index)  # in threads numba's index is unsigned, and it would compile all rules for that as well
        if mask[b]:
            reset_lane(rules, board, out, seed, reseed, b)


def step_lanes(rules: Any, board: Any, out: Any, actions: np.ndarray) -> None:
    for index in prange(actions.shape[0]):
        step_lane(rules, board, out, actions, np.int64(index))


def observe_only(rules: Any, board: Any, out: Any, b: int) -> None:
    observe_lane(rules, board, out, b)


def lane_kernels(reset_lane: Any, step_lane: Any, observe_lane: Any, *, parallel_reset: bool = False) -> Kernels:
    """Compile the loops over lanes around the rules of one game, and delete their cached code if it is stale.

    Every loop is compiled as if it were written in the file of ``reset_lane``, with the rules as its globals: numba
    then caches it next to that file. A closure over the rules would be recompiled by every process, because numba
    caches closures under a key that includes the identity of the compiled functions in them.
    """
    game = reset_lane.py_func
    names = {"reset_lane": reset_lane, "step_lane": step_lane, "observe_lane": observe_lane}

    def moved(loop: Any) -> Any:
        code = loop.__code__.replace(co_filename=game.__code__.co_filename)
        return FunctionType(code, {**loop.__globals__, **names, "__name__": game.__module__}, loop.__name__)

    plain, threads = njit(cache=True), by_threads(cache=True)
    kernels = Kernels(
        reset=(threads if parallel_reset else plain)(moved(reset_lanes)),
        step=threads(moved(step_lanes)),
        observe=plain(moved(observe_only)),
        rollout=threads(moved(rollout.rollout_lanes)),
    )
    forget_stale(kernels.observe)
    return kernels


def seed_lanes(lanes: np.ndarray, seed: int) -> None:
    """Start the random stream of every lane, records [B] with ``rng``, from ``seed``, as ``seed_lane`` does. Nothing is
    compiled for it, so that an error in another option of the game is reported at once."""
    hashed: Any = mix.py_func
    word = hashed(np.array([int(seed) % 2**64], np.uint64) + STRIDE)
    lanes["rng"] = hashed(word + STRIDE * np.arange(1, len(lanes) + 1, dtype=np.uint64))


@njit(cache=True)
def find_unavailable(lanes: np.ndarray, avail: np.ndarray, actions: np.ndarray) -> int:
    """Return the lane of the first unavailable action in a running lane, -1 if there is none. Change nothing."""
    B, n, A = avail.shape
    for b in range(B):
        if not lanes[b].finished:
            for i in range(n):
                action = actions[b, i]
                if action < 0 or action >= A or not avail[b, i, action]:
                    return b
    return -1


@njit(cache=True)
def random_actions(avail: np.ndarray, counter: np.ndarray, actions: np.ndarray) -> None:
    """Fill ``actions`` int64 [B, n] uniformly from the available ones; ``counter`` uint64 [1] is the random state."""
    B, n, A = avail.shape
    for b in range(B):
        for i in range(n):
            options = 0
            for a in range(A):
                options += avail[b, i, a]
            counter[0] += 1
            pick = math.floor(mix(counter[0]) * 5.421010862427522e-20 * options)
            for a in range(A):
                if avail[b, i, a]:
                    if pick == 0:
                        actions[b, i] = a
                        break
                    pick -= 1


forget_stale(find_unavailable)
