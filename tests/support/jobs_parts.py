"""Jobs for processes of their own. Importing this must not import torch: every process does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Sum:
    """Adds up 0..n-1 in n parts, ``pause`` seconds each; ``then`` says what happens after the first."""

    n: int
    pause: float = 0.0
    then: str = "nothing"

    @property
    def title(self) -> str:
        return f"sum of {self.n}"


def add_up(job: Sum, tell: Callable[[float], None]) -> tuple[int, int]:
    """Return the sum, and the process that found it."""
    total = 0
    for k in range(job.n):
        total += k
        time.sleep(job.pause)
        if job.then == "fail":
            raise ValueError(f"no sum of {job.n}")
        if k == 0 and job.then == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
        if k == 0 and job.then == "interrupt parent":
            os.kill(os.getppid(), signal.SIGINT)
        tell((k + 1) / job.n)
    return total, os.getpid()


ASK = "import signal; print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)"


def start_program(job: Sum, tell: Callable[[float], None]) -> tuple[bool, str]:
    """Return whether this process survives SIGTERM, and whether a program that it starts would not."""
    os.kill(os.getpid(), signal.SIGTERM)
    return True, subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True).stdout.strip()


@dataclass(frozen=True)
class Note:
    """Leaves a file in ``folder`` once it has begun; number 0 then interrupts the parent and goes on until it is told
    to stop."""

    number: int
    folder: str

    @property
    def title(self) -> str:
        return f"note {self.number}"


def leave_note(job: Note, tell: Callable[[float], None]) -> None:
    with open(f"{job.folder}/{job.number}", "w"):
        pass
    if job.number == 0:
        os.kill(os.getppid(), signal.SIGINT)
    while True:
        tell(0.0)
        time.sleep(0.01)
