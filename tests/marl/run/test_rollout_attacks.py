"""Attacks within compiled rollouts hit as often, and in the same manner, as in the general loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from attacks.missing import Missing
from attacks.random import RandomActions
from attacks.single import SingleAgent
from envs.skirmish import Skirmish
from marl.core.protocols import Attack
from marl.core.types import EpisodeBatch
from marl.run.rollout import compiled_form
from tests.marl.run.test_rollout import BUDGET, fields_of, play, require_same
from tests.support.builders import make_victim
from tests.support.grid_games import spread


def hits(attack: Attack, lanes: int = 300, **changes: Any) -> tuple[EpisodeBatch, EpisodeBatch]:
    """Play the same attack by the general loop and compiled; the victim always does the last action."""
    found = []
    for compiled in (False, True):
        env = spread(n_envs=lanes, seed=4)
        policy = make_victim(env.spec, bias=[0.0, 1, 2, 3, 9.0], scale=0.0)
        assert not compiled or compiled_form(env, policy, attack, fields_of(env), False) is not None
        everywhere = torch.ones(lanes, dtype=torch.bool)
        found.append(play(env, policy, attack, compiled=compiled, **({"attacked": everywhere} | changes)))
    return found[0], found[1]


@pytest.mark.parametrize("unit", ["step", "agent_action"])
def test_random_actions_and_their_budget(unit: Any) -> None:
    """Per agent and step: hit with probability 0.3 * 4 / 5 = 0.24, until 10 are paid for."""
    env = spread(n_envs=1)
    for budget in (None, 10):
        slow, fast = hits(RandomActions(env.spec, "cpu", p=0.3, budget=budget, budget_unit=unit))
        for batch in (slow, fast):
            hit = batch["hit"] & batch.filled[..., None]
            assert torch.equal(hit, (batch.actions != batch.intended) & batch.filled[..., None])
            first = hit[:, :2].float().mean().item()
            assert first == pytest.approx(0.24, abs=0.035)  # 2,400 draws: four standard deviations
            spent = (hit.any(-1).sum(1) if unit == "step" else hit.sum((1, 2))).float()
            assert budget is None or spent.max() == budget
            expected = {None: 30 * (1 - 0.76**4 if unit == "step" else 4 * 0.24), 10: 10}[budget]
            assert spent.mean().item() == pytest.approx(expected, abs=1.3)


def test_random_actions_leave_other_lanes_alone() -> None:
    env = spread(n_envs=1)
    none = torch.arange(300) % 2 == 0
    _, fast = hits(RandomActions(env.spec, "cpu", p=1.0, budget=None, budget_unit="step"), attacked=none)
    assert torch.equal(fast.attacked, none) and fast["hit"][none].any() and not fast["hit"][~none].any()
    assert torch.equal(fast.actions[~none], fast.intended[~none])


def test_missing_agents_are_drawn_alike_once_per_episode() -> None:
    """2 of 4 agents: each is missing in half of the episodes (300: four standard deviations are 0.12)."""
    env = spread(n_envs=1)
    attack = Missing(env.spec, "cpu", agents=2, mode="idle", budget=None, budget_unit="step")
    for batch in hits(attack):
        hit = batch["hit"][:, :30]
        assert (hit.sum(-1) == 2).all() and torch.equal(hit, hit[:, :1].expand_as(hit))
        assert hit[:, 0].float().mean(0).tolist() == pytest.approx([0.5] * 4, abs=0.12)
        assert (batch.actions[:, :30][hit] == env.spec.idle_action).all()
        assert torch.equal(batch.actions[:, :30][~hit], batch.intended[:, :30][~hit])


def test_single_agents_are_hit_in_bursts_with_their_worst_action() -> None:
    """A start with probability 0.1 is followed by 3 steps: a cycle of 9 idle steps and 4 attacked ones, of which the
    first 30 steps hold 30 * 4 / 13 = 9.2, more or less (they begin idle)."""
    env = spread(n_envs=1)
    attack = SingleAgent(env.spec, "cpu", start_p=0.1, duration=3, budget=None, budget_unit="step")
    totals = []
    for batch in hits(attack):
        hit = batch["hit"][:, :30]
        assert hit.sum(-1).max() == 1 and (batch.actions[:, :30][hit] == 0).all()
        steps = hit.any(-1)
        begins = steps & ~steps.roll(1, 1)
        begins[:, 0] = steps[:, 0]
        row, t = begins[:, :27].nonzero(as_tuple=True)
        assert all(steps[row, t + k].all() for k in range(4)), "a burst has four steps"
        assert hit.float().mean((0, 1)).tolist() == pytest.approx([hit.float().mean().item()] * 4, rel=0.25)
        totals.append(steps.sum(1).float().mean().item())
    assert totals[1] == pytest.approx(totals[0], abs=1.0) and totals[1] == pytest.approx(8.5, abs=1.3)


def test_the_budget_of_agent_actions_runs_out_by_number() -> None:
    env = spread(n_envs=1)
    attack = Missing(env.spec, "cpu", agents=4, mode="idle", **BUDGET)
    slow, fast = hits(attack)
    assert fast["hit"][0, :3].tolist() == [[True] * 4, [True, False, False, False], [False] * 4]
    require_same(slow, fast)


def test_absent_agents_are_never_the_missing_ones() -> None:
    """An episode whose only attacked agent is not on the map would pass for an attacked one."""
    everywhere = torch.ones(64, dtype=torch.bool)
    for compiled in (False, True):
        env = Skirmish("3m", 64, absent_agents=2)
        attack = Missing(env.spec, "cpu", agents=1, mode="idle", budget=None, budget_unit="step")
        policy = make_victim(env.spec)
        assert not compiled or compiled_form(env, policy, attack, fields_of(env), False) is not None
        batch = play(env, policy, attack, compiled=compiled, attacked=everywhere)
        assert batch["hit"].flatten(1).any(1).all()
