"""Observations of a kitchen, by hand: planes, features, state, pictures; and what can be blocked in it."""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numpy as np
import pytest
import torch

from envs.overcooked.pieces import Cook, Item
from marl.core.types import ConfigError
from tests.support.overcooked_parts import LAYOUTS, kitchen, play, set_up

N, S, E, W, STAY, USE = range(6)
ONION, DISH, TOMATO, SOUP = Item("onion"), Item("dish"), Item("tomato"), Item("soup", 3)
# cramped_room:   XXPXX
#                 O  2O
#                 X1  X
#                 XDXSX
POT = (2, 0)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


def test_planes_show_a_kitchen() -> None:
    things = {POT: Item("soup", 3, 0, 5), (0, 2): DISH, (4, 2): SOUP}
    env = set_up(Cook(1, 1, "E", ONION), Cook(3, 2, "S"), things)
    seen = env._obs.obs[0].reshape(2, 5, 4, 26)
    first = {(x, y, k): seen[0, x, y, k].item() for x, y, k in seen[0].nonzero().tolist() if not 10 <= k < 16}
    assert first == {
        (1, 1, 0): 1, (3, 2, 1): 1, (1, 1, 4): 1, (3, 2, 7): 1, (1, 1, 23): 1,
        (2, 0, 18): 3, (2, 0, 20): 15, (0, 2, 22): 1, (4, 2, 18): 3, (4, 2, 21): 1,
    }  # fmt: skip
    second = {(x, y, k) for x, y, k in seen[1].nonzero().tolist() if k < 10}
    assert second == {(3, 2, 0), (1, 1, 1), (3, 2, 3), (1, 1, 8)}
    assert seen[0, ..., 10].nonzero().tolist() == [[2, 0]] and seen[0, ..., 11].sum() == 9
    assert seen[0, ..., 12].nonzero().tolist() == [[0, 1], [4, 1]] and seen[0, ..., 13].sum() == 0
    assert seen[0, ..., 14].nonzero().tolist() == [[1, 3]] and seen[0, ..., 15].nonzero().tolist() == [[3, 3]]
    assert env.spec.obs_names[26 * (1 * 4 + 2) + 2] == "own way N at 1,2"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_planes_kept_up_to_date_are_the_planes_drawn_anew(layout: str) -> None:
    env, rng = kitchen(layout=layout, episode_limit=60), np.random.default_rng(3)
    for _ in range(5):
        env.reset()
        for _ in range(60):
            env.step(torch.from_numpy(rng.choice(6, (1, 2), p=[0.15, 0.15, 0.15, 0.15, 0.05, 0.35])))
            kept = env._obs.obs.clone()
            env._kernels.observe(env._rules, env._board, env._out, 0)
            assert torch.equal(kept, env._obs.obs)
    assert kept.reshape(2, -1, 26)[..., 25].all()  # urgent


def test_features_tell_ways_and_pots() -> None:
    env = set_up(Cook(1, 2, "N", ONION), Cook(3, 1, "W"), {POT: Item("soup", 2)}, obs="features")
    seen = dict(zip(env.spec.obs_names, env._obs.obs[0, 0].tolist(), strict=True))
    assert {name for name, value in seen.items() if value} == {
        "own faces N", "own holds onion", "own dish dy", "own serving window dx", "own serving window dy",
        "own pot 0 exists", "own pot 0 onions", "own pot 0 dx", "own pot 0 dy", "own blocked S", "own blocked W",
        "other's faces W", "other's onion dx", "other's dish dx", "other's dish dy", "other's serving window dy",
        "other's pot 0 exists", "other's pot 0 onions", "other's pot 0 dx", "other's pot 0 dy",
        "other's blocked N", "other's blocked E", "other dx", "other dy", "own x", "own y",
    }  # fmt: skip
    assert (seen["own dish dy"], seen["own serving window dx"], seen["own serving window dy"]) == (1, 2, 1)
    assert (seen["own pot 0 dx"], seen["own pot 0 dy"], seen["own pot 0 onions"]) == (1, -2, 2)
    assert (seen["other's onion dx"], seen["other's dish dx"], seen["other's dish dy"]) == (1, -2, 2)
    assert (seen["other dx"], seen["other dy"], seen["own x"], seen["own y"]) == (2, -1, 1, 2)


def test_features_cover_counters_on_demand() -> None:
    things = {(3, 0): SOUP, (0, 2): ONION}
    for counters in (False, True):
        env = set_up(Cook(1, 2, "S"), Cook(3, 1, "N"), things, obs="features", counter_features=counters)
        seen = dict(zip(env.spec.obs_names, env._obs.obs[0, 0].tolist(), strict=True))
        soup = [seen[f"own soup{what}"] for what in (" dx", " dy", "'s onions")]
        assert soup == ([2, -2, 3] if counters else [0, 0, 0])
        assert [seen[f"own onion d{axis}"] for axis in "xy"] == ([-1, 0] if counters else [-1, -1])
        assert [seen[f"own free counter d{axis}"] for axis in "xy"] == ([0, -2] if counters else [0, 0])


def test_the_state_stands_beside_the_features_on_demand() -> None:
    """All but the time, which people cannot see either; cook 1's entries are about cook 1 for both."""
    cooks, things = (Cook(1, 2, "S"), Cook(3, 1, "N", SOUP)), {(3, 0): SOUP, (0, 2): ONION}
    plain = set_up(*cooks, things, obs="features", counter_features=True)
    env = set_up(*cooks, things, obs="features_and_state", counter_features=True)
    seen, names = env._obs.obs[0], env.spec.obs_names
    assert torch.equal(seen[:, :96], plain._obs.obs[0]) and names[:96] == plain.spec.obs_names
    assert torch.equal(seen[:, 96:], env._obs.state[0, :-1].expand(2, -1)) and names[96:] == env.spec.state_names[:-1]
    step = play(env, [S, STAY], [E, STAY])
    assert torch.equal(step.next.obs[0, :, 96:], step.next.state[0, :-1].expand(2, -1)), "after steps too"
    about = env.spec.about
    assert about is not None and torch.equal(about[..., :96], plain.spec.about)
    for j in (0, 1):
        told = [name for name, flag in zip(names, about[0, j] & about[1, j], strict=True) if flag]
        assert [name for name in told if not name.startswith(f"cook {j}")] == [] and len(told) == 12


