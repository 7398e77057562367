"""A person at the keyboard with trained partners, in a terminal."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.text import Text
from torch import Generator, Tensor

from marl.core.protocols import NoAttack, Policy, VectorEnv, View
from marl.core.seeding import Streams
from marl.core.types import Carry, ConfigError, EnvSpec, Obs, Step, core_fields
from marl.learn.lineup import Lineup
from marl.run.collect import collect_whole
from marl.run.evaluate import episode_results
from marl.show.record import drawn

Ask = Callable[[list[int]], int]  # the person's choice among available actions
QUIT = ("q", "ctrl-c", "esc")
ESCAPES = {"\x1b[A": "up", "\x1b[B": "down", "\x1b[C": "right", "\x1b[D": "left",
           "\x1bOA": "up", "\x1bOB": "down", "\x1bOC": "right", "\x1bOD": "left"}  # fmt: skip
PLAIN = {" ": "space", "\r": "enter", "\n": "enter", "\x03": "ctrl-c", "\x1b": "esc"}
WISHES = {  # keys that people expect, by the lower-case name of an action
    "n": ("up", "w"), "s": ("down", "s"), "e": ("right", "d"), "w": ("left", "a"),
    "north": ("up", "w"), "south": ("down", "s"), "east": ("right", "d"), "west": ("left", "a"),
    "up": ("up", "w"), "down": ("down", "s"), "right": ("right", "d"), "left": ("left", "a"),
    "interact": ("space",), "press": ("space",), "load": ("space",), "stay": (".", "enter"), "noop": (".", "enter"),
}  # fmt: skip
SPARE = "1234567890zxcvbnmrtyuiopfghjkl"


class Quit(Exception):
    """The person has quit."""


def bind_keys(spec: EnvSpec) -> dict[str, int]:
    """Return the action of each key: a key that the action's name suggests, or else the next of ``SPARE``."""
    names = spec.action_names or tuple(f"action {a}" for a in range(spec.n_actions))
    keys: dict[str, int] = {}
    for action, name in enumerate(names):
        for key in WISHES.get(name.lower(), ()):
            keys.setdefault(key, action)
    spare = iter([key for key in SPARE if key not in keys])
    for action in range(spec.n_actions):
        if action not in keys.values():
            try:
                keys[next(spare)] = action
            except StopIteration as error:
                raise ConfigError(f"the game has {spec.n_actions} actions, more than there are keys") from error
    return keys


def legend(spec: EnvSpec, keys: dict[str, int]) -> str:
    """Return one line: the keys of every action."""
    names = spec.action_names or tuple(f"action {a}" for a in range(spec.n_actions))
    found = [f"{'/'.join(k for k, a in keys.items() if a == action)} {name}" for action, name in enumerate(names)]
    return "   ".join([*found, "q leave"])


class Keyboard:
    """Keys from a terminal's file descriptor: letters, and ``up``, ``space``, ``esc``, ... for the rest."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.waiting = descriptor, ""

    def key(self, timeout: float | None) -> str | None:
        """Return the next key; None where ``timeout`` seconds (None: no limit) pass without one. Raise Quit at the end
        of the input."""
        if not self.waiting:
            if not select.select([self.descriptor], [], [], timeout)[0]:
                return None
            typed = os.read(self.descriptor, 64).decode(errors="ignore")
            if not typed:
                raise Quit
            self.waiting = typed
        for code, name in ESCAPES.items():
            if self.waiting.startswith(code):
                self.waiting = self.waiting[len(code) :]
                return name
        first, self.waiting = self.waiting[0], self.waiting[1:]
        return PLAIN.get(first, first)

    @contextmanager
    def single_keys(self) -> Iterator[None]:
        """Deliver keys at once and hide them, inside the context. Raise ConfigError where there is no terminal."""
        if not os.isatty(self.descriptor):
            raise ConfigError("playing needs a terminal; standard input is none")
        import termios
        import tty

        before = termios.tcgetattr(self.descriptor)
        try:
            tty.setcbreak(self.descriptor, termios.TCSADRAIN)  # what was typed already counts
            yield
        finally:
            termios.tcsetattr(self.descriptor, termios.TCSADRAIN, before)


class Chooser:
    """A chooser of actions by key. With ``pace`` seconds a step, the game goes on without a key and the person idles;
    None waits for one."""

    def __init__(self, spec: EnvSpec, keyboard: Keyboard, pace: float | None) -> None:
        if pace is not None and spec.idle_action is None:
            raise ConfigError("pace is given, but this game has no action that means doing nothing")
        self.spec, self.keyboard, self.pace, self.keys = spec, keyboard, pace, bind_keys(spec)

    def __call__(self, available: list[int]) -> int:
        """Return the person's action among ``available``; keys of other actions are ignored. Raise Quit to leave."""
        if len(available) == 1:
            return available[0]  # nothing to choose: the dead
        while True:
            key = self.keyboard.key(self.pace)
            if key in QUIT:
                raise Quit
            if key is None and self.spec.idle_action in available:
                assert self.spec.idle_action is not None
                return self.spec.idle_action
            if key is not None and self.keys.get(key) in available:
                return self.keys[key]


