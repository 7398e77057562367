"""IBAL's models and scores: information that is known by arithmetic, and masks by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from attacks.ibal.curriculum import Curriculum
from attacks.ibal.estimators import Estimators, Transitions, draw_groups
from attacks.ibal.models import DimensionModel, dimension_scores
from attacks.ibal.scores import PANELS, Scores, above_floor, across, draw, hidden_features, largest, row_names
from envs.toys.posts import Posts
from marl.core.types import ConfigError
from tests.support.helpers import make_spec

ESTIMATORS: dict[str, Any] = {
    "context": "obs", "hidden_dim": 8, "estimator": "ce", "width": 32, "group_width": 32, "lr": 0.01, "every": 1,
    "per_episode": 1, "fit_rounds": 10, "episodes": 4, "samples": 512, "ema": 0.05, "freeze_after": None,
}  # fmt: skip


# scores: informative features, by arithmetic


def flipped(rows: int, noise: float, gen: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """x = Bernoulli(.5) and y = x, flipped with chance ``noise``."""
    x = (torch.rand(rows, generator=gen) < 0.5).long()
    return x.float(), x ^ (torch.rand(rows, generator=gen) < noise).long()


def test_scores_of_a_known_distribution_by_hand() -> None:
    """y = x flipped w.p. 0.1. ce: log 2 - H(0.1) = 0.368 nats. club: E log q(y|x) - E_{y'} log q(y'|x) =
    (0.9 - 0.5) log 0.9 + (0.1 - 0.5) log 0.1 = 0.879."""
    given = torch.log(torch.tensor([[[0.9, 0.1]], [[0.1, 0.9]], [[0.9, 0.1]]]))  # x = 0, 1, 0
    marginal = torch.full((3, 2), math.log(0.5))
    y = torch.tensor([0, 1, 1])  # as expected, as expected, flipped
    ce, club = (dimension_scores(given, marginal, y, kind)[:, 0] for kind in ("ce", "club"))
    weight = torch.tensor([0.45, 0.45, 0.1])
    assert float(ce @ weight) == pytest.approx(0.3681, abs=1e-3)
    assert float(club @ weight) == pytest.approx(0.8789, abs=1e-3)


@pytest.fixture(scope="module")
def fitted() -> dict[str, torch.Tensor]:
    """Mean scores [O = 2] after fitting to an informative and an empty feature; ``revealed``: z is the label."""
    found = {}
    for revealed in (False, True):
        torch.manual_seed(0)
        gen = torch.Generator().manual_seed(1)
        model = DimensionModel(2, 2, 2, 32)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(300):
            given, marginal, y = rows(model, 512, revealed, gen)
            loss = -given.gather(2, y[:, None, None].expand(-1, 2, 1)).mean() - marginal.gather(1, y[:, None]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            given, marginal, y = rows(model, 20000, revealed, gen)
            for kind in ("ce", "club"):
                found[f"{kind} revealed" if revealed else kind] = dimension_scores(given, marginal, y, kind).mean(0)
    return found


def rows(model: DimensionModel, size: int, revealed: bool, gen: torch.Generator) -> tuple[torch.Tensor, ...]:
    x, y = flipped(size, 0.1, gen)
    z = torch.nn.functional.one_hot(y, 2).float() if revealed else torch.zeros(size, 2)
    return *model(z, torch.stack([x, torch.rand(size, generator=gen)], 1)), y


def test_fitted_scores_approach_the_information(fitted: dict[str, torch.Tensor]) -> None:
    assert float(fitted["ce"][0]) == pytest.approx(0.368, abs=0.05)
    assert float(fitted["club"][0]) == pytest.approx(0.879, abs=0.05)
    assert abs(float(fitted["ce"][1])) < 0.02 and abs(float(fitted["club"][1])) < 0.02
    assert fitted["club"][0] >= fitted["ce"][0]


def test_a_context_that_tells_the_label_leaves_nothing_to_tell(fitted: dict[str, torch.Tensor]) -> None:
    for kind in ("ce revealed", "club revealed"):
        assert fitted[kind].abs().max() < 0.02


def echo(rows: int, gen: torch.Generator) -> Transitions:
    """Three agents of two actions, O = 4: feature 2 of agent 0's next observation is agent 1's action."""
    actions = torch.randint(0, 2, (rows, 3), generator=gen)
    obs = torch.rand(rows, 3, 4, generator=gen)
    obs[:, 0, 2] = actions[:, 1].float()
    everyone = torch.ones(rows, 3, dtype=torch.bool)
    return Transitions(torch.zeros(rows, 3, 4), actions, obs, everyone, everyone)


def test_estimators_find_which_feature_of_whom_tells_of_whom() -> None:
    torch.manual_seed(0)
    gen = torch.Generator().manual_seed(0)
    est = Estimators(make_spec(3, 2, 4), torch.device("cpu"), 1, **ESTIMATORS)
    for _ in range(250):
        est.step(echo(128, gen))
    scores = est.scores.value()
    assert float(scores[0, 1, 2]) == pytest.approx(math.log(2), abs=0.05)  # a bit of it, in nats
    scores[0, 1, 2] = 0.0
    assert scores.max() < 0.05
    assert not scores[torch.arange(3), torch.arange(3)].any()


def test_rows_leave_out_the_dead() -> None:
    """Agent 1 dies in the step, agent 2 is dead: only agent 0 can learn about 1, and nobody about 2."""
    est = Estimators(make_spec(3, 2, 4), torch.device("cpu"), 1, **ESTIMATORS)
    data = echo(200, torch.Generator().manual_seed(0))
    data.alive, data.alive_next = torch.tensor([True, True, False]), torch.tensor([True, False, False])
    data.alive, data.alive_next = data.alive.expand(200, 3), data.alive_next.expand(200, 3)
    z, x, action, i, j = est.rows(data)
    assert set(zip(i.tolist(), j.tolist(), strict=True)) == {(0, 1)}
    assert 70 < len(z) < 130  # half of the draws of a partner
    assert torch.equal(x[:, 2].long(), action)


def test_freezing_keeps_the_scores_and_goes_on_fitting() -> None:
    est = Estimators(make_spec(3, 2, 4), torch.device("cpu"), 1, **{**ESTIMATORS, "freeze_after": 2})
    gen, seen, weights = torch.Generator().manual_seed(0), [], []
    for _ in range(3):
        est.step(echo(64, gen))
        seen.append(est.scores.total.clone())
        weights.append(est.dimensions.weight.detach().clone())
    assert not torch.equal(seen[0], seen[1]) and torch.equal(seen[1], seen[2])
    assert not torch.equal(weights[1], weights[2])


def test_running_means_by_hand() -> None:
    """Rate 0.5, pair (0, 1): means 1 and 3 give total 1.75, weight 0.75; a negative mean counts as zero; a pair that a
    minibatch lacks keeps its value."""
    scores = Scores(2, 2, 0.5, torch.device("cpu"))
    zero, one = torch.tensor([0, 0]), torch.tensor([1, 1])
    scores.add(torch.tensor([[0.0, -3.0], [2.0, 1.0]]), zero, one)
    scores.add(torch.tensor([[3.0, 4.0], [3.0, 4.0]]), zero, one)
    scores.add(torch.tensor([[5.0, 6.0]]), one[:1], zero[:1])
    assert scores.total[0, 1].tolist() == [1.75, 2.0] and scores.weight.tolist() == [[0, 0.75], [0.5, 0]]
    assert scores.value()[0, 1].tolist() == pytest.approx([1.75 / 0.75, 2 / 0.75])
    assert scores.value()[1, 0].tolist() == [5, 6]


# masks


def test_masks_by_hand() -> None:
    """Agent 0 against {1, 2}: it sums its scores about both, each of them only theirs about agent 0."""
    M = torch.zeros(3, 3, 4)
    M[0, 1], M[0, 2] = torch.tensor([1.0, 0, 0, 2]), torch.tensor([1.5, 0, 0.5, 0])
    M[1, 0], M[2, 0], M[1, 2] = torch.tensor([0, 3.0, 0, 0]), torch.tensor([0, 0, 0, 0.0]), torch.full((4,), 9.0)
    group = torch.tensor([[True, False, False], [False, False, False]])
    S = across(M, group, True)
    assert S[0].tolist() == [[2.5, 0, 0.5, 2], [0, 3, 0, 0], [0, 0, 0, 0]] and not S[1].any()
    mask = largest(S, torch.full((2, 3), 2), torch.ones(3, 4, dtype=torch.bool))
    assert mask[0].tolist() == [[True, False, False, True], [False, True, False, False], [False] * 4]
    assert not across(M, group, False)[0, 1:].any() and torch.equal(across(M, group, False)[0, 0], S[0, 0])
    protected = torch.ones(3, 4, dtype=torch.bool)
    protected[0, 0] = False
    assert largest(S, torch.full((2, 3), 2), protected)[0, 0].tolist() == [False, False, True, True]


def test_exactly_the_smaller_of_budget_and_positive_scores_is_hidden() -> None:
    S = torch.randn(50, 4, 9, generator=torch.Generator().manual_seed(0))
    count = torch.arange(4).expand(50, 4) * 2
    mask = largest(S, count, torch.ones(4, 9, dtype=torch.bool))
    assert torch.equal(mask.sum(-1), torch.minimum(count, (S > 0).sum(-1)))
    kept_best = S.masked_fill(mask | (S <= 0), -1).amax(-1)
    assert (S.masked_fill(~mask, 99.0).amin(-1) >= kept_best).all()


def test_both_sides_are_alike_and_agents_are_interchangeable() -> None:
    gen = torch.Generator().manual_seed(0)
    M = torch.rand(5, 5, 7, generator=gen)
    group = draw_groups(torch.rand(20, 5, generator=gen), torch.full((20,), 2))
    assert torch.allclose(across(M, group, True), across(M, ~group, True))
    order = torch.randperm(5, generator=gen)
    assert torch.allclose(across(M[order][:, order], group[:, order], True), across(M, group, True)[:, order])


def test_the_floor_is_each_pairs_median_over_what_may_be_hidden() -> None:
    scores = torch.tensor([0.1, 0.1, 0.5, 0.1, 9.0]).expand(2, 2, 5)
    maskable = torch.tensor([True, True, True, True, False]).expand(2, 5)
    assert above_floor(scores, maskable)[0, 1].tolist() == pytest.approx([0, 0, 0.4, 0, 8.9])
    assert above_floor(scores, torch.zeros(2, 5, dtype=torch.bool))[0, 1].tolist() == pytest.approx(
        scores[0, 0].tolist()
    )


def test_how_many_features_are_hidden() -> None:
    spec = make_spec(4, 3, 11)
    group = torch.tensor([[True, False, False, False], [True, True, False, False], [False] * 4])
    assert hidden_features(group, 3, False, spec).tolist() == [[3] * 4, [3] * 4, [0] * 4]
    assert hidden_features(group, 3, True, spec).tolist() == [[9, 3, 3, 3], [6] * 4, [0] * 4]
    assert hidden_features(group, None, False, spec).tolist() == [[3] * 4, [3] * 4, [0] * 4]  # a fifth of 11, up
    about = torch.zeros(4, 4, 11, dtype=torch.bool)
    about[~torch.eye(4, dtype=torch.bool)] = torch.arange(11) < 4
    known = type(spec)(**{**vars(spec), "about": about})  # four features describe each other agent
    assert hidden_features(group, None, False, known).tolist() == [[8, 4, 4, 4], [4] * 4, [0] * 4]


# pictures


def test_features_are_named_with_the_agents_that_they_describe() -> None:
    posts = Posts(n_agents=3, noise=1, goal=0.5, absent_agents=0, episode_limit=2, n_envs=1).spec
    names = row_names(posts, 1)
    assert (names[1], names[3]) == ("am agent 1", "idle")  # its own: it knows whose they are
    assert names[7:13] == ["other 0 at A (agent 0)", "other 0 at B (agent 0)", "other 1 there (agent 2)",
                           "other 1 at A (agent 2)", "other 1 at B (agent 2)", "noise 0"]  # fmt: skip
    assert row_names(make_spec(3, 2, 2), 0) == ["feature 0", "feature 1"]


@pytest.mark.parametrize("n", [2, PANELS + 1])
def test_the_picture_has_a_panel_for_each_of_the_first_observers(n: int, tmp_path: Path) -> None:
    draw(torch.rand(n, n, 4), torch.rand(n, n, 4) < 0.5, make_spec(n, 2, 4), tmp_path / "scores.png")
    width = Image.open(tmp_path / "scores.png").width / 110
    panel = 1.9 + (0.55 if n == 2 else 0.25) * (n - 1)
    assert width == pytest.approx(min(n, PANELS) * panel + 0.8, abs=0.1)


# curriculum


def test_the_chance_grows_with_success_only() -> None:
    curriculum = Curriculum(4, growth=1.5, success=0.5, success_return=None, window=4, every=10)
    won, lost = torch.ones(2, dtype=torch.bool), torch.zeros(2, dtype=torch.bool)
    plays = [(won, 10, 0.25), (won, 19, 0.25), (won, 20, 0.375), (lost, 30, 0.375), (won, 40, 0.375), (won, 50, 0.5625)]
    for result, steps, expected in plays:
        curriculum.add(result, torch.zeros(2), steps)
        assert curriculum.p_max == pytest.approx(expected), steps
    curriculum.add(torch.zeros(4, dtype=torch.bool), torch.zeros(4), 60)
    assert curriculum.p_max == pytest.approx(0.5625), "it never falls"
    for steps in range(70, 210, 10):
        curriculum.add(torch.ones(4, dtype=torch.bool), torch.zeros(4), steps)
    assert curriculum.p_max == 1.0


def test_success_may_be_a_return() -> None:
    curriculum = Curriculum(2, growth=2.0, success=0.5, success_return=3.0, window=2, every=1)
    curriculum.add(torch.ones(2, dtype=torch.bool), torch.tensor([2.9, 3.0]), 1)
    assert curriculum.p_max == 0.5  # half is not more than half
    curriculum.add(torch.zeros(2, dtype=torch.bool), torch.tensor([3.0, 3.0]), 2)
    assert curriculum.p_max == 1.0


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"context": "eyes"}, "context=eyes is not known; choose one of hidden, obs, state, joint"),
        ({"estimator": "mine"}, "estimator=mine is not known; choose one of club, ce"),
        ({"samples": 0}, "samples=0 must be at least 1"),
        ({"ema": 0.0}, r"ema=0.0 must be within \(0, 1\]"),
    ],
)
def test_bad_estimators_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Estimators(make_spec(), torch.device("cpu"), 1, **{**ESTIMATORS, **changes})


@pytest.mark.parametrize("changes", [{"growth": 0.9}, {"success": 1.1}, {"window": 0}])
def test_bad_curricula_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        Curriculum(1, **{"growth": 1.2, "success": 0.8, "success_return": None, "window": 9, "every": 9, **changes})
