"""Two methods that are trained a little, and boards that are made of them and checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.helpers import TINY, command

SMALL = ("suite=quick", "episodes=10", "n_envs=4", "suite.columns.random.attack.p=0.5")


def train_two(folder: Path) -> Path:
    """Train a method of two seeds, "ours", and one of a single seed, "theirs", below a folder; return it."""
    for name, seed in (("ours", 0), ("ours", 1), ("theirs", 0)):
        command("train", *TINY, f"seed={seed}", f"runs_dir={folder}", "log.progress=off", f"name={name}",
                f"train.total_steps={400 if name == 'ours' else 100}")  # fmt: skip
    return folder


def added(folder: Path, runs: Path, *arguments: str, by: str = "us") -> list[dict[str, Any]]:
    """Add runs to the board of a folder and return its entries."""
    command("leaderboard", f"file={folder}/board.json", f"runs=['{runs}']", f"out={folder}/out", f"by='{by}'",
            *SMALL, *arguments)  # fmt: skip
    return read(folder)["entries"]


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "board.json").read_text())


def check(folder: Path, runs: Path, text: str, *arguments: str) -> int:
    """Check a board against runs; return the exit code. The file stays as it was."""
    path = folder / "board.json"
    path.write_text(text)
    before = path.stat().st_mtime_ns
    try:
        command("leaderboard", f"file={path}", "check=true", f"runs=['{runs}/**']", f"out={folder}/out", *SMALL,
                *arguments)  # fmt: skip
        code = 0
    except SystemExit as left:
        assert isinstance(left.code, int)
        code = left.code
    assert path.read_text() == text and path.stat().st_mtime_ns == before
    return code


def changed(text: str, **changes: Any) -> str:
    """Return a board with other values in its first entry."""
    tree = json.loads(text)
    tree["entries"][0] |= changes
    return json.dumps(tree, indent=1) + "\n"