class Person:
    """A policy that asks a person what agent ``seat`` does, in one lane; the other agents play their first available
    action, which a lineup does not use."""

    def __init__(self, seat: int, ask: Ask) -> None:
        self.seat, self.ask = seat, ask

    def begin(self, n_envs: int, gen: Generator) -> Carry:
        if n_envs != 1:
            raise ConfigError(f"a person plays one game at a time, not {n_envs}")
        return {}

    def act(self, obs: Obs, carry: Carry, *, explore: bool, gen: Generator) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        actions = obs.avail.long().argmax(-1)  # [1, n]
        actions[0, self.seat] = self.ask(obs.avail[0, self.seat].nonzero().flatten().tolist())
        return actions, carry, {}

    def after(self, carry: Carry, intended: Tensor, executed: Tensor) -> Carry:
        return carry


def seats_of(seat: int, n_agents: int) -> Tensor:
    """Return long [1, n]: policy 1, the person, has ``seat``, policy 0 all others."""
    if not 0 <= seat < n_agents:
        raise ConfigError(f"seat={seat} is not in this game; there are 0..{n_agents - 1}")
    return (torch.arange(n_agents) == seat).long()[None]


def as_text(picture: np.ndarray, columns: int, rows: int) -> Text:
    """Turn a picture, uint8 [height, width, 3], into half blocks that fit ``columns`` x ``rows`` characters; each holds
    two pixels, one above the other."""
    height, width = picture.shape[:2]
    scale = min(columns / width, 2 * rows / height, 1.0)
    size = (max(1, round(width * scale)), max(2, 2 * round(height * scale / 2)))
    small = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
    text = Text(no_wrap=True)
    for y in range(0, size[1], 2):
        for upper, lower in zip(small[y].tolist(), small[y + 1].tolist(), strict=True):
            text.append("▀", "rgb({},{},{}) on rgb({},{},{})".format(*upper, *lower))
        text.append("\n")
    return text


class Scoreboard(NoAttack):
    """An attack that leaves the game as it is, and counts steps and reward in lane 0."""

    def begin(self, n_envs: int, victim: Policy, gen: Generator) -> None:
        self.steps, self.score = 0, 0.0

    def after_step(self, view: View, executed: Tensor, step: Step) -> None:
        self.steps, self.score = self.steps + 1, self.score + float(step.reward[0])


class Screen:
    """A screen with the newest picture, or why there is none, above a status line; it stays dark where standard output
    is no terminal."""

    def __init__(self, lines_below: Sequence[str]) -> None:
        self.console, self.lines_below = Console(file=sys.stdout), lines_below

    def show(self, picture: np.ndarray | str, status: str) -> None:
        if not self.console.is_terminal:
            return
        columns, rows = self.console.size
        self.console.clear()
        if not isinstance(picture, str):
            self.console.print(as_text(picture, columns, max(1, rows - len(self.lines_below) - 2)), end="")
        for line in (*([picture] if isinstance(picture, str) else []), status, *self.lines_below):
            self.console.print(line, markup=False, highlight=False)


def picture_of(env: VectorEnv) -> np.ndarray | str:
    """Return a picture of lane 0, or why there is none: such a game is played by its status line alone."""
    try:
        return drawn(env)
    except ConfigError as error:
        return str(error)


def play(
    env: VectorEnv, partners: Policy, seat: int, choose: Chooser, streams: Streams, episodes: int, screen: Screen
) -> Iterator[dict[str, float]]:
    """Let the person in ``seat`` play with ``partners`` in all other seats, in an environment with one lane. Yield the
    result of each episode, until ``episodes`` have been played or the person has left."""
    board = Scoreboard(env.spec, env.device)

    def ask(available: list[int]) -> int:
        told = f"step {board.steps + 1} of at most {env.spec.episode_limit}, score {board.score:g}"
        screen.show(picture_of(env), told)
        return choose(available)

    team = Lineup([partners, Person(seat, ask)], seats_of(seat, env.spec.n_agents))
    for _ in range(episodes):
        try:
            batch = collect_whole(
                env, team, board, core_fields(env.spec), explore=False, attacked=torch.zeros(1, dtype=torch.bool),
                policy_gen=streams["eval"], attack_gen=streams["eval_attack"], device=env.device,
            )  # fmt: skip
        except Quit:
            return
        screen.show(picture_of(env), f"over after {board.steps} steps, score {board.score:g}")
        yield {name: values[0].item() for name, values in episode_results(batch).items() if not name.startswith("hit")}
