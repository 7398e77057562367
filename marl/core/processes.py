"""Child processes: how they are started, and how they end when their parent is gone. Imports no torch, because
simulator processes import this module."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

POLL_S = 0.5
SAVING_S = 60.0  # how long a process may still take to save or to close its games once its parent is gone
PARENT = "MARL_PARENT"  # environment variable: the process that started a script and wants it to end with it
# schedulers and Ctrl-C send these to every process of a job, although only the parent decides
SENT_TO_ALL = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)


def ignore_signals() -> None:
    """Leave it to the parent to decide when this process stops. The programs that it starts would inherit SIG_IGN, but
    not a handler that does nothing; with SIG_IGN they would miss requests to stop that precede their handlers."""
    for number in SENT_TO_ALL:
        signal.signal(number, lambda *_: None)


def parent_lost(parent: int) -> bool:
    """Return whether the process ``parent``, which started this one, has ended; another one then adopts this one."""
    return os.getppid() != parent


def follow_parent(parent: int | None = None, grace: float = 0.0, busy: Callable[[], bool] = lambda: True) -> None:
    """End this process once ``parent`` (a process number; None: the one that ``multiprocessing`` knows) has ended,
    however it ended. With ``grace``, and if ``busy`` says that there is something to save, it gets SIGTERM first and is
    killed at most that many seconds later.

    A thread polls the parent. The kernel's own signal on a parent's death does not work here: it is sent as soon as the
    thread that started the child ends, whichever thread that was.
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
    """End this script with the process that started it, if that process asked for it by ``started_with``."""
    starter = os.environ.pop(PARENT, None)  # not passed on to the processes that this one starts
    if starter is not None:
        follow_parent(int(starter), SAVING_S)


def started_with() -> dict[str, str]:
    """Return the environment variables for a script that should end when this process does."""
    return {**os.environ, PARENT: str(os.getpid())}


@contextmanager
def spawning() -> Iterator[None]:
    """Let processes be spawned inside a joblib worker too: joblib's own start method does not exist in a child."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(before, force=True)
