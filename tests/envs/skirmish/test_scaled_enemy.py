"""The game changed at test time: the enemy's health, speed and sight, and how far agents see."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from envs.skirmish import Skirmish
from envs.skirmish.fighters import Fighters
from envs.skirmish.maps import find_map
from envs.skirmish.options import read_options
from envs.skirmish.setup import battle_rules, map_types
from envs.skirmish.units import TYPE_ID, UNIT_TYPES, type_table
from marl.core.types import ConfigError
from tests.envs.skirmish.test_battle import hits_to_kill
from tests.support.fights import STOP, ally, enemy

SCALES = ("ally_sight", "enemy_health", "enemy_speed", "enemy_sight")
MARINE = TYPE_ID["marine"]


@pytest.mark.parametrize("name", ["3m", "2s3z", "MMM", "terran_5_vs_5"])
def test_a_scale_of_one_leaves_every_number_that_kernels_read(name: str) -> None:
    scenario = find_map(name)
    options = read_options(scenario, dict.fromkeys(SCALES, 1.0))
    assert options == read_options(scenario, {})
    order = scenario.type_order
    swapped = order[::-1] if scenario.map_type == "stalkers_and_zealots" else order
    assert np.array_equal(map_types(scenario, options), type_table(order, swapped, bool(options.unit_ranges)))
    assert battle_rules(scenario, options)[0]["enemy_types"] == 0
    for scale in SCALES:
        assert not np.array_equal(
            map_types(scenario, read_options(scenario, {scale: 1.5})), map_types(scenario, options)
        )


def test_healthier_enemies_take_more_hits_and_look_well() -> None:
    env = Skirmish("3m", 1, enemy_health=1.2)
    obs, names = env.reset(), env.spec.state_names
    assert [unit.health for unit in env.units(0)] == [45.0] * 3 + [pytest.approx(54.0)] * 3
    assert obs.state[0, names.index("enemy 0 health")] == obs.state[0, names.index("ally 0 health")] == 1.0
    assert env._lanes.lanes["max_reward"][0] == pytest.approx(200 + 3 * 10 + 3 * 54)
    assert hits_to_kill(env._world.rules, env._world.types, env._lanes.units, 0, 3) == 9  # 54 / 6, instead of 45 / 6
    assert env.observe().obs.max() <= 1.0


def test_shields_stay_as_they_are() -> None:
    env = Skirmish("2s3z", 1, enemy_health=0.5)
    env.reset()
    found = {(unit.owner, unit.type): (unit.health, unit.shield) for unit in env.units(0)}
    assert found["ally", "zealot"] == (100, 50) and found["enemy", "zealot"] == (50, 50)
    assert found["ally", "stalker"] == (80, 80) and found["enemy", "stalker"] == (40, 80)


def test_the_enemy_is_healed_up_to_its_own_health() -> None:
    """0.7875 a loop: within the step's eight loops from 50 to 54, and no farther."""
    healed = {}
    for scale in (1.0, 1.2):
        env = Skirmish("MMM", 1, enemy_health=scale)
        obs = env.place([ally("marine", 4, 16), enemy("marine", 26, 16, health=50.0),
                         enemy("medivac", 26, 17, energy=200.0)])  # fmt: skip
        env._lanes.units["order"] = 0
        env.step(torch.where(obs.avail[:, :, STOP], STOP, 0))
        healed[scale] = max(unit.health for unit in env.units(0) if unit.owner == "enemy" and unit.type == "marine")
    assert healed == {1.0: 50.0, 1.2: pytest.approx(54.0)}


def test_random_teams_have_it_too() -> None:
    env = Skirmish("terran_5_vs_5", 4, enemy_health=1.5)
    env.reset(seed=3)
    stock = {kind.name: kind.health for kind in UNIT_TYPES}
    for lane in range(4):
        units = env.units(lane)
        assert [unit.health for unit in units] == [
            stock[unit.type] * (1.5 if unit.owner == "enemy" else 1.0) for unit in units
        ]
        assert env.render(lane).ndim == 3


