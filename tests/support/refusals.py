"""Commands that must be refused, each in a process of its own that is forked from one with everything imported.

A table maps a command line, as one would type it after ``python -m scripts.``, to what the line on stderr must say.
``Ground`` runs such commands in a folder with a few trained runs, and says what they answered and wrote.
"""

from __future__ import annotations

import re
import runpy
import shlex
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import marl
from scripts.main import exit_codes
from tests.support.helpers import TINY
from tests.support.prefork import call

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 300.0  # a command that is still working then was accepted
Snapshot = dict[str, tuple[int, int, int]]


@dataclass(frozen=True)
class Answer:
    """What a command left behind: exit code (None: it was still working), its output, and what it changed on disk."""

    code: int | None
    out: str
    err: str
    changed: list[str]


def in_a_child(work: Any, *arguments: Any, cwd: Path) -> tuple[int | None, str, str]:
    """Call ``work(*arguments)`` in a forked process that works in the folder ``cwd``; return its exit code and what it
    wrote to stdout and stderr."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        code = call(work, *arguments, cwd=cwd, out=out.fileno(), err=err.fileno(), limit=LIMIT_S)
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode())
        return code, *said


def script(line: str) -> None:
    """Run a script as its ``python -m`` does; ``line`` is its name and its options. After the word ``library`` stands
    an expression of Python, whose ConfigError is printed as a script prints it."""
    if line.startswith("library "):
        with exit_codes():
            eval(line.removeprefix("library "), {"marl": marl})
        return
    name, *options = shlex.split(line)
    path = str(ROOT / "scripts" / f"{name}.py")
    sys.argv = [path, *options]
    runpy.run_path(path, run_name="__main__")


def snapshot(folder: Path) -> Snapshot:
    """Return every file and folder below ``folder`` with its identity; of a file also size and time of change."""
    found: Snapshot = {}
    for path in folder.rglob("*"):
        stat = path.lstat()
        size, changed = (0, 0) if path.is_dir() else (stat.st_size, stat.st_mtime_ns)
        found[str(path.relative_to(folder))] = (stat.st_ino, size, changed)
    return found


class Ground:
    """A folder in which commands are tried: ``team``, ``rival`` and ``other`` are trained runs, ``file`` is a file,
    ``own`` holds configurations that cannot be read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "file").write_text("not what you are looking for\n")
        (folder / "empty").mkdir()
        (folder / "own" / "algo").mkdir(parents=True)
        (folder / "own" / "algo" / "broken.yaml").write_text("defaults: [base]\nhooks:\n  x: {a: 1\n  b: 2\n")
        (folder / "own" / "algo" / "latin.yaml").write_bytes(b"defaults: [base, _self_]\n# caf\xe9\n")
        (folder / "runs").mkdir()
        (folder / "runs" / "multirun.yaml").write_text("# of a sweep before\n")
        code, _, err = in_a_child(prepare, cwd=folder)
        assert code == 0, err

    def answer(self, line: str) -> Answer:
        """Run one command."""
        before = snapshot(self.folder)
        code, out, err = in_a_child(script, line, cwd=self.folder)
        after = snapshot(self.folder)
        changed = [path for path in sorted(before.keys() | after.keys()) if before.get(path) != after.get(path)]
        return Answer(code, out, err, changed)


def prepare() -> None:
    """Train what the commands need: two seeds of a team, and one that plays another game."""
    short = (*TINY, "train.total_steps=60", "eval.episodes=2", "eval.final_episodes=2", "log.progress=off")
    marl.train(*short, "run_path=study/toy-corridor/qmix-none/seed0", dir="team")
    marl.train(*short, "run_path=study/toy-corridor/vdn-none/seed1", "seed=1", "algo=vdn", dir="rival")
    marl.train(*short, "run_path=study/toy-matrix/qmix-none/seed2", "seed=2", "env=toy/matrix", dir="other")


def faults(line: str, expected: str, answer: Answer) -> list[str]:
    """Return what is wrong with the answer to a command that must be refused in one line with the ``expected`` words;
    " ... " in them stands for anything."""
    told = [words for words in answer.err.splitlines() if words.startswith("error: ")]
    wrong = []
    if answer.code != 2:
        wrong.append(f"exit code {answer.code}")
    if "Traceback" in answer.out + answer.err:
        wrong.append("a traceback")
    if len(told) != 1 or answer.err.strip() != told[0]:
        wrong.append(f"not exactly one line: {answer.err[-400:]}")
    elif not re.search(".*".join(re.escape(part.strip()) for part in expected.split("...")), told[0]):
        wrong.append(f"'{told[0]}' does not say '{expected}'")
    if answer.changed:
        wrong.append(f"changed {', '.join(answer.changed[:5])}")
    return [f"{line}: {fault}" for fault in wrong]
