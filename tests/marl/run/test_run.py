"""Whole runs: stop and resume are bitwise invisible, crashes and bad input lose nothing, evaluation changes nothing."""

from __future__ import annotations

import json
import logging
import math
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from envs.skirmish.physics import VERSION
from marl.core.types import ConfigError, EpisodeBatch, Metrics
from marl.learn.rhythm import crossed
from marl.run import checkpoint
from marl.run.trainer import Run
from tests.support.helpers import differences, newest_state, rows, train

BATTLE = ("env=skirmish/3m", "train.n_envs=4", "eval.n_envs=4", "eval.episodes=4", "eval.final_episodes=4",
          "train.total_steps=1000", "eval.every=400", "checkpoint.every=300")  # fmt: skip


pytestmark = pytest.mark.usefixtures("no_drawing")


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a tiny run from start to end, which tests only read, to compare with."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    train(folder)
    return folder


class Crash(Exception):
    pass


def at_collection(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], None]) -> None:
    """Call ``act`` right after the ``number``-th collection's update, counted from now."""
    learn, count = Run.learn, iter(range(1, 10**6))

    def wrapped(self: Run, fresh: EpisodeBatch) -> Metrics:
        metrics = learn(self, fresh)
        if next(count) == number:
            act()
        return metrics

    monkeypatch.setattr(Run, "learn", wrapped)


def raise_signal(number: int) -> Callable[[], None]:
    return lambda: signal.raise_signal(number)


def crash() -> None:
    raise Crash


def assert_same_run(one: Path, other: Path) -> None:
    """Compare networks, optimizer, targets, replay, streams, clock, window, environments, generators and all rows."""
    a, b = newest_state(one), newest_state(other)
    assert differences(a[0], b[0]) == [] and differences(a[1], b[1]) == []
    assert rows(one, "metrics") == rows(other, "metrics")
    assert rows(one, "eval") == rows(other, "eval")


def assert_resumes_exactly(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *task: str,
    number: int = signal.SIGTERM,
    meanwhile: Callable[[], object] = lambda: None,
) -> Path:
    """Train twice below ``folder``, the second time stopped by a signal after three collections and continued after
    ``meanwhile``; compare both. Return the run that was not stopped."""
    whole, broken = folder / "whole", folder / "broken"
    done = train(whole, *task)
    with monkeypatch.context() as patch:
        at_collection(patch, 3, raise_signal(number))
        assert train(broken, *task) == {}
    assert not (broken / "DONE").exists()
    assert 0 < newest_state(broken)[0]["clock"]["env_steps"] < newest_state(whole)[0]["clock"]["env_steps"]
    meanwhile()
    assert train(broken, *task) == done
    assert_same_run(whole, broken)
    return whole


def test_a_run_says_which_physics_it_was_trained_with(tmp_path: Path) -> None:
    train(tmp_path / "run", *BATTLE, "train.total_steps=100", "algo.warmup_episodes=2")
    metas = [tmp_path / "run" / "meta.json", *tmp_path.glob("run/checkpoints/step_*/meta.json")]
    assert len(metas) > 1 and {json.loads(meta.read_text())["physics"] for meta in metas} == {VERSION}


