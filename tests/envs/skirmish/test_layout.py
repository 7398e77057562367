"""The layout equals the published one: sizes of every map, golden vectors, and a few features by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numba import njit

from envs.base import check_spec
from envs.skirmish import MAPS, Skirmish, UnitView
from envs.skirmish.battle import team_reward
from tests.support.fights import ally, enemy

GOLDEN = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "smac_layout_golden.json"
NAMES = {"spine": "spine_crawler"}  # the vectors' name on the left

# map: actions, observation, state, largest reward (computed by the published package)
SIZES = {
    "3m": (9, 30, 48, 365), "8m": (14, 80, 168, 640), "25m": (31, 250, 950, 1575), "5m_vs_6m": (12, 55, 98, 530),
    "8m_vs_9m": (15, 85, 179, 695), "10m_vs_11m": (17, 105, 243, 805), "27m_vs_30m": (36, 285, 1170, 1850),
    "MMM": (16, 160, 290, 1015), "MMM2": (18, 176, 322, 1205), "2s3z": (11, 80, 120, 1020),
    "3s5z": (14, 128, 216, 1510), "3s5z_vs_3s6z": (15, 136, 230, 1670), "3s_vs_3z": (9, 36, 54, 680),
    "3s_vs_4z": (10, 42, 61, 840), "3s_vs_5z": (11, 48, 68, 1000), "1c3s5z": (15, 162, 270, 1870),
    "2m_vs_1z": (7, 16, 26, 360), "corridor": (30, 156, 282, 1280), "6h_vs_8z": (14, 78, 140, 1480),
    "2s_vs_1sc": (7, 17, 27, 510), "so_many_baneling": (38, 202, 397, 1480), "bane_vs_bane": (30, 336, 984, 1260),
    "2c_vs_64zg": (70, 332, 342, 3080),
}  # fmt: skip


# SMACv2, without and with conic field of view: actions, observation, state
RANDOM_TEAMS = {
    ("terran", "zerg"): {
        "5_vs_5": ((11, 82, 120), (23, 84, 190)), "10_vs_10": ((16, 162, 290), (28, 164, 430)),
        "10_vs_11": ((17, 170, 306), (29, 172, 446)), "20_vs_20": ((26, 322, 780), (38, 324, 1060)),
        "20_vs_23": ((29, 346, 858), (41, 348, 1138)),
    },
    ("protoss",): {
        "5_vs_5": ((11, 92, 130), (23, 94, 200)), "10_vs_10": ((16, 182, 310), (28, 184, 450)),
        "10_vs_11": ((17, 191, 327), (29, 193, 467)), "20_vs_20": ((26, 362, 820), (38, 364, 1100)),
        "20_vs_23": ((29, 389, 901), (41, 391, 1181)),
    },
}  # fmt: skip
SIZES_2 = {
    f"{race}_{size}": row for races, rows in RANDOM_TEAMS.items() for race in races for size, row in rows.items()
}


def test_table_has_all_maps() -> None:
    assert set(SIZES) | set(SIZES_2) == set(MAPS)


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name: str) -> None:
    env = Skirmish(name, 1)
    env.reset()
    check_spec(env.spec)
    most = env._lanes.lanes["max_reward"][0]
    assert (env.spec.n_actions, env.spec.obs_dim, env.spec.state_dim, most) == SIZES[name]


@pytest.mark.parametrize("name", SIZES_2)
def test_sizes_of_random_teams(name: str) -> None:
    for conic, expected in zip((False, True), SIZES_2[name], strict=True):
        env = Skirmish(name, 1, conic_fov=conic)
        check_spec(env.spec)
        assert (env.spec.n_actions, env.spec.obs_dim, env.spec.state_dim) == expected


def golden_cases() -> list[dict]:
    if not GOLDEN.exists():
        return []
    return [case for case in json.loads(GOLDEN.read_text()) if case["name"].split("/")[1] in MAPS]


def views(lists: dict) -> list[UnitView]:
    return [
        UnitView(owner, NAMES.get(u["t"], u["t"]), u["x"], u["y"], u["hp"], u["sh"], u["cd"], u["en"])
        for owner, key in (("ally", "allies"), ("enemy", "enemies"))
        for u in lists[key]
    ]


@njit
def reward_of(rules, units, lanes):  # type: ignore[no-untyped-def]
    return team_reward(rules[0], units[0], lanes[0], 0)


@pytest.mark.skipif(not GOLDEN.exists(), reason=f"needs the published package's vectors, {GOLDEN}")
@pytest.mark.parametrize("case", golden_cases(), ids=lambda case: case["name"])
def test_golden_vectors(case: dict) -> None:
    """Observation, state, mask and both signs of the reward, to 1e-6; SMAC's were made on the plain arena."""
    name = case["name"].split("/")[1]
    for reward, key in (("dense", "reward"), ("dense_signed", "reward_signed")):
        ground = "bar" if name in SIZES else None
        env = Skirmish(name, 1, terrain=ground, reward=reward, reward_scale=False)
        env.reset()
        env.place(views(case["prev"]))
        units = env._lanes.units
        before = np.where(units["health"] > 0, units["health"] + units["shield"], 0.0)
        obs = env.place(views(case["case"]), last_action=case["case"]["last_action"])
        np.testing.assert_allclose(obs.obs[0], case["obs"], atol=1e-6, rtol=0)
        np.testing.assert_allclose(obs.state[0], case["state"], atol=1e-6, rtol=0)
        np.testing.assert_array_equal(obs.avail[0].int(), case["avail"])
        units["before"] = before
        np.testing.assert_allclose(reward_of(env._world.rules, units, env._lanes.lanes), case[key], atol=1e-6)


