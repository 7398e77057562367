"""Jobs in this process and in worker processes give the same results; a stop keeps finished ones."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from marl.run.jobs import Stopped, run_jobs
from marl.run.progress import JobProgress
from marl.run.signals import StopRequest
from tests.support.jobs_parts import Note, Sum, add_up, leave_note, start_program


def finished(jobs: list[Sum], processes: int, found: dict[int, tuple[int, int]], **how: bool) -> None:
    """Run the jobs; write the result of each into ``found``, by its n, as it arrives."""
    with StopRequest() as stop, JobProgress(len(jobs)) as progress:
        for job, result in run_jobs(add_up, jobs, processes, stop, progress, **how):
            found[job.n] = result
        assert progress.done == len(jobs)


@pytest.mark.parametrize("processes", [1, 2])
def test_every_job_comes_back_with_its_result(processes: int) -> None:
    found: dict[int, tuple[int, int]] = {}
    finished([Sum(n) for n in (2, 3, 4)], processes, found)
    assert {n: total for n, (total, _) in found.items()} == {2: 1, 3: 3, 4: 6}
    assert all((process == os.getpid()) == (processes == 1) for _, process in found.values())


@pytest.mark.parametrize(("processes", "then"), [(1, "interrupt"), (2, "interrupt parent")])
def test_a_stop_drops_the_job_in_hand_and_those_that_wait(processes: int, then: str) -> None:
    """The interrupted job would take a quarter of an hour more."""
    found: dict[int, tuple[int, int]] = {}
    started = time.monotonic()
    with pytest.raises(Stopped):
        finished([Sum(2), Sum(10_000, 0.1, then), *(Sum(n, 0.1) for n in range(101, 120))], processes, found)
    assert found[2][0] == 1 and 10_000 not in found and len(found) < 3
    assert time.monotonic() - started < 600


def test_work_that_only_waits_is_done_side_by_side_in_this_process() -> None:
    """The first job would take a quarter of an hour, and the second one interrupts it."""
    found: dict[int, tuple[int, int]] = {}
    started = time.monotonic()
    with pytest.raises(Stopped):
        finished([Sum(10_000, 0.1), Sum(3), Sum(2, then="interrupt"), Sum(10_001, 0.1)], 2, found, only_waits=True)
    assert found[3] == (3, os.getpid()) and found.keys() <= {2, 3}
    assert time.monotonic() - started < 600


def test_what_a_job_that_only_waits_raises_is_raised_here() -> None:
    with pytest.raises(ValueError, match="no sum of 4"):
        finished([Sum(4, then="fail"), Sum(10_000, 0.1)], 2, {}, only_waits=True)


@pytest.mark.parametrize("processes", [1, 2])
def test_what_a_job_raises_is_raised_here(processes: int) -> None:
    with pytest.raises(ValueError, match="no sum of 4"):
        finished([Sum(4, then="fail"), Sum(50, 0.1)], processes, {})


def test_an_interrupt_in_a_worker_alone_is_not_a_stop() -> None:
    """Ctrl-C reaches the whole process group: only the parent decides."""
    found: dict[int, tuple[int, int]] = {}
    finished([Sum(3, then="interrupt"), Sum(2)], 2, found)
    assert found[3][0] == 3


def test_programs_that_workers_start_can_be_asked_to_stop_before_they_listen() -> None:
    """A program inherits signals that are ignored: it would miss the one that asks it to stop, and go on for ever."""
    with StopRequest() as stop, JobProgress(2) as progress:
        results = [found for _, found in run_jobs(start_program, [Sum(1), Sum(2)], 2, stop, progress)]
    assert results == [(True, "True")] * 2


def test_a_job_that_waited_is_not_begun_after_a_stop(tmp_path: Path) -> None:
    """The pool has handed out one job more than it has workers by then."""
    with StopRequest() as stop, JobProgress(6) as progress, pytest.raises(Stopped):
        list(run_jobs(leave_note, [Note(n, str(tmp_path)) for n in range(6)], 2, stop, progress))
    assert {path.name for path in tmp_path.iterdir()} <= {"0", "1"} and (tmp_path / "0").exists()
