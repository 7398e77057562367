"""Play the lanes of any game that implements ``envs.adapters.worker.Game`` in worker processes, over shared memory.

The parent sends a few bytes per worker and step; observations never travel through a pipe. The shared memory has no
name, so there is nothing to leak, and workers leave when their parent does. A failed worker is a ``WorkerError``.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import pickle
import signal
import sys
import tempfile
import time
import types
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import send_handle
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from envs.adapters.worker import Game, GameSpec, serve, share
from envs.base import refuse_unavailable
from envs.streams import LaneStreams
from marl.core.processes import SENT_TO_ALL, spawning
from marl.core.types import ConfigError, EnvSpec, Obs, Step

OLD_GYM = ("gfootball",)  # packages whose games env=gym cannot drive
INSTALL = {  # package -> what to type; everything else is installed under its own name
    "mpe2": "pip install -e .[mpe]",
    "smacv2": "pip install -e .[smacv2]",
    "lbforaging": "pip install -e .[lbf]",
    "overcooked_ai_py": "pip install -e .[overcooked]",
    "gfootball": "pip install -e .[football]",
}


class WorkerError(RuntimeError):
    """A worker process failed. ``lanes``: those it played; ``report``: the traceback, or how the process ended."""

    def __init__(self, lanes: Sequence[int], headline: str, report: str) -> None:
        where = f"lane {lanes[0]}" if len(lanes) == 1 else f"lanes {lanes[0]}-{lanes[-1]}"
        super().__init__(f"environment worker ({where}) failed: {headline}\n{report}".rstrip())
        self.lanes, self.headline, self.report = list(lanes), headline, report


def require_package(package: str) -> None:
    """Raise ConfigError that says what to type if ``package`` (its first dotted part) is not installed."""
    root = package.split(".")[0]
    if importlib.util.find_spec(root) is None:
        how = INSTALL.get(root, f"pip install {root}")
        raise ConfigError(f"the environment needs the package '{root}', which is not installed: {how}")


def require_gymnasium(env: str) -> None:
    """Raise ConfigError if the package of ``env`` is known to have the interface of Gym before Gymnasium."""
    if env.partition(":")[0].partition(".")[0] in OLD_GYM:
        raise ConfigError(
            f"env.env={env} has the old Gym interface (reset without a seed, four values from step), for which an "
            "adapter is missing; env=gym takes games with Gymnasium's interface"
        )


@dataclass
class _Handle:
    process: BaseProcess
    connection: Connection
    lanes: list[int]


class Pool:
    """``VectorEnv`` over processes; see the contract in ``marl.core.protocols.VectorEnv``.

    ``make_game`` is called once per lane, in its worker, and must be picklable. ``workers`` processes (None: one per
    usable CPU, at most one per lane) play equal shares of the lanes. A worker silent for ``timeout`` seconds counts as
    failed. Raises ConfigError if a game cannot be built, WorkerError if one fails later; either closes the pool. Every
    episode starts from its own seed, drawn from (seed, lane, episode); with ``resumable`` nothing else is saved. That
    is enough for games whose ``reset(seed)`` forgets the episode before; ``rebuild`` builds any other game anew for
    every episode.
    """

    device = torch.device("cpu")

    def __init__(
        self,
        make_game: Callable[[], Game],
        *,
        n_envs: int,
        seed: int = 0,
        workers: int | None = None,
        resumable: bool = True,
        rebuild: bool = False,
        timeout: float = 300.0,
    ) -> None:
        if n_envs < 1 or (workers is not None and workers < 1):
            raise ConfigError(f"n_envs and workers must be at least 1, got {n_envs} and {workers}")
        self.n_envs, self.resumable, self.timeout = n_envs, resumable, timeout
        self.streams = LaneStreams(n_envs, seed)
        try:
            pickled = pickle.dumps(make_game)
        except Exception as error:
            raise ConfigError(f"the game cannot be sent to a worker process: {error}") from error
        self._handles: list[_Handle] = []
        self._finalizer = weakref.finalize(self, _shut_down, self._handles)
        atexit.register(self._finalizer)  # registered after multiprocessing's own handler, so that it runs before it
        shares = np.array_split(np.arange(n_envs), min(workers or _usable_cpus(), n_envs))
        with _quiet_start():
            self._handles += [_start(pickled, lanes.tolist(), n_envs, rebuild) for lanes in shares]
        try:
            specs: list[GameSpec] = self._ask("build", self._seeds().tolist())
        except WorkerError as error:
            raise ConfigError(f"the environment cannot be built: {error.headline}") from error
        if len({spec.sizes for spec in specs}) > 1:
            self.close()
            raise ConfigError(f"the lanes' games differ in size: {sorted({spec.sizes for spec in specs})}")
        self.spec = _in_torch(specs[0])
        self._arrays = self._share_memory(specs[0])
        self._tensors = {name: torch.from_numpy(array) for name, array in self._arrays.items()}

    def reset(self, seed: int | None = None, mask: Tensor | None = None) -> Obs:
        due = np.ones(self.n_envs, bool) if mask is None else mask.cpu().numpy()
        self.streams.restart(due, seed)
        self._arrays["due"][:] = due
        self._arrays["seed"][:] = self._seeds()
        self._ask("reset", handles=[handle for handle in self._handles if due[handle.lanes].any()])
        return self._observe()

    def step(self, actions: Tensor) -> Step:
        shared, out = self._arrays, self._tensors
        refuse_unavailable(actions, out["avail"], out["running"], self.spec.action_names)
        finished = ~shared["running"]
        for name in ("reward", "terminated", "truncated", "won", "alive"):
            shared[name][finished] = 0
        if self.spec.noop_action is not None:
            shared["avail"][finished, :, self.spec.noop_action] = True
        out["actions"].copy_(actions)
        self._ask("step", handles=[handle for handle in self._handles if not finished[handle.lanes].all()])
        return Step(self._observe(), out["reward"], out["terminated"], out["truncated"], {"won": out["won"]})

    def render(self, lane: int = 0) -> np.ndarray:
        """Return the game's own picture, or the lane's observations in grey (one row per agent) if it draws none."""
        handle = next(handle for handle in self._handles if lane in handle.lanes)
        picture = self._ask("render", lane, handles=[handle])[0]
        if picture is not None:
            return np.asarray(picture, np.uint8)[..., :3]
        values = self._arrays["obs"][lane]
        grey = np.uint8(255 * (values - values.min()) / max(float(np.ptp(values)), 1e-6))
        size = (8 * values.shape[1], 8 * values.shape[0])
        return np.array(Image.fromarray(grey).convert("RGB").resize(size, Image.Resampling.NEAREST))

    def state_dict(self) -> dict[str, Any]:
        return self.streams.state_dict() if self.resumable else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the episode seeds; the next call must reset all lanes."""
        if self.resumable:
            self.streams.load_state_dict(state)
        self._arrays["running"][:] = False

    def close(self) -> None:
        """Ask the workers to end, and kill them after five seconds. May be called again."""
        self._finalizer()
        atexit.unregister(self._finalizer)

    def _seeds(self) -> np.ndarray:
        """Return the seed of each lane's present episode, int64 [B]."""
        return (self.streams.draw(0) & np.uint64(0x7FFFFFFF)).astype(np.int64)

    def _observe(self) -> Obs:
        return Obs(*(self._tensors[name] for name in ("obs", "state", "avail", "alive")))

    def _share_memory(self, spec: GameSpec) -> dict[str, np.ndarray]:
        """Allocate memory without a name and send its descriptor to every worker."""
        _, size = share(-1, spec, self.n_envs)
        with contextlib.ExitStack() as stack:
            if hasattr(os, "memfd_create"):
                descriptor = os.memfd_create("lanes")
                stack.callback(os.close, descriptor)
            else:
                descriptor = stack.enter_context(tempfile.TemporaryFile()).fileno()
            os.ftruncate(descriptor, size)
            for handle in self._handles:
                with contextlib.suppress(OSError):  # a dead worker is reported when its reply is missing
                    handle.connection.send(("attach",))
                    send_handle(handle.connection, descriptor, handle.process.pid)
            self._collect(self._handles)
            arrays, _ = share(descriptor, spec, self.n_envs)
        return arrays

    def _ask(self, *command: Any, handles: list[_Handle] | None = None) -> list[Any]:
        """Send a command to the given workers (default: all), wait for all replies; a failure closes the pool."""
        if not self._handles:
            raise RuntimeError("the environment is closed")
        handles = self._handles if handles is None else handles
        for handle in handles:
            with contextlib.suppress(OSError):  # as above
                handle.connection.send(command)
        return self._collect(handles)

    def _collect(self, handles: list[_Handle]) -> list[Any]:
        try:
            return [self._receive(handle) for handle in handles]
        except BaseException:  # KeyboardInterrupt too: late replies would be taken for later ones
            self.close()
            raise

    def _receive(self, handle: _Handle) -> Any:
        try:
            if not handle.connection.poll(self.timeout):
                handle.process.kill()  # it would not answer a request to end either
                raise WorkerError(handle.lanes, f"no answer within {self.timeout:g} s", "")
            kind, *rest = handle.connection.recv()
        except (EOFError, OSError) as error:
            handle.process.join(5)
            raise WorkerError(handle.lanes, _describe_end(handle.process.exitcode), "") from error
        if kind == "error":
            lane, headline, report = rest
            raise WorkerError([lane], headline, report)
        return rest[0]


