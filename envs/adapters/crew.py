"""The worker processes of the pool in ``envs/adapters/pool.py``, from the parent's side: starting, asking, stopping."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import types
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import send_handle
from typing import Any

from envs.adapters.worker import serve
from marl.core.processes import SENT_TO_ALL, spawning
from marl.core.types import GameError

CLOSING_S = 5.0  # for games to close; then their process is killed


class WorkerError(GameError):
    """The failure of a worker process. ``lanes``: those it played; ``report``: the traceback, or nothing. ``ours``: it
    was not raised by the game, but by a check of what the game returned."""

    def __init__(self, lanes: Sequence[int], headline: str, report: str, ours: bool = False) -> None:
        where = f"lane {lanes[0]}" if len(lanes) == 1 else f"lanes {lanes[0]}-{lanes[-1]}"
        super().__init__(f"environment worker ({where}) failed: {headline}")
        self.lanes, self.headline, self.report, self.ours = list(lanes), headline, report.rstrip(), ours


class Handle:
    """The worker of some ``lanes``; ``process`` is None while none runs. Counts its ``deaths`` in a row, and keeps what
    was ``said`` in the log about the last one."""

    def __init__(self, lanes: list[int]) -> None:
        self.lanes = lanes
        self.process: BaseProcess | None = None
        self.deaths, self.said = 0, ""

    def start(self, pickled: bytes, n_envs: int, rebuild: bool) -> None:
        """Start the process; call inside ``quiet_start``."""
        context = get_context("spawn")  # not fork: torch, OpenMP and numba have threads
        self.connection, theirs = context.Pipe()
        arguments = (theirs, pickled, self.lanes, n_envs, rebuild)
        self.process = context.Process(target=serve, args=arguments, name=f"lanes-{self.lanes[0]}")
        self.process.start()
        theirs.close()  # otherwise that end would stay open when the worker dies

    def send(self, *command: Any, memory: int | None = None) -> None:
        """Send a command, and the descriptor ``memory`` if there is one."""
        assert self.process is not None and self.process.pid is not None
        with contextlib.suppress(OSError):  # a dead worker is reported when its reply is missing
            self.connection.send(command)
            if memory is not None:
                send_handle(self.connection, memory, self.process.pid)

    def receive(self, timeout: float | None) -> Any:
        """Return the reply to the last command. Raise WorkerError if the worker fails, exits or stays silent."""
        assert self.process is not None
        try:
            if not self.connection.poll(timeout):
                self.process.kill()  # it would not answer a request to exit either
                raise WorkerError(self.lanes, f"no answer within {timeout:g} s (env.timeout)", "")
            kind, *rest = self.connection.recv()
        except (EOFError, OSError) as error:
            self.process.join(CLOSING_S)
            raise WorkerError(self.lanes, _describe_end(self.process.exitcode), "") from error
        if kind == "error":
            lane, headline, report, ours = rest
            raise WorkerError([lane], headline, report, ours)
        return rest[0]


def _describe_end(exitcode: int | None) -> str:
    if exitcode is None:
        return "the process stopped answering"
    if exitcode >= 0:
        return f"the process exited with code {exitcode}"
    name = signal.Signals(-exitcode).name
    return f"the process was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


@contextlib.contextmanager
def quiet_start() -> Iterator[None]:
    """Hide ``__main__``, allow one thread per worker and block the signals that workers ignore, while they start."""
    main, threads = sys.modules["__main__"], os.environ.get("OMP_NUM_THREADS")
    sys.modules["__main__"] = types.ModuleType("__main__")  # spawn would run the training script's imports: torch
    os.environ["OMP_NUM_THREADS"] = "1"
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SENT_TO_ALL) if hasattr(signal, "pthread_sigmask") else None
    try:
        with spawning():
            yield
    finally:
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.environ.pop("OMP_NUM_THREADS")
        if threads is not None:
            os.environ["OMP_NUM_THREADS"] = threads
        sys.modules["__main__"] = main


def stop(handles: list[Handle]) -> None:
    """Ask workers to exit, kill those that do not, and reap them all."""
    running = [(handle, handle.process) for handle in handles if handle.process is not None]
    for handle, _ in running:
        handle.send("close")
    deadline = time.monotonic() + CLOSING_S
    for handle, process in running:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.exitcode is None:
            process.kill()
            process.join()
        handle.connection.close()
        process.close()
        handle.process = None


def shut_down(handles: list[Handle], memory: list[int]) -> None:
    """Stop all workers and close the descriptors of the memory; both lists are empty afterwards."""
    stop(handles)
    handles.clear()
    while memory:
        os.close(memory.pop())
