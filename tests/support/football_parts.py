"""Moments of a match made by hand, and the football engine or its stand-in, for tests."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from envs.adapters.football.engine import ENGINE, SCENARIOS
from envs.adapters.football.referee import Ends, Rules
from envs.adapters.football.scene import NORMAL, Scene

FAKES = Path(__file__).parent / "fakes"
ACADEMY = {
    "level": "academy_3_vs_1_with_keeper", "agents": 3, "enemies": 2, "episode_limit": 150, "pos_limit": 0.0,
    "reward": "fox", "checkpoints": False, "observe": "last", "scale_directions": 1.0, "timeout_is_terminal": False,
    "physics_steps_per_frame": 10, "workers": 1,
}  # fmt: skip
needs_engine = pytest.mark.skipif(
    importlib.util.find_spec(ENGINE) is None, reason="needs the football engine: make football"
)


def info(**changed: Any) -> SimpleNamespace:
    """Return what the engine would tell: a keeper and two agents against two, every number another one."""

    def player(x: float, y: float, dx: float, dy: float) -> SimpleNamespace:
        return SimpleNamespace(position=(x, y), direction=(dx, dy))

    told = {
        "left_team": [player(-0.9, 0.0, 0, 0), player(0.5, 0.1, 0.01, 0.02), player(0.75, -0.2, 0.03, -0.04)],
        "right_team": [player(1.0, 0.05, -0.01, 0.005), player(0.25, 0.3, 0.015, -0.025)],
        "ball_position": (0.625, 0.15, 2.0), "ball_direction": (0.05, -0.06, 0.125),
        "ball_owned_team": 0, "ball_owned_player": 1, "game_mode": NORMAL, "left_goals": 0, "right_goals": 0, "step": 7,
        "left_controllers": [SimpleNamespace(controlled_player=k) for k in (1, 2, -1)],
    }  # fmt: skip
    return SimpleNamespace(**{**told, **changed})


def scene(ball: tuple[float, float] = (0.6, 0.0), xs: tuple[float, ...] = (0.5, 0.7), **changed: Any) -> Scene:
    """Return a moment with a keeper at x = -1 and agents at ``xs``; nobody has the ball."""
    left = np.array([(-1.0, 0.0, 0.0, 0.0), *((x, 0.1, 0.0, 0.0) for x in xs)])
    right = np.array([(1.0, 0.0, 0.0, 0.0)])
    told: dict[str, Any] = {
        "left": left, "right": right, "ball": np.array([*ball, 0.0, 0.0, 0.0, 0.0]), "owner_team": -1, "owner": -1,
        "controlled": tuple(range(1, 1 + len(xs))), "mode": NORMAL, "goals": (0, 0), "step": 1,
    }  # fmt: skip
    return Scene(**{**told, **changed})


def rules(**changed: Any) -> Rules:
    told = {"episode_limit": 4, "pos_limit": None, "reward": "fox", "checkpoints": False, "timeout_is_terminal": False}
    return Rules(**{**told, **changed})


def ends(score: bool = False, out: bool = False, possession: bool = False, duration: int = 400) -> Ends:
    return Ends(score, out, possession, duration)


def forget() -> None:
    """Make the next import of the engine and its scenarios look for them again."""
    for name in [name for name in sys.modules if name.split(".")[0] in (ENGINE, SCENARIOS)]:
        del sys.modules[name]


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the stand-in for the engine on the path of this process and of its workers."""
    kept = {name: module for name, module in sys.modules.items() if name.split(".")[0] in (ENGINE, SCENARIOS)}
    forget()
    monkeypatch.syspath_prepend(str(FAKES))
    yield
    forget()
    sys.modules.update(kept)
