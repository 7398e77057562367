"""The human games of the ``overcooked-ai`` package (Carroll et al. 2019): states and the actions taken in them.

They replay exactly with ``auto_cook`` (tests/envs/overcooked/test_overcooked_humans.py). The two splits come from
different humans.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from envs.overcooked.env import Overcooked
from envs.overcooked.layout import Layout, parse
from envs.overcooked.pieces import Cook, Item
from marl.core.demonstrations import Demonstrations
from marl.core.types import ConfigError, EnvSpec

SPLITS = ("train", "test")
NEEDS = ("overcooked_ai_py", "pandas")
WAYS = {(0, -1): "N", (0, 1): "S", (1, 0): "E", (-1, 0): "W"}
MOVES: dict[Any, int] = {**{way: k for k, way in enumerate(WAYS)}, (0, 0): 4, "interact": 5}
COOK_TIME = 20  # in the recorded games
SOUP_SCORE = 5  # what a soup paid in them


def trials(split: str) -> Any:
    """Return the table of all games of a split, one row per step. Raise ConfigError if a package is not installed."""
    absent = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if absent:
        raise ConfigError(
            f"the games of people need {' and '.join(absent)}: make overcooked, or pip install .[overcooked]"
        )
    if split not in SPLITS:
        raise ConfigError(f"split={split} is not known; choose one of {', '.join(SPLITS)}")
    import pandas

    spec = importlib.util.find_spec(NEEDS[0])
    assert spec is not None and spec.submodule_search_locations is not None
    (folder,) = spec.submodule_search_locations
    return pandas.read_pickle(Path(folder) / "data" / "human_data" / f"clean_{split}_trials.pickle")


def read_item(recorded: dict[str, Any], on_tile: str) -> Item:
    """Read an object of a recorded state. Soups are [kind, number, ticks]; ticks keep counting when a soup is done."""
    if recorded["name"] != "soup":
        return Item(recorded["name"])
    _, onions, ticks = recorded["state"]
    return Item("soup", onions, 0, min(ticks, COOK_TIME) if on_tile == "P" and onions == 3 else -1)


def read_state(recorded: str, rows: list[str]) -> tuple[list[Cook], dict[tuple[int, int], Item]]:
    """Read the players, and the items by tile, of a recorded state in a kitchen with these rows."""
    state = ast.literal_eval(recorded)
    held = [read_item(p["held_object"], "hand") if "held_object" in p else None for p in state["players"]]
    cooks = []
    for player, item in zip(state["players"], held, strict=True):
        x, y = player["position"]
        cooks.append(Cook(x, y, WAYS[tuple(player["orientation"])], item))
    objects = state["objects"].values() if isinstance(state["objects"], dict) else state["objects"]
    places = {tuple(thing["position"]): thing for thing in objects}
    return cooks, {(x, y): read_item(thing, rows[y][x]) for (x, y), thing in places.items()}


def read_action(recorded: Any) -> int:
    return MOVES[recorded.lower() if isinstance(recorded, str) else tuple(recorded)]


def same_kitchen(one: Layout, other: Layout) -> bool:
    """Return whether the tiles are the same; players may start elsewhere."""
    return one.width == other.width and np.array_equal(one.terrain, other.terrain)


def games(table: Any, layout: Layout) -> Iterator[tuple[list[str], Any]]:
    """Yield (rows of the kitchen, steps in order) of every game in a table that was played in this kitchen."""
    for _, game in table.groupby(["layout_name", "workerid_num"], sort=True):
        rows = ast.literal_eval(game["layout"].iloc[0])
        if same_kitchen(parse("\n".join(rows)), layout):
            yield rows, game.sort_values("cur_gameloop")


class HumanTrials:
    """The decisions of both players in all games of ``split`` in the kitchen of ``env``, with observations as ``env``
    gives them at time 0."""

    def __init__(self, env: Callable[..., Overcooked], split: str) -> None:
        self.env, self.split = env, split

    def load(self, spec: EnvSpec) -> Demonstrations:
        """Return the decisions. Raise ConfigError if there are no human games in this kitchen, or a package is
        missing."""
        env = self.env(n_envs=1)
        if not isinstance(env, Overcooked):
            raise ConfigError(f"there are games of people in overcooked only, not in {type(env).__name__}")
        seen, avail, actions, number = [], [], [], []
        for k, (rows, game) in enumerate(games(trials(self.split), env.layout)):
            env.reset()
            for state, joint in zip(game["state"], game["joint_action"], strict=True):
                obs = env.arrange(*read_state(state, rows))
                seen.append(obs.obs[0].clone())
                avail.append(obs.avail[0].clone())
                actions += [read_action(action) for action in ast.literal_eval(joint)]
                number += [k, k]
        if not seen:
            raise ConfigError("there are no games of people in this kitchen; see docs/crossplay.md for those that have")
        return Demonstrations(torch.cat(seen), torch.cat(avail), torch.tensor(actions), torch.tensor(number))
