"""SMACv2: distributions of teams and places, field of view, sightings that are not shared, the hunting enemy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from envs.base import check_env
from envs.skirmish import Skirmish
from envs.skirmish.units import TYPE_ID, UNIT_TYPES
from tests.support.fights import STOP, act, ally, enemy, pacify

LANES = 4000


def fresh(name: str, lanes: int = LANES, **options: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the records of agents and enemies right after a reset: UNIT [B, n] and [B, enemies]."""
    env = Skirmish(name, lanes, spawn_jitter=0.0, **options)
    env.reset()
    n = env.spec.n_agents
    return env._lanes.units[:, :n], env._lanes.units[:, n:]


@pytest.mark.parametrize("options", [{}, {"conic_fov": True}, {"prob_obs_enemy": 0.3, "action_mask": False}])
def test_contract(options: dict) -> None:
    check_env(lambda lanes, seed: Skirmish("terran_5_vs_5", lanes, seed=seed, **options), steps=60)


@pytest.mark.parametrize("race", ["protoss", "terran", "zerg"])
def test_type_frequencies(race: str) -> None:
    """0.45, 0.45, 0.1, up to the redrawn teams (0.1 to the fifth); both sides alike but for the order."""
    weights = {
        "protoss": {"stalker": 0.45, "zealot": 0.45, "colossus": 0.1},
        "terran": {"marine": 0.45, "marauder": 0.45, "medivac": 0.1},
        "zerg": {"zergling": 0.45, "hydralisk": 0.45, "baneling": 0.1},
    }[race]
    agents, enemies = fresh(f"{race}_5_vs_5")
    for name, weight in weights.items():
        share = (agents["type"] == TYPE_ID[name]).mean()
        assert abs(share - weight) < 4 * math.sqrt(weight * (1 - weight) / agents.size)
    assert (np.sort(agents["type"], 1) == np.sort(enemies["type"], 1)).all()
    names = np.array([kind.name for kind in UNIT_TYPES])[agents["type"]]
    assert (names[:, 1:] >= names[:, :-1]).all()  # ranked in the order of the game's ids, which is alphabetical
    assert len({tuple(row) for row in enemies["type"]}) > len({tuple(row) for row in agents["type"]})


def test_a_team_is_never_all_medivacs() -> None:
    """The extra enemies of 10 against 11 are a team of one: never the excepted type."""
    agents, enemies = fresh("terran_10_vs_11")
    medivac = TYPE_ID["medivac"]
    assert (enemies["type"][:, 10] != medivac).all() and (agents["type"] == medivac).any()
    share = (enemies["type"][:, 10] == TYPE_ID["marine"]).mean()
    assert abs(share - 0.5) < 4 * 0.5 / math.sqrt(LANES)


def test_mirrored_places() -> None:
    """Each enemy stands opposite to an agent (both move a little where bodies would overlap); places fill the west."""
    agents, enemies = fresh("zerg_5_vs_5", surrounded=0.0)
    gap = np.hypot(
        32 - agents["x"][:, :, None] - enemies["x"][:, None], agents["y"][:, :, None] - enemies["y"][:, None]
    )
    assert (gap.min(2) < 1e-9).mean() > 0.95
    assert abs(agents["x"].mean() - 7.5) < 0.2 and abs(agents["y"].mean() - 16) < 0.3
    assert agents["x"].min() < 0.2 and 14.8 < agents["x"].max() < 18
    _, enemies = fresh("zerg_10_vs_11", surrounded=0.0)
    assert abs(enemies["x"][:, 10].mean() - 24) < 0.3 and enemies["x"][:, 10].min() > 15


