"""The battle itself, against numbers worked out by hand from the unit table."""

from __future__ import annotations

import pytest
import torch
from numba import njit

from envs.skirmish import Skirmish
from envs.skirmish.combat import strike
from envs.skirmish.maps import find_map
from envs.skirmish.records import MOVE
from tests.support.fights import (
    EAST,
    FIRST_TARGET,
    STOP,
    act,
    ally,
    attack_nearest,
    enemy,
    pacify,
    point_east,
    win_rate,
)


@njit
def hits_to_kill(rules, types, units, attacker, victim):  # type: ignore[no-untyped-def]
    hits = 0
    while units[0][victim].health > 0.0:
        strike(rules[0], types, units[0], attacker, victim)
        hits += 1
    return hits


@pytest.mark.parametrize(
    ("attacker", "victim", "hits"),
    [
        ("marine", "marine", 8),  # 45 / 6
        ("zealot", "marine", 6),  # 45 / 8: three swings of two
        ("stalker", "stalker", 10),  # 80 shield at 18; the fifth puts 9 on life; 71 / 17
        ("stalker", "zealot", 13),  # 50 shield at 13; the fourth puts 1 on life; 99 / 12
        ("marine", "zealot", 29),  # 50 shield at 6; the ninth leaves 3 on life; 97 / 5
        ("marauder", "stalker", 9),  # 80 shield at 20, 80 / 19
        ("zealot", "zealot", 21),  # 50 shield at 8; the seventh leaves 5 on life; 95 / 7
        ("marine", "marauder", 25),  # 125 / 5
        ("colossus", "marine", 3),  # 45 / 15
        ("colossus", "zealot", 11),  # 50 shield at 15; the fourth puts 9 on life; 91 / 14
        ("colossus", "stalker", 17),  # 80 shield at 10, 80 / 9
        ("spine_crawler", "stalker", 6),  # 80 shield at 30; the third puts 9 on life; 71 / 29
    ],
)
def test_hits_to_kill(attacker: str, victim: str, hits: int) -> None:
    env = Skirmish("2s3z", 1)
    env.place([ally(attacker, 10, 16), enemy(victim, 11, 16)])
    n = env.spec.n_agents
    assert hits_to_kill(env._world.rules, env._world.types, env._lanes.units, 0, n) == hits


def test_marine_duel_takes_eight_shots() -> None:
    """The first shot falls at once, the next every 13.77 loops and a delay of U(-1, 2): 7 periods, 12 to 14 steps."""
    env = Skirmish("3m", 64)
    for lane in range(64):
        obs = env.place([ally("marine", 10, 16), enemy("marine", 14, 16)], lane)
    pacify(env)
    health, steps = [], torch.zeros(64)
    running = torch.ones(64, dtype=torch.bool)
    for _ in range(20):
        step = env.step(torch.where(obs.avail[:, :, FIRST_TARGET], FIRST_TARGET, 0))
        steps += running
        running &= ~step.terminated
        health.append(env.units(0)[3].health)
        obs = step.next
    assert not running.any() and health[0] == 39
    assert set(health) <= {45.0 - 6 * k for k in range(8)} | {0.0}
    assert 12 <= steps.min() and steps.max() <= 15
    loops = 8 * (steps.mean() - 0.5)
    assert 98 < loops < 112  # 7 x (13.77 + 0.5, rounded up) + 2


def test_orders_move_and_stop() -> None:
    """A marine walks 2.25 / 16 a loop; a stopped one neither walks nor shoots."""
    env = Skirmish("3m", 1)
    obs = env.place([ally("marine", 10, 16), ally("marine", 20, 12), enemy("marine", 25, 12)])
    pacify(env)
    env.step(act(env, obs, [EAST, STOP, STOP]))
    assert env.units(0)[0].x == pytest.approx(10 + 8 * 2.25 / 16)
    env.step(act(env, obs, [EAST, STOP, STOP]))
    assert env.units(0)[0].x == pytest.approx(10 + 16 * 2.25 / 16)
    assert env.units(0)[1].x == 20 and env.units(0)[3].health == 45


