"""Scripted teams of the battle: whom they attack, where they step, whom they heal; situations worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from envs.skirmish import Skirmish, UnitView
from envs.skirmish.fighters import Fighters
from envs.skirmish.options import read_battle
from marl.core.types import ConfigError, Obs
from marl.learn.lineup import Lineup
from marl.learn.scripted import Idle
from tests.support.fights import EAST, FIRST_TARGET, NORTH, SOUTH, STOP, WEST, ally, enemy, win_rate
from tests.support.helpers import make_spec

NOOP, FIRST_LOOK = 0, 6


def decide(env: Skirmish, obs: Obs, target: str = "nearest", kite: bool = False) -> Tensor:
    """Return long [B, n]."""
    return Fighters(env.spec, "cpu", target=target, kite=kite).act(obs, {}, explore=False, gen=Generator())[0]


def choices(name: str, units: list[UnitView], target: str = "nearest", kite: bool = False, **options: Any) -> list[int]:
    """Return the actions of all agents on the map ``name`` with exactly these units; all others are dead."""
    env = Skirmish(name, 1, **options)
    return decide(env, env.place(units), target, kite)[0].tolist()


def script(target: str, kite: bool) -> Any:
    return lambda env, obs: decide(env, obs, target, kite)


NEAR, WEAK = 1, 2  # which of these three is the nearest (3.2 away), which the weakest; all are in reach
THREE = [enemy("marine", 14, 16, health=12), enemy("marine", 13, 17), enemy("marine", 15, 16, health=10)]


@pytest.mark.parametrize(("target", "which"), [("nearest", NEAR), ("weakest", WEAK)])
def test_whom_they_attack(target: str, which: int) -> None:
    assert choices("3m", [ally("marine", 10, 16), *THREE], target) == [FIRST_TARGET + which, NOOP, NOOP]


def test_the_order_of_the_enemy_names_the_same_unit() -> None:
    for target, which in (("nearest", 2 - NEAR), ("weakest", 2 - WEAK)):
        found = choices("3m", [ally("marine", 10, 16), *THREE], target, enemy_order="reversed")
        assert found[0] == FIRST_TARGET + which


def test_the_weakest_counts_shields_and_points_not_shares() -> None:
    """100, 110 and 160 points: the second has the least health, 60, the third the smallest share of its points."""
    three = [
        enemy("zealot", 15, 16, shield=0), enemy("zealot", 14, 16, health=60),
        enemy("colossus", 13, 16, health=150, shield=10),
    ]  # fmt: skip
    assert choices("1c3s5z", [ally("stalker", 10, 16), *three], "weakest")[0] == FIRST_TARGET


def test_the_weakest_is_known_by_its_type() -> None:
    """On 2s3z the enemy's type bits are exchanged: 160 points of a stalker, 150 of a zealot. On MMM 40 points are 89%
    of a marine, 60 are 48% of a marauder."""
    foes = [enemy("stalker", 12, 16), enemy("zealot", 14, 16)]
    assert choices("2s3z", [ally("stalker", 10, 16), *foes], "weakest")[0] == FIRST_TARGET + 1
    foes = [enemy("marauder", 12, 16, health=60), enemy("marine", 14, 16, health=40)]
    assert choices("MMM", [ally("marine", 10, 16), *foes], "weakest")[0] == FIRST_TARGET + 1


def test_of_equally_weak_ones_the_nearest() -> None:
    units = [enemy("marine", 15, 16, health=20), enemy("marine", 13, 16), enemy("marine", 14, 16, health=20)]
    assert choices("3m", [ally("marine", 10, 16), *units], "weakest")[0] == FIRST_TARGET + 2


@pytest.mark.parametrize("target", ["nearest", "weakest"])
@pytest.mark.parametrize(
    ("places", "step"),
    [
        ([(17, 18)], EAST),  # 7 to the east, 2 to the north
        ([(3, 14)], WEST),
        ([(17, 18), (11, 22.5)], NORTH),  # the second is the nearer, 6.6 away
        ([(17, 18), (9, 9.5)], SOUTH),
    ],
)
def test_out_of_reach_they_walk_to_the_nearest(target: str, places: list[tuple[float, float]], step: int) -> None:
    """The first enemy is the weakest, which does not count for walking."""
    foes = [enemy("marine", x, y, health=45 if k else 5) for k, (x, y) in enumerate(places)]
    assert choices("3m", [ally("marine", 10, 16), *foes], target)[0] == step


def test_reach_is_six_and_out_of_it_nobody_is_chosen() -> None:
    for gap, action in ((5.9, FIRST_TARGET), (6.1, EAST)):
        for mask in (True, False):  # without a mask every living enemy may be named; far ones are dropped
            assert choices("3m", [ally("marine", 10, 16), enemy("marine", 10 + gap, 16)], action_mask=mask)[0] == action
    in_reach = [enemy("marine", 15, 16), enemy("marine", 16.5, 16, health=1)]
    assert choices("3m", [ally("marine", 10, 16), *in_reach], "weakest", action_mask=False)[0] == FIRST_TARGET


# stepping back


@pytest.mark.parametrize(
    ("kite", "kind", "cooldown", "x", "action"),
    [
        (True, "stalker", 20.0, 13, WEST),
        (True, "stalker", 4.5, 13, WEST),
        (True, "stalker", 4.0, 13, FIRST_TARGET),  # ready within half a step
        (True, "stalker", 0.0, 13, FIRST_TARGET),
        (True, "stalker", 20.0, 17, EAST),  # nobody in reach
        (True, "zealot", 20.0, 13, FIRST_TARGET),  # no weapon to step back with
        (False, "stalker", 20.0, 13, FIRST_TARGET),
    ],
)
def test_ranged_units_step_back_while_they_cool_down(
    kite: bool, kind: str, cooldown: float, x: float, action: int
) -> None:
    assert choices("2s3z", [ally(kind, 10, 16, cooldown=cooldown), enemy("zealot", x, 16)], kite=kite)[0] == action


@pytest.mark.parametrize(("dx", "dy", "step"), [(2, 1, WEST), (-2, 1, EAST), (1, 2, SOUTH), (1, -2, NORTH)])
def test_they_step_away_from_the_nearest_whomever_they_shoot_at(dx: float, dy: float, step: int) -> None:
    foes = [enemy("zealot", 10 + dx, 16 + dy), enemy("zealot", 10 - 2 * dx, 16 - 2 * dy, health=5)]
    for target in ("nearest", "weakest"):
        assert choices("2s3z", [ally("stalker", 10, 16, cooldown=20), *foes], target, kite=True)[0] == step


def test_a_wall_turns_the_step_aside() -> None:
    """The map ends at y = 24: north is closed, and of east and west the latter ends farther from an enemy in the
    south-east, 3.8 to 3.5."""
    units = [ally("stalker", 10, 23.5, cooldown=20), enemy("zealot", 10.5, 20)]
    assert choices("2s3z", units, kite=True)[0] == WEST


def test_kiting_is_what_stalkers_need_and_focus_helps_marines() -> None:
    env = Skirmish("3s_vs_4z", 50, seed=1)
    assert win_rate(env, script("nearest", True)) > 0.9 and win_rate(env, script("nearest", False)) == 0.0
    env = Skirmish("8m", 100, seed=1)
    assert win_rate(env, script("weakest", False)) > win_rate(env, script("nearest", False)) + 0.05


# Medivacs, the dead, other views of the battle


HURT = [ally("marine", 12, 16, health=30), ally("marauder", 13, 16, health=70), ally("marine", 11, 16)]


@pytest.mark.parametrize(
    ("friends", "action"),
    [
        (HURT, FIRST_TARGET + 2),  # 56% of its health is less than 67%, though 70 points are more than 30
        ([ally("marine", 11, 16), ally("marine", 18, 16, health=10)], EAST),  # the hurt one is 8 away
        ([ally("marine", 11, 16), ally("marine", 10, 19)], STOP),  # all are well, one is beside it
        ([ally("marine", 10, 19), ally("marine", 4, 16)], NORTH),
        ([ally("medivac", 10, 13, health=20), ally("marine", 4, 16)], WEST),  # machines cannot be healed
    ],
)  # fmt: skip
def test_medivacs_heal_the_worst_hurt_or_follow(friends: list[UnitView], action: int) -> None:
    for mask in (True, False):
        units = [ally("medivac", 10, 16), *friends, enemy("marine", 12, 16, health=1)]
        assert choices("MMM", units, action_mask=mask)[0] == action


def test_marauders_leave_flyers_alone() -> None:
    """Agents 0 to 2 are a marauder, a marine and a marauder, and a Medivac is nearest to all."""
    units = [ally("marauder", 10, 16), ally("marine", 10, 16.5), ally("marauder", 1, 16)]
    foes = [enemy("medivac", 12, 16, health=5), enemy("marine", 14, 16)]
    for target in ("nearest", "weakest"):
        assert choices("MMM", units + foes, target)[:3] == [FIRST_TARGET + 1, FIRST_TARGET, EAST]


def test_the_dead_do_nothing() -> None:
    for units in ([], [enemy("marine", 14, 16)], [enemy("marine", 14, 16, health=0)]):
        assert choices("3m", units, kite=True) == [NOOP] * 3
    assert choices("3m", [ally("marine", 10, 16, health=0), ally("marine", 10, 16), enemy("marine", 14, 16)])[:2] == [
        NOOP, FIRST_TARGET,
    ]  # fmt: skip


def test_with_a_field_of_view_they_turn_to_whom_they_walk_to() -> None:
    """Twelve directions: north is the fourth. Who looks there already walks, and attacks when it is in reach."""
    for y, facing, action in ((30, 0.0, FIRST_LOOK + 3), (30, torch.pi / 2, NORTH), (20, 0.0, FIRST_LOOK + 3)):
        units = [ally("stalker", 16, 16, facing=facing), enemy("stalker", 16.2, y)]
        for mask in (True, False):
            assert choices("protoss_5_vs_5", units, conic_fov=True, action_mask=mask)[0] == action
    units = [ally("stalker", 16, 16, facing=torch.pi / 2), enemy("stalker", 16.2, 20)]
    assert choices("protoss_5_vs_5", units, conic_fov=True)[0] == FIRST_LOOK + 12


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("terran_5_vs_5", {}),
        ("zerg_10_vs_11", {"conic_fov": True, "enemy_order": 3}),
        ("protoss_5_vs_5", {"attack_probability": [0.5, 0.9], "health_level": 0.2, "action_mask": False}),
        ("MMM2", {"absent_agents": 2, "state_last_action": False}),
        ("corridor", {"state_timestep_number": True}),
    ],
)
@pytest.mark.parametrize("kite", [False, True])
def test_they_do_what_is_available_and_lanes_do_not_know_of_each_other(
    name: str, options: dict[str, Any], kite: bool
) -> None:
    """Teams differ from lane to lane on the first three maps."""
    env = Skirmish(name, 4, seed=2, **options)
    obs = env.reset()
    for _ in range(30):
        actions = decide(env, obs, "weakest", kite)
        assert obs.avail.gather(2, actions[..., None]).all()
        for b in range(4):
            alone = Obs(*(part[b : b + 1] for part in (obs.obs, obs.state, obs.avail, obs.alive)))
            assert torch.equal(decide(env, alone, "weakest", kite)[0], actions[b])
        obs = env.step(actions).next


def test_each_plays_its_seats_in_a_lineup() -> None:
    env = Skirmish("3m", 2, seed=0)
    obs, gen = env.place([*(ally("marine", 10, 15 + k) for k in range(3)), *THREE], 0), Generator()
    idle, weakest = Idle(env.spec, "cpu"), Fighters(env.spec, "cpu", target="weakest", kite=False)
    team = Lineup([idle, weakest], torch.tensor([[0, 1, 1], [0, 0, 0]]))
    actions, _, _ = team.act(obs, team.begin(2, gen), explore=False, gen=gen)
    assert actions[0].tolist() == [STOP, FIRST_TARGET + WEAK, FIRST_TARGET + WEAK]


# what they need to know


def test_the_plan_is_the_battle() -> None:
    options = {"conic_fov": True, "health_level": [0.1, 0.3], "enemy_order": 7, "unit_ranges": False}
    for env in (Skirmish("3m", 1), Skirmish("zerg_5_vs_5", 1, **options)):
        assert read_battle(env.spec.floor_plan) == (env.map, env.options)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="fighters play the embedded battle only"):
        Fighters(make_spec(), "cpu", target="nearest", kite=False)
    with pytest.raises(ConfigError, match="target=middle is not known; choose one of nearest, weakest"):
        Fighters(Skirmish("3m", 1).spec, "cpu", target="middle", kite=False)
    with pytest.raises(ConfigError, match="obs_instead_of_state=true"):
        Fighters(Skirmish("3m", 1, obs_instead_of_state=True).spec, "cpu", target="nearest", kite=False)