def test_surrounding_groups() -> None:
    """Agents around the centre; one to four groups, equally likely, each on a diagonal between (14, 14) and (0, 0)."""
    agents, enemies = fresh("terran_20_vs_20", surrounded=1.0)
    assert np.hypot(agents["x"] - 16, agents["y"] - 16).max() < 8
    x, y = enemies["x"] - 16, enemies["y"] - 16
    quarter = 2 * (y > 0) + (x > 0)
    groups = np.array([len(set(row)) for row in quarter])
    assert abs((groups == 4).mean() - 0.25) < 0.05 and set(groups) == {1, 2, 3, 4}
    shares = [(quarter == k).mean() for k in range(4)]
    assert np.allclose(shares, 0.25, atol=0.03)
    centre = np.median(np.abs(x), 1)
    assert centre.min() > 1 and centre.max() < 16.5
    both, _ = fresh("terran_5_vs_5")
    inside = (np.hypot(both["x"] - 16, both["y"] - 16).max(1) < 4).mean()
    assert abs(inside - 0.5) < 4 * 0.5 / math.sqrt(LANES)


def test_nobody_begins_off_the_map() -> None:
    """Where many are surrounded, fliers find their places last, and could never come back from outside."""
    for units in fresh("terran_20_vs_23", lanes=512, surrounded=1.0):
        assert (units["x"] > 0).all() and (units["x"] < 32).all()
        assert (units["y"] > 0).all() and (units["y"] < 32).all()


def test_unit_ranges() -> None:
    """A marine targets at 5 and sees to 9, a marauder 6 and 10, a Medivac 4 and 11; melee units target at 2."""
    env = Skirmish("terran_5_vs_5", 1)
    team = [ally(kind, 10, 16 + k) for k, kind in enumerate(("marauder", "marine", "medivac"))]
    obs = env.place([*team, enemy("marine", 15.5, 16), enemy("marine", 19.5, 16)])
    first = env.spec.action_names.index("target 0")
    assert obs.avail[0, 0, first] and not obs.avail[0, 1, first] and obs.avail[0, 2, first : first + 2].all()
    far = env.spec.obs_names.index("enemy 1 distance")
    assert [obs.obs[0, i, far].item() > 0 for i in range(3)] == [True, False, True]
    own = [env.spec.obs_names.index(f"own {axis}") for axis in "xy"]
    assert obs.obs[0, 1, own].tolist() == [10 / 32, 17 / 32]


def test_field_of_view() -> None:
    """Twelve directions of 30 degrees: an agent that faces north sees and targets what is north; looking is no
    order."""
    env = Skirmish("terran_5_vs_5", 1, conic_fov=True)
    foes = [enemy("marine", 10, 20), enemy("marine", 14, 16), enemy("marine", 6, 16), enemy("marine", 13, 18.9)]
    obs = env.place([ally("marine", 10, 16), *foes])
    pacify(env)
    shown = [env.spec.obs_names.index(f"enemy {e} distance") for e in range(4)]
    first = env.spec.action_names.index("target 0")
    assert (obs.obs[0, 0, shown] > 0).tolist() == [False, True, False, False]  # everybody begins facing east
    obs = env.step(act(env, obs, [env.spec.action_names.index("look 3")] + [STOP] * 4)).next
    assert (obs.obs[0, 0, shown] > 0).tolist() == [True, False, False, False]
    assert obs.avail[0, 0, first : first + 4].tolist() == [True, False, False, False]
    facing = [env.spec.obs_names.index(f"own facing {axis}") for axis in "xy"]
    assert obs.obs[0, 0, facing].tolist() == pytest.approx([0, 1], abs=1e-6)
    env = Skirmish("terran_5_vs_5", 1, conic_fov=True, compat_conic=True)
    obs = env.place([ally("marine", 10, 16), *foes])
    assert (obs.obs[0, 0, shown] > 0).tolist() == [False, True, True, False]  # the published test mirrors the cone


def sighted(probability: float, **options: bool) -> torch.Tensor:
    """Return bool [B, n, enemies]: what five marines are shown of three marines within sight of all."""
    env = Skirmish("terran_5_vs_5", 400, prob_obs_enemy=probability, **options)
    for lane in range(400):
        team = [ally("marine", 10 + k, 16) for k in range(5)]
        obs = env.place([*team, *[enemy("marine", 13, 19 + k) for k in range(3)]], lane)
    return obs.obs[:, :, [env.spec.obs_names.index(f"enemy {e} distance") for e in range(3)]] > 0


