"""Child processes: how they are started, and how they end when their parent is gone. Imports no torch, because the
processes of simulators import it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

POLL_S = 0.5
SAVING_S = 60.0  # what a process that saves or closes its games may still take once its parent is gone
PARENT = "MARL_PARENT"  # environment variable: the process that started a script and wants it to end with it
# what schedulers and Ctrl-C send to every process of a job, though the parent alone decides
SENT_TO_ALL = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)


def ignore_signals() -> None:
    """Leave it to the parent to decide when this process stops. A handler that does nothing, other than SIG_IGN, is not
    inherited by the programs that this process starts: they would miss what asks them to stop before they listen."""
    for number in SENT_TO_ALL:
        signal.signal(number, lambda *_: None)


def parent_lost(parent: int) -> bool:
    """Return whether the process ``parent``, which started this one, has ended; another one has adopted it then."""
    return os.getppid() != parent


def follow_parent(parent: int | None = None, grace: float = 0.0, busy: Callable[[], bool] = lambda: True) -> None:
    """End this process once ``parent`` (a process number; None: the one that ``multiprocessing`` knows) has ended,
    however it ended. With ``grace``, and while ``busy`` says that there is something to save, SIGTERM asks first, and
    force follows that many seconds later.

    A thread looks at the parent now and then: other than the kernel's signal at a parent's death, which comes when the
    thread that started the child ends, it does not mind from which thread the child was started.
    """
    if parent is None:
        started_by = multiprocessing.parent_process()
        if started_by is None or started_by.pid is None:
            return
        parent = started_by.pid

    def watch() -> None:
        while not parent_lost(parent):
            time.sleep(POLL_S)
        if grace and busy():
            os.kill(os.getpid(), signal.SIGTERM)
            end = time.monotonic() + grace
            while busy() and time.monotonic() < end:
                time.sleep(POLL_S)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def follow_starter() -> None:
    """End this script with the process that started it, where that one asked for it by ``started_with``."""
    starter = os.environ.pop(PARENT, None)  # not for the processes that this one starts
    if starter is not None:
        follow_parent(int(starter), SAVING_S)


def started_with() -> dict[str, str]:
    """Return the environment for a script that shall end with this process."""
    return {**os.environ, PARENT: str(os.getpid())}


@contextmanager
def spawning() -> Iterator[None]:
    """Let processes be spawned inside a worker of joblib too: a child would look for joblib's way to start in vain."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(before, force=True)
