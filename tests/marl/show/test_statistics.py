"""Statistics over tasks and seeds, against numbers by hand and rliable's own functions."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from marl.core.types import ConfigError
from marl.show import statistics
from marl.show.statistics import TAUS, Aggregate, Estimate, above, aggregate, improvement, iqm_along
from tests.support.statistics_parts import RETURN, WON, rliable, run, tasks

EIGHT = {"a": {"x": [0.9, 0.0, 0.5, 0.1]}, "b": {"x": [1.0, 0.6, 0.2, 0.3]}}
SPREAD = {"a": {"x": [0.1, 0.35, 0.4, 0.7, 0.95], "y": [0.0, 0.2, 0.55, 0.6, 1.0]}}


def measured(scores: dict[str, Any], key: str = WON, **options: Any) -> Aggregate:
    """Return the aggregate of runs made of final scores; skip where rliable is missing."""
    rliable()
    return aggregate(tasks(scores, key), key, **{"reps": 200, **options})


def values(found: Aggregate, method: str = "x") -> dict[str, float]:
    return {name: one.value for name, one in found.intervals[method].items()}


# the numbers


def test_statistics_of_eight_scores_by_hand() -> None:
    """Without the two least (0, 0.1) and the two largest (0.9, 1.0) remain 0.2, 0.3, 0.5, 0.6. The tasks have the means
    0.375 and 0.525."""
    assert values(measured(EIGHT)) == pytest.approx({"iqm": 0.4, "median": 0.45, "mean": 0.45, "optimality_gap": 0.55})


def test_the_median_is_that_of_the_means_of_tasks() -> None:
    """Means 0.1, 0.2 and 0.9; the median of all six scores would be 0.25."""
    found = values(measured({"a": {"x": [0.0, 0.2]}, "b": {"x": [0.1, 0.3]}, "c": {"x": [0.8, 1.0]}}))
    assert found["median"] == pytest.approx(0.2) and found["mean"] == pytest.approx(0.4)


def test_the_optimality_gap_counts_nothing_above_one() -> None:
    """Returns 0, 5 and 15 of 10 are 0, 0.5 and 1.5, of which a team at 1 everywhere is ahead by 1, 0.5 and 0."""
    found = values(measured({"a": {"x": [0.0, 5.0, 15.0]}}, RETURN, low=0, high=10))
    assert found["optimality_gap"] == pytest.approx(0.5) and found["mean"] == pytest.approx(2 / 3)


def agrees(compare: Callable[[np.ndarray, np.ndarray], float]) -> bool:
    """Say whether ``compare`` is rliable's probability of improvement, on scores [seeds, tasks] with and without ties
    and in different numbers."""
    _, metrics = rliable()
    draws = np.random.default_rng(0)
    pairs = [(draws.integers(0, k, (4, 3)) / k, draws.integers(0, k, (n, 3)) / k) for k in (2, 3, 50) for n in (2, 5)]
    return all(abs(compare(x, y) - metrics.probability_of_improvement(x, y)) < 1e-12 for x, y in pairs)


def test_improvement_is_that_of_rliable() -> None:
    assert agrees(improvement)
    assert not agrees(lambda x, y: float((x[:, None] > y[None]).mean())), "ties count nothing"
    assert not agrees(lambda x, y: float((x.mean(0) > y.mean(0)).mean())), "means instead of runs"


def test_the_probability_of_improvement_by_hand() -> None:
    """Task a: 0.2 ties with 0.2 (a half) and loses against 0.4, 0.6 wins twice: 2.5 of 4. Task b: never. Mean 5/16."""
    found = measured({"a": {"x": [0.2, 0.6], "y": [0.2, 0.4]}, "b": {"x": [0.0, 0.1], "y": [0.5, 0.5]}})
    assert [(one.first, one.second, one.probability.value) for one in found.pairs] == [
        ("x", "y", 0.3125), ("y", "x", 0.6875),
    ]  # fmt: skip
    forth, back = (one.probability for one in found.pairs)
    assert forth.low is not None and forth.high is not None and (back.low, back.high) == (1 - forth.high, 1 - forth.low)


def test_every_ordered_pair_is_there_or_those_with_one_method() -> None:
    scores = {"a": {"x": [0.1, 0.2], "y": [0.3, 0.4], "z": [0.5, 0.6]}}
    order = [(one.first, one.second) for one in measured(scores).pairs]
    assert order == [(a, b) for a in "xyz" for b in "xyz" if a != b]
    found = measured(scores, versus="y").pairs
    assert [(one.first, one.second, one.probability.value) for one in found] == [("x", "y", 0.0), ("z", "y", 1.0)]


def test_a_profile_is_the_share_of_runs_above_each_score() -> None:
    """Of 0.2, 0.6 and twice 0.5 all are above 0.19, three above 0.2, one above 0.5, none above 0.6."""
    found = measured({"a": {"x": [0.2, 0.6]}, "b": {"x": [0.5, 0.5]}}).profiles["x"]
    share = dict(zip(np.round(found.x, 2).tolist(), found.value, strict=True))
    assert [share[tau] for tau in (0.0, 0.19, 0.2, 0.49, 0.5, 0.59, 0.6, 1.0)] == [1, 1, 0.75, 0.75, 0.25, 0.25, 0, 0]


def test_profiles_and_curves_are_those_of_rliable() -> None:
    library, metrics = rliable()
    scores = np.random.default_rng(1).random((5, 3, 7))
    profile, _ = library.create_performance_profile({"x": scores[..., 0]}, TAUS, reps=2)
    np.testing.assert_array_equal(above(scores[..., 0]), profile["x"])
    np.testing.assert_allclose(iqm_along(scores), [metrics.aggregate_iqm(scores[..., s]) for s in range(7)])


def test_curves_are_the_iqm_at_common_steps() -> None:
    """At the last step those of the final scores: 0.2 and 0.3 of 0.1, 0.2, 0.3 and 1; at the first all are 0."""
    found = measured({"a": {"x": [0.1, 0.2, 0.3, 1.0]}}).curves["x"]
    assert (found.x[0], found.x[-1]) == (0, 100) and found.value[0] == 0 and found.value[-1] == pytest.approx(0.25)
    assert found.value[10] == pytest.approx(0.125)


# intervals


def test_the_interval_of_two_seeds_by_hand() -> None:
    """Draws of two from 0 and 1 have the mean 0 or 1 in a quarter each."""
    found = measured({"a": {"x": [0.0, 1.0]}}).intervals["x"]
    assert found["mean"] == found["iqm"] == Estimate(0.5, 0.0, 1.0)


def test_seeds_are_drawn_within_their_task() -> None:
    """All seeds of a task are alike, so that nothing is uncertain; draws from all scores together would vary."""
    found = measured({"a": {"x": [0.0, 0.0, 0.0]}, "b": {"x": [1.0, 1.0, 1.0]}}).intervals["x"]
    assert found["mean"] == Estimate(0.5, 0.5, 0.5)
    mixed = measured({"a": {"x": [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]}}).intervals["x"]["mean"]
    assert mixed.low is not None and mixed.low < 0.3


def same_again() -> bool:
    """Say whether two aggregates of the same runs are equal, though the global generator has moved on."""
    first = measured(SPREAD, reps=50).as_dict()
    np.random.random(3)
    return first == measured(SPREAD, reps=50).as_dict()


def test_intervals_follow_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    np.random.seed(5)
    assert same_again()
    assert measured(SPREAD, reps=50, seed=1).as_dict() != measured(SPREAD, reps=50).as_dict()
    alone = {"a": {"x": SPREAD["a"]["x"]}}
    assert measured(alone, reps=50).intervals["x"] == measured(SPREAD, reps=50).intervals["x"]
    monkeypatch.setattr(statistics, "globals_kept", lambda seed: nullcontext())
    assert not same_again(), "rliable by itself does not follow a seed"


def test_the_global_generator_is_left_as_it_was() -> None:
    np.random.seed(5)
    expected = np.random.random()
    np.random.seed(5)
    measured(SPREAD, reps=5)
    assert np.random.random() == expected


def test_intervals_of_rates_are_cut_at_zero_and_one() -> None:
    """A library whose interval reaches beyond the rates, as rounding may."""
    wide = SimpleNamespace(
        get_interval_estimates=lambda scores, function, reps: (
            {"": np.array([0.5])}, {"": np.array([[-1e-9], [1.0 + 1e-9]])},
        )
    )  # fmt: skip
    two: Any = np.array([[0.0], [1.0]])
    for rate, expected in ((True, (0.0, 1.0)), (False, (-1e-9, 1.0 + 1e-9))):
        found = statistics._Estimates(wide, wide, 1, 0, rate)._estimated(two, np.mean, rate)  # type: ignore[arg-type]
        assert (found[0].low, found[0].high) == expected


def test_all_of_a_rate_lies_within_zero_and_one() -> None:
    found = measured({"a": {"x": [0.0, 1.0, 1.0, 0.1 + 0.2]}, "b": {"x": [1.0, 1.0, 1.0, 1.0]}})
    (line, curve) = found.profiles["x"], found.curves["x"]
    ends = [end for one in found.intervals["x"].values() for end in (one.low, one.high)]
    for band in (line, curve):
        assert band.low is not None and band.high is not None
        assert all(low <= v <= high for low, v, high in zip(band.low, band.value, band.high, strict=True))
        ends += [*band.low, *band.high]
    assert all(end is not None and 0 <= end <= 1 for end in ends)


def test_a_single_seed_has_no_interval_and_says_so() -> None:
    found = measured({"a": {"x": [0.5], "y": [0.1, 0.9]}, "b": {"x": [0.75], "y": [0.2, 0.3]}})
    assert found.intervals["x"]["mean"] == Estimate(0.625, None, None)
    assert found.pairs[0].probability == Estimate(0.75, None, None)
    assert found.profiles["x"].low is None and found.curves["x"].high is None
    assert found.intervals["y"]["mean"].low is not None
    assert found.notes == [
        "methods have different numbers of seeds: x 1, y 2",
        "a single seed has no interval: x",
        "of fewer than four scores nothing is trimmed, and the IQM is the mean: x",
    ]


def test_without_a_common_task_there_is_nothing_but_a_note() -> None:
    found = measured({"a": {"x": [0.5]}, "b": {"y": [0.5]}})
    assert (found.methods, found.pairs, found.profiles, found.curves, found.tasks) == ([], [], {}, {}, [])
    assert len(found.notes) == 1 and found.notes[0].startswith("no task has runs of all methods")


def test_runs_without_common_steps_have_scores_but_no_curves() -> None:
    rliable()
    runs = {"a": {"x": [run(0, {0: 0.0, 100: 1.0}), run(1, {200: 0.5, 300: 0.5})]}}
    found = aggregate(runs, WON, reps=5)
    assert found.intervals["x"]["mean"].value == 0.75 and found.curves == {}


def test_an_aggregate_is_json() -> None:
    found = measured(SPREAD)
    document = json.loads(json.dumps(found.as_dict()))
    assert document["intervals"]["x"]["iqm"]["value"] == found.intervals["x"]["iqm"].value
    assert document["pairs"][0]["first"] == "x" and document["limits"] == {"a": [0.0, 1.0]}
    assert document["scores"]["x"] == [[score] for score in SPREAD["a"]["x"]] and document["seeds"]["x"]["a"] == [
        *range(5)
    ]


# what is refused


def test_a_method_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="versus=z is no group of these runs; there are x, y"):
        aggregate(tasks(SPREAD), WON, versus="z")


def test_a_missing_rliable_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rliable", None)
    with pytest.raises(ConfigError, match=r"^statistics need rliable: pip install -e \.\[report\]$"):
        aggregate(tasks(SPREAD), WON)


def test_an_rliable_that_does_not_load_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A package that fails as arch 7 does beside pandas 3."""
    (tmp_path / "rliable").mkdir()
    (tmp_path / "rliable" / "__init__.py").write_text("raise TypeError('deprecate_kwarg() missing 1 argument')")
    for name in [name for name in sys.modules if name.partition(".")[0] == "rliable"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(statistics, "version", lambda package: "3.1.1")
    with pytest.raises(ConfigError, match=r"does not load beside pandas 3\.1\.1: pip install -e \.\[report\]$"):
        aggregate(tasks(SPREAD), WON)