def _in_torch(spec: GameSpec) -> EnvSpec:
    fields: dict[str, Any] = {}
    for name, value in vars(spec).items():
        fields[name] = torch.from_numpy(value) if isinstance(value, np.ndarray) else value
    return EnvSpec(**fields)


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _describe_end(exitcode: int | None) -> str:
    if exitcode is None:
        return "the process stopped answering"
    if exitcode >= 0:
        return f"the process exited with code {exitcode}"
    name = signal.Signals(-exitcode).name
    return f"the process was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def _start(pickled: bytes, lanes: list[int], n_envs: int, rebuild: bool) -> _Handle:
    context = get_context("spawn")  # not fork: torch, OpenMP and numba have threads
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, pickled, lanes, n_envs, rebuild), name=f"lanes-{lanes[0]}")
    process.start()
    theirs.close()  # or its end would stay open when the worker dies
    return _Handle(process, ours, lanes)


@contextlib.contextmanager
def _quiet_start() -> Iterator[None]:
    """While workers start, hide ``__main__``, allow one thread each, and block the signals that they will ignore."""
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


def _shut_down(handles: list[_Handle]) -> None:
    """Ask every worker to leave, kill those that do not, and reap them all."""
    for handle in handles:
        with contextlib.suppress(OSError):
            handle.connection.send(("close",))
    deadline = time.monotonic() + 5
    for handle in handles:
        handle.process.join(max(0.0, deadline - time.monotonic()))
        if handle.process.exitcode is None:
            handle.process.kill()
            handle.process.join()
        handle.connection.close()
        handle.process.close()
    handles.clear()
