"""One process of the pool in ``envs/adapters/pool.py``: plays some lanes and writes their outputs to shared memory.

Nothing here imports torch, so that a worker starts in a tenth of a second and takes thirty megabytes. Games for the
pool implement ``Game``; their modules should not import torch either.
"""

from __future__ import annotations

import contextlib
import mmap
import pickle
import random
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from marl.core.processes import SAVING_S, SENT_TO_ALL, follow_parent, ignore_signals


@dataclass(frozen=True)
class GameSpec:
    """``marl.core.types.EnvSpec`` in numpy: the same shapes, without the fields that only embedded games have."""

    n_agents: int
    n_actions: int
    obs_dim: int
    state_dim: int
    episode_limit: int
    obs_low: np.ndarray  # f32 [O]
    obs_high: np.ndarray  # f32 [O]
    noop_action: int | None = None
    idle_action: int | None = None
    about: np.ndarray | None = None  # bool [n, n, O]
    obs_names: tuple[str, ...] = ()
    state_names: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.n_agents, self.n_actions, self.obs_dim, self.state_dim, self.episode_limit


class View(NamedTuple):
    """A lane's part of the shared arrays; games write every entry of it at every reset and step."""

    obs: np.ndarray  # f32  [n, O]
    state: np.ndarray  # f32  [S]
    avail: np.ndarray  # bool [n, A]; every row has a True
    alive: np.ndarray  # bool [n]


class Outcome(NamedTuple):
    """The result of a step. The pool adds the time limit; ``terminated`` takes precedence over ``truncated``."""

    reward: float
    terminated: bool
    truncated: bool
    won: bool


class Game(Protocol):
    """One lane. ``reset(seed)`` alone must determine the episode's randomness, if the pool is to be resumable."""

    spec: GameSpec

    def reset(self, seed: int, view: View) -> None: ...

    def step(self, actions: np.ndarray, view: View) -> Outcome: ...  # int64 [n], available ones

    def render(self) -> np.ndarray | None: ...  # uint8 [height, width, 3]; None if the game draws nothing

    def close(self) -> None: ...