def test_sightings_are_not_shared() -> None:
    """One agent sights all three first; each is shown to each other agent with the given chance."""
    assert sighted(1.0).all()
    alone = sighted(0.0)
    assert (alone.any(2).sum(1) == 1).all() and alone.any(2)[:, 0].float().mean() == pytest.approx(0.2, abs=0.08)
    some = sighted(0.5).float().mean().item()
    assert some == pytest.approx((1 + 4 * 0.5) / 5, abs=0.04)
    wiped = sighted(1.0, compat_epo_wipe=True)
    assert not wiped.any()  # enemies 3 and 4 were never sighted: the published code erases those before them


def test_sightings_are_forgotten_with_the_dead() -> None:
    env = Skirmish("terran_5_vs_5", 1, prob_obs_enemy=0.0)
    obs = env.place([*[ally("marine", 10 + k, 16) for k in range(5)], enemy("marine", 13, 20)])
    shown = env.spec.obs_names.index("enemy 0 distance")
    owner = int((obs.obs[0, :, shown] > 0).int().argmax())
    pacify(env)
    env._lanes.units[0, owner]["health"] = 0
    obs = env.step(act(env, obs, [STOP] * 5)).next
    seen = obs.obs[0, :, shown] > 0
    assert seen.sum() == 1 and not seen[owner]


def test_targets_out_of_reach_are_dropped_without_a_mask() -> None:
    """Every living enemy may be named; the order is not given, and the attackable bit says so beforehand."""
    env = Skirmish("terran_5_vs_5", 1, action_mask=False)
    obs = env.place([ally("marine", 10, 16), enemy("marine", 25, 16), enemy("marine", 14, 16)])
    pacify(env)
    first = env.spec.action_names.index("target 0")
    assert obs.avail[0, 0, first : first + 3].tolist() == [True, True, False]
    bits = [env.spec.obs_names.index(f"enemy {e} attackable") for e in range(2)]
    assert obs.obs[0, 0, bits].tolist() == [0, 1]
    env.step(act(env, obs, [first] + [0] * 4))
    assert env.units(0)[0].x == 10 and env._lanes.units[0, 0]["target"] == -1


def test_enemies_hunt_from_anywhere() -> None:
    """Each is ordered to attack the nearest agent, keeps to it until it dies, and then gets the next one."""
    env = Skirmish("zerg_5_vs_5", 1)
    team = [ally("zergling", 2, 2, health=35), ally("hydralisk", 20, 30)]
    obs = env.place([*team, enemy("hydralisk", 3, 16), enemy("zergling", 25, 28)])
    obs = env.step(act(env, obs, [STOP] * 5)).next
    first, second = env._lanes.units[0, 5:7]
    assert (first["target"], second["target"]) == (0, 1)
    env._lanes.units[0, 0]["health"] = 0
    env.step(act(env, obs, [STOP] * 5))
    assert env._lanes.units[0, 5]["target"] == 1


def test_medivacs_follow_their_team() -> None:
    env = Skirmish("terran_5_vs_5", 1)
    obs = env.place([ally("marine", 2, 16), enemy("marine", 28, 16), enemy("medivac", 28, 24)])
    for _ in range(12):
        obs = env.step(act(env, obs, [STOP] + [0] * 4)).next
    marine, medivac = env.units(0)[5:7]
    assert medivac.x < 25 and math.hypot(marine.x - medivac.x, marine.y - medivac.y) < 6


def test_published_defaults() -> None:
    """SMACv2 clips the reward where SMAC takes its absolute value."""
    assert Skirmish("3m", 1)._world.rules[0]["abs_reward"] == 1
    assert Skirmish("zerg_5_vs_5", 1)._world.rules[0]["abs_reward"] == 0
    assert Skirmish("zerg_5_vs_5", 1, abs_reward=True)._world.rules[0]["abs_reward"] == 1
