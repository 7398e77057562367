"""Weapons that hit many, and ways around walls, against numbers worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from envs.skirmish import MAPS, Skirmish
from envs.skirmish.maps import find_map
from envs.skirmish.paths import NO_ROUTES, routes_on
from envs.skirmish.records import MOVE
from envs.skirmish.terrain import TERRAIN, cliff_levels, ground_height, walkable_cells
from tests.support.fights import (
    FIRST_TARGET,
    SOUTH,
    STOP,
    act,
    ally,
    enemy,
    kite,
    pacify,
    stand,
    swept,
    win_rate,
)  # fmt: skip

ARCHIVES = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "smac_maps.json"


@pytest.mark.parametrize(("pitch", "hit"), [(0.75, 4), (1.0, 2), (2.0, 0)])
def test_beams_hit_a_line_of_zerglings(pitch: float, hit: int) -> None:
    """Two beams of 10 + 5 leave a zergling (35) 5. The line is 2.5 long: a body (0.375 + 0.15) is on it up to 1.775
    away."""
    env = Skirmish("2c_vs_64zg", 1)
    row = [enemy("zergling", 20, 16 + pitch * k) for k in (1, -1, 2, -2, 3, -3)]
    obs = env.place([ally("colossus", 15, 16), enemy("zealot", 20, 16), *row, enemy("zergling", 21, 16)])
    pacify(env)
    for _ in range(2):  # the wind-up takes 2 loops, the sweep 4, and from the touch to the hit it is 4
        obs = env.step(act(env, obs, [FIRST_TARGET, STOP])).next
    zealot, *row, behind = env.units(0)[2:10]
    assert [5 <= unit.health < 6 for unit in row] == [k < hit for k in range(6)] and behind.health == 35
    assert (zealot.shield, zealot.health) == (20, 100)


def test_moving_breaks_the_beams_off() -> None:
    """The sweep lasts into the second step when it starts late; a move then spares the ends of the line a beam each."""
    assert all(5 <= health < 6 for health in swept(FIRST_TARGET, FIRST_TARGET))
    assert all(20 <= health < 21 for health in swept(FIRST_TARGET, SOUTH))


def test_beams_stay_where_the_target_was() -> None:
    """The line reaches bodies of radius 0.5 up to 1.9 away. When the beams start the target has gone 2 or 3 times 0.14
    south, to 16.0 or 15.86; the far beam meets the other zealot in the fourth loop, when it has gone another 0.42."""
    env = Skirmish("1c3s5z", 1)
    obs = env.place([ally("colossus", 15, 16), enemy("zealot", 20, 16.28), enemy("zealot", 20, 17.75)])
    pacify(env)
    target = env._lanes.units[0, 9]
    target["order"], target["goal_x"], target["goal_y"] = MOVE, 20, 10
    obs = env.step(act(env, obs, [FIRST_TARGET] + [STOP] * 8)).next
    assert env.units(0)[9].y == pytest.approx(16.28 - 8 * 2.25 / 16)
    env.step(act(env, obs, [FIRST_TARGET] + [STOP] * 8))
    assert env.units(0)[10].shield == 20


def test_banelings_burst_on_contact() -> None:
    """35 to each light unit within 2.2 of its edge, friends unhurt, and the baneling is gone."""
    env = Skirmish("bane_vs_bane", 1)
    near, far = enemy("zealot", 16.9, 16), enemy("zealot", 18.75, 16)
    obs = env.place([ally("baneling", 16, 16), ally("zergling", 15.5, 16), near, enemy("zergling", 16, 18), far,
                     enemy("marauder", 16, 14)])  # fmt: skip
    pacify(env)
    env.step(act(env, obs, [FIRST_TARGET] + [STOP] * 23))
    baneling, friend, *enemies = env.units(0)[:2] + env.units(0)[24:28]
    assert baneling.health == 0 and friend.health == 35
    assert [unit.health + unit.shield for unit in enemies] == [115, 0, 150, 125 - 19]


def test_banelings_burst_in_chains() -> None:
    """A baneling that is shot bursts too; the burst kills the next one (20 + 15 regeneration aside), and so on."""
    env = Skirmish("so_many_baneling", 1)
    line = [enemy("baneling", 16 + 2.0 * k, 14, health=20) for k in range(3)]
    obs = env.place([ally("zealot", 15, 14), *line])
    pacify(env)
    for _ in range(3):
        obs = env.step(act(env, obs, [FIRST_TARGET] + [STOP] * 6)).next
    left = [unit.health for unit in env.units(0)[7:10]]
    zealot = env.units(0)[0]
    assert left[0] == 0 and left[1] > 0  # friends do not hurt each other
    assert zealot.health + zealot.shield == 150 - 35


def test_spine_crawler_reaches_seven() -> None:
    """30 to the armoured stalker (25 + 5), from edge to edge; it never moves."""
    env = Skirmish("2s_vs_1sc", 1)
    obs = env.place([ally("stalker", 12, 12), ally("stalker", 19, 8), enemy("spine_crawler", 12, 20.4)])
    env.step(act(env, obs, [STOP, STOP]))
    hit, safe, crawler = env.units(0)
    assert hit.shield == 50 and safe.shield == 80 and (crawler.x, crawler.y) == (12, 20.4)


def test_zerglings_hunt_the_nearest_colossus() -> None:
    env = Skirmish("2c_vs_64zg", 1)
    env.reset()
    units = env._lanes.units[0]
    gap = np.hypot(units["x"][2:, None] - units["x"][:2], units["y"][2:, None] - units["y"][:2])
    assert (units["order"][2:] == 2).all() and (units["target"][2:] == gap.argmin(1)).all()


@pytest.mark.parametrize("name", sorted(MAPS))
def test_enemies_reach_the_agents(name: str) -> None:
    """Whoever stands still where the battle begins is attacked, on every map, around every wall."""
    if not find_map(name).attack_move and find_map(name).hunt == "off":
        pytest.skip("this enemy waits")
    env = Skirmish(name, 4)
    env.reset()
    n = env.spec.n_agents
    for _ in range(40):
        env.step(env._obs.avail[:, :, : STOP + 1].int().argmax(2))
        hurt = env._lanes.units["quiet"][:, :n].min(1) < 1000
    assert hurt.all()


def test_routes_lead_around_walls() -> None:
    """Following the table never leaves the ground and always arrives; rectangles need no table."""
    assert routes_on("bar") is NO_ROUTES and routes_on("flat") is NO_ROUTES
    for terrain, start, goal in (
        ("corridor", (29, 29), (4, 4)),
        ("ravine", (16, 9), (16, 16)),
        ("ramp", (28, 28), (4, 4)),
    ):
        routes, walkable = routes_on(terrain), walkable_cells(terrain)
        x, y = start[0] + 0.5, start[1] + 0.5
        for _ in range(600):
            via = routes[32 * int(y) + int(x), 32 * goal[1] + goal[0]]
            to_x, to_y = (goal[0] + 0.5, goal[1] + 0.5) if via < 0 else (via % 32 + 0.5, via // 32 + 0.5)
            far = np.hypot(to_x - x, to_y - y)
            if far < 0.1:
                break
            x, y = x + 0.1 * (to_x - x) / far, y + 0.1 * (to_y - y) / far
            assert walkable[int(y), int(x)]
        assert np.hypot(goal[0] + 0.5 - x, goal[1] + 0.5 - y) < 0.2


@pytest.mark.skipif(not ARCHIVES.exists(), reason=f"needs the facts read from the map archives, {ARCHIVES}")
def test_cliffs_are_those_of_the_archives() -> None:
    maps = json.loads(ARCHIVES.read_text())["maps"]
    for name in MAPS:
        if name in maps:
            rows = [[{"r": 1.5}.get(cell) or float(cell) for cell in row] for row in maps[name]["cliff_level"]]
            np.testing.assert_array_equal(cliff_levels(find_map(name).terrain), rows)
    for terrain in TERRAIN:
        height = ground_height(terrain)
        assert height.dtype == np.float32 and 0 < height.min() and height.max() < 1


def test_known_truths() -> None:
    """3s_vs_5z is won by kiting and lost by standing (focus fire: test_truths.py)."""
    assert win_rate(Skirmish("3s_vs_5z", 40), kite) > 0.3
    assert win_rate(Skirmish("3s_vs_5z", 40), stand) == 0


@pytest.mark.parametrize("name", ["3m", "8m", "2s3z", "3s5z", "MMM", "1c3s5z", "3s_vs_5z", "corridor", "MMM2"])
def test_random_agents_never_win(name: str) -> None:
    assert win_rate(Skirmish(name, 50)) == 0
