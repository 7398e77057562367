"""Real processes and real signals: a run, and a sweep of runs, save, end cleanly and continue."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import processes
from tests.support.helpers import newest_state
from tests.support.prefork import quick_python
from tests.support.processes import ROOT, wait_until

WORDS = ("env=toy/corridor", "train.n_envs=4", "algo.batch_size=4", "algo.warmup_episodes=4", "log.every=100",
         "log.to=[]", "algo.episodes_per_update=4", "threads=1")  # fmt: skip


def start(runs: Path, *overrides: str, **options: Any) -> subprocess.Popen[str]:
    return processes.start("train", *WORDS, f"runs_dir={runs}", *overrides, **options)


def wait_for(found: Callable[[], list[Path]], process: subprocess.Popen[str]) -> Path:
    deadline = time.monotonic() + 600
    while not (paths := found()):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the run did not begin within ten minutes"
        time.sleep(0.1)
    return paths[0].parent


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_exits_cleanly_and_the_same_command_resumes(number: signal.Signals, tmp_path: Path) -> None:
    process = start(tmp_path, "train.total_steps=100000000")
    folder = wait_for(lambda: list(tmp_path.rglob("metrics.jsonl")), process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert f"stopped by {number.name}" in output and "the same command continues" in output
    state, replay = newest_state(folder)
    assert state["clock"]["env_steps"] > 0 and replay is not None
    if number == signal.SIGTERM:
        steps = state["clock"]["env_steps"]
        again = processes.run("train", *WORDS, f"runs_dir={tmp_path}", f"train.total_steps={steps + 100}", cwd=ROOT)
        assert again.returncode == 0 and f"continuing at step {steps:,}" in again.stderr, again.stderr
        assert (folder / "DONE").exists() and newest_state(folder)[0]["clock"]["env_steps"] >= steps + 100


def test_a_run_that_nobody_listens_to_any_more_saves_when_it_is_asked_to_stop(tmp_path: Path) -> None:
    """As in ``... 2>&1 | tee log``, where Ctrl-C ends tee first."""
    process = start(tmp_path, "train.total_steps=100000000")
    assert process.stdout is not None
    process.stdout.close()
    wait_until(lambda: list(tmp_path.rglob("metrics.jsonl")))
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=600) == 0
    assert newest_state(next(tmp_path.rglob("metrics.jsonl")).parent)[0]["clock"]["env_steps"] > 0


def test_a_run_that_fails_unheard_ends_no_other_of_its_sweep(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    words = (*WORDS, f"runs_dir={tmp_path}", "train.total_steps=50", "env.length=1,6", "-m")  # refused, and trained
    called = [str(quick_python()), "-m", "scripts.train", *words]
    done = subprocess.run(called, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=writer, stderr=writer, timeout=600)
    os.close(writer)
    assert done.returncode == 1
    assert len(list(tmp_path.rglob("DONE"))) == 1


@pytest.mark.parametrize("launch", [("launch=local",), ("launch=joblib", "hydra.launcher.n_jobs=2")])
def test_ctrl_c_stops_a_sweep_once_its_runs_have_saved(launch: tuple[str, ...], tmp_path: Path) -> None:
    process = start(tmp_path, "seed=0,1,2", "train.total_steps=100000000", *launch, "-m", start_new_session=True)
    begun = len(launch)  # one run here, two there
    wait_for(lambda: found if len(found := list(tmp_path.rglob("metrics.jsonl"))) == begun else [], process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes of the sweep
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0 and "Traceback" not in output, output
    assert output.count("stopped by SIGINT") == begun and output.count("not begun") == 3 - begun
    assert len({path.parent.parent for path in tmp_path.rglob("checkpoints/step_*")}) == begun