def test_features_by_hand() -> None:
    """2s3z: one stalker, one zealot, an enemy of each type; enemy type bits are exchanged, as published."""
    env = Skirmish("2s3z", 1)
    obs = env.place([
        ally("stalker", 10, 16, health=40, shield=20, cooldown=7), ally("stalker", 1, 1, health=0),
        ally("zealot", 13, 12, health=25),
        enemy("stalker", 13, 20, shield=0), enemy("stalker", 20, 16), enemy("zealot", 10, 7, health=50),
    ])  # fmt: skip
    row = dict(zip(env.spec.obs_names, obs.obs[0, 0].tolist(), strict=True))
    expected = {
        "can move north": 1, "enemy 0 attackable": 1, "enemy 0 distance": 5 / 9, "enemy 0 dx": 3 / 9,
        "enemy 0 dy": 4 / 9, "enemy 0 health": 1, "enemy 0 shield": 0, "enemy 0 type 0": 0, "enemy 0 type 1": 1,
        "enemy 1 distance": 0, "enemy 1 health": 0,  # 10 away
        "enemy 2 distance": 0,  # exactly at the sight range: not seen
        "ally 0 visible": 0, "ally 1 visible": 1, "ally 1 dx": 3 / 9, "ally 1 dy": -4 / 9, "ally 1 health": 0.25,
        "ally 1 shield": 1, "ally 1 type 0": 0, "ally 1 type 1": 1, "own health": 0.5, "own shield": 0.25,
        "own type 0": 1, "own type 1": 0,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == pytest.approx(expected)
    assert obs.obs[0, 1].eq(0).all() and obs.avail[0, 1].tolist() == [True] + [False] * 10
    state = dict(zip(env.spec.state_names, obs.state[0].tolist(), strict=True))
    expected = {"ally 0 cooldown": 7 / 35, "ally 0 x": -6 / 32, "ally 2 y": -4 / 32, "enemy 2 health": 0.5,
                "enemy 2 type 0": 1, "ally 1 health": 0, "ally 0 last stop": 0}  # fmt: skip
    assert {name: state[name] for name in expected} == pytest.approx(expected)


def test_borders_and_reach() -> None:
    """Shooting includes exactly 6; a direction is open when the cell one unit away is."""
    env = Skirmish("3m", 1)
    obs = env.place([ally("marine", 10, 23.2), ally("marine", 31.5, 8), enemy("marine", 16, 23.2)])
    assert obs.avail[0, 0].tolist() == [False, True, False, True, True, True, True, False, False]
    assert obs.avail[0, 1, 2:6].tolist() == [True, False, False, True]
    obs = env.place([ally("marine", 10, 16), enemy("marine", 16.0001, 16)])
    assert not obs.avail[0, 0, 6]


def test_medivac_heals_friends() -> None:
    """Its target actions name friends that are no Medivac, hurt or not; nobody else may name index 9."""
    env = Skirmish("MMM", 1)
    line = [ally("marauder", 10, 16), ally("marauder", 10, 17), *[ally("marine", 9, 10 + k) for k in range(7)]]
    obs = env.place([*line, ally("medivac", 10, 15), enemy("marine", 12, 15)])
    assert obs.avail[0, 9, 6:].tolist() == [True] * 9 + [False]
    assert obs.avail[0, 0, 6:].tolist() == [True] + [False] * 9


def test_optional_blocks() -> None:
    """Switches add exactly their features; time and last actions read back."""
    env = Skirmish("3m", 1, obs_last_action=True, obs_pathing_grid=True, obs_terrain_height=True,
                   obs_timestep_number=True, state_timestep_number=True)  # fmt: skip
    assert env.spec.obs_dim == 30 + 8 + 9 + 2 * 9 + 1 and env.spec.state_dim == 49
    env.reset()
    obs = env.step(torch.tensor([[1, 4, 5]])).next
    row = dict(zip(env.spec.obs_names, obs.obs[0, 0].tolist(), strict=True))
    assert row["ally 0 last east"] == 1 and row["ally 1 last west"] == 1 and row["ally 1 last east"] == 0
    assert math.isclose(row["time"], 1 / 60, rel_tol=1e-6) and math.isclose(obs.state[0, -1], 1 / 60, rel_tol=1e-6)
    assert row["walkable +0+4"] == 1
    env = Skirmish("3m", 1, obs_instead_of_state=True)
    assert torch.equal(env.reset().state[0], env._obs.obs[0].flatten())


def test_about_points_at_the_right_agent() -> None:
    """Moving agent 2 changes agent 0's features about agent 2, and only those (apart from the enemy's)."""
    env = Skirmish("3m", 1)
    spec, others = env.spec, [ally("marine", 10, 16), ally("marine", 11, 16)]
    first = env.place([*others, ally("marine", 12, 16)]).obs[0].clone()
    second = env.place([*others, ally("marine", 12, 17, health=20)]).obs[0]
    changed = first != second
    assert spec.about is not None and changed[0].any() and changed[1].any()
    assert not (changed[:2] & ~spec.about[:2, 2]).any()
    assert spec.about[0, 0].sum() == 5  # four directions and its own health


def test_a_type_that_is_not_the_maps_is_shown_without_one() -> None:
    """A bit that it does not have would be the feature before, a shield."""
    env = Skirmish("2s3z", 1)
    obs = env.place([ally("stalker", 9, 9), ally("marine", 9, 11), enemy("marine", 11, 9)])
    names = [env.spec.obs_names, env.spec.state_names]
    for values, labels in ((obs.obs[0, 0], names[0]), (obs.obs[0, 1], names[0]), (obs.state[0], names[1])):
        shown = dict(zip(labels, values.tolist(), strict=True))
        assert shown["enemy 0 shield"] == 0 and shown["enemy 0 health"] == 1
        assert not any(value for name, value in shown.items() if name.startswith("enemy 0") and "type" in name)


def test_actions_that_there_are_not_are_refused() -> None:
    """They would be written into another lane."""
    env = Skirmish("2s3z", 2)
    for actions in ([99, 0, 0, 0, 0], [0, 0], [-2, 0, 0, 0, 0]):
        with pytest.raises(ValueError, match=r"must be 5 actions, from -1 to 10"):
            env.place([ally("stalker", 9, 9), enemy("stalker", 11, 9)], last_action=actions)


def test_a_lane_that_had_ended_begins_at_step_0() -> None:
    env = Skirmish("3m", 1, obs_timestep_number=True)
    units = [ally("marine", 9, 9), enemy("marine", 30, 30)]
    env.place(units)
    stop = torch.tensor([[1, 0, 0]])
    env.step(stop)
    assert env.place(units).obs[0, 0, -1] == pytest.approx(1 / 60), "another keeps its time"
    while not bool(env.step(stop).truncated):
        pass
    assert env.place(units).obs[0, 0, -1] == 0
    assert not bool(env.step(stop).truncated)
