"""What a report says of its runs: origins, differences of configurations, final scores, and steps to a level."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from marl.show.gather import gather
from marl.show.report import facts
from tests.support.report_parts import Points, make_run

RHYTHM = {"batch_size": 32, "episodes_per_update": 4, "warmup_episodes": 32, "target_every": None, "tau": 0.01}


def groups_of(runs: Path, **options: bool) -> list[facts.Group]:
    return facts.groups_of(gather(f"{runs}/**", metas=True, **options)[0])


def test_a_group_says_where_it_comes_from(tmp_path: Path) -> None:
    begun = {"init_from": {"run": "runs/first"}}
    versions = {"python": "3.11.7", "packages": {"torch": "2.13.0"}}
    make_run(tmp_path, "ippo-sbc-random", 0, meta={"rhythm": RHYTHM, **begun, **versions})
    make_run(tmp_path, "ippo-sbc-random", 1, ((0, 0.0), (1200, 0.5)), meta={"rhythm": RHYTHM, "commit": "beef"})
    (group,) = groups_of(tmp_path)
    found = facts.origin(group)
    assert (found.algorithm, found.attack, found.seeds, found.steps) == ("ippo-sbc", "random", "0, 1", "1,000 to 1,200")
    assert found.rhythm == "1 update of 32 episodes per 4 new ones, target moved by 0.01 at each"
    assert (found.begun, found.commits) == ("runs/first", ["beef", "c0ffee"])
    assert found.machines == ["a made-up machine", "a made-up machine; Python 3.11.7; torch 2.13.0"]
    assert found.commands == ["train seed=0", "train seed=1"]


@pytest.mark.parametrize("rhythm", [None, {}, {"batch_size": 0, "episodes_per_update": 1}, {"nonsense": 1}, 5])
def test_a_rhythm_that_was_not_recorded_is_said(tmp_path: Path, rhythm: object) -> None:
    make_run(tmp_path, meta={} if rhythm is None else {"rhythm": rhythm})
    assert facts.origin(groups_of(tmp_path)[0]).rhythm == "not recorded"


def test_configurations_differ_in_values_by_seed_and_in_options(tmp_path: Path) -> None:
    same = {"env": {"map": "3m"}}
    make_run(tmp_path, "a-none", 0, config={**same, "algo": {"lr": 0.1}, "init_from": "x0"})
    make_run(tmp_path, "a-none", 1, config={**same, "algo": {"lr": 0.1}, "init_from": "x1"})
    make_run(tmp_path, "b-none", 0, config={**same, "algo": {"lr": 0.2, "mixer": {"dim": 4}}, "init_from": None})
    differ, partial = facts.differences(groups_of(tmp_path))
    assert [(one.key, one.values) for one in differ] == [
        ("algo.lr", ["0.1", "0.2"]),
        ("init_from", ["by seed: x0; x1", "null"]),
    ]
    assert [(one.key, one.values) for one in partial] == [("algo.mixer.dim", [None, "4"])]


def test_an_option_that_differs_by_seed_in_every_group_alike_is_told(tmp_path: Path) -> None:
    for team in ("a-none", "b-none"):
        for seed in (0, 1):
            make_run(tmp_path, team, seed, config={"threads": seed + 1})
    (found,) = facts.differences(groups_of(tmp_path))[0]
    assert (found.key, found.values) == ("threads", ["by seed: 1; 2", "by seed: 1; 2"])


def test_final_scores_are_means_over_seeds_of_their_last_tests(tmp_path: Path) -> None:
    make_run(tmp_path, seed=0, points=((0, 0.0), (500, 0.2), (1000, 0.4)))
    make_run(tmp_path, seed=1, points=((0, 0.0), (500, 0.6), (1000, 1.0)))
    tasks, _ = gather(f"{tmp_path}/**", metas=True)
    (found,) = facts.finals(tasks, facts.groups_of(tasks), "eval/win_rate", 2)
    assert found.per_seed == pytest.approx({0: 0.3, 1: 0.8}) and found.interval.mean == pytest.approx(0.55)
    assert facts.finals(tasks, facts.groups_of(tasks), "eval/nothing", 2) == []


SLOW: Points = ((0, 0.0), (400, 0.2), (800, 0.8), (1000, 0.8))
FAST: Points = ((0, 0.0), (400, 0.9), (800, 0.3), (1000, 0.9))


def test_steps_to_a_level_are_those_of_the_first_test_at_it(tmp_path: Path) -> None:
    """The best final mean is 0.9 (b); half of it is 0.45, all of it 0.9."""
    make_run(tmp_path, "a-none", 0, SLOW)
    make_run(tmp_path, "a-none", 1, FAST)
    make_run(tmp_path, "b-none", 0, FAST)
    found = facts.efficiency(groups_of(tmp_path), "eval/win_rate", (0.5, 1.0), 1)
    assert found is not None and (found.start, found.best, found.levels) == (0.0, 0.9, [0.45, 0.9])
    (slow, fast) = ([str(one) for one in reached] for _, reached in found.reached)
    assert slow == ["600 (2 of 2 seeds)", "not reached by half of the seeds (1 of 2 seeds)"]
    assert fast == ["400 (1 of 1 seed)", "400 (1 of 1 seed)"]


def test_levels_of_positive_returns_are_fractions_of_the_best_also_where_groups_begin_high(tmp_path: Path) -> None:
    make_run(tmp_path, points=((0, 0.8), (500, 0.85), (1000, 0.9)))
    found = facts.efficiency(groups_of(tmp_path), "eval/return", (0.5, 1.0), 1)
    assert found is not None and (found.start, found.best, found.levels) == (0.0, 9.0, [4.5, 9.0])
    assert [one.steps for _, reached in found.reached for one in reached] == [[0], [1000]]


def test_levels_of_negative_returns_begin_where_the_lowest_group_began(tmp_path: Path) -> None:
    """Returns from -20 (a) and -10 (b) to 10: half of the way is -5."""
    make_run(tmp_path, "a-none", 0, ((0, -2.0), (500, -0.4), (1000, 1.0)))
    make_run(tmp_path, "b-none", 0, ((0, -1.0), (500, -0.6), (1000, 0.0)))
    found = facts.efficiency(groups_of(tmp_path), "eval/return", (0.5,), 1)
    assert found is not None and (found.start, found.best, found.levels) == (-20.0, 10.0, [-5.0])
    assert [reached[0].steps for _, reached in found.reached] == [[500], [1000]]


@pytest.mark.parametrize("key", ["eval/win_rate", "eval/nothing"])
def test_there_is_no_level_where_nothing_was_learnt(tmp_path: Path, key: str) -> None:
    make_run(tmp_path, points=((0, 0.0), (1000, 0.0)))
    assert facts.efficiency(groups_of(tmp_path), key, (0.5,), 1) is None


@pytest.mark.parametrize(
    ("steps", "seeds", "median"), [([5], 1, 5), ([5], 2, math.inf), ([5, 9], 3, 9), ([5, 9], 2, 7), ([], 3, math.inf)]
)
def test_a_seed_that_never_arrives_counts_as_infinitely_late(steps: list[int], seeds: int, median: float) -> None:
    assert facts.Reached(steps, seeds).median == median


def test_what_is_missing_of_runs_is_said(tmp_path: Path) -> None:
    make_run(tmp_path, "a-none", 0)
    short = make_run(tmp_path, "a-none", 1, ((0, 0.0), (400, 0.1)))
    torn = make_run(tmp_path, "b-none", 0)
    (torn / "config.json").write_text("{")
    (tmp_path / "study/toy-corridor/a-none/seed0/meta.json").write_text('{"commit": "x", "command": "y"}')
    tasks, left = gather(f"{tmp_path}/**", metas=True)
    assert facts.missing(facts.groups_of(tasks), left) == [
        f"Left out: {short}: unfinished, at step 400 of 1,000.",
        f"Left out: {torn}: config.json is damaged or missing (ConfigError).",
        "study a in toy-corridor has one seed, and so no interval.",
        "1 of 1 runs do not record their machine.",
    ]
    tasks, left = gather(f"{tmp_path}/**", metas=True, unfinished=True)
    said = facts.missing(facts.groups_of(tasks), left)
    assert f"{short} is unfinished, at step 400 of 1,000; it is averaged with the others." in said
    assert not any("one seed" in line for line in said)


def test_a_group_has_one_colour_in_all_environments(tmp_path: Path) -> None:
    for task, team in (("x", "b-none"), ("y", "a-none"), ("y", "b-none")):
        make_run(tmp_path, team, task=task)
    colours = {(group.task, group.label): group.colour for group in groups_of(tmp_path)}
    assert colours["x", "study b"] == colours["y", "study b"] == "#D55E00" != colours["y", "study a"]


def test_a_colour_comes_again_with_other_dashes() -> None:
    assert [facts.stroke(k)[1] for k in (0, 7, 8, 15, 16)] == ["solid", "solid", "dash", "dash", "dashdot"]
    assert facts.stroke(0)[0] == facts.stroke(8)[0] and len({facts.stroke(k) for k in range(24)}) == 24
