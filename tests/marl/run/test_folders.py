"""Run folders: which a pattern finds, what they say of themselves, and which checkpoint is taken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from marl.core.types import ConfigError
from marl.run import folders


def make_run(folder: Path, *steps: int, tested: bool = True) -> Path:
    """Make what ``folders`` looks at of a run: configuration, tests, and whole checkpoints at ``steps``."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"run_path": "study/game/vdn-none/seed3", "seed": 3}))
    if tested:
        (folder / "eval.jsonl").touch()
    for step in steps:
        checkpoint = folder / "checkpoints" / f"step_{step:012d}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "meta.json").write_text(json.dumps({"digests": {}}))
    return folder


def test_patterns_find_runs_at_and_below_what_they_match_each_once(tmp_path: Path) -> None:
    one, two = make_run(tmp_path / "a" / "seed0", 5), make_run(tmp_path / "a" / "seed10", 5)
    make_run(tmp_path / "b" / "seed0", tested=False)
    for pattern in (tmp_path, f"{tmp_path}/a", f"{tmp_path}/**", f"{tmp_path}/a/seed*", f"{tmp_path}/*/*"):
        assert folders.find_runs(str(pattern), folders.TRAINED) == [one, two]
        assert folders.find_runs(str(pattern), folders.TESTED) == [one, two]
    assert folders.find_runs(f"{tmp_path}/a/seed1*", folders.TRAINED) == [two]
    assert folders.find_runs(str(one / "eval.jsonl"), folders.TESTED) == [one]
    assert folders.find_runs(str(tmp_path / "nowhere"), folders.TESTED) == []


def test_runs_that_were_set_aside_are_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "seed0", 5)
    make_run(run / "previous" / "1", 5)
    assert folders.find_runs(f"{tmp_path}/**", folders.TRAINED) == [run]
    assert folders.find_runs(str(run / "previous" / "1"), folders.TRAINED) == []


def test_a_folder_that_somebody_called_previous_holds_runs(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "previous" / name, 5) for name in ("1", "study/seed0")]
    assert folders.find_runs(f"{tmp_path}/**", folders.TRAINED) == runs


def test_a_name_with_brackets_is_a_folder_before_it_is_a_pattern(tmp_path: Path) -> None:
    run = make_run(tmp_path / "goals=[[0,1]]-seed0", 5)
    make_run(tmp_path / "goals=0-seed0", 5)
    assert folders.trained_runs(str(run), "runs") == [run]


def test_no_run_with_checkpoints_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "seed0")
    with pytest.raises(ConfigError, match=r"algo.runs=.*seed0 matches no run folder with checkpoints"):
        folders.trained_runs(str(tmp_path / "seed0"), "algo.runs")


def test_what_is_lost_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"init_from=.* is not a run folder: it has no config.json"):
        folders.read_config(tmp_path, "init_from")
    with pytest.raises(ConfigError, match=r"does not say where it comes from: it has no meta.json"):
        folders.read_meta(tmp_path)


def test_a_run_is_identified_by_its_path() -> None:
    def named(path: str, seed: int) -> tuple[str, str, int]:
        return folders.identify({"run_path": path, "seed": seed})

    assert named("study/skirmish-3m/vdn-none/seed3", 3) == ("skirmish-3m", "study vdn", 3)
    assert named("default/mds/qmix-wolfpack/algo.K=2-seed10", 10) == ("mds", "qmix-wolfpack algo.K=2", 10)
    assert named("a/b/mds/qmix-none/seed0", 0) == ("mds", "a/b qmix", 0)


def test_the_newest_checkpoint_or_the_one_that_is_asked_for(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 10, 200, 3000)
    assert folders.saved_steps(run) == [10, 200, 3000]
    assert folders.pick_checkpoint(run, None).name == "step_000000003000"
    assert folders.pick_checkpoint(run, 200).name == "step_000000000200"
    with pytest.raises(ConfigError, match=r"checkpoint=5 is not in .*; there are 10, 200, 3000"):
        folders.pick_checkpoint(run, 5)
    with pytest.raises(ConfigError, match=r"algo.run=.* has no usable checkpoint"):
        folders.pick_checkpoint(make_run(tmp_path / "fresh"), None, "algo.run")


def test_checkpoints_nearest_to_shares_of_the_training(tmp_path: Path) -> None:
    """Of 1,000 steps, 0.5 means 500: 400 is nearer than 700; 0.9 means 900: 1,000 is nearer than 700."""
    run = make_run(tmp_path / "run", 100, 400, 700, 1000)
    assert folders.nearest_steps(run, [0.5], "p") == [400]
    assert folders.nearest_steps(run, [1.0, 0.9, 0.0], "p") == [100, 1000]
    with pytest.raises(ConfigError, match=r"p: .* has no usable checkpoint"):
        folders.nearest_steps(make_run(tmp_path / "fresh"), [1.0], "p")
