"""SMACv2's capability keys: what agents see of them, dropped orders, health levels, masked enemies."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from envs.base import check_env
from envs.skirmish import Skirmish, parallel_env
from marl.core.types import ConfigError
from tests.support.fights import EAST, FIRST_TARGET, STOP, act, ally, enemy, pacify, uniform_actions

ALL = {"attack_probability": [0.2, 0.9], "health_level": [0.1, 0.5], "enemy_mask": 0.3}


@pytest.mark.parametrize(
    ("name", "options", "sizes"),
    [  # observation, state, capabilities of one agent
        ("terran_5_vs_5", {}, (82, 120, 3)),
        ("terran_5_vs_5", {"enemy_mask": 0.5}, (82, 120, 3)),
        ("terran_5_vs_5", {"attack_probability": 0.5, "health_level": 0.5}, (82 + 4 * 2 + 2, 120 + 5 * 2, 5)),
        ("protoss_10_vs_11", {"attack_probability": 0.5, "obs_ally_attack": False}, (191 + 9 + 1, 327 + 10, 4)),
        ("zerg_5_vs_5", {"health_level": 0.5, "conic_fov": True, "obs_ally_types": False}, (84 + 5, 190 + 5, 4)),
        ("3m", {"health_level": 0.5}, (30 + 2 + 1, 48 + 3, 1)),
        ("3m", {}, (30, 48, 0)),
    ],
)
def test_sizes(name: str, options: dict[str, Any], sizes: tuple[int, int, int]) -> None:
    env = Skirmish(name, 2, **options)
    assert (env.spec.obs_dim, env.spec.state_dim, env.cap_size) == sizes
    env.reset()
    assert env.capabilities().shape == (2, env.spec.n_agents * env.cap_size)


def protoss(**options: Any) -> Skirmish:
    """Set up a stalker with 50 of 80 health, a zealot 3 east and 4 north of it with 60 of 100, and an enemy
    colossus."""
    env = Skirmish("protoss_5_vs_5", 1, attack_probability=[0.2, 0.9], health_level=[0.1, 0.5], **options)
    env.place([
        ally("stalker", 10, 16, health=50, shield=20, cooldown=7, attack_probability=0.75, health_level=0.25),
        ally("zealot", 13, 20, health=60, shield=25, attack_probability=0.5, health_level=0.2),
        enemy("colossus", 13, 12, health=100, shield=75),
    ])  # fmt: skip
    return env


def test_every_feature_by_hand() -> None:
    """Health above the level: (50/80 - 1/4) / (3/4) = 1/2 and (60/100 - 1/5) / (4/5) = 1/2."""
    env = protoss()
    row, state = env.observe().obs[0, 0].tolist(), env.observe().state[0].tolist()
    assert row[4:13] == pytest.approx([1, 0.5, 0.3, -0.4, 1 / 2, 1 / 2, 0, 0, 1])  # enemy: type colossus
    assert row[49:60] == pytest.approx([1, 0.5, 0.3, 0.4, 0.5, 0.5, 0.5, 0.2, 0, 1, 0])
    assert row[60:93] == [0] * 33  # nobody else is there
    assert row[93:] == pytest.approx([0.5, 0.25, 0.75, 0.25, 10 / 32, 0.5, 1, 0, 0])
    assert state[:10] == pytest.approx([0.5, 7 / 35, -6 / 32, 0, 0.25, 0.75, 0.25, 1, 0, 0])
    assert state[10:20] == pytest.approx([0.5, 0, -3 / 32, 4 / 32, 0.5, 0.5, 0.2, 0, 1, 0])
    assert state[50:57] == pytest.approx([0.5, -3 / 32, -4 / 32, 0.5, 0, 0, 1])
    assert env.capabilities()[0, :10].tolist() == pytest.approx([0.75, 0.25, 1, 0, 0, 0.5, 0.2, 0, 1, 0])
    names = ["health", "shield", "attack probability", "health level", "x", "y", "type 0", "type 1", "type 2"]
    assert env.spec.obs_names[93:] == tuple(f"own {name}" for name in names)
    assert env.spec.obs_names[53:57] == tuple(f"ally 0 {name}" for name in names[:4])
    assert env.spec.state_names[14:17] == ("ally 1 shield", "ally 1 attack probability", "ally 1 health level")
    assert env.spec.about is not None
    assert env.spec.about[0, 1, 49:60].all() and env.spec.about[0, 1].sum() == 11
    assert env.spec.about[0, 0].sum() == 4 + 9
    assert env.spec.obs_low[53] == env.spec.obs_low[93] == -1 and env.spec.obs_low[8] == 0  # -0.5 / (1 - 0.5)


@pytest.mark.parametrize(
    ("switch", "block"),
    [
        ("obs_ally_attack", [1, 0.5, 0.3, 0.4, 0.5, 0.5, 0, 0.2, 0, 1, 0]),
        ("obs_ally_level", [1, 0.5, 0.3, 0.4, 0, 0.5, 0.5, 0, 0, 1, 0]),
        ("obs_ally_types", [1, 0.5, 0.3, 0.4, 0.5, 0.5, 0.5, 0.2, 0, 0, 0]),
    ],
)
def test_switches_zero_the_teammates_features_alone(switch: str, block: list[float]) -> None:
    blind, seeing = protoss(**{switch: False}), protoss()
    assert blind.observe().obs[0, 0, 49:60].tolist() == pytest.approx(block)
    rest = [k for k in range(102) if not 49 <= k < 60]
    assert torch.equal(blind.observe().obs[0, 0, rest], seeing.observe().obs[0, 0, rest])
    assert torch.equal(blind.observe().state, seeing.observe().state)
    assert torch.equal(blind.capabilities(), seeing.capabilities())


def test_draws() -> None:
    """Values are drawn uniformly for every agent and episode; a single number holds for all agents."""
    env = Skirmish("terran_5_vs_5", 2000, **ALL)
    env.reset()
    first = env.capabilities().reshape(2000, 5, 5)[..., :2].numpy()
    for values, (low, high) in ((first[..., 0], (0.2, 0.9)), (first[..., 1], (0.1, 0.5))):
        assert low <= values.min() < low + 0.01 and high - 0.01 < values.max() < high
        spread = (high - low) / math.sqrt(12)
        assert abs(values.mean() - (low + high) / 2) < 4 * spread / math.sqrt(values.size)
        assert abs(values.std() - spread) < 0.01
    agents = np.corrcoef(np.concatenate([first[..., 0], first[..., 1]], 1).T)
    assert np.abs(agents - np.eye(10)).max() < 0.1
    hidden = env._lanes.hidden.copy()
    assert abs(hidden.mean() - 0.3) < 4 * math.sqrt(0.21 / hidden.size)
    assert 0.2 < (hidden[:, :, 0] != hidden[:, :, 1]).mean() < 0.6  # 0.42: agents are masked independently
    env.reset()
    assert (env.capabilities().reshape(2000, 5, 5)[..., :2].numpy() != first).mean() > 0.99
    assert (env._lanes.hidden != hidden).any()
    env = Skirmish("3m", 2, attack_probability=0.5, health_level=0.25)
    env.reset()
    assert env.capabilities().tolist() == [[0.5, 0.25] * 3] * 2
    assert [view.attack_probability for view in env.units(1)] == [0.5] * 3 + [1.0] * 3


@pytest.mark.parametrize("options", [ALL, ALL | {"compat_health_check": True, "reward": "win_loss"}])
def test_contract(options: dict[str, Any]) -> None:
    """Among the rules: the same per (seed, lane), whatever the number of lanes; observations within their bounds."""
    check_env(lambda lanes, seed: Skirmish("terran_5_vs_5", lanes, seed=seed, **options), steps=60)


@pytest.mark.parametrize("lanes", [2, 7])
def test_draws_depend_on_seed_and_lane_alone(lanes: int) -> None:
    few, many = Skirmish("zerg_5_vs_5", 2, seed=9, **ALL), Skirmish("zerg_5_vs_5", lanes, **ALL)
    few.reset()
    many.reset()
    many.reset(seed=9)
    assert torch.equal(few.capabilities(), many.capabilities()[:2])
    assert (few._lanes.hidden == many._lanes.hidden[:2]).all()
    assert not torch.equal(few.capabilities()[0], few.capabilities()[1])


@pytest.mark.parametrize("name", ["MMM", "zerg_5_vs_5"])
def test_neutral_values_change_nothing(name: str) -> None:
    """Bit for bit the battle without the options, but for the columns that they add: these draw no random number."""
    plain = Skirmish(name, 8, seed=4)
    other = Skirmish(name, 8, seed=4, attack_probability=1.0, health_level=0.0, enemy_mask=0.0)
    new = ("attack probability", "health level")
    keep = [k for k, feature in enumerate(other.spec.obs_names) if not feature.endswith(new)]
    assert tuple(other.spec.obs_names[k] for k in keep) == plain.spec.obs_names
    one, two, counter = plain.reset(), other.reset(), np.zeros(1, np.uint64)
    for _ in range(80):
        assert torch.equal(one.obs, two.obs[..., keep]) and torch.equal(one.avail, two.avail)
        actions = uniform_actions(plain, counter)
        first, second = plain.step(actions), other.step(actions)
        assert torch.equal(first.reward, second.reward) and torch.equal(first.terminated, second.terminated)
        ended = first.terminated | first.truncated
        one, two = (plain.reset(mask=ended), other.reset(mask=ended)) if ended.any() else (first.next, second.next)


# --- attack probability ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chance", [0.0, 0.3, 1.0])
def test_orders_are_dropped(chance: float) -> None:
    """A marauder's attack and a Medivac's treatment, 2000 of each; walking and stopping never fail."""
    env = Skirmish("MMM", 2000, attack_probability=chance)
    absent = ally("marine", 8, 17, health=0)
    marauder = ally("marauder", 10, 16, attack_probability=chance)
    medivac = ally("medivac", 8, 12, attack_probability=chance)
    team = [marauder, absent, ally("marine", 8, 16, health=20, attack_probability=chance), *[absent] * 6, medivac]
    for lane in range(2000):
        obs = env.place([*team, enemy("marine", 14, 16)], lane)
    pacify(env)
    wanted = torch.zeros(10, dtype=torch.int64)
    wanted[0], wanted[2], wanted[9] = FIRST_TARGET, EAST, FIRST_TARGET + 2
    assert obs.avail[0, range(10), wanted].all()
    env.step(wanted.repeat(2000, 1))
    units = env._lanes.units
    assert np.allclose(units[:, 2]["x"], 8 + 8 * 2.25 / 16, atol=0.2)
    for agent, target in ((0, 10), (9, 2)):
        given = (units[:, agent]["target"] == target).mean()
        assert abs(given - chance) <= 4 * math.sqrt(chance * (1 - chance) / 2000)
    both = (units[:, 0]["target"] == 10) & (units[:, 9]["target"] == 2)
    assert abs(both.mean() - chance**2) < 0.03  # drawn for each agent


def test_a_dropped_order_leaves_the_previous_one() -> None:
    env = Skirmish("3m", 1, attack_probability=[0.0, 1.0])
    team = [ally("marine", 10, 16, attack_probability=0.0), ally("marine", 10, 14, attack_probability=1.0)]
    obs = env.place([*team, enemy("marine", 14, 15)])
    pacify(env)
    obs = env.step(act(env, obs, [EAST, EAST, STOP])).next
    env.step(act(env, obs, [FIRST_TARGET, FIRST_TARGET, STOP]))
    walker, shooter, _, target = env.units(0)[:4]
    assert walker.x > 11.8 and shooter.x == pytest.approx(11.125) and target.health == 39  # 2.25 units a second


# --- health levels ---------------------------------------------------------------------------------------------------


def test_killed_two_loops_before_the_end_of_the_step() -> None:
    """A marine walks 2.25 / 16 in a loop. 22 of 45 are less than half, 22.5 are not."""
    env = Skirmish("3m", 1, health_level=0.5)
    weak, fit = ally("marine", 5, 12, health=22, health_level=0.5), ally("marine", 5, 16, health=22.5, health_level=0.5)
    obs = env.place([weak, fit, enemy("marine", 25, 16)])
    pacify(env)
    own = env.spec.obs_names.index("own health")
    assert obs.obs[0, :2, own].tolist() == pytest.approx([(22 / 45 - 0.5) / 0.5, 0])
    step = env.step(act(env, obs, [EAST, EAST, 0]))
    assert step.next.alive[0].tolist() == [False, True, False] and step.info["dead_allies"][0] == 2
    assert env.units(0)[0].x == pytest.approx(5 + 6 * 2.25 / 16)
    assert env.units(0)[1].x == pytest.approx(5 + 8 * 2.25 / 16)
    assert step.reward[0] == 0 and not step.terminated[0]
    assert step.next.avail[0, 0].tolist() == [True] + [False] * 8
    state = dict(zip(env.spec.state_names, step.next.state[0].tolist(), strict=True))
    assert state["ally 0 health level"] == 0 and state["ally 1 health level"] == 0.5
    assert env.capabilities()[0].tolist() == [0.5, 0.5, 0]  # the dead keep theirs


def shot_at(cooldown: float, **options: Any) -> list[float]:
    """Read what a marine with 23 of 45 and a level of a half sees of its health after each of two steps; a hit is 6.

    The enemy fires when its weapon is ready in ``cooldown`` loops, and hits a loop later.
    """
    env = Skirmish("3m", 1, health_level=0.5, **options)
    far = ally("marine", 3, 12)
    obs = env.place(
        [ally("marine", 10, 16, health=23, health_level=0.5), far, enemy("marine", 14, 16, cooldown=cooldown)]
    )
    seen = []
    for _ in range(2):
        obs = env.step(act(env, obs, [STOP] * 3)).next
        seen.append(obs.obs[0, 0, env.spec.obs_names.index("own health")].item() if obs.alive[0, 0] else math.nan)
        assert (obs.obs >= env.spec.obs_low).all()
    return seen


def test_when_the_level_is_checked() -> None:
    """A hit in the first six loops kills in the same step, later ones in the next; as published, always the next."""
    below, dead = (17 / 45 - 0.5) / 0.5, math.nan
    assert shot_at(0) == pytest.approx([dead, dead], nan_ok=True)
    assert shot_at(6) == pytest.approx([below, dead], nan_ok=True)
    assert shot_at(0, compat_health_check=True) == pytest.approx([below, dead], nan_ok=True)
    assert shot_at(6, compat_health_check=True) == pytest.approx([below, dead], nan_ok=True)


def test_levels_lose_battles_and_set_off_banelings() -> None:
    env = Skirmish("3m", 1, health_level=0.5)
    obs = env.place([ally("marine", 5, 12, health=10, health_level=0.5), enemy("marine", 25, 16)])
    step = env.step(act(env, obs, [STOP, 0, 0]))
    assert step.terminated[0] and not step.info["won"][0] and step.reward[0] == 0
    env = Skirmish("zerg_5_vs_5", 1, health_level=0.5)
    bane, other = ally("baneling", 5, 16, health=10, health_level=0.5), ally("hydralisk", 20, 16)
    obs = env.place([bane, other, enemy("zergling", 6.5, 16), enemy("hydralisk", 5, 20)])
    pacify(env)
    step = env.step(act(env, obs, [STOP, STOP, 0, 0, 0]))
    assert [view.health for view in env.units(0)[5:7]] == [0, 80] and step.reward[0] > 0


# --- enemy mask ------------------------------------------------------------------------------------------------------


def test_masked_enemies_show_only_where_they_are() -> None:
    env = Skirmish("protoss_5_vs_5", 1, enemy_mask=0.5)
    team = [ally("stalker", 10, 16), ally("stalker", 10, 17)]
    foes = [enemy("zealot", 13, 12, health=50), enemy("colossus", 14, 16)]
    hidden = np.zeros((5, 5), int)
    hidden[0, 1] = 1  # the colossus from the first agent
    obs = env.place([*team, *foes], hidden=hidden)
    rows = obs.obs[0, :2, 4:22].reshape(2, 2, 9)
    assert rows[0, 0].tolist() == pytest.approx([1, 0.5, 0.3, -0.4, 0.5, 1, 0, 1, 0])
    assert rows[0, 1].tolist() == pytest.approx([1, 0.4, 0.4, 0, 0, 0, 0, 0, 0])
    assert rows[1, :, 4:].tolist() == [[0.5, 1, 0, 1, 0], [1, 1, 0, 0, 1]]
    state = obs.state.clone()
    shown = env.place([*team, *foes])
    assert torch.equal(shown.state, state) and shown.obs[0, 0, 17] == 1


def test_a_certain_mask_hides_all_but_places() -> None:
    """A mask drawn at reset reaches the first observation; enemies stay visible."""
    env = Skirmish("terran_5_vs_5", 50, enemy_mask=1.0, surrounded=1.0)
    obs = env.reset()
    names = np.array(env.spec.obs_names)
    vitals = [name.startswith("enemy") and name.split(" ", 2)[2][:4] in ("heal", "type") for name in names]
    seen = obs.obs[:, :, [name.startswith("enemy") and name.endswith("distance") for name in names]]
    assert (seen > 0).any() and (obs.obs[:, :, vitals] == 0).all()


# --- refusals and views ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"attack_probability": 1.5}, r"attack_probability=1.5 must be a number within \[0, 1\], or \[low, high\]"),
        ({"attack_probability": [0.8, 0.2]}, r"=\[0.8, 0.2\] must be a number"),
        ({"attack_probability": [0.1, 0.2, 0.3]}, r"attack_probability=\[0.1, 0.2, 0.3\] must be a number"),
        ({"attack_probability": "0.5"}, "=0.5 must be a number"),
        ({"attack_probability": True}, "=True must be a number"),
        ({"attack_probability": math.nan}, "=nan must be a number"),
        ({"health_level": -0.1}, "health_level=-0.1 must be a number"),
        ({"health_level": 1.0}, r"health_level=1.0 must be within \[0, 1.0\), below ally_health"),
        ({"health_level": [0.1, 0.6], "ally_health": 0.5}, r"health_level=0.6 must be within \[0, 0.5\)"),
        ({"health_level": 0.5, "reward": "dense_signed"}, "needs reward dense or win_loss.* got dense_signed"),
        ({"health_level": 0.5, "reward": "death"}, "got death"),
        ({"enemy_mask": 1.01}, r"enemy_mask=1.01 must be within \[0, 1\]"),
        ({"enemy_mask": [0.1, 0.2]}, r"enemy_mask=\[0.1, 0.2\] must be a number within"),
    ],
)
def test_wrong_values_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        Skirmish("3m", 1, **options)
    assert "\n" not in str(error.value)


def test_units_have_capabilities_only_with_the_option() -> None:
    with pytest.raises(ConfigError, match="attack_probability, which is for agents and needs the option"):
        Skirmish("3m", 1, health_level=0.5).place([ally("marine", 10, 16, attack_probability=0.5)])
    with pytest.raises(ConfigError, match="health_level, which is for agents"):
        Skirmish("3m", 1, health_level=0.5).place([enemy("marine", 10, 16, health_level=0.5)])


def test_single_battle_view() -> None:
    env = parallel_env("terran_5_vs_5", **ALL)
    seen, _ = env.reset(seed=3)
    own = [env.battle.spec.obs_names.index(f"own {name}") for name in ("attack probability", "health level")]
    caps = env.capabilities().reshape(5, 5)
    assert caps.dtype == np.float32 and np.array_equal(caps[2, :2], seen["agent_2"]["observation"][own])
