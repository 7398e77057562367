"""The human games in the ``overcooked-ai`` package (Carroll and others 2019) replay exactly, from start to end."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from typing import Any

import numba
import pytest
import torch

from envs.overcooked import Overcooked
from envs.overcooked.trials import NEEDS, SOUP_SCORE, read_action, read_state, trials
from tests.support.overcooked_parts import kitchen

ABSENT = [name for name in NEEDS if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(ABSENT), reason=f"not installed: {', '.join(ABSENT)} (make overcooked)")

# In the games' own words; the last is a counter circuit with other starts.
LAYOUTS = ("cramped_room", "asymmetric_advantages", "coordination_ring", "random0", "random3")


def replay(game: Any) -> int:
    """Replay one game from its start, assert that every step is equal, and return their number."""
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