@pytest.mark.parametrize(("first", "way"), [(0, [-1, -2]), (1, [1, -2])])
def test_of_two_equally_near_things_the_older_is_the_nearest(first: int, way: list[int]) -> None:
    """Soups on (1, 0) and (3, 0), both two actions away from (2, 2)."""
    env = set_up(Cook(1, 1, "N", SOUP), Cook(3, 1, "N", SOUP), obs="features", counter_features=True)
    play(env, [USE, STAY] if first == 0 else [STAY, USE], [STAY, USE] if first == 0 else [USE, STAY])
    step = play(env, [S, STAY], [E, STAY])
    assert env.things() == {(1, 0): SOUP, (3, 0): SOUP} and env.cooks()[0] == Cook(2, 2, "E")
    seen = dict(zip(env.spec.obs_names, step.next.obs[0, 0].tolist(), strict=True))
    assert [seen["own soup dx"], seen["own soup dy"]] == way


def test_the_state_has_names() -> None:
    env = set_up(Cook(1, 1, "E", ONION), Cook(3, 2, "S", SOUP), {POT: Item("soup", 3, 0, 5), (0, 2): DISH})
    state = dict(zip(env.spec.state_names, env._obs.state[0].tolist(), strict=True))
    assert {name: round(value, 4) for name, value in state.items() if value} == {
        "cook 0 x": 0.25, "cook 0 y": 0.3333, "cook 0 faces E": 1, "cook 0 holds onion": 1,
        "cook 1 x": 0.75, "cook 1 y": 0.6667, "cook 1 faces S": 1, "cook 1 holds soup": 1,
        "cook 1 holds soup's onions": 1, "pot 2,0 onions": 1, "pot 2,0 cooks": 1, "pot 2,0 cooked share": 0.25,
        "counter 0,2 dish": 1,
    }  # fmt: skip
    assert play(env, [STAY, STAY]).next.state[0, -1].item() == pytest.approx(1 / 400)


def test_about_says_whose_features_are_whose() -> None:
    for obs, own, other in (("lossless", 5 * 20, 5 * 20), ("features", 46 + 2, 46 + 2)):
        spec = kitchen(obs=obs).spec
        assert spec.about[0, 0].sum() == own and spec.about[0, 1].sum() == other
        assert not (spec.about[0, 0] & spec.about[0, 1]).any() and torch.equal(spec.about[0, 0], spec.about[1, 1])


# --- blocking --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "floor"),
    [("cramped_room", 6), ("forced_coordination", 6), ("coordination_ring", 8), ("asymmetric_advantages", 14),
     ("counter_circuit", 14)],
)  # fmt: skip
def test_who_can_be_blocked_where(layout: str, floor: int) -> None:
    env = kitchen(layout=layout)
    cells, stations = env.blockable("cells"), env.blockable("stations")
    assert cells.any(0).sum() == floor and cells.shape == (2, env.n_block_features)
    apart = layout in ("forced_coordination", "asymmetric_advantages")
    assert bool((cells[0] & cells[1]).any()) is not apart
    assert (cells.any(0) & stations.any(0)).sum() == 0


def test_stations_are_what_was_used() -> None:
    env = kitchen(layout="forced_coordination")
    names = env.spec.floor_plan.replace("/", "")  # by tile, row after row
    one, two = ({(tile, names[tile]) for tile in row.nonzero().flatten().tolist()} for row in env.blockable("stations"))
    assert one == {(3, "P"), (9, "P"), (23, "S"), (7, "X"), (12, "X"), (17, "X")}
    assert two == {(5, "O"), (10, "O"), (15, "D"), (7, "X"), (12, "X"), (17, "X")}
    env.reset()
    play(env, [STAY, W])
    assert env.block_features("stations").tolist() == [[-1, -1]]
    play(env, [USE, USE])
    assert env.block_features("stations").tolist() == [[-1, 10]]
    assert env.block_features("cells").tolist() == [[8, 11]]
    with pytest.raises(ConfigError, match="family=goals is not known; choose one of cells, stations"):
        env.block_features("goals")


def test_pictures_show_what_changes() -> None:
    cooks = [Cook(1, 1, "E", ONION), Cook(3, 2, "S")]
    env = set_up(*cooks, {POT: Item("soup", 3, 0, 5)})
    first = env.render()
    assert first.shape == (4 * 48 + 20, 5 * 48, 3)
    for things, one in (
        ({POT: Item("soup", 3, 0, 6)}, cooks[0]),
        ({POT: Item("soup", 3, 0, 20)}, cooks[0]),
        ({POT: Item("soup", 2)}, cooks[0]),
        ({POT: Item("soup", 3, 0, 5), (0, 2): DISH}, cooks[0]),
        ({POT: Item("soup", 3, 0, 5)}, cooks[0]._replace(way="W")),
        ({POT: Item("soup", 3, 0, 5)}, cooks[0]._replace(held=TOMATO)),
        ({POT: Item("soup", 3, 0, 5)}, cooks[0]._replace(held=None)),
    ):
        env.arrange([one, cooks[1]], things)
        assert (env.render() != first).any()
