"""A person at the keyboard: keys, what they do in the game, and the terminal, fed by a script."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from envs.toys.games import MatrixGame
from marl.core.seeding import Streams
from marl.core.types import ConfigError, EnvSpec
from marl.show.play import Chooser, Keyboard, Person, Quit, Screen, as_text, bind_keys, legend, play, seats_of
from tests.scripts.test_cli import refused
from tests.support.helpers import make_spec
from tests.support.processes import run
from tests.support.robustness_parts import Scripted

ROOT = Path(__file__).resolve().parents[3]


def spec_of(*names: str, idle: int | None = None) -> EnvSpec:
    one = torch.zeros(1)
    return EnvSpec(2, len(names), 1, 1, 5, one, one, idle_action=idle, action_names=names)


@pytest.fixture
def typing() -> Iterator[tuple[Keyboard, int]]:
    """Give a keyboard, and the end of a pipe on which to type."""
    read, write = os.pipe()
    yield Keyboard(read), write
    os.close(read)
    os.close(write)


def test_keys_are_what_names_suggest() -> None:
    keys = bind_keys(spec_of("N", "S", "E", "W", "stay", "interact"))
    assert keys == {"up": 0, "w": 0, "down": 1, "s": 1, "right": 2, "d": 2, "left": 3, "a": 3, ".": 4, "enter": 4,
                    "space": 5}  # fmt: skip
    assert bind_keys(spec_of("stay", "N", "NE", "NW"))["1"] == 2 and bind_keys(spec_of("N", "NE", "NW"))["2"] == 2
    assert set(bind_keys(make_spec(A=3)).values()) == {0, 1, 2}, "games without names of actions"
    assert legend(spec_of("N", "press"), bind_keys(spec_of("N", "press"))) == "up/w N   space press   q leave"
    assert "q" not in bind_keys(make_spec(A=25)), "that is how one leaves"
    with pytest.raises(ConfigError, match="200 actions"):
        bind_keys(make_spec(A=200))


def test_the_keyboard_knows_its_keys(typing: tuple[Keyboard, int]) -> None:
    keyboard, end = typing
    os.write(end, b"a\x1b[A\x1bOD \r\x1b")
    assert [keyboard.key(0.01) for _ in range(7)] == ["a", "up", "left", "space", "enter", "esc", None]


def test_the_end_of_the_input_is_the_end_of_the_game() -> None:
    read, write = os.pipe()
    os.close(write)
    with pytest.raises(Quit):
        Keyboard(read).key(None)
    os.close(read)


def test_only_what_can_be_done_is_chosen(typing: tuple[Keyboard, int]) -> None:
    keyboard, end = typing
    choose = Chooser(spec_of("N", "S", "stay", idle=2), keyboard, None)
    os.write(end, b"wxs")
    assert choose([1, 2]) == 1, "N is not available and x is no key"
    assert choose([2]) == 2, "there is nothing to choose"
    assert Chooser(choose.spec, keyboard, 0.01)([0, 1, 2]) == 2, "the game goes on"
    os.write(end, b"q")
    with pytest.raises(Quit):
        choose([0, 1])
    with pytest.raises(ConfigError, match="doing nothing"):
        Chooser(spec_of("N", "S"), keyboard, 0.5)


def rounds(
    keys: bytes, seat: int, episodes: int, typing: tuple[Keyboard, int], screen: Screen | None = None,
    game: type[MatrixGame] = MatrixGame,
) -> list[dict[str, float]]:  # fmt: skip
    """Matrix games [[8, 2], [4, 0]] with a partner that always plays 0; keys 1 and 2 are actions 0 and 1."""
    keyboard, end = typing
    os.write(end, keys)
    env, streams = game([[8, 2], [4, 0]], n_envs=1), Streams(0)
    partner = Scripted(env.spec, "cpu", actions=[0, 0])
    choose = Chooser(env.spec, keyboard, None)
    with closing(env):
        return list(play(env, partner, seat, choose, streams, episodes, screen or Screen([])))


def test_the_person_has_one_seat_and_the_partner_the_others(typing: tuple[Keyboard, int]) -> None:
    """As the rows' player 1 makes 4, as the columns' 2."""
    assert [one["return"] for one in rounds(b"12", 0, 2, typing)] == [8, 4]
    assert [one["return"] for one in rounds(b"12", 1, 2, typing)] == [8, 2]
    assert rounds(b"1", 0, 1, typing) == [{"return": 8, "length": 1, "won": True}]


def test_leaving_keeps_what_was_played(typing: tuple[Keyboard, int]) -> None:
    assert [one["return"] for one in rounds(b"2q", 0, 5, typing)] == [4]


class Unseen(MatrixGame):
    """A game that draws no pictures: asking it for its ``render`` finds nothing."""

    def __getattribute__(self, name: str) -> Any:
        if name == "render":
            raise AttributeError(f"'Unseen' object has no attribute '{name}'", name=name, obj=self)
        return super().__getattribute__(name)


def test_a_game_without_pictures_is_played_by_its_status_line(typing: tuple[Keyboard, int]) -> None:
    """On a terminal, where the screen says why there is no picture, and where the screen stays dark."""
    told, screen = io.StringIO(), Screen(["below"])
    screen.console = Console(file=told, force_terminal=True, width=80, height=20)
    assert [one["return"] for one in rounds(b"12", 0, 2, typing, screen, Unseen)] == [8, 4]
    assert told.getvalue().count("Unseen draws no pictures: it has no render\n") == 4, "before and after each step"
    assert "step 1 of at most 1, score 0\nbelow" in told.getvalue() and "▀" not in told.getvalue()
    assert [one["return"] for one in rounds(b"2", 0, 1, typing, None, Unseen)] == [4]


def test_seats_and_lanes_that_are_not_there() -> None:
    assert seats_of(1, 3).tolist() == [[0, 1, 0]]
    with pytest.raises(ConfigError, match=r"seat=2 .* 0\.\.1"):
        seats_of(2, 2)
    with pytest.raises(ConfigError, match="one game at a time"):
        Person(0, lambda available: 0).begin(2, torch.Generator())


def test_pictures_become_half_blocks() -> None:
    """Red above blue in the left column, green in the right; larger ones are shrunk."""
    picture = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [0, 255, 0]]], np.uint8)
    text = as_text(picture, 10, 10)
    assert text.plain == "▀▀\n" and [span.style for span in text.spans] == [
        "rgb(255,0,0) on rgb(0,0,255)", "rgb(0,255,0) on rgb(0,255,0)",
    ]  # fmt: skip
    shrunk = as_text(np.zeros((100, 200, 3), np.uint8), 20, 10).plain.splitlines()
    assert len(shrunk) == 5 and {len(line) for line in shrunk} == {20}


def test_a_game_in_a_terminal(tmp_path: Path) -> None:
    """The command itself, on a terminal that a script types on: two episodes, then away."""
    boss, terminal = pty.openpty()
    policy = "{_target_: tests.support.robustness_parts.Scripted, _partial_: true, actions: [0, 0]}"
    arguments = ["env=toy/matrix", "env.payoff=[[8,2],[4,0]]", f"+policy={policy}", "episodes=3",
                 f"out={tmp_path / 'out.json'}"]  # fmt: skip
    child = subprocess.Popen([sys.executable, "-m", "scripts.play", *arguments], cwd=ROOT, stdin=terminal,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
    try:
        for _ in range(6000):
            if child.poll() is not None or not termios.tcgetattr(terminal)[3] & termios.ICANON:
                break  # it has ended, or listens to single keys
            time.sleep(0.1)
        os.write(boss, b"12q")
        said, _ = child.communicate(timeout=600)
        assert termios.tcgetattr(terminal)[3] & termios.ICANON, "the terminal is as it was"
    finally:
        child.kill()
        os.close(boss)
        os.close(terminal)
    assert child.returncode == 0, said
    assert said.splitlines()[-3:] == ["episode 0: return 8.00, 1 steps, won", "episode 1: return 4.00, 1 steps",
                                      "left after 2 of 3 episodes"]  # fmt: skip
    assert [one["return"] for one in json.loads((tmp_path / "out.json").read_text())["episodes"]] == [8, 4]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["env=toy/matrix"], "give the partners"), (["run=nowhere"], "run=nowhere is not a run folder"),
        (["policy=pymarl", "policy.path=x"], "env is missing"), (["run=a", "policy=pymarl"], "give the partners"),
        (["pace=0", "run=a"], "pace=0"), (["episodes=0", "run=a"], "episodes=0"), (["run=a", "seet=1"], "seet"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert words in refused(capsys, "play", *arguments)


def test_without_a_terminal_it_says_so(tmp_path: Path) -> None:
    policy = "{_target_: tests.support.robustness_parts.Scripted, _partial_: true, actions: [0, 0]}"
    done = run("play", "env=toy/matrix", f"+policy={policy}", cwd=tmp_path)
    assert done.returncode == 2 and "needs a terminal" in done.stderr