def test_a_run_that_goes_on_under_other_physics_says_so(
    tmp_path: Path, straight: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(straight, tmp_path / "run")
    for meta in (tmp_path / "run").glob("checkpoints/step_*/meta.json"):
        meta.write_text(json.dumps({**json.loads(meta.read_text()), "physics": 7}))
    (tmp_path / "run" / "DONE").unlink()
    train(tmp_path / "run", "train.total_steps=900")
    assert "physics are now of version 1: this run began with version 7" in caplog.text


# resume


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ((), "SIGTERM"),
        (("algo=qplex", "env.fatal=true", "algo.learner.optimizer=rmsprop"), "SIGUSR1"),
        (BATTLE, "SIGINT"),
    ],
    ids=["corridor", "qplex", "battle"],
)
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one(
    task: tuple[str, ...], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile() -> None:  # what the process does then must not matter
        assert newest_state(tmp_path / "broken")[0]["clock"]["updates"] > 0
        torch.manual_seed(99)

    assert_resumes_exactly(tmp_path, monkeypatch, *task, number=getattr(signal, name), meanwhile=meanwhile)


def test_a_crashed_run_continues_from_its_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows written after the checkpoint, and a truncated line, are dropped and written again."""
    often = ("log.every=1", "train.total_steps=600")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(whole, *often)
    with monkeypatch.context() as patch:
        at_collection(patch, 5, crash)
        with pytest.raises(Crash):
            train(broken, *often)
    saved = newest_state(broken)[0]["clock"]["env_steps"]
    assert rows(broken, "metrics")[-1]["env_steps"] > saved > 0, "a row must be newer than the checkpoint"
    with (broken / "metrics.jsonl").open("a") as file:
        file.write('{"env_steps": 3')
    train(broken, *often)
    assert_same_run(whole, broken)


def test_more_steps_continue_a_finished_run(straight: Path, tmp_path: Path) -> None:
    longer = tmp_path / "longer"
    train(longer, "train.total_steps=200")
    train(longer)
    assert differences(newest_state(straight), newest_state(longer)) == []
    final = [row["env_steps"] for row in rows(longer, "eval") if row.get("final")]
    assert len(final) == 2 and json.loads((longer / "DONE").read_text())["env_steps"] == final[1]


@pytest.mark.parametrize("game", ["toy/corridor", "toy/shift", "spread"])
def test_a_continued_run_may_be_tested_in_another_number_of_lanes(
    game: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = (f"env={game}", "eval.episodes=4", "eval.final_episodes=8", "eval.every=100000")
    train(tmp_path / "one", *words, "train.total_steps=60")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    with caplog.at_level(logging.INFO):
        results = [train(tmp_path / name, *words, "train.total_steps=300", "eval.n_envs=4") for name in ("one", "two")]
    assert caplog.text.count("the tests' random streams start over: ") == 2
    assert results[0] == results[1] and results[0]["return"]["n"] == 8


def test_a_run_that_was_killed_just_before_done_has_its_last_row_once(straight: Path, tmp_path: Path) -> None:
    killed = Path(shutil.copytree(straight, tmp_path / "killed"))
    (killed / "DONE").unlink()
    train(killed)
    assert rows(killed, "eval") == rows(straight, "eval")


@pytest.mark.parametrize("options", [(), ("checkpoint.at_start=true",)])
def test_a_run_that_stopped_before_its_first_step_has_its_first_row_once(
    options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken, evaluate = tmp_path / "whole", tmp_path / "broken", Run.evaluate

    def interrupted(self: Run, episodes: int) -> Any:
        raise_signal(signal.SIGTERM)()
        return evaluate(self, episodes)

    train(whole, *options)
    with monkeypatch.context() as patch:
        patch.setattr(Run, "evaluate", interrupted)
        assert train(broken, *options) == {}
    assert newest_state(broken)[0]["clock"]["env_steps"] == 0
    train(broken, *options)
    assert_same_run(whole, broken)
    assert rows(whole, "eval") == rows(broken, "eval")


def test_a_finished_run_is_not_run_again(straight: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.stat().st_mtime_ns for path in straight.rglob("*")}
    monkeypatch.setattr("marl.run.trainer.open_run", lambda *_: pytest.fail("built again"))
    assert train(straight) == json.loads((straight / "DONE").read_text())["final"]
    assert {path: path.stat().st_mtime_ns for path in straight.rglob("*")} == before


def test_a_finished_run_whose_checkpoints_were_deleted_is_not_run_again(straight: Path, tmp_path: Path) -> None:
    kept = Path(shutil.copytree(straight, tmp_path / "kept"))
    shutil.rmtree(kept / "checkpoints")
    assert train(kept) == json.loads((straight / "DONE").read_text())["final"]
    with pytest.raises(ConfigError, match="was trained with another configuration"):
        train(kept, "algo.learner.lr=0.5")
    assert not (kept / "previous").exists() and not (kept / "checkpoints").exists()


def test_never_sets_the_old_run_aside_and_deletes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(folder, "train.total_steps=200")
    old = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    train(folder, "train.total_steps=200", "resume=never")
    for path, content in old.items():
        assert (folder / "previous" / "1" / path).read_bytes() == content
    assert_same_run(folder, folder / "previous" / "1")  # and it really began anew
    train(folder, "train.total_steps=100", "resume=never", "seed=5")
    assert sorted(path.name for path in (folder / "previous").iterdir()) == ["1", "2"]


def test_must_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"resume=must, but .* holds no usable checkpoint"):
        train(tmp_path / "run", "resume=must")
    assert not (tmp_path / "run").exists()


def test_another_configuration_is_refused_with_what_differs(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(folder, "train.total_steps=100", "algo.learner.lr=0.001")
    state = newest_state(folder)
    with pytest.raises(ConfigError) as refused:
        train(folder, "algo.learner.lr=0.01", "env.length=5", "eval.every=50", "log.every=7")
    message = str(refused.value)
    assert "algo.learner.lr: 0.001 -> 0.01" in message and "env.length: 4 -> 5" in message
    assert "eval" not in message and "log." not in message, "these may change"
    assert differences(newest_state(folder), state) == []


def test_a_damaged_newest_checkpoint_costs_only_the_steps_since(
    straight: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    damaged = tmp_path / "damaged"
    shutil.copytree(straight, damaged)
    newest, before = checkpoint.folders(damaged / "checkpoints")
    (newest / "state.pt").write_bytes(b"not a checkpoint")
    (damaged / "DONE").unlink()
    train(damaged)
    assert f"{newest.name}/state.pt is damaged" in caplog.text and f"from {before}" in caplog.text
    assert_same_run(straight, damaged)


def test_without_the_replay_resume_works_and_says_that_it_is_not_exact(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    train(folder, "train.total_steps=200", "checkpoint.replay=false")
    found = checkpoint.newest(folder / "checkpoints")
    assert found is not None and found[1]["exact"] is False and newest_state(folder)[1] is None
    train(folder, "checkpoint.replay=false")
    assert "no replay" in caplog.text and (folder / "DONE").exists()


@pytest.mark.parametrize(
    ("before", "after", "every", "expected"),
    [(0, 99, 100, False), (0, 100, 100, True), (99, 100, 100, True), (100, 199, 100, False), (90, 310, 100, True),
     (0, 100, None, False)],
)  # fmt: skip
def test_schedules_count_multiples(before: int, after: int, every: int | None, expected: bool) -> None:
    assert crossed(before, after, every) is expected


# parts that must not influence each other


def weights(folder: Path) -> Any:
    return newest_state(folder)[0]["algo"]


def test_milestones_need_no_checkpoint_that_is_due_anyway(tmp_path: Path) -> None:
    """250 and 750 lie between the multiples of 400."""
    train(tmp_path / "run", "train.total_steps=1000", "checkpoint.every=400", "checkpoint.milestone=250")
    marked = [folder for folder in (tmp_path / "run" / "checkpoints").glob("step_*") if (folder / "MILESTONE").exists()]
    steps = sorted(int(folder.name.removeprefix("step_")) for folder in marked)
    assert [step // 250 for step in steps] == [1, 2, 3, 4], steps


def test_same_seed_same_run_other_seed_other_run(tmp_path: Path) -> None:
    train(tmp_path / "one", "seed=3")
    train(tmp_path / "two", "seed=3")
    train(tmp_path / "three", "seed=4")
    assert_same_run(tmp_path / "one", tmp_path / "two")
    assert differences(weights(tmp_path / "one"), weights(tmp_path / "three")) != []


def test_evaluation_saving_and_logging_do_not_change_training(straight: Path, tmp_path: Path) -> None:
    train(tmp_path / "two", "eval.every=30", "eval.episodes=3", "eval.n_envs=2", "checkpoint.every=50", "log.every=9")
    assert differences(weights(straight), weights(tmp_path / "two")) == []
    assert len(rows(tmp_path / "two", "eval")) > len(rows(straight, "eval"))


def test_an_attack_that_only_draws_numbers_changes_nothing(straight: Path, tmp_path: Path) -> None:
    train(tmp_path / "watched", "attack._target_=tests.support.helpers.Bystander")
    assert differences(weights(straight), weights(tmp_path / "watched")) == []
    streams = [newest_state(folder)[0]["streams"] for folder in (straight, tmp_path / "watched")]
    assert differences(*streams) == ["/attack"]


# files of a run


def test_scalars_have_the_documented_names(straight: Path) -> None:
    clock = {"env_steps", "episodes", "updates"}
    metrics, tests = rows(straight, "metrics"), rows(straight, "eval")
    names = {
        "train/return", "train/win_rate", "train/length", "train/epsilon", "loss/td", "q/taken", "q/target", "q/td_abs",
        "optim/grad_norm", "replay/episodes", "time/lane_use",
    }  # fmt: skip
    assert set(metrics[-1]) == clock | names
    raw = json.loads((straight / "metrics.jsonl").read_text().splitlines()[-1])
    assert set(raw) - set(metrics[-1]) == {"time/collect_s", "time/update_s", "time/env_steps_per_s"}
    means = {f"eval/{name}" for name in ("return", "win_rate", "length")}
    bounds = {f"{name}_{end}" for name in means for end in ("low", "high")}
    assert set(tests[0]) == clock | means | bounds | {"test_episodes"}
    assert set(tests[-1]) == set(tests[0]) | {"final"}
    assert all(math.isfinite(v) for row in metrics + tests for v in row.values())
    assert [row["env_steps"] for row in tests] == sorted(row["env_steps"] for row in tests)
    assert tests[0]["env_steps"] == 0, "a curve starts before the first step"
