"""The draws of SBC: seats of partners, blocked sets, and weights from visits and returns."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from algos.sbc.rewards import Fading
from algos.sbc.roles import append_blocked_set, draw_partners, with_blocked_set
from algos.sbc.sets import pooled
from marl.core.types import ConfigError
from tests.support.helpers import make_spec
from tests.support.sbc_parts import MASK, SETS, blocking_spec, changed, make_sets, role_batch

SPEC = blocking_spec()


def test_roles_always_leave_an_ego_and_seats_are_drawn_evenly() -> None:
    partner = draw_partners(20000, 4, 0.25, torch.Generator().manual_seed(0))
    count = partner.sum(1)
    assert int(count.max()) == 3
    shares = torch.bincount(count, minlength=4) / 20000
    assert torch.allclose(shares, torch.full((4,), 0.25), atol=0.015)
    assert torch.allclose(partner.float().mean(0), torch.tensor(0.25 * (1 + 2 + 3) / 4), atol=0.015)
    assert not draw_partners(50, 4, 1.0, torch.Generator()).any()


def test_blocked_sets_are_small_allowed_and_empty_as_often_as_said() -> None:
    sets = make_sets(SPEC)
    drawn = sets.draw(20000, torch.Generator().manual_seed(0))
    assert not (drawn & ~MASK).any()
    for i in range(3):
        sizes = torch.bincount(drawn[:, i].sum(1), minlength=4) / 20000
        assert sizes.tolist() == pytest.approx([0.25, 0.375, 0.375, 0.0], abs=0.015)
    few = make_sets(SPEC, m_max=4, p_empty=0.0).draw(2000, torch.Generator().manual_seed(0))
    assert not (few & ~MASK).any() and int(few[:, 0].sum(1).max()) == 3, "no more than there are"
    exact = make_sets(SPEC, m_min=2, m_max=2).draw(20000, torch.Generator().manual_seed(0))
    shares = torch.bincount(exact[:, 0].sum(1), minlength=3) / 20000
    assert shares.tolist() == pytest.approx([0.25, 0.0, 0.75], abs=0.015)


def test_what_partners_visit_is_blocked_more_often() -> None:
    sets = make_sets(SPEC, m_max=1, p_empty=0.0)
    batch = role_batch(SPEC, 2)
    filled, T = torch.ones(2, batch.horizon + 1, dtype=torch.bool), batch.horizon + 1
    cell = torch.zeros(2, T, 3, dtype=torch.long)
    cell[:, 0, 0] = 1  # agent 0: once on cell 1, else on cell 0
    free = changed(
        batch, assign=torch.tensor([[1, 0, 0], [0, 0, 0]]), filled=filled, cell=cell,
        blocked=torch.zeros(2, 3, 4, dtype=torch.bool),
    )  # fmt: skip
    sets.observe(free)
    assert sets.visits[0].tolist() == [T - 1, 1, 0, 0], "the ego's lane does not count"
    assert sets.visits[1:].sum() == 0
    sets.refresh()
    expected = torch.tensor([(T - 1) / T + 1e-3, 1 / T + 1e-3, 1e-3]) ** 0.5
    assert torch.allclose(sets.weight[0, :3], expected) and sets.weight[0, 3] == 0
    share = sets.draw(40000, torch.Generator().manual_seed(1))[:, 0].float().mean(0)
    assert torch.allclose(share[:3], expected / expected.sum(), atol=0.01)
    assert sets.visits.sum() == 0, "counted anew"


def test_being_on_no_feature_meets_nothing_that_is_blocked() -> None:
    sets, batch = make_sets(SPEC), role_batch(SPEC, 1)
    cell = torch.full((1, batch.horizon + 1, 3), -1)
    cell[0, 1, 0] = 0
    blocked = torch.zeros(1, 3, 4, dtype=torch.bool)
    blocked[:, :, 0] = True
    met = sets.met(changed(batch, cell=cell, blocked=blocked))
    assert met.nonzero().tolist() == [[0, 1, 0]]


def test_what_leaves_the_team_nothing_is_blocked_less_often() -> None:
    sets, batch = make_sets(SPEC), role_batch(SPEC, 3)
    blocked = torch.zeros(3, 3, 4, dtype=torch.bool)
    blocked[0, 0, 0] = blocked[1, 0, 1] = True
    reward = torch.zeros(3, batch.horizon + 1)
    reward[:, 0] = torch.tensor([0.5, 2.0, 10.0])  # with cell 0 blocked, a twentieth of the return with nothing blocked
    assign = torch.tensor([[1, 0, 0]]).expand(3, 3).clone()
    sets.observe(changed(batch, assign=assign, blocked=blocked, reward=reward))
    sets.visits.zero_()
    sets.refresh()
    base = 1e-3**0.5
    assert sets.weight[0].tolist() == pytest.approx([0.25 * base, base, base, 0.0])
    assert sets.weight[1].tolist() == pytest.approx([base] * 4)


def test_conclusions_are_drawn_every_so_many_steps_and_a_pool_stays_what_it_is() -> None:
    batch = role_batch(SPEC, 4)
    sets = make_sets(SPEC, refresh_steps=int(batch.length.sum()) + 1)
    sets.observe(batch)
    assert torch.equal(sets.weight, MASK.float())
    sets.observe(batch)
    assert not torch.equal(sets.weight, MASK.float()) and sets.steps == 0
    torch.manual_seed(0)
    pool = make_sets(SPEC, pool=2)
    assert int(pool.mask.any(0).sum()) == 2
    other = make_sets(SPEC)
    other.load_state_dict(pool.state_dict())
    assert torch.equal(other.mask, pool.mask)


def test_a_pool_leaves_every_agent_something() -> None:
    torch.manual_seed(0)
    apart = torch.tensor([[True, True, False, False], [False, False, True, True], [True, True, True, True]])
    assert all(bool((pooled(apart, 2) & apart).any(1).all()) for _ in range(20))
    with pytest.raises(ConfigError, match=r"sets.pool=1: 100 draws all left an agent nothing that it meets"):
        pooled(apart, 1)


def test_steps_are_those_of_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks: sets are drawn anew, and bonuses fade, by the steps of the whole run."""
    batch = role_batch(SPEC, 4)
    steps = int(batch.length.sum())
    monkeypatch.setattr("algos.sbc.sets.total", lambda steps: 2 * steps)
    monkeypatch.setattr("algos.sbc.rewards.total", lambda steps: 2 * steps)
    sets, fading = make_sets(SPEC, refresh_steps=2 * steps), Fading(SPEC, info="cell", steps=8 * steps)
    sets.observe(batch)
    assert sets.steps == 0 and not torch.equal(sets.weight, MASK.float())
    fading.annotate(changed(batch, cell=batch["cell"].float()))
    assert fading.share() == 0.75


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "doors"}, "family 'doors' cannot be blocked in this environment; there are cells"),
        ({"m_max": 0}, "sets.m_max=0 must be at least 1"),
        ({"m_min": 0}, "sets.m_min=0 must be at least 1"),
        ({"m_min": 3}, "sets.m_max=2 must be at least 3"),
        ({"p_empty": 1.5}, r"sets.p_empty=1.5 must be within \[0, 1\]"),
        ({"kappa": -0.5}, "sets.kappa=-0.5"),
        ({"pool": 9}, "sets.pool is 9; the family has 4 features"),
        ({"refresh_steps": 0}, "sets.refresh_steps=0"),
    ],
)
def test_bad_options_of_sets_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_sets(SPEC, **changes)
    with pytest.raises(ConfigError, match="there are none"):
        make_sets(make_spec(), **{"family": SETS["family"]})


def test_what_a_partner_reads_is_the_observation_and_its_set() -> None:
    obs, blocked = torch.tensor([[[0.5, -1.0]]]), torch.tensor([[[True, False, True]]])
    assert append_blocked_set(obs, blocked).tolist() == [[[0.5, -1.0, 1.0, 0.0, 1.0]]]
    spec = with_blocked_set(SPEC, 4)
    assert spec.obs_dim == SPEC.obs_dim + 4
    assert spec.obs_low[-4:].tolist() == [0] * 4 and spec.obs_high[-4:].tolist() == [1] * 4
