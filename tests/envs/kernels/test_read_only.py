"""An installation that may not be written, used by somebody without a home."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import DEADLINE_S, ROOT

PACKAGES = ("marl", "envs", "algos", "attacks", "conf", "scripts")
SCRIPT = """
import sys, tempfile
tempfile.tempdir = sys.argv.pop(1)
import runpy
sys.argv[0] = "scripts/train.py"
runpy.run_module("scripts.train", run_name="__main__")
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Return a folder with the packages, in which numba cannot write: files stand where its folders would be, which
    stops root too."""
    folder = tmp_path / "installed"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in [path for path in folder.rglob("*") if path.is_dir()]:
        (path / "__pycache__").touch()
    return folder


def train(installed: Path, temporary: Path) -> subprocess.CompletedProcess[str]:
    """Train a moment in a game whose rules are compiled."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("NUMBA_", "XDG_"))}
    environment |= {"HOME": "/dev/null", "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(temporary), "env=spread", "train.total_steps=50", "train.n_envs=1",
         "eval.episodes=1", "eval.final_episodes=1", "log.to=[]", "runs_dir=runs"],
        cwd=installed.parent, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip


def test_it_compiles_in_a_temporary_folder_and_says_so_once(installed: Path) -> None:
    temporary = installed.parent / "temporary"
    temporary.mkdir()
    done = train(installed, temporary)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("NUMBA_CACHE_DIR") == 1 and "Traceback" not in done.stderr
    assert list(installed.parent.rglob("DONE")) and not list(temporary.glob("compiled-*"))


def test_without_any_room_it_says_what_to_set(installed: Path) -> None:
    done = train(installed, Path("/dev/null"))
    assert len(done.stderr.splitlines()) == 1, done.stderr
    line = done.stderr
    assert done.returncode == 2 and "set NUMBA_CACHE_DIR to a folder that can be written" in line
    assert not list(installed.parent.rglob("checkpoints"))