def share(descriptor: int, spec: GameSpec, n_envs: int) -> tuple[dict[str, np.ndarray], int]:
    """Return the arrays that parent and workers share, in the memory behind ``descriptor``, and their size in bytes.

    With a negative descriptor, map nothing and return only the size.
    """
    B, n = n_envs, spec.n_agents
    layout: dict[str, tuple[tuple[int, ...], Any]] = {
        "actions": ((B, n), np.int64),
        "seed": ((B,), np.int64),
        "due": ((B,), np.bool_),  # lanes to reset
        "running": ((B,), np.bool_),
        "obs": ((B, n, spec.obs_dim), np.float32),
        "state": ((B, spec.state_dim), np.float32),
        "avail": ((B, n, spec.n_actions), np.bool_),
        "alive": ((B, n), np.bool_),
        "reward": ((B,), np.float32),
        "terminated": ((B,), np.bool_),
        "truncated": ((B,), np.bool_),
        "won": ((B,), np.bool_),
    }
    starts, end = {}, 0
    for name, (shape, dtype) in layout.items():
        starts[name] = end
        end += -(-int(np.prod(shape)) * np.dtype(dtype).itemsize // 64) * 64  # each array on its own cache lines
    if descriptor < 0:
        return {}, end
    memory = mmap.mmap(descriptor, end)  # stays mapped as long as an array uses it
    arrays = {
        name: np.frombuffer(memory, dtype, int(np.prod(shape)), starts[name]).reshape(shape)
        for name, (shape, dtype) in layout.items()
    }
    return arrays, end


def seed_globals(seed: int) -> None:
    """Seed the global generators of Python and NumPy, and torch's if a game has imported it."""
    random.seed(seed)
    np.random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


class Worker:
    """A worker that builds the games of ``lanes``, then follows commands: ``step``, ``reset``, ``render lane``,
    ``close``.

    With ``rebuild`` a lane's game is closed and rebuilt at every reset. The global generators of this process, which
    its lanes share, are seeded before a game is built or reset, for games that draw from them.
    """

    def __init__(self, connection: Connection, lanes: Sequence[int], rebuild: bool) -> None:
        self.connection, self.lanes, self.rebuild = connection, lanes, rebuild
        self.at = lanes[0]  # the lane being worked on, for the report of a failure
        self.games: dict[int, Game] = {}
        self.steps = dict.fromkeys(lanes, 0)
        self.arrays: dict[str, np.ndarray] = {}

    def build(self, make_game: Callable[[], Game], n_envs: int, seeds: Sequence[int]) -> GameSpec:
        """Build the games; ``seeds`` has one seed per lane of the pool."""
        self.make_game = make_game
        for lane in self.lanes:
            self.at = lane
            seed_globals(seeds[lane])
            self.games[lane] = make_game()
        self.spec, self.n_envs = self.games[self.at].spec, n_envs
        return self.spec

    def attach(self) -> None:
        """Map the memory whose descriptor the parent sends after the command."""
        descriptor = recv_handle(self.connection)
        self.arrays, _ = share(descriptor, self.spec, self.n_envs)

    def reset(self) -> None:
        shared = self.arrays
        for lane in self.lanes:
            self.at = lane
            if shared["due"][lane]:
                seed_globals(int(shared["seed"][lane]))
                if self.rebuild:
                    self.games[lane].close()
                    self.games[lane] = self.make_game()
                self.games[lane].reset(int(shared["seed"][lane]), self._view(lane))
                self._check(lane)
                self.steps[lane] = 0
                shared["running"][lane] = True

    def step(self) -> None:
        shared = self.arrays
        for lane in self.lanes:
            self.at = lane
            if not shared["running"][lane]:
                continue
            outcome = self.games[lane].step(shared["actions"][lane], self._view(lane))
            self._check(lane)
            self.steps[lane] += 1
            late = self.steps[lane] >= self.spec.episode_limit
            truncated = (outcome.truncated or late) and not outcome.terminated
            shared["reward"][lane] = outcome.reward
            shared["terminated"][lane], shared["truncated"][lane] = outcome.terminated, truncated
            shared["won"][lane] = outcome.won
            shared["running"][lane] = not (outcome.terminated or truncated)

    def render(self, lane: int) -> np.ndarray | None:
        self.at = lane
        return self.games[lane].render()

    def close(self) -> None:
        for game in self.games.values():
            with contextlib.suppress(
                Exception
            ):  # the games are done; an error while closing must not look like a crash
                game.close()

    def _view(self, lane: int) -> View:
        return View(*(self.arrays[name][lane] for name in View._fields))

    def _check(self, lane: int) -> None:
        if not self.arrays["avail"][lane].any(1).all():
            raise ValueError("the game left an agent without an available action")


def _raised_here(error: BaseException) -> bool:
    """Return whether an adapter raised the error, because of what a game returned, and not the game itself."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = bool(frames) and Path(frames[-1].filename).parent == Path(__file__).parent
    return ours and not isinstance(error, OSError)


def serve(connection: Connection, pickled: bytes, lanes: Sequence[int], n_envs: int, rebuild: bool) -> None:
    """Run a worker process, which exits with its parent.

    Every command is answered with ("done", result) or ("error", lane, last line, traceback, whether the error is ours).
    """
    ignore_signals()
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SENT_TO_ALL)  # the parent blocked them until they could be ignored
    follow_parent(grace=SAVING_S)  # closing the games may take a while
    worker = Worker(connection, lanes, rebuild)
    commands: dict[str, Callable[..., Any]] = {
        "build": lambda seeds: worker.build(pickle.loads(pickled), n_envs, seeds),
        "attach": worker.attach,
        "reset": worker.reset,
        "step": worker.step,
        "render": worker.render,
    }
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        while True:
            name, *arguments = connection.recv()
            if name == "close":
                break
            try:
                reply: tuple[Any, ...] = ("done", commands[name](*arguments))
            except BaseException as error:  # SystemExit too: a game that exits is a game that failed
                line = traceback.format_exception_only(error)[-1].strip()
                if name == "step":
                    line += f" (in step {worker.steps[worker.at] + 1} of the episode)"
                reply = ("error", worker.at, line, traceback.format_exc(), _raised_here(error))
            connection.send(reply)
    worker.close()
