"""The order in which agents see and target enemies: another view of the same battle, bit for bit."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from envs.skirmish import Skirmish
from envs.skirmish.setup import enemy_listing
from envs.skirmish.units import TYPE_ID
from tests.support.fights import FIRST_TARGET, STOP, act, ally, enemy, pacify, uniform_actions

HIDDEN = {"prob_obs_enemy": 0.5, "enemy_mask": 0.3, "conic_fov": True, "attack_probability": 0.8}
CASES = [
    ("2s3z", "reversed", {}),
    ("2s3z", 5, {"obs_last_action": True}),
    ("2s3z", [3, 0, 4, 2, 1], {}),
    ("MMM", 1, {}),
    ("zerg_5_vs_5", 2, HIDDEN),
    ("terran_10_vs_11", "reversed", {"prob_obs_enemy": 0.5, "action_mask": False}),
    ("3s5z", 3, {"obs_instead_of_state": True}),
]


def columns(names: tuple[str, ...], listed: np.ndarray) -> list[int]:
    """Return for every feature of the permuted view the one of the plain view that is the same."""

    def plain(found: re.Match[str]) -> str:
        return f"enemy {listed[int(found[1])]}"

    return [names.index(re.sub(r"enemy (\d+)", plain, name)) for name in names]


def targets(values: Tensor, first: int, listed: np.ndarray, healers: Tensor) -> Tensor:
    """Return [B, n, A] values of the plain view's actions in the order of the permuted view; healers [B, n] target
    friends, whose order is the same."""
    order = torch.arange(values.shape[2])
    order[first : first + len(listed)] = first + torch.from_numpy(listed).long()
    return torch.where(healers[..., None], values, values[:, :, order])


def healers(env: Skirmish) -> Tensor:
    """Return bool [B, n]."""
    return torch.from_numpy(env._lanes.units["type"][:, : env.spec.n_agents] == TYPE_ID["medivac"])


@pytest.mark.parametrize(("name", "order", "options"), CASES)
def test_the_battle_is_the_same_in_any_order(name: str, order: str | int | list[int], options: dict[str, Any]) -> None:
    plain, other = Skirmish(name, 4, seed=3, **options), Skirmish(name, 4, seed=3, enemy_order=order, **options)
    listed = enemy_listing(order, plain.map.n_enemies)
    assert (listed != np.arange(len(listed))).any()
    first, counter = int(plain._world.rules[0]["first_target"]), np.zeros(1, np.uint64)
    see, know = columns(plain.spec.obs_names, listed), columns(plain.spec.state_names, listed)
    actions_seen = torch.tensor([" last target " in feature for feature in plain.spec.obs_names])
    actions_known = torch.tensor([" last target " in feature for feature in plain.spec.state_names])
    flags = torch.tensor([feature.endswith("attackable") for feature in plain.spec.obs_names])
    one, two = plain.reset(), other.reset()
    for _ in range(40):
        assert (plain._lanes.units == other._lanes.units).all() and (plain._lanes.lanes == other._lanes.lanes).all()
        as_published = healers(plain)[..., None] & flags  # a Medivac's flags are about friends: their order is the same
        assert ((one.obs[:, :, see] == two.obs) | actions_seen | as_published).all()
        assert ((one.state[:, know] == two.state) | actions_known).all()
        assert (targets(one.avail, first, listed, healers(plain)) == two.avail).all()
        actions = uniform_actions(plain, counter)
        chosen = torch.nn.functional.one_hot(actions, plain.spec.n_actions)
        steps = plain.step(actions), other.step(targets(chosen, first, listed, healers(plain)).argmax(2))
        assert (steps[0].reward == steps[1].reward).all() and (steps[0].terminated == steps[1].terminated).all()
        one, two = steps[0].next, steps[1].next
    assert plain._lanes.lanes["finished"].any() or (plain._lanes.units["quiet"] < 1000).any()


def test_a_target_is_the_enemy_at_its_place() -> None:
    env = Skirmish("3m", 1, enemy_order="reversed")
    obs = env.place([ally("marine", 10, 16), *(enemy("marine", 14, 15 + k) for k in range(3))])
    pacify(env)
    assert obs.obs[0, 0, env.spec.obs_names.index("enemy 0 dy")] == pytest.approx(1 / 9)  # created last, at y = 17
    assert obs.state[0, env.spec.state_names.index("enemy 0 y")] == pytest.approx(1 / 32)
    env.step(act(env, obs, [FIRST_TARGET, STOP, STOP]))
    assert [unit.health for unit in env.units(0)[3:]] == [45, 45, 39]


def test_an_enemy_out_of_reach_is_closed_at_its_place() -> None:
    env = Skirmish("3m", 1, enemy_order="reversed")
    obs = env.place([ally("marine", 10, 16), enemy("marine", 14, 16), enemy("marine", 24, 16), enemy("marine", 25, 16)])
    assert obs.avail[0, 0, FIRST_TARGET:].tolist() == [False, False, True]


def test_orders_are_permutations() -> None:
    assert enemy_listing("creation", 4).tolist() == [0, 1, 2, 3]
    assert enemy_listing("reversed", 4).tolist() == [3, 2, 1, 0]
    assert enemy_listing([2, 0, 1], 3).tolist() == [2, 0, 1]
    for seed in range(20):
        assert sorted(enemy_listing(seed, 9)) == list(range(9))
    assert enemy_listing(0, 5).tolist() == [2, 0, 1, 3, 4]  # never to change: runs name their seed
    assert len({tuple(enemy_listing(seed, 9)) for seed in range(20)}) == 20
