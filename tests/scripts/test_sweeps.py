"""Sweeps: what they leave, what no sweep can do, and what a signal between training and the end does."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from marl.core.types import ConfigError
from marl.run.sweep import Sweep
from marl.run.trainer import Run
from tests.support.helpers import TINY, command, newest_state
from tests.support.processes import ROOT, run


def test_a_sweep_leaves_one_run_folder_each(tmp_path: Path) -> None:
    small = ("train.total_steps=100", "algo.batch_size=8", "algo.warmup_episodes=8", "train.n_envs=8", "threads=1",
             "eval.episodes=4", "eval.final_episodes=4", "log.every=50", "log.to=[]")  # fmt: skip
    arguments = ("-m", "algo=iql,vdn", "seed=0,1", "env=toy/corridor", f"runs_dir={tmp_path}", *small)
    done = subprocess.run(
        [sys.executable, "-m", "scripts.train", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    left = {(folder.parent.name, folder.name[-5:]) for folder in sorted(tmp_path.rglob("*seed?"))}
    assert left == {(f"{algo}-none", f"seed{seed}") for algo in ("iql", "vdn") for seed in (0, 1)}
    for folder in sorted(tmp_path.rglob("*seed?")):
        assert (folder / "DONE").exists() and newest_state(folder)[0]["clock"]["env_steps"] >= 100


@pytest.mark.parametrize("launcher", [[], ["launch=joblib"]])
def test_runs_of_a_sweep_that_would_share_a_folder_are_refused(
    launcher: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The second would continue the first, or report its results as its own."""
    given = [o for o in TINY if not o.startswith(("train.total_steps", "eval.final_episodes"))]
    done = subprocess.run(
        [sys.executable, "-m", "scripts.train", "-m", *given, *launcher, "train.total_steps=50",
         "eval.final_episodes=3,4", f"runs_dir={tmp_path}"],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 1 and "2 runs: 1 finished, 1 failed" in done.stderr + done.stdout, done.stderr
    assert "differs in eval.final_episodes=3, eval.final_episodes=4: such options name no folder" in done.stderr


def test_a_search_may_come_to_the_same_run_twice() -> None:
    sweep = Sweep()
    sweep.claim("runs/a", ["seed=1", "algo=vdn"])
    sweep.claim("runs/a", ["algo=vdn", "seed=1"])
    with pytest.raises(ConfigError, match=r"differs in train.total_steps=9"):
        sweep.claim("runs/a", ["algo=vdn", "seed=1", "train.total_steps=9"])


def test_a_sweeps_file_stays_when_another_command_follows_in_the_same_process(tmp_path: Path) -> None:
    short = [o for o in TINY if not o.startswith("train.total_steps")]
    command("train", "-m", *short, "train.total_steps=50", "seed=0,1", f"runs_dir={tmp_path}", "log.progress=off")
    written = (tmp_path / "multirun.yaml").read_bytes()
    command("train", *short, "train.total_steps=50", "seed=2", f"runs_dir={tmp_path}", "log.progress=off")
    assert (tmp_path / "multirun.yaml").read_bytes() == written


@pytest.mark.parametrize("rank", [0, 1])
def test_torchrun_trains_no_sweep(rank: int, tmp_path: Path) -> None:
    """Where one process fails in a run, it would go on to the next one while the others are still in the first."""
    ranks = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    begun = "log.every=-1"  # refused too, but by each run: a sweep that does begin waits for no other process
    done = run("train", "-m", *TINY, begun, "seed=0,1", "runs_dir=runs", cwd=tmp_path, env=ranks)
    said = "error: torchrun trains one run at a time, with its 2 processes; leave out -m\n"
    assert (done.returncode, done.stderr) == (2, said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
def test_a_signal_during_the_final_test_stops_the_rest_of_a_sweep(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The run itself keeps the results of that test."""
    evaluate = Run.evaluate

    def interrupted(self: Run, episodes: int) -> Any:
        if episodes == 9:
            signal.raise_signal(signal.Signals[name])
        return evaluate(self, episodes)

    monkeypatch.setattr(Run, "evaluate", interrupted)
    given = [o for o in TINY if not o.startswith(("train.total_steps", "eval.final_episodes"))]
    words = (*given, "train.total_steps=50", "eval.final_episodes=9", f"runs_dir={tmp_path}", "log.progress=off")
    command("train", "-m", *words, "seed=0,1,2")
    said = capfd.readouterr()
    (done,) = tmp_path.rglob("DONE")
    assert done.parent.name.endswith("seed0") and json.loads(done.read_text())["final"]["return"]
    assert "3 runs: 1 finished, 2 stopped" in said.out and not list(tmp_path.rglob("*seed[12]"))
    monkeypatch.setattr(Run, "evaluate", evaluate)
    command("train", "-m", *words, "seed=0,1,2")
    assert "3 runs: 3 finished" in capfd.readouterr().out, "the signal was for the other command"


def test_a_run_says_the_command_of_its_user_wherever_it_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker of Slurm or Ray has a command of its own."""
    learn = Run.learn

    def elsewhere(*given: Any) -> Any:
        monkeypatch.setattr(sys, "argv", ["/site-packages/submitit/core/_submit.py", "job"])
        return learn(*given)

    monkeypatch.setattr(Run, "learn", elsewhere)
    short = [o for o in TINY if not o.startswith("train.total_steps")]
    command("train", "-m", *short, "train.total_steps=50", "seed=0,1", f"runs_dir={tmp_path}", "log.progress=off")
    metas = [json.loads(path.read_text()) for path in tmp_path.rglob("meta.json")]
    assert len(metas) == 4, "of two runs and of their checkpoints"
    for meta in metas:
        called = meta["command"]
        assert called.startswith("python -m scripts.train -m env=toy/corridor") and "seed=0,1" in called
