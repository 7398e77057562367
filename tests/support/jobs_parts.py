"""Jobs for processes of their own. Importing this must not import torch: every process does."""

from __future__ import annotations

import os
import signal
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
