"""Checks of football that need more than a test may: ``python -m tests.support.football_checks parity FOLDER`` compares
our engine with the environment of the package itself, whose unpacked source distribution is in FOLDER (``pip download
--no-deps --no-binary :all: gfootball==2.10.2``), and ``... play`` says what random play comes to in every scenario."""

from __future__ import annotations

import sys
import time
import types
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from envs.adapters.football.engine import ACTIONS, Engine
from envs.adapters.football.referee import Referee, Rules
from marl.run.compose import choices, compose

EPISODES, MOST_STEPS = 6, 250  # that are compared
PLAYED = 60  # episodes of random play
FREE = Rules(10**6, None, "mean", False, False)  # no end but the scenario's own


def import_package(folder: Path) -> tuple[Any, Any]:
    """Return the package's modules ``config`` and ``football_env``, which want gym and OpenCV, imported with stand-ins
    that only have the names."""
    registration = types.ModuleType("gym.envs.registration")
    registration.register = lambda **_: None  # type: ignore[attr-defined]
    sys.modules |= {
        "gym": gymnasium, "gym.utils": gymnasium.utils, "gym.spaces": gymnasium.spaces,
        "gym.envs": types.ModuleType("gym.envs"), "gym.envs.registration": registration,
        "cv2": types.ModuleType("cv2"), "pygame": types.ModuleType("pygame"),
    }  # fmt: skip
    for name in ("gfootball", "gfootball.env"):  # without their __init__, which make environments of gym
        package = types.ModuleType(name)
        package.__path__ = [str(folder / name.replace(".", "/"))]
        sys.modules[name] = package
    from gfootball.env import config, football_env

    return config, football_env


def numbers(seen: dict[str, Any]) -> np.ndarray:
    """Return the package's observation as our scene has it: positions and directions of everybody, then the ball."""
    sides = [np.c_[seen[side], seen[f"{side}_direction"]].ravel() for side in ("left_team", "right_team")]
    return np.concatenate([*sides, seen["ball"], seen["ball_direction"]])


def differences(config: Any, football_env: Any, level: str, agents: int) -> tuple[int, int]:
    """Return the steps of ``EPISODES`` episodes of random play, and in how many of them the two differ."""
    draw, ours, referee = np.random.default_rng(1), Engine(level, agents, 10), Referee(FREE, agents)
    steps = wrong = 0
    for _ in range(EPISODES):
        seed = int(draw.integers(2**31 - 1))
        if level == "5_vs_5":
            seed |= 1  # who kicks off is the parity of the seed in ours, and of the episode's number in the package
        options = {"level": level, "players": [f"agent:left_players={agents},right_players=0"],
                   "action_set": "default", "dump_full_episodes": False, "dump_scores": False, "write_video": False,
                   "enable_sides_swap": False, "game_engine_random_seed": seed}  # fmt: skip
        theirs = football_env.FootballEnv(config.Config(options))
        core = theirs._env
        core._config["episode_number"] = 0  # making the environment has counted one
        theirs.reset()
        scene, ends = ours.reset(seed)
        referee.begin(ends)
        for _ in range(MOST_STEPS):
            seen = core._observation
            same = np.array_equal(numbers(seen), np.concatenate([scene.left.ravel(), scene.right.ravel(), scene.ball]))
            same &= tuple(seen["left_agent_controlled_player"][:agents]) == scene.controlled
            actions = draw.integers(len(ACTIONS), size=agents)
            _, reward, done, _ = theirs.step(actions.tolist())
            scene = ours.step(actions)
            told = referee.judge(scene)
            same &= float(np.ravel(reward)[0]) == told.reward and done == (told.terminated or told.truncated)
            steps, wrong = steps + 1, wrong + (not same)
            if done:
                break
    return steps, wrong


def play(level: str, env: Any) -> str:
    """Return what ``PLAYED`` episodes of random play with the ends of a configuration come to, and what they cost."""
    rules = Rules(env.episode_limit, env.pos_limit, env.reward, env.checkpoints, env.timeout_is_terminal)
    engine, referee = Engine(level, env.agents, env.physics_steps_per_frame), Referee(rules, env.agents)
    draw, cpu = np.random.default_rng(0), time.process_time()
    steps = goals = others = 0
    for seed in range(PLAYED):
        scene, ends = engine.reset(seed)
        referee.begin(ends)
        over = False
        while not over:
            last = range(len(scene.left) - env.agents, len(scene.left))
            others += sum(own != eyes for own, eyes in zip(scene.controlled, last, strict=True))
            scene = engine.step(draw.integers(len(ACTIONS), size=env.agents))
            told = referee.judge(scene)
            over, steps, goals = told.terminated or told.truncated, steps + 1, goals + told.won
    speed = steps / (time.process_time() - cpu)
    return (
        f"{goals} of {PLAYED} episodes with a goal, {steps / PLAYED:.0f} steps long; {others / steps / env.agents:.0%} "
        f"of an agent's steps move another player than it sees through; {speed:.0f} steps per CPU second"
    )


def main(what: str, *folder: str) -> None:
    modules = import_package(Path(folder[0])) if what == "parity" else ()
    total = 0
    for name in (name for name in choices("env") if name.startswith("football/")):
        env = compose(f"env={name}").env
        if what == "parity":
            steps, wrong = differences(*modules, env.level, env.agents)
            total += steps
            print(f"{env.level}: {steps} steps, {wrong} of them differ", flush=True)
        else:
            print(f"{env.level}: {play(env.level, env)}", flush=True)
    if total:
        print(f"{total} steps in all")


if __name__ == "__main__":
    main(*sys.argv[1:])
