"""The human games in the ``overcooked-ai`` package (Carroll and others 2019) replay exactly, from start to end."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
import pytest
import torch

from envs.overcooked import Overcooked
from envs.overcooked.env import Cook, Item
from tests.overcooked_parts import kitchen

ABSENT = [name for name in ("overcooked_ai_py", "pandas") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(ABSENT), reason=f"not installed: {', '.join(ABSENT)} (make overcooked)")

# In the games' own words; the last is a counter circuit with other starts.
LAYOUTS = ("cramped_room", "asymmetric_advantages", "coordination_ring", "random0", "random3")
WAYS = {(0, -1): "N", (0, 1): "S", (1, 0): "E", (-1, 0): "W"}
MOVES = {**{way: k for k, way in enumerate(WAYS)}, (0, 0): 4, "interact": 5}
SOUP_SCORE = 5  # what the games paid; 20 here


def trials(split: str) -> Any:
    """Table of all games of a split, a row per step."""
    import pandas

    (folder,) = importlib.util.find_spec("overcooked_ai_py").submodule_search_locations
    return pandas.read_pickle(Path(folder) / "data" / "human_data" / f"clean_{split}_trials.pickle")


def read_item(recorded: dict[str, Any], on_tile: str) -> Item:
    """An object of a recorded state; soups are [kind, number, ticks], and the ticks run on when they are done."""
    if recorded["name"] != "soup":
        return Item(recorded["name"])
    _, onions, ticks = recorded["state"]
    return Item("soup", onions, 0, min(ticks, 20) if on_tile == "P" and onions == 3 else -1)


def read_state(recorded: str, rows: list[str]) -> tuple[list[Cook], dict[tuple[int, int], Item]]:
    state = ast.literal_eval(recorded)
    held = [read_item(p["held_object"], "hand") if "held_object" in p else None for p in state["players"]]
    cooks = [Cook(*p["position"], WAYS[tuple(p["orientation"])], item)
             for p, item in zip(state["players"], held, strict=True)]  # fmt: skip
    objects = state["objects"].values() if isinstance(state["objects"], dict) else state["objects"]
    places = {tuple(thing["position"]): thing for thing in objects}
    return cooks, {(x, y): read_item(thing, rows[y][x]) for (x, y), thing in places.items()}


def read_action(recorded: Any) -> int:
    return MOVES[recorded.lower() if isinstance(recorded, str) else tuple(recorded)]


def replay(game: Any) -> int:
    """Play one game from its start; the number of steps that were equal, all of them or an assertion fails."""
    game = game.sort_values("cur_gameloop")
    rows = ast.literal_eval(game["layout"].iloc[0])
    env: Overcooked = kitchen(grid="\n".join(rows), obs="features", episode_limit=len(game))
    env.reset()
    for step in game.itertuples():
        assert (env.cooks(), env.things()) == read_state(step.state, rows)
        actions = [read_action(action) for action in ast.literal_eval(step.joint_action)]
        ours = env.step(torch.tensor([actions]))
        assert (env.cooks(), env.things()) == read_state(step.next_state, rows)
        assert float(ours.reward) == 20 / SOUP_SCORE * step.reward
    assert ours.truncated.all()
    return len(game)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


@pytest.mark.parametrize("split", ["train", "test"])
def test_human_games_replay_exactly(split: str) -> None:
    table, steps, served = trials(split), 0, 0.0
    for layout in LAYOUTS:
        games = table[table["layout_name"] == layout]
        game = games[games["workerid_num"] == games["workerid_num"].min()]
        steps += replay(game)
        served += game["reward"].sum() / SOUP_SCORE
    assert steps > 5500 and served > 100
