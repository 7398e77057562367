"""Work on a Ray cluster: tasks are given to its nodes, and given to other nodes again if one dies.

All nodes see the same files (a shared file system, or one machine): a run that restarts on another node continues from
its own checkpoint, as after any crash.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from marl.core.checks import require_extra

log = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")
LOOK_S = 0.5  # between checks whether to stop


def connect(address: str | None, wanted_by: str) -> Any:
    """Return the module ``ray``, connected to the cluster at ``address`` (None: the one that RAY_ADDRESS names, or else
    a new one on this machine). Raise ConfigError if the package is missing."""
    require_extra("ray", "ray", wanted_by)
    import ray

    if not ray.is_initialized():
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # show every run's lines
        ray.init(address=address, logging_level=logging.WARNING, include_dashboard=False, configure_logging=False)
    return ray


def run(folder: str, work: Callable[[T, bool], R], task: T, again: bool) -> R:
    """Do one task on a node, in ``folder``; Ray prefixes its log lines with the name of this function."""
    os.chdir(folder)
    return work(task, again)


def each(
    ray: Any, work: Callable[[T, bool], R], tasks: Sequence[T], *, cpus: float = 1, gpus: float = 0, retries: int = 3,
    stopping: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, R]]:  # fmt: skip
    """Run ``work(task, again)`` for every task, in the working directory of this process; yield (index of the task,
    result) in the order in which they finish. A task whose node or process dies is restarted elsewhere, with ``again``
    true, at most ``retries`` times. ``stopping`` is called now and then; if it raises, running tasks are cancelled.
    """
    remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(run)
    here, left = os.getcwd(), [retries] * len(tasks)
    waiting = {remote.remote(here, work, task, False): k for k, task in enumerate(tasks)}
    died = (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.ObjectLostError)
    try:
        while waiting:
            stopping()
            done, _ = ray.wait(list(waiting), timeout=LOOK_S)
            for reference in done:
                k = waiting.pop(reference)
                try:
                    result = ray.get(reference)
                except died as error:
                    if not left[k]:
                        raise
                    left[k] -= 1
                    log.warning("task %d of %d begins again: %s", k + 1, len(tasks), type(error).__name__)
                    waiting[remote.remote(here, work, tasks[k], True)] = k
                    continue
                yield k, result
    finally:
        for reference in waiting:
            ray.cancel(reference, force=True)
