"""Kill running commands at random moments and look at what is lost: ``python -m tests.kills training times=50``.

Each kind of command (``COMMANDS``) first runs undisturbed. Then the same command is begun in another folder, killed
(SIGKILL, its first process alone) after a random share of the time that it needs, begun again, and so on until it has
been killed ``times`` times; whenever it finishes it starts over in a new folder. After every kill no process of it may
remain and no checkpoint or finished cell may have gone; what it leaves in the end must equal the undisturbed results.
Takes minutes, so it is no test of ``make test``; those of single kills are in ``tests/scripts/test_processes.py``.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.helpers import differences, newest_state, rows
from tests.support.processes import alive, descendants, start

LEARN = (
    "env=toy/corridor", "train.n_envs=8", "eval.every=4000", "eval.episodes=8", "eval.final_episodes=8",
    "eval.n_envs=8", "log.every=400", "checkpoint.every=800", "replay.capacity=64", "algo.batch_size=8",
    "algo.agent.hidden_dim=16", "log.to=[]", "log.progress=off", "threads=1", "device=cpu",
)  # fmt: skip
SHORTER = ("train.total_steps=3000",)
MATRIX = "robustness runs=runs suite=quick episodes=400 n_envs=8 out=out"
GONE_S = 120  # for what remains of a killed command


def runs_left(folder: Path) -> dict[str, Any]:
    """Return the networks, clocks and rows of all runs below ``folder``."""
    left: dict[str, Any] = {}
    for done in sorted(folder.rglob("DONE")):
        run, state = done.parent, newest_state(done.parent)[0]
        name = str(run.relative_to(folder))
        left[name] = {"state": state, "metrics": rows(run, "metrics"), "eval": rows(run, "eval")}
    return left


def matrix_left(folder: Path) -> dict[str, Any]:
    """Return the numbers of the matrices below ``folder``, and its runs."""
    tables = {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("matrix.csv"))}
    return {"tables": tables, "runs": runs_left(folder)}


def pieces(folder: Path) -> int:
    """Count what is safe once it is written: steps in the newest checkpoints, finished runs and cells."""
    newest = [max(map(int, (p.name[5:] for p in run.glob("step_*")))) for run in folder.rglob("checkpoints")
              if any(run.glob("step_*"))]  # fmt: skip
    return sum(newest) + len(list(folder.rglob("DONE"))) + len(list(folder.rglob("cells/*.json")))


@dataclass(frozen=True)
class Kind:
    """A command, and what it leaves."""

    script: str
    words: tuple[str, ...]
    left: Callable[[Path], dict[str, Any]]


COMMANDS = {
    "training": Kind("train", (*LEARN, "train.total_steps=20000", "hydra.run.dir=run"), runs_left),
    "robustness": Kind(
        "robustness",
        ("runs=['runs/**']", "suite=ibal", "only=[natural,random,single,fgsm,rand_obs,dis1_idle]", "episodes=2000",
         "n_envs=8", "jobs=2", "out=out"), matrix_left,
    ),
    "reproduce": Kind(
        "reproduce",
        ("table=s2q_shift", "table.train=['algo=vdn,iql seed=0,1']", "jobs=2", f"overrides={[*LEARN, *SHORTER]}",
         f"table.measure={{s2q_shift: {MATRIX!r}, s2q_shift_ablations: 'plot runs=runs out=plots'}}"), matrix_left,
    ),
    "sweep": Kind(
        "train",
        ("-m", "launch=joblib", "hydra.launcher.n_jobs=2", "seed=0,1,2", *LEARN, "train.total_steps=4000"),
        runs_left,
    ),
}  # fmt: skip


def prepare(kind: str, folder: Path) -> None:
    """Put into ``folder`` what the command needs."""
    folder.mkdir(parents=True)
    if kind == "robustness":
        for seed in (0, 1):
            words = (
                *LEARN,
                "train.total_steps=1600",
                f"seed={seed}",
                f"hydra.run.dir=runs/study/game/vdn-none/seed{seed}",
            )
            process = start("train", *words, cwd=folder)
            said = process.communicate()[0]
            assert process.returncode == 0, said


def run_once(kind: Kind, folder: Path, kill_after: float | None) -> tuple[bool, str]:
    """Run the command in ``folder``; kill it after some seconds. Return whether it finished, and what it said."""
    process = start(kind.script, *kind.words, cwd=folder, start_new_session=True)
    began, family = time.monotonic(), set()
    while process.poll() is None:
        family |= descendants(process.pid)
        if kill_after is not None and time.monotonic() - began > kill_after:
            process.send_signal(signal.SIGKILL)
            process.wait()
            break
        time.sleep(0.05)
    deadline = time.monotonic() + GONE_S
    while left := [child for child in family if alive(child)]:
        assert time.monotonic() < deadline, f"left running: {left}"
        time.sleep(0.1)
    said = process.communicate()[0]
    assert process.returncode in (0, -signal.SIGKILL), said
    assert "Traceback" not in said, said
    return process.returncode == 0, said


def main(kind_name: str, times: int, seed: int) -> None:
    """Kill ``kind_name`` that many times; say what happened."""
    kind, dice = COMMANDS[kind_name], random.Random(seed)
    top = Path(tempfile.mkdtemp(prefix=f"kills-{kind_name}-"))
    prepare(kind_name, top / "needed")
    whole = top / "whole"
    shutil.copytree(top / "needed", whole)
    began = time.monotonic()
    finished, said = run_once(kind, whole, None)
    assert finished, said
    expected = kind.left(whole)
    assert expected, "nothing to compare"
    seconds = time.monotonic() - began
    print(f"{kind_name}: undisturbed {seconds:.0f} s, leaves {sorted(expected)}", flush=True)
    kills = rounds = 0
    while kills < times:
        folder = top / f"round{rounds}"
        shutil.copytree(top / "needed", folder)
        finished, safe = False, 0
        while not finished:
            after = dice.uniform(0.02, 0.9) * seconds if kills < times else None
            finished, said = run_once(kind, folder, after)
            now = pieces(folder)
            assert finished or now >= safe, f"lost: {safe} before, {now} after"
            safe, kills = now, kills + (not finished)
            if not finished:
                print(f"kill {kills} after {after:.1f} s: {now} safe", flush=True)
        found = kind.left(folder)
        wrong = differences(expected, found)
        assert not wrong, wrong
        rounds += 1
        print(f"round {rounds}: equal after {kills} kills", flush=True)
    print(json.dumps({"kind": kind_name, "kills": kills, "rounds": rounds, "seed": seed, "equal": True}))
    shutil.rmtree(top)


if __name__ == "__main__":
    options = dict(word.split("=") for word in sys.argv[2:])
    main(sys.argv[1], int(options.get("times", 50)), int(options.get("seed", 0)))
