"""Attackers as rows of a matrix: how they choose, how unlike they are, and what the archive keeps; numbers by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attacks.ega.population import (
    Archive,
    Networks,
    chance_to_win,
    choice_policy,
    divergence,
    draw,
    jensen_shannon,
    pick_rows,
    reference,
    soft_value,
)
from marl.core.types import ConfigError

ARCHIVE: dict[str, Any] = {
    "size": 3, "nearness_start": 0.9, "nearness_end": 0.5, "select_temperature": 5.0, "fresh_start": 0.4,
    "fresh_end": 0.05, "fresh_generations": 100,
}  # fmt: skip
PAIR = Networks([2, 1])  # three weights: an attacker is told apart by its first


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# networks


def test_rows_of_the_matrix_are_the_networks_that_torch_would_make() -> None:
    nets = Networks([3, 8, 8, 4])
    weights = nets.fresh(2, gen())
    assert weights.shape == (2, nets.width) and nets.width == 3 * 8 + 8 + 8 * 8 + 8 + 8 * 4 + 4
    x = torch.randn(2, 5, 3, generator=gen(1))
    values = nets.values(nets.split(weights), x)
    for p in range(2):
        layers: list[nn.Module] = []
        for matrix, bias in nets.split(weights):
            linear = nn.Linear(*matrix.shape[1:])
            linear.weight.data, linear.bias.data = matrix[p].T, bias[p, 0]
            layers += [linear, nn.ReLU()]
        torch.testing.assert_close(values[p], nn.Sequential(*layers[:-1])(x[p]))


def test_new_networks_have_the_spread_of_torchs_and_differ() -> None:
    nets = Networks([4, 100, 1])
    matrix, bias = nets.split(nets.fresh(3, gen()))[0]
    assert 0.45 < matrix.max() <= 0.5 and -0.5 <= matrix.min() < -0.45 and bias.abs().max() <= 0.5
    assert matrix.unique().numel() == matrix.numel()


# choices


def test_equal_values_and_no_floor_give_the_reference() -> None:
    p_ref = reference(4, 0.05)
    torch.testing.assert_close(p_ref, torch.tensor([0.0125, 0.0125, 0.0125, 0.0125, 0.95]))
    for value in (-7.0, 0.0, 300.0):
        torch.testing.assert_close(choice_policy(torch.full((5,), value), p_ref, 0.04, 0.0), p_ref)


def test_values_pull_the_policy_and_the_floor_holds_it() -> None:
    p_ref, q = reference(1, 0.5), torch.tensor([math.log(3.0), 0.0])
    torch.testing.assert_close(choice_policy(q, p_ref, 1.0, 0.0), torch.tensor([0.75, 0.25]))
    torch.testing.assert_close(choice_policy(q, p_ref, 1.0, 0.1), torch.tensor([0.75 * 0.8 + 0.1, 0.25 * 0.8 + 0.1]))
    strong = choice_policy(torch.tensor([50.0, -50.0, 0.0]), reference(2, 0.05), 0.04, 0.02)
    torch.testing.assert_close(strong, torch.tensor([0.96, 0.02, 0.02]))


def test_soft_values_by_hand() -> None:
    p_ref, q = reference(1, 0.05), torch.tensor([1.0, 0.0])
    assert float(soft_value(q, p_ref, 1.0)) == pytest.approx(math.log(0.05 * math.e + 0.95))
    assert float(soft_value(torch.tensor([3.0, 3.0]), p_ref, 0.7)) == pytest.approx(3.0)


def test_soft_values_become_the_largest_value_as_the_temperature_falls() -> None:
    q, p_ref = torch.randn(20, 4, generator=gen()), reference(3, 0.05)
    gaps = [float((soft_value(q, p_ref, t) - q.max(-1).values).abs().max()) for t in (1.0, 0.1, 0.01, 0.0001)]
    assert gaps == sorted(gaps, reverse=True) and gaps[-1] < 1e-3
    assert float((soft_value(q, p_ref, 1e4) - q @ p_ref).abs().max()) < 1e-3, "and the mean of the reference"


def test_draws_follow_the_distribution_function() -> None:
    v = torch.tensor([0.2, 0.0, 0.5, 0.3]).expand(6, -1)
    u = torch.tensor([0.0, 0.19, 0.2, 0.69, 0.71, 1.0 - 1e-8])
    assert draw(u, v).tolist() == [0, 0, 2, 2, 3, 3]


# diversity


def test_divergences_by_hand() -> None:
    a, b = torch.tensor([[0.75, 0.25]]), torch.tensor([[0.25, 0.75]])
    half = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)  # of each from their mean
    assert float(jensen_shannon(torch.stack([a, b]))) == pytest.approx(half)
    assert float(divergence(a, b)) == pytest.approx(0.5 * math.log(3.0))
    rows = torch.stack([torch.cat([a, a]), torch.cat([b, a])])
    assert float(jensen_shannon(rows)) == pytest.approx(half / 2), "a mean over rows"


def test_diversity_is_zero_among_equals_and_ln_p_among_strangers() -> None:
    v = torch.softmax(torch.randn(1, 7, 5, generator=gen()), -1)
    assert float(jensen_shannon(v.expand(4, -1, -1))) == pytest.approx(0.0, abs=1e-6)
    apart = torch.eye(4).clamp(min=1e-9)[:, None]
    assert float(jensen_shannon(apart)) == pytest.approx(math.log(4), abs=1e-4)


def test_rows_are_picked_from_the_preferred_ones() -> None:
    rows = torch.arange(10.0)[:, None]
    assert set(pick_rows(rows, rows[:, 0] > 7, 50, gen()).flatten().tolist()) == {8.0, 9.0}
    assert len(set(pick_rows(rows, rows[:, 0] > 99, 200, gen()).flatten().tolist())) == 10, "none: any"


# the archive


def policy(weights: Tensor, x: Tensor) -> Tensor:
    """Chooses the first of two with a probability that is its first weight, whatever it sees."""
    p = weights[:, :1, None].expand(-1, x.shape[1], 1)
    return torch.cat([p, 1 - p], -1)


def attacker(p: float) -> Tensor:
    return torch.tensor([p, 0.0, 0.0])


def offer(archive: Archive, p: float, team_return: float, seed: int = 0, progress: float = 0.0) -> str:
    return archive.offer(
        attacker(p), torch.zeros(4, 2), -team_return, progress=progress, policy=policy, gen=gen(seed)
    )  # fmt: skip


def filled(*members: tuple[float, float], **changes: Any) -> Archive:
    archive = Archive(PAIR, **{**ARCHIVE, "nearness_start": 1.0, **changes})
    for p, team_return in members:
        assert offer(archive, p, team_return) == "added"
    return archive


def kept(archive: Archive) -> list[float]:
    return [round(p, 3) for p in archive.weights[:, 0].tolist()]


def test_strangers_are_added_and_the_oldest_leaves() -> None:
    archive = filled((0.1, 1.0), (0.5, 2.0), (0.9, 3.0))
    assert kept(archive) == [0.1, 0.5, 0.9] and archive.quality.tolist() == [-1.0, -2.0, -3.0]
    assert offer(archive, 0.3, 4.0) == "added"
    assert kept(archive) == [0.5, 0.9, 0.3] and archive.quality.tolist() == [-2.0, -3.0, -4.0]
    for i in range(40):
        offer(archive, (i % 19 + 1) / 20, float(i), seed=i, progress=i / 40)
        assert len(archive) <= 3


def test_a_neighbour_is_one_within_a_share_of_the_mean_distance() -> None:
    """By hand: members 0.5 and 0.9, offered 0.6; the divergence of member from candidate."""

    def d(p: float, q: float) -> float:
        return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))

    near, far = d(0.5, 0.6), d(0.9, 0.6)
    ratio = near / ((near + far) / 2)  # the threshold that decides
    for nearness, expected in ((1 - ratio + 0.01, "added"), (1 - ratio - 0.01, "refused")):
        archive = filled((0.5, 0.0), (0.9, 1.0))
        archive.nearness = (nearness, nearness)
        assert offer(archive, 0.6, 1.0) == expected  # the neighbour leaves the team 0: nobody beats that


def test_the_threshold_moves_with_the_run() -> None:
    archive = Archive(PAIR, **ARCHIVE)
    offer(archive, 0.5, 1.0)
    offer(archive, 0.9, 1.0)
    beside = 0.55  # its distance is about a twelfth of the mean: a neighbour by every threshold; 0.62 only at the end
    assert offer(archive, beside, 0.0) == "replaced" and len(archive) == 2
    archive = filled((0.5, 0.0), (0.9, 0.0), nearness_start=0.9)
    assert offer(archive, 0.62, 1.0, progress=1.0) == "refused"
    assert offer(archive, 0.62, 1.0, progress=0.0) == "added"


def test_duels_are_won_by_who_leaves_the_team_less() -> None:
    assert chance_to_win(1.0, 3.0) == 0.75 and chance_to_win(3.0, 1.0) == 0.25 and chance_to_win(0.0, 0.0) == 0.5

    def wins(new: float, old: float) -> float:
        won = 0
        for seed in range(400):
            archive = filled((0.5, old), (0.95, 0.0))
            archive.nearness = (0.5, 0.5)
            won += offer(archive, 0.52, new, seed) == "replaced"
        return won / 400

    assert wins(1.0, 3.0) == pytest.approx(0.75, abs=0.07)
    assert wins(0.0, 3.0) == 1.0 and wins(3.0, 0.0) == 0.0
    assert wins(-4.0, -1.0) == 1.0 and wins(-1.0, -4.0) == 0.0, "below zero, too, less is better"


def test_the_winner_takes_the_place_of_its_neighbour() -> None:
    archive = filled((0.2, 9.0), (0.5, 9.0), (0.9, 9.0), nearness_start=1.0)
    archive.nearness = (0.5, 0.5)
    assert offer(archive, 0.51, 0.0) == "replaced"
    assert kept(archive) == [0.2, 0.51, 0.9] and archive.quality.tolist() == [-9.0, 0.0, -9.0]


def test_selection_prefers_quality_and_brings_in_new_ones() -> None:
    archive = filled((0.1, 0.0), (0.9, 5 * math.log(3.0)), fresh_start=0.0, fresh_end=0.0, size=9)
    first = [float(archive.select(1, 0, gen(seed))[0, 0]) for seed in range(400)]
    assert {round(p, 3) for p in first} == {0.1, 0.9}
    assert sum(p < 0.5 for p in first) / 400 == pytest.approx(0.75, abs=0.07)

    archive = filled((0.1, 0.0), (0.9, 0.0), size=9)
    archive.fresh = (0.4, 0.0)
    for generation, share in ((0, 0.4), (50, 0.2)):
        new = [float(archive.select(1, generation, gen(seed))[0, 1]) != 0.0 for seed in range(400)]
        assert sum(new) / 400 == pytest.approx(share, abs=0.07)


def test_attackers_whom_nobody_trains_come_from_the_archive() -> None:
    """Also if it holds fewer than are wanted; second components are 0 in the archive alone."""
    for size in (9, 2):
        archive = filled((0.1, 0.0), (0.9, 0.0), size=size)
        archive.fresh = (1.0, 1.0)
        chosen = archive.select(50, 0, gen(), trained=False)
        assert {round(p, 3) for p in chosen[:, 0].tolist()} == {0.1, 0.9} and not chosen[:, 1].any()
        assert archive.select(50, 0, gen())[2:, 1].all(), "those who are trained are new"


def test_a_small_archive_gives_all_and_new_ones() -> None:
    chosen = filled((0.1, 0.0), (0.9, 0.0)).select(4, 0, gen())
    assert [round(p, 3) for p in chosen[:2, 0].tolist()] == [0.1, 0.9]
    assert chosen.shape == (4, PAIR.width) and bool((chosen[2:, 1] != 0).all())
    assert Archive(PAIR, **ARCHIVE).select(2, 0, gen()).shape == (2, PAIR.width)


def test_reviews_renew_the_qualities_of_those_who_played() -> None:
    archive = filled((0.1, 1.0), (0.5, 2.0), (0.9, 3.0))
    archive.review(torch.tensor([0, 2, 2]), torch.tensor([7.0, 4.0, 8.0]))
    # a quarter of the new, and after two episodes 1 - 0.75 ** 2 of their mean 6
    torch.testing.assert_close(archive.quality, torch.tensor([-1 - 0.25 * 6.0, -2.0, -3 - 0.4375 * 3.0]))


def test_an_archive_is_saved_whole() -> None:
    archive, other = filled((0.1, 1.0), (0.5, 2.0)), Archive(PAIR, **ARCHIVE)
    other.load_state_dict(archive.state_dict())
    archive.quality[0] = 99.0
    assert kept(other) == [0.1, 0.5] and other.quality.tolist() == [-1.0, -2.0] and other.behaviour.shape == (2, 4, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": -1}, "attack.archive.size=-1 must be at least 0"),
        ({"select_temperature": 0.0}, "attack.archive.select_temperature=0.0 must be above 0"),
        ({"nearness_end": 1.5}, r"attack.archive.nearness_end=1.5 must be within \[0, 1\]"),
        ({"fresh_generations": 0}, "fresh_generations=0 must be at least 1"),
    ],
)
def test_bad_archives_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Archive(PAIR, **{**ARCHIVE, **changes})
