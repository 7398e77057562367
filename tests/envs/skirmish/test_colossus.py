"""The Colossus: what it strides over, where it appears, and that it fires without an order. Numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from envs.skirmish import Skirmish
from envs.skirmish.physics import play_loop
from envs.skirmish.records import ATTACK, Ground
from envs.skirmish.units import TYPE_ID, UNIT_TYPES, type_table
from marl.core.types import Obs
from tests.support.fights import EAST, FIRST_TARGET, NORTH, STOP, act, ally, enemy, pacify, swept


def salvo(env: Skirmish, obs: Obs, wanted: list[int]) -> None:
    """Play two steps of the ``wanted`` actions: the beams of the first hurt in the second, before there are others."""
    for _ in range(2):
        obs = env.step(act(env, obs, wanted)).next


def watch(env: Skirmish, loops: int, dies_after: int = 99) -> list[tuple[float, float]]:
    """Play single loops in which a Colossus attacks the zealot before it; return, after each, the zealot's shield and
    the health of the zergling beside it. The Colossus dies after so many loops."""
    env.place([ally("colossus", 15, 16), enemy("zealot", 20, 16), enemy("zergling", 20, 17.7)])
    pacify(env)
    world, units = env._world, env._lanes.units[0]
    units[0]["order"], units[0]["target"], seen = ATTACK, 2, []
    for loop in range(loops):
        if loop == dies_after:
            units[0]["health"] = units[0]["shield"] = 0
        ground = Ground(world.walkable, world.routes)
        play_loop(world.rules[0], world.types, ground, units, env._lanes.lanes[0], 0, False)
        seen.append((units[2]["shield"], round(float(units[3]["health"]))))
    return seen


def test_beams_hurt_four_loops_after_they_touch() -> None:
    """The wind-up of 1.33 loops ends in the third; beams cross a quarter of their line a loop. A zealot in the middle
    (0.65) is touched by both before a quarter, a zergling at 1.7 (0.525) by one at once and by the other after 0.97:
    in the fourth and in the seventh loop. 0.25 s are 4 loops."""
    at_once = watch(Skirmish("2c_vs_64zg", 1, delayed_beams=False), 12)
    assert at_once == [(50, 35)] * 3 + [(20, 20)] * 3 + [(20, 5)] * 6
    assert watch(Skirmish("2c_vs_64zg", 1), 12) == [(50, 35)] * 7 + [(20, 20)] * 3 + [(20, 5)] * 2


def test_a_touch_hurts_whatever_becomes_of_the_colossus() -> None:
    """It dies after the fourth loop: what it has touched is hurt, and the beams go no further."""
    assert watch(Skirmish("2c_vs_64zg", 1), 14, dies_after=4) == [(50, 35)] * 7 + [(20, 20)] * 7


def test_hits_under_way_end_with_the_body_that_they_were_meant_for() -> None:
    env = Skirmish("2c_vs_64zg", 1)
    watch(env, 5)
    zealot = env._lanes.units[0, 2]
    assert zealot["burns"] == 2 << 16 and zealot["burner"] == 0, "two hits, in the third loop from here"
    zealot["health"] = zealot["shield"] = 0
    salvo(env, env._obs, [STOP, STOP])
    assert zealot["burns"] == 0 and zealot["health"] == 0
    env.reset()
    assert (env._lanes.units["burns"] == 0).all()


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
    salvo(env, obs, [STOP, STOP])
    assert (env.units(0)[2].health < 35) == fires


@pytest.mark.parametrize(("gap", "hit"), [(8.37, True), (8.38, False)])
def test_it_stands_and_takes_what_is_in_range(gap: float, hit: bool) -> None:
    """7 and the radii, 1 and 0.375; the range in which an agent may name targets is smaller (6)."""
    env = Skirmish("2c_vs_64zg", 1)
    obs = env.place([ally("colossus", 15, 16), enemy("zergling", 15 + gap, 16)])
    pacify(env)
    salvo(env, obs, [STOP, STOP])
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
    salvo(env, obs, [STOP, STOP])
    assert [unit.health < 35 for unit in env.units(0)[2:4]] == [not aims, aims]


def test_it_takes_the_next_target_when_one_has_left_or_died() -> None:
    env = Skirmish("2c_vs_64zg", 1)
    obs = env.place([ally("colossus", 15, 16), enemy("zergling", 20, 16), enemy("zergling", 15, 22)])
    pacify(env)
    obs = env.step(act(env, obs, [STOP, STOP])).next
    assert env._lanes.units[0, 0]["target"] == 2
    env._lanes.units[0, 2]["x"] = 31
    for _ in range(4):
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
    salvo(env, obs, [FIRST_TARGET + 1, STOP])
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
