"""FoX's formations and counts: by hand, against loops, invariances, ties, the table."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from algos.fox.formation import CountTable
from marl.core.types import ConfigError
from tests.support.fox_parts import add_fields, by_hand, collected, formations, make_fox
from tests.support.helpers import make_spec, random_batch

SPEC = make_spec()
GEN = torch.Generator().manual_seed(5)
MATRIX = torch.randn(9, 4, generator=GEN)
TEAM = torch.tensor([[[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]]])


def alive(obs: Tensor) -> Tensor:
    return torch.ones(obs.shape[:2], dtype=torch.bool)


def test_a_formation_by_hand() -> None:
    blocks, partners, _ = formations(torch.eye(2))(TEAM, alive(TEAM))
    expected = torch.tensor([[5, 1, 0, 0], [5, 4.243, 3, 3], [4.243, 1, 0, 1]])
    assert torch.equal(blocks[0], expected)
    assert partners[0].tolist() == [[1, 2], [0, 2], [1, 0]]


@pytest.mark.parametrize("decimals", [0, 3])
def test_vectorised_equals_written_out(decimals: int) -> None:
    """More rows than one chunk give the same numbers."""
    obs = torch.randn(1100, 5, 4, generator=GEN)
    blocks, partners, _ = formations(MATRIX, decimals=decimals)(obs, alive(obs))
    for r in (*range(40), *range(1060, 1100)):
        F, farthest, nearest = by_hand(obs[r], MATRIX, decimals)
        assert blocks[r].flatten().tolist() == pytest.approx(F, abs=1e-5)
        assert partners[r].T.tolist() == [farthest, nearest]


def test_moving_everybody_alike_changes_nothing() -> None:
    obs = torch.randint(-9, 9, (50, 4, 4), generator=GEN).float()
    moved = obs + torch.tensor([3.0, -7.0, 100.0, 1.0])
    before, after = (formations(MATRIX)(x, alive(x)) for x in (obs, moved))
    assert all(map(torch.equal, before, after))
    stretched = formations(MATRIX)(2 * obs, alive(obs))
    assert not (stretched[2] == before[2]).any(), "other distances are other formations"


def test_permuting_agents_permutes_blocks_and_relabels_partners() -> None:
    obs, order = torch.randn(50, 4, 4, generator=GEN), torch.tensor([2, 0, 3, 1])
    before, after = (formations(MATRIX)(x, alive(x)) for x in (obs, obs[:, order]))
    assert torch.equal(after[0], before[0][:, order])
    assert torch.equal(order[after[1]], before[1][:, order])
    assert not (after[2] == before[2]).any(), "as tuples they are other formations"
    same = [formations(MATRIX, canonical=True)(x, alive(x))[2] for x in (obs, obs[:, order])]
    assert torch.equal(*same) and len(same[0].unique()) == 50


def test_ties_go_to_the_lowest_index_and_one_place_has_no_distance() -> None:
    corners = torch.tensor([[[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]])
    assert formations(torch.eye(2))(corners, alive(corners))[1][0].tolist() == [[3, 1], [2, 0], [1, 0], [0, 1]]
    together = torch.full((1, 3, 2), 0.37)
    blocks, partners, _ = formations(torch.eye(2))(together, alive(together))
    assert not blocks.any() and partners[0].tolist() == [[0, 1], [0, 0], [0, 0]]


def test_rounding_comes_before_comparing() -> None:
    """Agent 2 is nearer to agent 0 by less than the last decimal, which is a tie and goes to agent 1."""
    obs = torch.tensor([[[0.0], [1.04], [-1.01]]])
    nearest = {d: int(formations(torch.eye(1), decimals=d)(obs, alive(obs))[1][0, 0, 1]) for d in (1, 2)}
    assert nearest == {1: 1, 2: 2}


def test_dead_agents_can_be_left_out() -> None:
    living = torch.tensor([[True, True, False]])
    blocks, partners, _ = formations(torch.eye(2), mask_dead=True)(TEAM, living)
    assert blocks[0].tolist() == [[5, 5, 0, 0], [5, 5, 3, 3], [0, 0, 0, 0]]
    assert partners[0].tolist() == [[1, 1], [0, 0], [2, 2]]
    alone = torch.tensor([[False, True, False]])
    blocks, partners, _ = formations(torch.eye(2), mask_dead=True)(TEAM, alone)
    assert not blocks.any() and partners[0, 1].tolist() == [1, 1]


@pytest.mark.parametrize(("which", "expected"), [("max", [1, 1]), ("min", [2, 2]), ("minmax", [1, 2])])
def test_the_index_set_can_be_one_partner(which: Any, expected: list[int]) -> None:
    blocks, partners, _ = formations(torch.eye(2), partners=which)(TEAM, alive(TEAM))
    assert partners[0, 0].tolist() == expected
    assert blocks[0, 0, :2].tolist() == [[0.0, 5.0, 1.0][j] for j in expected]


def test_only_chosen_features_make_a_formation() -> None:
    noisy = torch.cat([TEAM, torch.randn(1, 3, 1, generator=GEN)], -1)
    chosen = formations(torch.eye(2), features=[0, 1])(noisy, alive(noisy))
    assert all(map(torch.equal, chosen, formations(torch.eye(2))(TEAM, alive(TEAM))))


# counts


def test_counts_equal_a_dictionarys_step_by_step() -> None:
    table, truth = CountTable(1000, "cpu"), Counter[int]()
    for _ in range(20):
        ids = torch.randint(-30, 30, (50,), generator=GEN)
        expected = []
        for key in ids.tolist():
            truth[key] += 1
            expected.append(truth[key])
        assert table.add(ids).tolist() == expected
    everything = torch.arange(-40, 40)
    assert table.count(everything).tolist() == [truth[key] for key in everything.tolist()]
    assert len(table) == len(truth) and bool((table.ids.diff() > 0).all())


def test_a_full_table_forgets_what_was_first_seen_longest_ago() -> None:
    table = CountTable(3, "cpu")
    for key in (7, 1, 9, 7, 4):  # 7 was first, though it came again
        table.add(torch.tensor([key]))
    assert table.count(torch.tensor([7, 1, 9, 4])).tolist() == [0, 1, 1, 1]
    assert table.add(torch.tensor([7])).tolist() == [1] and table.count(torch.tensor([1])).tolist() == [0]


def test_the_same_episodes_again_double_every_count_and_tests_leave_none() -> None:
    algo = make_fox(SPEC)
    batch = collected(algo, 6)
    steps = int((batch.length + 1).sum())
    once, table = algo.fox.table.visits.clone(), algo.fox.table
    assert int(once.sum()) == steps, "every observation counts, the last one too"
    algo.annotate(batch)
    assert torch.equal(table.visits, 2 * once)
    seen = torch.arange(batch.horizon + 1) <= batch.length[:, None]
    assert (table.count(batch.fox_id[seen]) >= 2).all() and not batch.fox_id[~seen].any()
    algo.learner.update(batch)  # the table is not counted anywhere else, so sampling and testing add no visits
    assert torch.equal(table.visits, 2 * once)


def test_stored_counts_are_those_of_collection_and_the_code_leaves_the_last_observation_out() -> None:
    algo = make_fox(make_spec(O=1), count_mode="stored", variant="code", decimals=0, bits=1)
    batch = random_batch(algo.learner.spec, 2)
    add_fields(algo, batch)
    batch.data["obs"].zero_()  # one formation, everywhere
    algo.annotate(batch)
    visits = batch.fox_visit[batch.filled]
    assert visits.tolist() == list(range(1, int(batch.length.sum()) + 1))
    assert not batch.fox_visit[~batch.filled].any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variant": "paper"}, "fox.variant=paper is not known; choose one of fixed, code"),
        ({"shift": "up"}, "fox.shift=up is not known; choose one of nonpositive, none"),
        ({"count_mode": "old"}, "fox.count_mode=old is not known; choose one of fresh, stored"),
        ({"partners": "mean"}, "fox.partners=mean is not known; choose one of minmax, max, min"),
        ({"form_target": "keys"}, "fox.aware.form_target=keys is not known; choose one of bits, raw"),
        ({"beta1": -0.1}, "fox.beta1=-0.1 must be at least 0"),
        ({"bits": 21}, r"fox.bits=21 must be within \[1, 20\]"),
        ({"bits": 0}, r"fox.bits=0 must be within \[1, 20\]"),
        ({"decimals": 7}, r"fox.decimals=7 must be within \[0, 6\]"),
        ({"features": [7]}, r"fox.features=\[7\] must name features within 0..6, or be null"),
        ({"max_keys": 0}, "fox.max_keys=0 must be at least 1"),
        ({"samples": 0}, "fox.aware.samples=0 must be at least 1"),
        ({"flip": -1.0}, "fox.aware.flip=-1.0 must be at least 0"),
        ({"grad_clip": -1.0}, "grad_clip=-1.0 must be above 0"),
        ({"local_weight": -1.0}, "learner.local_weight=-1.0 must be at least 0"),
    ],
)
def test_bad_options_are_one_clear_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_fox(SPEC, **changes)


def test_one_agent_has_no_formation() -> None:
    with pytest.raises(ConfigError, match="algo=fox needs at least 2 agents; this environment has 1"):
        make_fox(make_spec(n=1))