def test_attack_order_walks_into_range() -> None:
    """Targets may be named from 6 away; a zealot has to walk up to them: 0.1 from edge to edge."""
    env = Skirmish("2s3z", 1)
    obs = env.place([ally("stalker", 5, 9), ally("stalker", 5, 10), ally("zealot", 10, 16), enemy("zealot", 15, 16)])
    pacify(env)
    for _ in range(5):
        obs = env.step(act(env, obs, [STOP, STOP, FIRST_TARGET, 0, 0])).next
    zealot, victim = env.units(0)[2], env.units(0)[5]
    assert 1.0 <= victim.x - zealot.x <= 1.1 + 1e-6 and victim.shield < 50


@pytest.mark.parametrize(("gap", "steps"), [(5.0, 1), (6.0, 2)])
def test_stalker_missile_takes_time(gap: float, steps: int) -> None:
    """Wind-up 3 loops (0.167 s), then (gap - 1.25) / 1.172: with the first loop 8 for a gap of 5, 9 for 6."""
    env = Skirmish("2s3z", 1)
    obs = env.place([ally("stalker", 10, 16), enemy("stalker", 10 + gap, 16)])
    pacify(env)
    point_east(env)
    shields = []
    for _ in range(2):
        obs = env.step(act(env, obs, [FIRST_TARGET] + [0] * 4)).next
        shields.append(env.units(0)[5].shield)
    assert shields == ([62, 62] if steps == 1 else [80, 62])


@pytest.mark.parametrize(
    ("kind", "loops"),
    [("marine", 13.77), ("marauder", 24), ("stalker", 29.92), ("colossus", 24), ("hydralisk", 13.28),
     ("spine_crawler", 29.6)],
)  # fmt: skip
def test_weapon_periods(kind: str, loops: float) -> None:
    """A shot in the first loop of a step leaves the period, U(-1, 2) and minus 7 loops at its end. Recordings of the
    real game show 30.5 loops between a Stalker's shots and 24.4 between a Colossus's."""
    env = Skirmish("2s3z", 400)
    for lane in range(400):
        env.place([ally(kind, 10, 16), enemy("stalker", 14, 16)], lane)
    pacify(env)
    point_east(env)
    avail = env.observe().avail
    env.step(torch.where(avail[:, :, FIRST_TARGET], FIRST_TARGET, 0))
    cooldown = env._lanes.units["cooldown"][:, 0] + 7
    assert loops - 1 - 0.01 <= cooldown.min() and cooldown.max() <= loops + 2 + 0.01
    assert cooldown.mean() == pytest.approx(loops + 0.5, abs=4 * 0.87 / 20)


def test_backswing_delays_the_chase() -> None:
    """After a shot a marine stays for 0.75 s (12 loops) although its target has left; then it follows."""
    env = Skirmish("3m", 1)
    obs = env.place([ally("marine", 10, 16), enemy("marine", 15, 16)])
    env.step(act(env, obs, [STOP] * 3))  # from south to west takes two loops; the shot falls in the third
    env._lanes.units[0, 0]["x"] = 5
    places = []
    for _ in range(2):
        env.step(act(env, obs, [STOP] * 3))
        places.append(env.units(0)[3].x)
    assert places[0] == pytest.approx(15 - 2 * 2.25 / 16) and places[1] == pytest.approx(15 - 10 * 2.25 / 16)


def test_shields_return_after_ten_seconds() -> None:
    """160 quiet loops, then 0.125 a loop."""
    env = Skirmish("2s3z", 1)
    obs = env.place([ally("stalker", 10, 16, shield=30), enemy("zealot", 25, 16)])
    pacify(env)
    env._lanes.units[0]["quiet"] = 0
    for step in range(22):
        obs = env.step(act(env, obs, [STOP] + [0] * 4)).next
        loops = 8 * (step + 1)
        assert env.units(0)[0].shield == pytest.approx(30 + max(0, loops - 159) * 0.125)


def test_enemy_prefers_its_attacker() -> None:
    """The nearer marine stands idle, the farther one shoots: the enemy answers the shooter."""
    env = Skirmish("3m", 1)
    obs = env.place([ally("marine", 14, 16), ally("marine", 13, 18), enemy("marine", 17, 16)])
    for _ in range(6):
        obs = env.step(act(env, obs, [STOP, FIRST_TARGET, STOP])).next
    idle, shooter = env.units(0)[:2]
    assert shooter.health < 40 and idle.health >= 39


