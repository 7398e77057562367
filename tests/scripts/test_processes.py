"""Real processes and real signals, for everything that starts processes: what it starts ends with it, whatever ends it,
and a run of a sweep that fails ends no other."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from marl.run import checkpoint
from tests.support.helpers import TINY
from tests.support.helpers import train as train_here
from tests.support.processes import alive, descendants, output_of, said, start, wait_until

LONG = (*TINY, "train.total_steps=100000000", "log.every=8", "eval.every=1000000", "checkpoint.every=1000000")
POOL = ("env=gym", "env.env=tests.support.games:Pair", "env.episode_limit=4", "env.workers=2")
JOBLIB = ("launch=joblib", "hydra.launcher.n_jobs=2")
LAUNCHERS = {"local": (), "joblib": JOBLIB, "submitit": ("hydra/launcher=submitit_local",)}
FOREVER = ("episodes=100000000", "n_envs=8", "jobs=2")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a trained run."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    train_here(folder)
    return folder


@dataclass(frozen=True)
class Parent:
    """A command that works in several processes: ``training`` that many runs, or with ``workers`` of the interpreter's
    own kind."""

    script: str
    words: tuple[str, ...]
    training: int = 0
    workers: int = 0

    def begin(self, folder: Path, run: Path) -> subprocess.Popen[str]:
        """Start the command; return once its work is under way."""
        words = [word.replace("RUN", str(run)) for word in self.words]
        process = start(self.script, *words, cwd=folder)

        def under_way() -> bool:
            spawned = sum("spawn_main" in said(child) for child in descendants(process.pid))
            return spawned >= self.workers and len(list(folder.rglob("metrics.jsonl"))) >= self.training

        wait_until(under_way, process)
        return process


def reproduce(jobs: int, measure: str, *overrides: str) -> Parent:
    words = (
        "table=s2q_tenfold", "table.train=['algo=vdn seed=0,1']", f"table.measure={{s2q_tenfold: '{measure}'}}",
        f"jobs={jobs}", f"overrides={[*overrides]}",
    )  # fmt: skip
    return Parent("reproduce", words, jobs)


PARENTS = {
    "train": Parent("train", (*LONG, *POOL, "runs_dir=runs"), training=1, workers=4),  # two lanes' and two to test
    "sweep, local": Parent("train", ("-m", *LONG, *POOL, "seed=0,1", "runs_dir=runs"), training=1, workers=4),
    "sweep, joblib": Parent(
        "train", ("-m", *LONG, *POOL, *JOBLIB, "seed=0,1", "runs_dir=runs"), training=2, workers=8
    ),
    "robustness": Parent("robustness", ("runs=['RUN']", "suite=quick", *FOREVER), workers=2),
    "leaderboard": Parent("leaderboard", ("runs=['RUN']", "by=us", "suite=quick", *FOREVER), workers=2),
    "crossplay": Parent("crossplay", ("runs=['RUN']", "partners=simple", *FOREVER), workers=1),
    "reproduce": reproduce(2, "plot runs=runs/**", *LONG),
    "reproduce, measuring": reproduce(1, "robustness runs=[runs/**] suite=quick episodes=100000000", *TINY),
}  # fmt: skip
LIKE_ROBUSTNESS = ("leaderboard", "crossplay")  # they share the code of its workers


def nothing_damaged(folder: Path) -> int:
    """Return how many checkpoints lie below ``folder``; all of them are whole."""
    return len([checkpoint.verify(path) for path in folder.rglob("checkpoints/step_*")])


@pytest.mark.parametrize("name", PARENTS)
def test_sigterm_ends_it_all_and_runs_are_saved(name: str, run: Path, tmp_path: Path) -> None:
    """The signal reaches the parent alone, as from ``kill`` or a supervisor."""
    parent = PARENTS[name]
    process = parent.begin(tmp_path, run)
    children = descendants(process.pid)
    os.kill(process.pid, signal.SIGTERM)
    output = output_of(process)
    assert process.returncode == 0 and "Traceback" not in output, output
    assert "SIGTERM: stopping" in output and "stopped by SIGTERM" in output, output
    wait_until(lambda: not any(map(alive, children)))
    assert nothing_damaged(tmp_path) >= parent.training
    assert not list(tmp_path.rglob(".sweep-*"))


@pytest.mark.parametrize("name", [name for name in PARENTS if name not in LIKE_ROBUSTNESS])
def test_a_killed_parent_leaves_no_process_and_no_damaged_file(name: str, run: Path, tmp_path: Path) -> None:
    process = PARENTS[name].begin(tmp_path, run)
    children = descendants(process.pid)
    assert children
    process.kill()
    process.wait()
    wait_until(lambda: not any(map(alive, children)))
    nothing_damaged(tmp_path)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_run_that_fails_ends_no_other_of_its_sweep(launcher: str, tmp_path: Path) -> None:
    """One is refused, one diverges, and the last one is well."""
    changes = ("algo.learner.lr=-1,1e30,0.0005",)
    process = start("train", "-m", *TINY, *changes, *LAUNCHERS[launcher], f"runs_dir={tmp_path / 'runs'}", cwd=tmp_path)
    output = output_of(process)
    summary = output.strip().splitlines()[-1]
    assert process.returncode == 1 and "Traceback" not in output, output
    assert summary.startswith("error: 1 of 3 runs finished; failed: runs/"), output
    assert summary.count("lr=-1 must be") == 1 and summary.count("Nothing was saved since") == 1
    (done,) = tmp_path.rglob("DONE")
    assert "algo.learner.lr=0.0005" in str(done) and not list(tmp_path.rglob(".sweep-*"))


def test_slurm_is_not_mistaken_for_this_machine(tmp_path: Path) -> None:
    for words, line in (((), "launch=slurm needs -m"), (("-m",), "launch=slurm needs Slurm")):
        process = start("train", *words, *TINY, "launch=slurm", f"runs_dir={tmp_path / 'runs'}", env={"PATH": ""})
        output = output_of(process)
        assert process.returncode == 2 and line in output and len(output.splitlines()) == 1, output
    assert not list(tmp_path.iterdir())


IN_PROCESSES = ("pair", "countdown", "lbf", "mpe/spread")
COMPILED = (
    "foraging", "mds_mini", "pushbox", "spread", "staghunt", "posts", "lock", "skirmish/3m", "overcooked/cramped_room"
)  # fmt: skip
GAMES = {
    "local": (*IN_PROCESSES, *COMPILED, "toy/matrix", "toy/shift"),
    "joblib": (*IN_PROCESSES, "lock", "toy/matrix"),
}


@pytest.mark.parametrize("launcher", GAMES)
def test_every_kind_of_game_is_trained_by_every_launcher(launcher: str, tmp_path: Path) -> None:
    """Games of the process pool start processes of their own, also inside a worker of joblib."""
    games = tmp_path / "conf" / "env"
    games.mkdir(parents=True)
    for name, adapter, game in (("pair", "gym", "Pair"), ("countdown", "pettingzoo", "Countdown")):
        text = f"defaults: [{adapter}]\nenv: tests.support.games:{game}\nepisode_limit: 4\n"
        (games / f"{name}.yaml").write_text(text)
    process = start(
        "train", "--config-dir", str(games.parent), "-m", *LAUNCHERS[launcher], f"runs_dir={tmp_path / 'runs'}",
        *TINY[1:],
        f"env={','.join(GAMES[launcher])}", "train.total_steps=8", "train.n_envs=2", "eval.n_envs=2", "eval.episodes=2",
        "eval.final_episodes=2", "algo.batch_size=2", "algo.warmup_episodes=2", "algo.episodes_per_update=2",
    )  # fmt: skip
    output = output_of(process)
    assert process.returncode == 0, output
    assert {path.parents[1].parent.name for path in tmp_path.rglob("DONE")} == {
        name.replace("/", "-") for name in GAMES[launcher]
    }
