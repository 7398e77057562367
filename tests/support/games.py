"""Tiny PettingZoo, Gymnasium and pool games for the tests of the adapters. Importing this must not import torch."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

from envs.adapters.worker import GameSpec, Outcome, View


class Countdown(ParallelEnv):
    """A game whose agents, of different sizes, leave one after the other; the last two leave together.

    Agent ``i`` of ``n`` has 2 + i actions (starting at ``i``), and i + 1 observations: its random token in [1, 2],
    then how many steps it has left. Its reward is its action minus its first one. ``ending``: "terminated" or
    "truncated", for the last two.
    """

    metadata = {"name": "countdown"}  # noqa: RUF012 - PettingZoo's own convention

    def __init__(self, n: int = 3, ending: str = "terminated", masked: str = "none", render_mode: str | None = None):
        self.possible_agents = [f"agent_{i}" for i in range(n)]
        self.agents: list[str] = []
        self.ending, self.masked, self.render_mode = ending, masked, render_mode
        self.last: dict[str, int] = {}

    def action_space(self, agent: str) -> spaces.Discrete:
        i = self.possible_agents.index(agent)
        return spaces.Discrete(2 + i, start=i)

    def observation_space(self, agent: str) -> spaces.Space:
        i = self.possible_agents.index(agent)
        box = spaces.Box(1.0, 10.0, (i + 1,), np.float32)
        if self.masked == "obs":
            return spaces.Dict({"observation": box, "action_mask": spaces.Box(0, 1, (2 + i,), np.int8)})
        return box

    def leaves_at(self, i: int) -> int:
        return min(2 + i, len(self.possible_agents))

    def mask(self, i: int) -> np.ndarray:
        """Return the mask; the first action is forbidden at odd times."""
        return np.array([self.t % 2 == 0] + [True] * (1 + i), dtype=np.int8)

    def observe(self) -> tuple[dict[str, Any], dict[str, Any]]:
        observations, infos = {}, {}
        for name in self.agents:
            i = self.possible_agents.index(name)
            value: Any = np.full(i + 1, 1 + self.leaves_at(i) - self.t, np.float32)
            value[0] = self.token[i]
            observations[name] = {"observation": value, "action_mask": self.mask(i)} if self.masked == "obs" else value
            infos[name] = {"action_mask": self.mask(i)} if self.masked == "info" else {}
        return observations, infos

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        self.token = 1 + np.random.default_rng(seed).random(len(self.possible_agents))
        self.agents, self.t = list(self.possible_agents), 0
        return self.observe()

    def step(self, actions: dict[str, int]) -> tuple[dict, dict, dict, dict, dict]:
        assert set(actions) == set(self.agents)
        assert all(self.action_space(name).contains(action) for name, action in actions.items())
        self.last = dict(actions)
        rewards = {name: float(a - self.possible_agents.index(name)) for name, a in actions.items()}
        self.t += 1
        observations, infos = self.observe()
        leaving = {name: self.t >= self.leaves_at(self.possible_agents.index(name)) for name in self.agents}
        cut = self.ending == "truncated" and all(leaving.values())
        terminations = {name: gone and not cut for name, gone in leaving.items()}
        truncations = {name: gone and cut for name, gone in leaving.items()}
        if all(leaving.values()):
            infos[self.agents[0]]["is_success"] = not cut
        self.agents = [name for name in self.agents if not leaving[name]]
        return observations, rewards, terminations, truncations, infos

    def state(self) -> np.ndarray:
        return np.array([self.t, *self.token])

    def render(self) -> np.ndarray:
        return np.full((4, 6, 3), 10 * self.t, np.uint8)


class Pair(gymnasium.Env):
    """A game of two agents that see a random number and the time, and are paid their actions; it ends when both play 2.

    With ``remembers`` the clock starts where the last episode stopped, modulo 2.
    """

    def __init__(
        self, joint: str = "tuple", shared: bool = False, remembers: bool = False, render_mode: str | None = None
    ):
        self.joint, self.shared, self.remembers, self.render_mode = joint, shared, remembers, render_mode
        self.t = 0
        if joint == "tuple":
            self.action_space = spaces.Tuple([spaces.Discrete(3), spaces.Discrete(4)])
            self.observation_space = spaces.Tuple([spaces.Box(0, 9, (2,)), spaces.Discrete(3)])
        else:
            self.action_space = spaces.MultiDiscrete([3, 4], start=[0, 1])
            self.observation_space = spaces.Box(0, 9, (2, 1))

    def observe(self) -> Any:
        value = self.np_random.random()
        if self.joint == "tuple":
            return np.array([value, self.t], np.float32), self.t % 3
        return np.array([[value], [self.t]], np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.t = self.t % 2 if self.remembers else 0
        return self.observe(), {"action_mask": [[1, 1, 1], [1, 1, 1, 0]]}

    def step(self, actions: Any) -> tuple[Any, Any, bool, bool, dict]:
        assert self.action_space.contains(actions if self.joint == "tuple" else np.asarray(actions))
        self.t += 1
        reward = float(sum(actions)) if self.shared else [float(a) for a in actions]
        done = all(a == 2 for a in actions)
        return self.observe(), reward, done, False, {"won": done, "action_mask": [[1, 1, 1], [1, 1, 1, 0]]}

    def render(self) -> np.ndarray:
        return np.zeros((3, 5, 3), np.uint8)


gymnasium.register("TestPair-v0", entry_point=Pair, max_episode_steps=4)


class Mortal(Pair):
    """A pair whose simulator goes away after ``after`` steps of its process (a new one has a new simulator), and
    from then on for ever if there is a file ``grave`` to be made."""

    lived = 0

    def __init__(self, after: int, grave: str | None = None) -> None:
        super().__init__()
        self.after, self.grave = after, None if grave is None else Path(grave)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        if self.grave is not None and self.grave.exists():
            raise ConnectionError("there is no simulator")
        return super().reset(seed=seed, options=options)

    def step(self, actions: Any) -> tuple[Any, Any, bool, bool, dict]:
        Mortal.lived += 1
        if Mortal.lived == self.after:
            if self.grave is not None:
                self.grave.touch()
            raise ConnectionError("the simulator went away")
        return super().step(actions)


@dataclass
class Bomb:
    """A pool game of one agent that fails on command, by default at step ``fuse``.

    ``way``: "raise", "kill" (SIGKILL), "exit" (sys.exit), "hang", "mute" (no available action) or "" for never.
    ``where``: "init", "reset" or "step".
    """

    way: str = ""
    where: str = "step"
    fuse: int = 2
    lane_file: str = ""  # only the game that creates this file first fails
    only: int | None = None  # only the process with this lane fails
    second_reset: bool = False  # where it is "reset": in the second one
    others_end: int = 0  # the step in which games that never fail terminate; 0: at the limit

    def __post_init__(self) -> None:
        bound = np.ones(1, np.float32)
        self.spec = GameSpec(1, 2, 1, 1, 10, 0 * bound, 10 * bound)
        self.armed = self.only is None or multiprocessing.current_process().name == f"lanes-{self.only}"
        self.resets = 0
        if self.lane_file:
            try:
                os.close(os.open(self.lane_file, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                self.armed = False
        self.maybe("init")

    def maybe(self, where: str) -> None:
        if not self.armed or where != self.where:
            return
        if self.way == "raise":
            raise ZeroDivisionError("the bomb went off")
        if self.way == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.way == "exit":
            raise SystemExit(3)
        if self.way == "hang":
            signal.pause()

    def write(self, view: View) -> None:
        view.obs[:], view.state[:], view.alive[:] = self.t, self.t, True
        view.avail[:] = not (self.armed and self.way == "mute" and self.t == self.fuse)

    def reset(self, seed: int, view: View) -> None:
        self.t = 0
        self.resets += 1
        if not self.second_reset or self.resets == 2:
            self.maybe("reset")
        self.write(view)

    def step(self, actions: np.ndarray, view: View) -> Outcome:
        self.t += 1
        if self.t == self.fuse:
            self.maybe("step")
        self.write(view)
        return Outcome(1.0, not self.armed and self.t == self.others_end, False, False)

    def render(self) -> None:
        return None

    def close(self) -> None:
        return None


class Doomed(Bomb):
    """A bomb that ends its episode at step 2 if the seed is even, and raises at step 3 if it is odd."""

    def reset(self, seed: int, view: View) -> None:
        self.way, self.fuse, self.even = "raise", 3, seed % 2 == 0
        super().reset(seed, view)

    def step(self, actions: np.ndarray, view: View) -> Outcome:
        super().step(actions, view)
        return Outcome(1.0, self.even and self.t == 2, False, False)


class MakeBomb:
    """Makes a ``Bomb`` with these options, in whatever process."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def __call__(self) -> Bomb:
        return Bomb(**self.options)


class Dice:
    """A pool game that shows a number when it is built, and one at each reset and step, from the global generators of
    Python and NumPy."""

    def __init__(self) -> None:
        self.spec = GameSpec(1, 2, 2, 1, 4, np.zeros(2, np.float32), 2 * np.ones(2, np.float32))
        self.made = random.random() + np.random.rand()

    def reset(self, seed: int, view: View) -> None:
        view.state[:], view.avail[:], view.alive[:] = self.made, True, True
        view.obs[:] = random.random(), np.random.rand()

    def step(self, actions: np.ndarray, view: View) -> Outcome:
        view.obs[:] = random.random(), np.random.rand()
        return Outcome(0.0, False, False, False)

    def render(self) -> None:
        return None

    def close(self) -> None:
        return None


def unpicklable() -> Callable[[], Bomb]:
    return lambda: Bomb()