def test_enemies_arrive_and_shoot() -> None:
    """They cover the 14 to the agents' start at 1.125 a step and open fire from 5 (and two radii) away."""
    env = Skirmish("3m", 8)
    env.reset()
    first_blood = 0
    for t in range(12):
        step = env.step(torch.where(env._obs.avail[:, :, STOP], STOP, 0))
        hurt = (env._lanes.units["health"][:, :3] < 45).any(1)
        if hurt.any() and not first_blood:
            first_blood = t + 1
    assert 7 <= first_blood <= 9
    assert not step.terminated.all()


def test_medivac_heals_and_pays_energy() -> None:
    """9 life a second at 0.33 energy each; a patient that is well is left, a Medivac is nobody's patient."""
    env = Skirmish("MMM", 1)
    obs = env.place([ally("marauder", 10, 16, health=100), *[ally("marine", 1, 9, health=0)] * 8,
                     ally("medivac", 10, 18, energy=50), enemy("marine", 30, 16)])  # fmt: skip
    pacify(env)
    for _ in range(2):
        obs = env.step(act(env, obs, [STOP] * 9 + [FIRST_TARGET])).next
    patient, medivac = env.units(0)[0], env.units(0)[9]
    assert patient.health == pytest.approx(100 + 16 * 9 / 16)
    assert medivac.energy == pytest.approx(50 + 16 * 0.5625 / 16 - 0.33 * 16 * 9 / 16)


def test_the_enemys_medivac_is_the_stock_one() -> None:
    """The agents' own speeds up by 2.3125 / 256 a loop to 2.75 / 16 (in the 20th loop), the enemy's by 2.25 / 256 to
    2.5 / 16 (in the 18th)."""
    env = Skirmish("MMM", 1)
    rest = [enemy("medivac", 22, 12), enemy("marine", 30, 30)]
    obs = env.place([*[ally("marine", 2, 2)] * 9, ally("medivac", 10, 22), *rest])
    pacify(env)
    theirs = env._lanes.units[0, 10]
    theirs["order"], theirs["goal_x"], theirs["goal_y"] = MOVE, 2, 12
    speeds = []
    for _ in range(3):
        obs = env.step(act(env, obs, [STOP] * 9 + [EAST])).next
        speeds.append(env._lanes.units[0, [9, 10]]["speed"].tolist())
    assert speeds[0] == pytest.approx([8 * 2.3125 / 256, 8 * 2.25 / 256])
    assert speeds[1] == pytest.approx([16 * 2.3125 / 256, 16 * 2.25 / 256])
    assert speeds[2] == pytest.approx([2.75 / 16, 2.5 / 16])


def lined_up(name: str, side: str) -> list[tuple[str, float, float]]:
    """Return (type, x, y) of the units of a side at the start, without jitter."""
    env = Skirmish(name, 1, spawn_jitter=0.0)
    env.reset()
    return [(unit.type, unit.x, unit.y) for unit in env.units(0) if unit.owner == side]


def test_spawn_lattice() -> None:
    """Read off recordings: 3m is an L; the marauders of MMM hold the west corners of a block of marines."""
    for side, x0 in (("ally", 9), ("enemy", 23)):
        assert {(x - x0, y - 16) for _, x, y in lined_up("3m", side)} == {(0, 0), (0.75, 0), (0, -0.75)}
        spread = [(kind, (round(x - x0, 3), round(y - 16, 3))) for kind, x, y in lined_up("MMM", side)]
        assert {at for kind, at in spread if kind == "marauder"} == {(-1.125, -1.125), (-1.125, 1.125)}
        assert len({at for _, at in spread}) == 9  # the Medivac hovers over the centre


@pytest.mark.parametrize("name", ["3m", "MMM", "1c3s5z", "bane_vs_bane"])
def test_agents_are_ranked_by_type_and_place(name: str) -> None:
    agents, scenario = lined_up(name, "ally"), find_map(name)
    order = [kind for kind, _, _ in agents]
    assert order == sorted(order)
    for kind in set(order):
        places = [(round(x, 6), y) for k, x, y in agents if k == kind]
        assert places == sorted(places)
    created = [kind for kind, count, _ in scenario.enemies for _ in range(count)]
    assert [kind for kind, _, _ in lined_up(name, "enemy")] == created


def test_random_agents_lose_and_attackers_win_some() -> None:
    assert win_rate(Skirmish("3m", 100)) == 0
    assert win_rate(Skirmish("3m", 100), attack_nearest) > 0.1
