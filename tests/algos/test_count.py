"""The count bonus: visits and bonuses by hand, the unchanged base learner, checkpoints."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from algos.count import CountBonus
from marl.core.types import ConfigError, EpisodeBatch
from marl.learn.mixers import VDN
from tests.support.helpers import differences, make_learner, make_spec, random_batch

SPEC = make_spec(n=2, A=3, O=4, S=3, limit=4)


def make_count(**changes: Any) -> CountBonus:
    torch.manual_seed(0)
    return CountBonus(SPEC, **{"scale": 1.0, "resolution": 10.0, "features": [".*"], **changes})


def walks() -> EpisodeBatch:
    """Make two walks, 0 -> 1 -> 1 -> 2 and 0 -> 1, where number k is the state (k, 0, 0); padding is state 9."""
    batch = random_batch(SPEC, 2)
    batch.data["state"] = torch.zeros(2, 5, 3)
    batch.state[..., 0] = torch.tensor([[0.0, 1, 1, 2, 9], [0, 1, 9, 9, 9]])
    batch.data["filled"] = torch.tensor([[True, True, True, False, False], [True, False, False, False, False]])
    return batch


def test_visits_and_bonuses_by_hand() -> None:
    hook, batch = make_count(), walks()
    hook.annotate(batch)
    assert sorted(hook.counts[hook.counts > 0].tolist()) == [1, 3], "state 2 once, state 1 three times, 0 and 9 never"
    third = 3**-0.5
    found = hook.reward(batch, None)  # type: ignore[arg-type]
    assert isinstance(found, Tensor) and found.shape == (2, 4, 1)
    assert found[..., 0].tolist() == [pytest.approx([third, third, 1.0, 0.0]), pytest.approx([third, 0.0, 0.0, 0.0])]
    hook.annotate(batch)  # visited again; the bonus is read at sampling, so stored episodes pay less too
    again = hook.reward(batch, None)  # type: ignore[arg-type]
    assert torch.allclose(torch.as_tensor(again), found / 2**0.5)
    logged = hook.update(batch, None)  # type: ignore[arg-type]
    assert logged["count/cells"] == 2 and logged["count/bonus"].item() == pytest.approx((1 + 3 * third) / 2**1.5)


def test_states_are_rounded_and_features_left_out() -> None:
    state = torch.tensor([[0.10, 5.0, 0.0], [0.11, 5.0, 0.0], [0.16, 5.0, 0.0], [0.10, 6.0, 0.0]])
    a, b, c, d = make_count().cells(state).tolist()
    assert a == b and len({a, c, d}) == 3
    a, b, c, d = make_count(features=["dim 0"]).cells(state).tolist()
    assert a == b == d != c
    assert make_count(resolution=1.0, features=["dim 0"]).cells(state).unique().numel() == 1


def test_cells_are_spread() -> None:
    """4,096 grid points over 2^20 cells are expected to share 8 cells."""
    grid = torch.cartesian_prod(*[torch.arange(16.0) / 10] * 3)
    assert make_count().cells(grid).unique().numel() > 4060


def test_scale_0_is_the_base_learner_bit_for_bit() -> None:
    def learn(hooks: list[CountBonus]) -> Tensor:
        torch.manual_seed(0)
        learner = make_learner(SPEC, VDN(SPEC), hooks)
        for seed in range(4):
            batch = random_batch(SPEC, 8, seed)
            for hook in hooks:
                hook.annotate(batch)
            learner.update(batch)
        return torch.cat([p.detach().flatten() for p in learner.parameters])

    assert torch.equal(learn([make_count(scale=0.0)]), learn([])) and not torch.equal(learn([make_count()]), learn([]))


def test_a_checkpoint_restores_the_counts() -> None:
    old, batch = make_count(), walks()
    old.annotate(batch)
    torch.manual_seed(7)
    new = CountBonus(SPEC, scale=1.0, resolution=10.0, features=[".*"])  # another seed: other cells
    new.load_state_dict(copy.deepcopy(old.state_dict()))
    for hook in (old, new):
        hook.annotate(batch)
    assert differences(old.state_dict(), new.state_dict()) == []


@pytest.mark.parametrize("changes", [{"scale": -1.0}, {"resolution": 0.0}, {"features": ["box"]}])
def test_bad_options_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"count\."):
        make_count(**changes)
