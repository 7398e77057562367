"""The Colossus: what it strides over, where it appears, and that it fires without an order. Numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from envs.skirmish import Skirmish
from envs.skirmish.records import ATTACK
from envs.skirmish.units import TYPE_ID, UNIT_TYPES, type_table
from tests.support.fights import EAST, FIRST_TARGET, NORTH, STOP, act, ally, enemy, pacify, swept


def test_scan_ranges_are_those_of_the_weapons() -> None:
    """MinScanRange of the multiplayer data, 5 where it says nothing, and never less than the weapon's range."""
    table = type_table((), (), False)
    scan = {unit.name: table[TYPE_ID[unit.name]]["scan"] for unit in UNIT_TYPES if unit.targets}
    assert scan == {
        "marine": 5.5, "hydralisk": 5.5, "marauder": 6.5, "stalker": 6.5, "colossus": 7.5, "spine_crawler": 7.0,
        "zealot": 5.0, "zergling": 5.0, "baneling": 5.0,
    }  # fmt: skip


@pytest.mark.parametrize(("kind", "fires"), [("colossus", True), ("stalker", False), ("marine", False)])
def test_only_a_colossus_fires_without_an_order(kind: str, fires: bool) -> None:
    env = Skirmish("2c_vs_64zg", 1)
    obs = env.place([ally(kind, 15, 16), enemy("zergling", 20, 16)])
    pacify(env)
    env.step(act(env, obs, [STOP, STOP]))
    assert (env.units(0)[2].health < 35) == fires


@pytest.mark.parametrize(("gap", "hit"), [(8.37, True), (8.38, False)])
def test_it_stands_and_takes_what_is_in_range(gap: float, hit: bool) -> None:
    """7 and the radii, 1 and 0.375; the range in which an agent may name targets is smaller (6)."""
    env = Skirmish("2c_vs_64zg", 1)
    obs = env.place([ally("colossus", 15, 16), enemy("zergling", 15 + gap, 16)])
    pacify(env)
    env.step(act(env, obs, [STOP, STOP]))
    colossus, zergling = env.units(0)[0], env.units(0)[2]
    assert (colossus.x, colossus.y) == (15, 16) and (zergling.health < 35) == hit


def test_it_does_not_fire_while_it_moves() -> None:
    env = Skirmish("2c_vs_64zg", 1)
    obs = env.place([ally("colossus", 15, 16), enemy("zergling", 20, 16)])
    pacify(env)
    for _ in range(3):
        obs = env.step(act(env, obs, [NORTH, STOP])).next
    assert env.units(0)[2].health == 35


@pytest.mark.parametrize("aims", [False, True])
def test_it_takes_the_nearest_unless_somebody_aims_at_it(aims: bool) -> None:
    """Too far apart for one line: only the target is hit."""
    env = Skirmish("2c_vs_64zg", 1)
    obs = env.place([ally("colossus", 15, 16), enemy("zergling", 20, 16), enemy("zergling", 15, 22)])
    pacify(env)
    env._lanes.units[0, 3]["target"] = 0 if aims else -1
    env.step(act(env, obs, [STOP, STOP]))
    assert [unit.health < 35 for unit in env.units(0)[2:4]] == [not aims, aims]


def test_it_takes_the_next_target_when_one_has_left_or_died() -> None:
    env = Skirmish("2c_vs_64zg", 1)
    obs = env.place([ally("colossus", 15, 16), enemy("zergling", 20, 16), enemy("zergling", 15, 22)])
    pacify(env)
    obs = env.step(act(env, obs, [STOP, STOP])).next
    assert env._lanes.units[0, 0]["target"] == 2
    env._lanes.units[0, 2]["x"] = 31
    for _ in range(3):
        obs = env.step(act(env, obs, [STOP, STOP])).next
    assert env.units(0)[0].x == 15 and env.units(0)[3].health < 35
    env._lanes.units[0, 3]["health"] = 0
    env.step(act(env, obs, [STOP, STOP]))
    assert env._lanes.units[0, 0]["target"] == -1


def test_to_stop_it_again_does_not_break_the_beams_off() -> None:
    """They start in the fifth loop and reach the far ends of the line in the first of the second step. Only an order to
    stop that follows another order breaks them off."""
    assert all(5 <= health < 6 for health in swept(STOP, STOP))
    assert all(20 <= health < 21 for health in swept(FIRST_TARGET, STOP))


def test_an_order_to_attack_outranks_what_is_nearer() -> None:
    env = Skirmish("2c_vs_64zg", 1)
    obs = env.place([ally("colossus", 15, 16), enemy("zergling", 20, 16), enemy("zergling", 15, 21.5)])
    pacify(env)
    env.step(act(env, obs, [FIRST_TARGET + 1, STOP]))
    assert env._lanes.units[0, 0]["order"] == ATTACK
    assert [unit.health < 35 for unit in env.units(0)[2:4]] == [False, True]


def test_it_takes_no_ground_where_it_appears() -> None:
    """1c3s5z: the Colossus is created first; the stalkers take the lattice's first places all the same, the centre
    among them. Two Colossi keep their two radii apart."""
    env = Skirmish("1c3s5z", 1, spawn_jitter=0.0)
    env.reset()
    for first, x0 in ((0, 9), (9, 23)):
        colossus, *stalkers = env._lanes.units[0, first : first + 4]
        assert (colossus["x"] - x0, colossus["y"] - 16) == (0, 0)
        assert {(unit["x"] - x0, unit["y"] - 16) for unit in stalkers} == {(0, 0), (1.25, 0), (0, -1.25)}
    pair = Skirmish("2c_vs_64zg", 1, spawn_jitter=0.0)
    pair.reset()
    one, two = pair._lanes.units[0, :2]
    assert np.hypot(one["x"] - two["x"], one["y"] - two["y"]) == pytest.approx(2.0)


def test_it_strides_over_walkers_and_cliffs() -> None:
    env = Skirmish("2c_vs_64zg", 1)
    obs = env.place(
        [ally("colossus", 14, 9), ally("colossus", 3, 16), *[enemy("zergling", 15.5, 8 + k) for k in range(4)]]
    )
    pacify(env)
    for _ in range(3):
        obs = env.step(act(env, obs, [EAST, STOP])).next
    assert env.units(0)[0].x == pytest.approx(14 + 3 * 8 * 2.25 / 16)
    assert torch.isfinite(obs.obs).all()


@pytest.mark.parametrize(("kind", "nearest"), [("spine_crawler", 0.5625 + 0.875), ("colossus", 1.125), ("zergling", 0)])
def test_structures_and_colossi_are_in_its_way(kind: str, nearest: float) -> None:
    env = Skirmish("2s_vs_1sc", 1)
    obs = env.place([ally("colossus", 14, 12), ally("stalker", 9, 9), enemy(kind, 17, 12)])
    pacify(env)
    gaps = []
    for _ in range(6):
        obs = env.step(act(env, obs, [EAST, STOP])).next
        mover, other = env.units(0)[0], env.units(0)[2]
        gaps.append(np.hypot(mover.x - other.x, mover.y - other.y))
    assert min(gaps) >= nearest - 1e-6 and (nearest > 0 or min(gaps) < 0.5)