@pytest.mark.parametrize(("scale", "walked"), [(1.0, 1.125), (1.2, 1.35), (0.5, 0.5625)])
def test_the_enemy_walks_faster_and_agents_do_not(scale: float, walked: float) -> None:
    """A step has eight loops of a sixteenth of a second, and a marine walks 2.25 a second."""
    env = Skirmish("3m", 1, enemy_speed=scale)
    obs = env.place([ally("marine", 3, 16), enemy("marine", 28, 16)])
    env._lanes.units["heading_x"], env._lanes.units["heading_y"] = -1.0, 0.0
    env.step(torch.where(obs.avail[:, :, 5], 5, 0))  # west
    (mine,), (theirs,) = ([u for u in env.units(0) if u.owner == side and u.health > 0] for side in ("ally", "enemy"))
    assert np.hypot(theirs.x - 28, theirs.y - 16) == pytest.approx(walked)
    assert 3 - mine.x == pytest.approx(1.125)


@pytest.mark.parametrize(("scale", "gap", "shown"), [(1.0, 9.5, None), (1.1, 9.5, 9.5 / 9.9), (1.1, 9.95, None)])
def test_agents_see_farther(scale: float, gap: float, shown: float | None) -> None:
    env = Skirmish("3m", 1, ally_sight=scale)
    obs = env.place([ally("marine", 10, 16), enemy("marine", 10 + gap, 16)])
    distance = obs.obs[0, 0, env.spec.obs_names.index("enemy 0 distance")].item()
    assert distance == (0.0 if shown is None else pytest.approx(shown))
    assert not obs.avail[0, 0, 6], "orders reach as far as before"


@pytest.mark.parametrize(("scale", "noticed"), [(1.0, False), (1.4, False), (1.5, True)])
def test_the_enemy_notices_farther(scale: float, noticed: bool) -> None:
    """From edge to edge: 5.5 for a marine, and two radii of 0.375: 9.0 between the centres at 1.5, and 8.45 at 1.4."""
    env = Skirmish("3m", 1, enemy_sight=scale)
    obs = env.place([ally("marine", 10, 16), enemy("marine", 18.9, 16)])
    env._lanes.units["order"] = 0  # it stands
    env.step(torch.where(obs.avail[:, :, STOP], STOP, 0))
    assert (env._lanes.units["target"][0, 3] == 0) == noticed


def test_the_enemy_notices_whatever_its_weapon_reaches() -> None:
    table = map_types(find_map("3m"), read_options(find_map("3m"), {"enemy_sight": 0.1}))
    assert table["scan"][MARINE] == table["range"][MARINE] == 5.0


def test_scripted_teams_know_the_health_of_the_enemy() -> None:
    env = Skirmish("2s3z", 1, enemy_health=1.5)
    fighters = Fighters(env.spec, "cpu", target="weakest", kite=False)
    state = env.reset().state
    assert sorted(fighters.them.read(state).life[0].tolist()) == [200.0] * 3 + [200.0] * 2  # 150 + 50, 120 + 80
    assert sorted(fighters.us.read(state).life[0].tolist()) == [150.0] * 3 + [160.0] * 2


@pytest.mark.parametrize("name", SCALES)
@pytest.mark.parametrize("value", [0.0, -1.0, 10.5, float("nan")])
def test_scales_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name) as error:
        Skirmish("3m", 1, **{name: value})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("scale", "wounded"), [(1.0, 0.5), (0.5, 0.25), (2.0, 1.0)])
def test_pictures_show_the_share_of_the_health_that_a_unit_can_have(scale: float, wounded: float) -> None:
    """Healthy enemies have no ring at any scale; half a ring is half of what they can have."""
    hurt, half = Skirmish("3m", 1, enemy_health=scale), Skirmish("3m", 1)
    for env in (hurt, half):
        env.reset()
    assert np.array_equal(hurt.render(0), half.render(0)), "all are well"
    for env, health in ((hurt, 45.0 * wounded), (half, 45.0 * 0.5)):
        env._lanes.units["health"][0, 3:] = health
    assert np.array_equal(hurt.render(0), half.render(0))
