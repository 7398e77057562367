"""Sweeps: what they leave, and what no sweep can do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from marl.core.types import ConfigError
from marl.run.sweep import Sweep
from tests.support.helpers import TINY, command, newest_state
from tests.support.processes import ROOT


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
