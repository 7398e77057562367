"""Google Research Football as lanes of the process pool. Imports neither torch nor the engine, which workers load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np

from envs.adapters.football.draw import draw
from envs.adapters.football.engine import ACTIONS, ENGINE, IDLE, Engine, levels
from envs.adapters.football.referee import Referee, Reward, Rules
from envs.adapters.football.scene import (
    Who,
    about,
    bounds,
    find_agents,
    obs_names,
    state_names,
    width,
    write_observations,
    write_state,
)
from envs.adapters.worker import GameSpec, Outcome, View

if TYPE_CHECKING:
    from envs.adapters.pool import Pool


def Football(
    level: str,
    agents: int,
    enemies: int,
    episode_limit: int,
    pos_limit: float | None,
    reward: Reward,
    checkpoints: bool,
    observe: Who,
    scale_directions: float,
    timeout_is_terminal: bool,
    physics_steps_per_frame: int,
    workers: int | None,
    timeout: float | None = 300.0,
    *,
    n_envs: int,
    seed: int = 0,
) -> Pool:
    """Make ``n_envs`` matches of the scenario ``level``; needs the engine (``make football``).

    ``observe`` sets which players the agents observe as: "last", as published, the last ``agents`` players of the left
    team; "controlled", the players that they actually control, which the engine selects and switches as the ball moves.
    They see the first ``enemies`` players of the right team.

    An episode ends when the scenario says so (goal, ball out of play, the other team in possession), and when the ball
    or one of the last ``agents`` players is left of ``pos_limit``, in half lengths of the pitch (None: never). At
    ``episode_limit`` steps it is ``truncated``, or ``terminated`` with ``timeout_is_terminal``, the published setting.

    ``reward``: "goals" pays the change in goal difference times ``agents`` (code of S2Q), "mean" the change itself,
    "fox" 100 for a goal, -1 in the last step of an episode without one, time-outs included, and 0 otherwise (code of
    FoX). ``checkpoints`` adds 0.1 for each of ten rings around the goal that the ball reaches in an agent's possession.
    ``won``: a goal in this step.

    Observation and state, each of size 4 ``agents`` + 4 ``enemies`` + 6: ``envs/adapters/football/scene.py``.
    Directions are of the order of 0.01; ``scale_directions`` multiplies them (1: as published). All actions are always
    available. Raises ConfigError for a missing engine and for values that do not fit the scenario.
    """
    from envs.adapters.pool import Pool, require_package  # not above: workers must not pay for torch
    from marl.core.checks import require_at_least, require_choice, require_positive, require_within

    require_at_least("env", 1, agents=agents, enemies=enemies, episode_limit=episode_limit,
                     physics_steps_per_frame=physics_steps_per_frame)  # fmt: skip
    require_within("env", -1, 1, or_null=True, pos_limit=pos_limit)
    require_choice("env", get_args(Reward), reward=reward)
    require_choice("env", get_args(Who), observe=observe)
    require_positive("env", scale_directions=scale_directions)
    require_package(ENGINE)
    require_choice("env", levels(), level=level)
    rules = Rules(episode_limit, pos_limit, reward, bool(checkpoints), bool(timeout_is_terminal))
    make = _MakeFootball(level, agents, enemies, observe, float(scale_directions), physics_steps_per_frame, rules)
    return Pool(make, n_envs=n_envs, seed=seed, workers=workers, timeout=timeout)


@dataclass
class _MakeFootball:
    """Picklable constructor call of ``FootballGame``."""

    level: str
    agents: int
    enemies: int
    observe: Who
    scale: float
    physics_steps_per_frame: int
    rules: Rules

    def __call__(self) -> FootballGame:
        return FootballGame(self, Engine(self.level, self.agents, self.physics_steps_per_frame))


class FootballGame:
    """One lane; implements ``envs.adapters.worker.Game``."""

    def __init__(self, make: _MakeFootball, engine: Engine) -> None:
        self.make, self.engine = make, engine
        n, m = make.agents, make.enemies
        _require_players(engine, make)
        low, high = bounds(n, m, make.scale)
        self.referee = Referee(make.rules, n)
        self.spec = GameSpec(
            n, len(ACTIONS), width(n, m), width(n, m), make.rules.episode_limit, low, high, idle_action=IDLE,
            about=about(n, m), obs_names=obs_names(n, m), state_names=state_names(n, m), action_names=ACTIONS,
        )  # fmt: skip

    def reset(self, seed: int, view: View) -> None:
        self.scene, ends = self.engine.reset(seed)
        self.referee.begin(ends)
        self._write(view)

    def step(self, actions: np.ndarray, view: View) -> Outcome:
        self.scene = self.engine.step(actions)
        self._write(view)
        return self.referee.judge(self.scene)

    def render(self) -> np.ndarray:
        """Draw the pitch, players, ball, score and step: uint8 [height, width, 3]."""
        left, right = self.scene.goals
        return draw(self.scene, f"step {self.referee.steps}   {left} : {right}")

    def close(self) -> None:
        return None  # the engine ends with its process

    def _write(self, view: View) -> None:
        m, scale = self.make.enemies, self.make.scale
        team = find_agents(self.scene, self.make.agents, self.make.observe)
        write_observations(team, self.scene, m, scale, view.obs)
        np.clip(view.obs, self.spec.obs_low, self.spec.obs_high, out=view.obs)
        write_state(team, self.scene, m, scale, view.state)
        view.avail[:] = view.alive[:] = True


def _require_players(engine: Engine, make: _MakeFootball) -> None:
    """Raise ValueError, which the pool turns into a ConfigError, if the scenario has fewer players than requested."""
    config = engine.scenario(0)
    ours = sum(player.controllable for player in config.left_team)
    for name, wanted, there in (("agents", make.agents, ours), ("enemies", make.enemies, len(config.right_team))):
        if wanted > there:
            raise ValueError(f"env.{name}={wanted} must be at most {there}, the players of {make.level}")
