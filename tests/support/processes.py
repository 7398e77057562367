"""Scripts in processes of their own, real ones and quick ones, and the processes that they start."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.main import CONF
from tests.support.prefork import quick_python

ROOT = CONF.parent
DEADLINE_S = 900  # for anything that only has to happen at some time


def start(script: str, *words: str, **options: Any) -> subprocess.Popen[str]:
    """Start ``python -m scripts.<script> <words>`` with its output in a pipe, buffered as everywhere by default."""
    ours = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": ""}
    environment = {**os.environ, **ours, **options.pop("env", {})}
    return subprocess.Popen(
        [sys.executable, "-m", f"scripts.{script}", *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, **{"cwd": ROOT, **options},
    )  # fmt: skip


def run(script: str, *words: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a script to its end as ``python -m scripts.<script> <words>`` would, in a fork of a process that has imported
    everything (``tests.support.prefork``)."""
    return subprocess.run(
        [str(quick_python()), "-m", f"scripts.{script}", *words], cwd=cwd, env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE_S,
    )  # fmt: skip


def wait_until(happened: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Wait for an event. Fail if ``process`` ends before it, and after ``DEADLINE_S``."""
    deadline = time.monotonic() + DEADLINE_S
    while not happened():
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


def output_of(process: subprocess.Popen[str]) -> str:
    """Wait for the end of a script; return what it said."""
    return process.communicate(timeout=DEADLINE_S)[0]


Process = tuple[int, str]  # number and start time: numbers are used again


def _stat(number: int) -> list[str]:
    """Return what the kernel says about a process behind its name: state, parent, ..., start time; nothing if gone."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def descendants(ancestor: int) -> set[Process]:
    """Return the living processes that ``ancestor`` has started, directly or not."""
    stats = {int(path.name): _stat(int(path.name)) for path in Path("/proc").iterdir() if path.name.isdigit()}
    found, left = set(), [ancestor]
    while left:
        parent = left.pop()
        children = [number for number, stat in stats.items() if stat and int(stat[1]) == parent and stat[0] != "Z"]
        found |= {(number, stats[number][19]) for number in children}
        left += children
    return found


def alive(process: Process) -> bool:
    stat = _stat(process[0])
    return bool(stat) and stat[0] != "Z" and stat[19] == process[1]


def said(process: Process) -> str:
    """Return the command line of a process."""
    try:
        return Path(f"/proc/{process[0]}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
