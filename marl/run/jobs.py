"""Interruptible jobs, run one after the other in this process, side by side in worker processes or threads, or on a
cluster."""

from __future__ import annotations

import functools
import multiprocessing
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from typing import Any, Protocol, TypeVar

from marl.core.checks import require_extra
from marl.core.processes import follow_parent, ignore_signals
from marl.core.types import ConfigError
from marl.run import cluster
from marl.run.progress import JobProgress
from marl.run.signals import StopRequest


class Job(Protocol):
    @property
    def title(self) -> str: ...


J = TypeVar("J", bound=Job)
R = TypeVar("R")
Work = Callable[[J, Callable[[float], None]], R]  # reports its progress, 0 to 1, now and then; must be importable


class Stopped(Exception):
    """A signal requested a stop; running jobs are dropped, results of finished ones are kept."""


def require_jobs(jobs: int | str) -> None:
    """Raise ConfigError unless ``jobs`` is a number of processes or "ray"."""
    if jobs == "ray":
        require_extra("ray", "ray", "jobs=ray")
    elif not isinstance(jobs, int) or isinstance(jobs, bool) or jobs < 1:
        raise ConfigError(f"jobs={jobs} must be at least 1, or ray")


def run_jobs(
    work: Work[J, R],
    jobs: Sequence[J],
    processes: int | str,
    stop: StopRequest,
    progress: JobProgress,
    *,
    only_waits: bool = False,
) -> Iterator[tuple[J, R]]:
    """Yield each job with its result, in the order in which they finish. Raise Stopped once ``stop`` is requested.

    ``processes``: how many jobs at once, or "ray" for as many as the cluster of RAY_ADDRESS has cores for.
    ``only_waits``: ``work`` only waits for other programs and computes nothing itself. Threads are then enough: a
    worker process takes seconds to start, and has to load torch into memory.
    """
    if isinstance(processes, str):
        yield from _on_ray(work, jobs, stop, progress)
        return
    if processes > 1 and len(jobs) > 1:
        begin = _in_threads if only_waits else _in_processes
        yield from begin(work, jobs, processes, stop, progress)
        return
    for job in jobs:

        def tell(done: float, job: J = job) -> None:
            progress.show(job.title, done)
            if stop:
                raise Stopped

        tell(0.0)
        result = work(job, tell)
        progress.finished()
        yield job, result


def _in_processes(
    work: Work[J, R], jobs: Sequence[J], processes: int, stop: StopRequest, progress: JobProgress
) -> Iterator[tuple[J, R]]:
    context = multiprocessing.get_context("spawn")  # a forked child would inherit the threads of torch and numba
    halt = context.Event()
    with ProcessPoolExecutor(min(processes, len(jobs)), context, initializer=_begin, initargs=(halt,)) as pool:
        begun = {pool.submit(_work, work, job): job for job in jobs}
        yield from _as_they_finish(pool, begun, halt, stop, progress)


def _in_threads(
    work: Work[J, R], jobs: Sequence[J], threads: int, stop: StopRequest, progress: JobProgress
) -> Iterator[tuple[J, R]]:
    halt = threading.Event()
    with ThreadPoolExecutor(min(threads, len(jobs))) as pool:
        begun = {pool.submit(_until, halt, work, job): job for job in jobs}
        yield from _as_they_finish(pool, begun, halt, stop, progress)


def _as_they_finish(
    pool: Executor, begun: dict[Future[R], J], halt: Any, stop: StopRequest, progress: JobProgress
) -> Iterator[tuple[J, R]]:
    """Yield jobs with their results. However this ends, set ``halt`` and start no further jobs."""
    try:
        while begun:
            for future in wait(begun, timeout=0.2, return_when=FIRST_COMPLETED).done:
                job = begun.pop(future)
                result = future.result()
                progress.finished()
                yield job, result
            if stop and begun:
                raise Stopped
    finally:
        halt.set()
        pool.shutdown(cancel_futures=True)


def _on_ray(work: Work[J, R], jobs: Sequence[J], stop: StopRequest, progress: JobProgress) -> Iterator[tuple[J, R]]:
    def stopping() -> None:
        if stop:
            raise Stopped

    ray = cluster.connect(None, "jobs=ray")
    for k, result in cluster.each(ray, functools.partial(_one, work), jobs, stopping=stopping):
        progress.finished()
        yield jobs[k], result


def _one(work: Work[J, R], job: J, again: bool) -> R:
    return work(job, lambda done: None)


_halt: Any = None  # in a worker: set once the parent wants to stop


def _begin(halt: Any) -> None:
    global _halt
    _halt = halt
    ignore_signals()
    follow_parent()


def _work(work: Work[J, R], job: J) -> R:
    return _until(_halt, work, job)


def _until(halt: Any, work: Work[J, R], job: J) -> R:
    """Do a job; raise Stopped once ``halt`` is set, even before it starts."""

    def tell(done: float) -> None:
        if halt.is_set():
            raise Stopped

    tell(0.0)  # the pool hands out more jobs than it has workers
    return work(job, tell)
