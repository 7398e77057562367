"""Cells of a matrix: a measurement is known by what decides its outcome, done once, and kept in a file of its own.

``robustness`` and ``crossplay`` say what a cell is; here is what they share: keys, files, one pass over what is still
missing, and reading what is there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from marl.core.types import ConfigError
from marl.run.checkpoint import write_atomic
from marl.run.jobs import Stopped, run_jobs
from marl.run.progress import JobProgress
from marl.run.resume import git_commit
from marl.run.signals import StopRequest

log = logging.getLogger(__name__)
LAYOUT = 1  # of what is kept; a change of what it means makes old files unknown
Tell = Callable[[float], None]  # how much is done, 0 to 1
Episodes = dict[str, list[Any]]  # per-episode values


class Kept(Protocol):
    """Work whose result is kept in ``path``; ``key`` is the digest of whatever decides it."""

    @property
    def title(self) -> str: ...

    @property
    def key(self) -> str: ...

    @property
    def path(self) -> Path: ...

    def done(self) -> bool: ...


K = TypeVar("K", bound=Kept)


def content_key(document: dict[str, Any]) -> str:
    """Digest of plain data, whatever the order of its keys."""
    text = json.dumps({"layout": LAYOUT, **document}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def missing(kept: Iterable[K]) -> list[K]:
    """Those that are not done, each key once."""
    return list({one.key: one for one in kept if not one.done()}.values())


def measure_cell(cell: Kept, play: Callable[[], Episodes], about: dict[str, Any]) -> str | None:
    """Keep what ``play`` returns, beside what is said about it; the reason where it is not possible (ConfigError)."""
    started = time.perf_counter()
    try:
        episodes = play()
    except ConfigError as error:
        return str(error)
    document = {
        "title": cell.title, **about, "commit": git_commit(), "seconds": time.perf_counter() - started,
        "episodes": episodes,
    }  # fmt: skip
    cell.path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(cell.path, json.dumps(document))
    return None


@dataclass
class Outcome:
    """What a pass over cells left behind: reasons by the key of the cell, and whether nothing is left to do."""

    impossible: dict[str, str]
    complete: bool


@contextmanager
def one_pass(total: int, processes: int) -> Iterator[tuple[Outcome, Callable[..., None]]]:
    """A pass over ``total`` jobs: its outcome, and a function that does jobs of it, ``do(work, jobs)``. A signal stops
    after the round in hand and leaves the block; what is finished stays."""
    outcome = Outcome({}, complete=False)
    with StopRequest() as stop, JobProgress(total) as progress:

        def do(work: Callable[[K, Tell], str | None], jobs: Sequence[K]) -> None:
            for job, why in run_jobs(work, jobs, processes, stop, progress):
                log.info("%s: %s", job.title, f"not possible: {why}" if why else "done")
                if why is not None:
                    outcome.impossible[job.key] = why

        try:
            yield outcome, do
            outcome.complete = True
        except Stopped:
            log.info("stopped by %s; the same command continues", stop.name)


def read_cell(cell: Kept, outcome: Outcome) -> dict[str, np.ndarray] | str:
    """Per-episode values of a measured cell, or why there are none."""
    if not cell.done():
        why = outcome.impossible.get(cell.key)
        return "not measured yet" if why is None else f"not possible: {why}"
    document = json.loads(cell.path.read_text(encoding="utf8"))
    return {name: np.asarray(values) for name, values in document["episodes"].items()}


def commits(cells: Iterable[Kept]) -> list[str]:
    """Of the measured ones among them."""
    return sorted({json.loads(cell.path.read_text(encoding="utf8"))["commit"] for cell in cells if cell.done()})
