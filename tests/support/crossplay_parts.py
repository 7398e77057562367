"""Players by script whose meetings can be told beforehand, for cross-play matrices."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from marl.core.types import Carry, ConfigError, EnvSpec, Obs
from marl.learn.policy import random_available
from marl.measure.beforehand import game_spec
from marl.measure.crossplay import Seating, Setting, pair_up
from marl.measure.crossplay_scores import Cell, Pair, Sheet, find_limits, score_pair
from marl.measure.entrants import Entrant
from marl.measure.matrix import Outcome, measure, read_cell
from marl.measure.partners import Partner
from tests.support.robustness_parts import MATRIX

CALLS: Counter[str] = Counter()  # rounds that were begun, by a player's name
STARTS: list[Tensor] = []  # states in which those rounds began
THREE = {"_target_": "envs.toys.games.MatrixGame", "_partial_": True, "payoff": [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]}


class Stubborn:
    """Every agent plays ``action``, or with ``action`` -1 a random one. ``trick``: "interrupt" presses Ctrl-C in its
    first round; a number of agents refuses games with another one."""

    def __init__(self, spec: EnvSpec, device: Any, *, name: str, action: int, trick: str | int | None) -> None:
        if isinstance(trick, int) and trick != spec.n_agents:
            raise ConfigError(f"{name} plays with {trick} agents only")
        self.name, self.action, self.trick = name, action, trick

    def begin(self, n_envs: int, gen: Generator) -> Carry:
        CALLS[self.name] += 1
        if self.trick == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
        return {"fresh": torch.ones(n_envs, dtype=torch.bool)}

    def act(self, obs: Obs, carry: Carry, *, explore: bool, gen: Generator) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        if carry["fresh"].all():
            STARTS.append(obs.state.clone())
        drawn = random_available(obs.avail, gen)
        actions = drawn if self.action < 0 else torch.full_like(drawn, self.action)
        return actions, {"fresh": torch.zeros_like(carry["fresh"])}, {}

    def after(self, carry: Carry, intended: Tensor, executed: Tensor) -> Carry:
        return carry


def player(
    action: int, label: str | None = None, seed: int = 0, env: Any = MATRIX, trick: str | int | None = None
) -> Entrant:
    label = label or f"plays {action}"
    policy = {"_target_": "tests.support.crossplay_parts.Stubborn", "_partial_": True, "name": label, "action": action,
              "trick": trick}  # fmt: skip
    opens = {"run": None, "policy": policy, "checkpoint": None}
    return Entrant("matrix", label, seed, {"policy": label, "env_steps": 100}, opens, policy, env)


def setting(out: Path, episodes: int = 6, n_envs: int = 4, seed: int = 0, epsilon: float = 0.0) -> Setting:
    return Setting(episodes, n_envs, seed, device="cpu", threads=1, out=out, epsilon=epsilon)


def pairs(rows: list[Entrant], columns: list[Entrant], where: Setting) -> list[list[list[Seating]]]:
    n = game_spec(rows[0].env).n_agents
    return [[pair_up(row, column, n, where) for column in columns] for row in rows]


def scored(plan: list[list[list[Seating]]], metric: str = "return") -> tuple[list[list[Cell]], Outcome]:
    """Return the matrix of a plan after one pass in this process."""
    outcome = measure((one for row in plan for pair in row for one in pair), 1)
    found = [[score_pair([read_cell(one, outcome) for one in pair], metric) for pair in row] for row in plan]
    return found, outcome


def mean(cell: Cell) -> float:
    assert isinstance(cell, Pair), cell
    return cell.mean


def by_hand(
    values: list[list[float | str | None]], labels: list[str], partners: list[tuple[str, str]] | None = None,
    answers: list[list[float]] | None = None, env: Any = MATRIX,
) -> Sheet:  # fmt: skip
    """Return a sheet of given means; ``partners`` are (population, name), ``answers`` what best responses reach."""

    def pair(value: float | str | None) -> Cell:
        return Pair(float(value), 0.0, 6, (float(value),)) if isinstance(value, int | float) else value

    rows = [player(i, label, seed=labels[:i].count(label), env=env) for i, label in enumerate(labels)]
    strangers = [Partner(group, name, player(100 + k, name)) for k, (group, name) in enumerate(partners or [])]
    cells = [[pair(value) for value in row] for row in values]
    reached = [[pair(one) for one in found] for found in answers or [[]] * len(strangers)]
    return Sheet("return", rows, strangers, cells, find_limits(rows, strangers, cells, reached))
