"""Which tasks, methods and seeds statistics compare, on which scale, and what they say of the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from marl.core.types import ConfigError
from marl.show.scores import scores_of
from tests.support.statistics_parts import RETURN, WON, run, tasks


def test_a_rectangle_is_taken_as_it_is() -> None:
    found = scores_of(tasks({"a": {"x": [0.1, 0.2], "y": [0.3, 0.4]}, "b": {"x": [0.5, 0.6], "y": [0.7, 0.8]}}), WON)
    assert found.tasks == ["a", "b"] and found.methods == ["x", "y"] and found.notes == []
    assert found.final["x"].tolist() == [[0.1, 0.5], [0.2, 0.6]] and found.final["y"].tolist() == [
        [0.3, 0.7],
        [0.4, 0.8],
    ]
    assert found.seeds["x"] == {"a": [0, 1], "b": [0, 1]}
    assert found.limits == {"a": (0.0, 1.0), "b": (0.0, 1.0)} and found.scale == f"{WON} is a rate and counts as it is"


def test_of_unequal_numbers_of_seeds_the_smallest_seeds_take_part() -> None:
    runs = tasks({"a": {"x": [0.1, 0.2, 0.9], "y": [0.3]}, "b": {"x": [0.5, 0.6], "y": [0.7]}})
    runs["a"]["x"].reverse()
    found = scores_of(runs, WON)
    assert found.final["x"].tolist() == [[0.1, 0.5], [0.2, 0.6]] and found.seeds["x"]["a"] == [0, 1]
    assert found.notes == [
        "x has 3 seeds on a and 2 elsewhere: only seeds 0, 1 take part there",
        "methods have different numbers of seeds: x 2, y 1",
    ]


def test_tasks_without_runs_of_a_method_are_left_out_by_name() -> None:
    found = scores_of(tasks({"a": {"x": [0.1], "y": [0.2]}, "b": {"x": [0.3]}, "c": {"y": [0.4]}}), WON)
    assert found.tasks == ["a"] and found.final["x"].tolist() == [[0.1]]
    assert found.notes == ["b is left out, for it has no runs of y", "c is left out, for it has no runs of x"]


def test_methods_that_share_no_task_are_not_compared() -> None:
    found = scores_of(tasks({"a": {"x": [0.1]}, "b": {"y": [0.2]}}), WON)
    assert found.tasks == [] and found.methods == [] and found.curves == {}
    assert found.notes == ["no task has runs of all methods, so that nothing is compared (x has a; y has b)"]


def test_runs_without_the_scalar_are_named() -> None:
    runs = tasks({"a": {"x": [0.1, 0.2]}})
    runs["a"]["x"].append(run(2, [1.0], RETURN))
    found = scores_of(runs, WON)
    assert found.seeds["x"]["a"] == [0, 1] and found.notes == [f"1 of 3 runs of x in a have no {WON}"]
    (some, none) = scores_of({"a": {"x": [run(0, [1.0], RETURN)]}}, WON).notes
    assert some == f"1 of 1 runs of x in a have no {WON}" and none.endswith("(there are no runs)")


def test_unfinished_runs_are_named() -> None:
    runs = {"a": {"x": [run(0, [0.1, 0.2])], "y": [run(0, [0.1, 0.2], unfinished="at step 100")]}}
    assert scores_of(runs, WON).notes == ["runs that have not come to their end take part: of y"]


def test_a_final_score_is_the_mean_of_the_last_tests() -> None:
    runs = {"a": {"x": [run(0, [0.0, 0.25, 0.75])]}}
    assert scores_of(runs, WON).final["x"].tolist() == [[0.75]]
    assert scores_of(runs, WON, last=2).final["x"].tolist() == [[0.5]]


def returns(**values: list[float]) -> Any:
    return {task: {"x": [run(0, tests, RETURN)]} for task, tests in values.items()}


def test_returns_are_divided_by_the_range_of_all_tests() -> None:
    """The best test of the task is not the last one: 2 of the range from -4 to 8 is a half."""
    found = scores_of(returns(a=[-4.0, 8.0, 2.0], b=[0.0, 20.0]), RETURN)
    assert found.final["x"].tolist() == [[0.5, 1.0]] and found.limits == {"a": (-4.0, 8.0), "b": (0.0, 20.0)}
    assert found.curves["x"].min() == 0 and "the least and 1 at the largest value of any test" in found.scale


def test_returns_are_divided_by_the_range_that_is_given() -> None:
    """A score may lie beyond 0 and 1 then."""
    found = scores_of(returns(a=[0.0, 2.0], b=[0.0, 20.0]), RETURN, low=0, high={"a": 4, "b": 10.0})
    assert found.final["x"].tolist() == [[0.5, 2.0]] and found.limits == {"a": (0.0, 4.0), "b": (0.0, 10.0)}
    assert found.scale == f"{RETURN} is 0 at scores.low and 1 at scores.high"
    assert scores_of(tasks({"a": {"x": [0.5]}}), WON, low=0, high=4).final["x"] == 0.5  # a rate is a score already


def test_returns_without_a_range_are_left_out_by_name() -> None:
    found = scores_of(returns(a=[3.0, 3.0], b=[0.0, 20.0]), RETURN)
    assert found.tasks == ["b"] and found.final["x"].tolist() == [[1.0]]
    assert found.notes == [f"a is left out, for all its tests have {RETURN} 3: scores have no range"]


@pytest.mark.parametrize(
    ("low", "high", "why"),
    [
        (0, None, "scores.low=0 and scores.high=None must be given together"),
        (None, 1, "scores.low=None and scores.high=1 must be given together"),
        (1, 1, "scores.low=1 must be below scores.high=1"),
        ("x", 1, "scores.low=x must be a number"),
        (0, float("inf"), "scores.high=inf must be a number"),
        (float("nan"), 1, "scores.low=nan must be a number"),
        ({"a": 2}, 1, "scores.low=2 must be below scores.high=1 of a"),
        ({"a": 0}, {"b": 1}, "scores.high=None of a must be a number; a task's scores have two ends"),
        (0, {"b": 1}, "scores.low and scores.high say nothing of a; there are a"),
    ],
)
def test_ranges_that_are_none_are_refused(low: Any, high: Any, why: str) -> None:
    with pytest.raises(ConfigError) as refused:
        scores_of(returns(a=[0.0, 1.0]), RETURN, low=low, high=high)
    assert str(refused.value).startswith(why)


def test_curves_are_taken_where_all_runs_were_tested() -> None:
    """From 10, the later first test, to 100, the earlier last one; between tests on a line."""
    runs = {"a": {"x": [run(0, {0: 0.0, 100: 1.0}), run(1, {10: 0.5, 200: 0.5})]}}
    found = scores_of(runs, WON)
    assert found.steps[[0, -1]].tolist() == [10, 100] and len(found.steps) == 21
    assert found.curves["x"].shape == (2, 1, 21)
    np.testing.assert_allclose(found.curves["x"][0, 0], found.steps / 100)
    assert set(found.curves["x"][1, 0]) == {0.5}
    assert found.notes == ["curves end at step 100, where the shortest run does; the longest ends at 200"]


def test_runs_that_share_no_steps_have_no_curves() -> None:
    found = scores_of({"a": {"x": [run(0, {0: 0.0, 100: 1.0}), run(1, {200: 0.5, 300: 0.5})]}}, WON)
    assert len(found.steps) == 0 and found.final["x"].tolist() == [[1.0], [0.5]]
    assert found.notes == ["there are no curves, for the runs share no span of steps (from 200 to 100)"]
