"""Play the lanes of any game that implements ``envs.adapters.worker.Game`` in worker processes, over shared memory.

The parent sends a few bytes per worker and step; observations never travel through a pipe. The shared memory has no
name, so there is nothing to leak, and workers exit when their parent does.
"""

from __future__ import annotations

import atexit
import importlib.util
import logging
import os
import pickle
import tempfile
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from envs.adapters.crew import Handle, WorkerError, quiet_start, shut_down, stop
from envs.adapters.worker import Game, GameSpec, share
from envs.base import refuse_unavailable
from envs.streams import LaneStreams
from marl.core.checks import require_positive
from marl.core.types import ConfigError, EnvSpec, Obs, Step

log = logging.getLogger(__name__)
DEATHS = 5  # of a worker in a row, without an episode that ends between them; then the pool gives up
OLD_GYM = ("gfootball",)  # packages whose games env=gym cannot drive
INSTALL = {  # package -> install command; everything else is installed under its own name
    "mpe2": "pip install -e .[mpe]",
    "smacv2": "pip install -e .[smacv2]",
    "lbforaging": "pip install -e .[lbf]",
    "overcooked_ai_py": "pip install -e .[overcooked]",
    "gfootball_engine": "make football",
}


def require_package(package: str) -> None:
    """Raise a ConfigError that says how to install ``package`` (its first dotted part) if it is missing."""
    root = package.split(".")[0]
    if importlib.util.find_spec(root) is None:
        if root in INSTALL:
            raise ConfigError(f"the environment needs the package '{root}', which is not installed: {INSTALL[root]}")
        raise ConfigError(f"no module of the name '{root}' is found; check the spelling, or install the game's package")


def require_gymnasium(env: str) -> None:
    """Raise ConfigError if the package of ``env`` is known to have the old Gym interface, from before Gymnasium."""
    if env.partition(":")[0].partition(".")[0] in OLD_GYM:
        raise ConfigError(
            f"env.env={env} has the old Gym interface (reset without a seed, four values from step); env=gym takes "
            "games with Gymnasium's interface; football has an adapter of its own: env=football/SCENARIO, make football"
        )


class Pool:
    """``VectorEnv`` over processes; see the contract in ``marl.core.protocols.VectorEnv``.

    ``make_game`` builds a lane's game in its worker, and must be picklable. ``workers`` processes (None: one per
    usable CPU, at most one per lane) play equal shares of the lanes. A worker silent for ``timeout`` seconds counts as
    dead (None: wait for ever). Every episode starts from its own seed, derived from (seed, lane, episode); with
    ``resumable`` nothing else is saved. That is enough for games whose ``reset(seed)`` keeps nothing of the previous
    episode; ``rebuild`` rebuilds any other game for every episode.

    Raises ConfigError if a game cannot be built. If one fails later, or its worker dies, the unfinished episodes of the
    worker's lanes are lost, finished ones are not: ``info["lost"]`` bool [B] says so, they count as truncated, and the
    next reset restarts the worker. Failures that would only recur raise WorkerError, which closes the pool: a game that
    violates its interface, and a worker that dies ``DEATHS`` times without finishing an episode in between.
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
        timeout: float | None = 300.0,
    ) -> None:
        if n_envs < 1 or (workers is not None and workers < 1):
            raise ConfigError(f"n_envs and workers must be at least 1, got {n_envs} and {workers}")
        require_positive("env", or_null=True, timeout=timeout)
        self.n_envs, self.resumable, self.timeout = n_envs, resumable, timeout
        self.streams = LaneStreams(n_envs, seed)
        try:
            self._pickled = pickle.dumps(make_game)
        except Exception as error:
            raise ConfigError(f"the game cannot be sent to a worker process: {error}") from error
        self._rebuild = rebuild
        self._memory: list[int] = []  # the descriptor of the shared memory, for workers that start later
        shares = np.array_split(np.arange(n_envs), min(workers or _usable_cpus(), n_envs))
        self._handles = [Handle(lanes.tolist()) for lanes in shares]
        self._finalizer = weakref.finalize(self, shut_down, self._handles, self._memory)
        atexit.register(self._finalizer)  # registered after multiprocessing's own handler, so that it runs before it
        self._start(self._handles)
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
        self._lost = torch.zeros(n_envs, dtype=torch.bool)
        self._untold = np.zeros(n_envs, bool)  # lost in a reset; the next step reports it

    def reset(self, seed: int | None = None, mask: Tensor | None = None) -> Obs:
        due = np.ones(self.n_envs, bool) if mask is None else mask.cpu().numpy()
        self.streams.restart(due, seed)
        self._arrays["due"][:] = due
        self._arrays["seed"][:] = self._seeds()
        self._lost[torch.from_numpy(due)] = False
        played = due | self._arrays["running"]
        concerned = [handle for handle in self._open_handles() if due[handle.lanes].any()]
        self._revive([handle for handle in concerned if handle.process is None])
        self._play("reset", concerned)
        self._arrays["due"][:] = False
        self._untold = self._lost.numpy() & played
        return self._observe()

    def step(self, actions: Tensor) -> Step:
        shared, out = self._arrays, self._tensors
        refuse_unavailable(actions, out["avail"], out["running"], self.spec.action_names)
        running = shared["running"].copy()
        for name in ("reward", "terminated", "truncated", "won", "alive"):
            shared[name][~running] = 0
        if self.spec.noop_action is not None:
            shared["avail"][~running, :, self.spec.noop_action] = True
        out["actions"].copy_(actions)
        self._play("step", [handle for handle in self._open_handles() if running[handle.lanes].any()])
        shared["truncated"][self._untold] = True
        self._untold[:] = False
        ended = running & ~shared["running"] & ~self._lost.numpy()
        if ended.any():
            for handle in self._handles:
                handle.deaths = 0 if ended[handle.lanes].any() else handle.deaths
        info = {"won": out["won"], "lost": self._lost}
        return Step(self._observe(), out["reward"], out["terminated"], out["truncated"], info)

    def render(self, lane: int = 0) -> np.ndarray:
        """Return the game's own picture, or the lane's observations in grey (one row per agent) if it draws none."""
        handle = next(handle for handle in self._handles if lane in handle.lanes)
        picture = self._ask("render", lane, handles=[handle])[0] if handle.process is not None else None
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
        """Ask the workers to exit, and kill them after five seconds. May be called more than once."""
        self._finalizer()
        atexit.unregister(self._finalizer)

    def _seeds(self) -> np.ndarray:
        """Return the seed of each lane's current episode, int64 [B]."""
        return (self.streams.draw(0) & np.uint64(0x7FFFFFFF)).astype(np.int64)

    def _observe(self) -> Obs:
        return Obs(*(self._tensors[name] for name in ("obs", "state", "avail", "alive")))

    def _share_memory(self, spec: GameSpec) -> dict[str, np.ndarray]:
        """Allocate memory without a name and send its descriptor to every worker."""
        _, size = share(-1, spec, self.n_envs)
        if hasattr(os, "memfd_create"):
            self._memory.append(os.memfd_create("lanes"))
        else:
            with tempfile.TemporaryFile() as file:
                self._memory.append(os.dup(file.fileno()))
        os.ftruncate(self._memory[0], size)
        self._attach(self._handles)
        return share(self._memory[0], spec, self.n_envs)[0]

    def _start(self, handles: list[Handle]) -> None:
        with quiet_start():
            for handle in handles:
                handle.start(self._pickled, self.n_envs, self._rebuild)

    def _attach(self, handles: list[Handle]) -> None:
        for handle in handles:
            handle.send("attach", memory=self._memory[0])
        self._collect(handles)

    def _revive(self, handles: list[Handle]) -> None:
        """Restart dead workers; one that dies again stays dead."""
        if not handles:
            return
        self._start(handles)
        self._play("build", handles, self._seeds().tolist())
        again = [handle for handle in handles if handle.process is not None]
        for handle in again:
            handle.send("attach", memory=self._memory[0])
        self._receive(again)

    def _play(self, name: str, handles: list[Handle], *arguments: Any) -> None:
        """Send a command to the running workers, wait for all replies, and bury workers that die of it."""
        alive = [handle for handle in handles if handle.process is not None]
        for handle in alive:
            handle.send(name, *arguments)
        self._receive(alive)

    def _receive(self, handles: list[Handle]) -> None:
        try:
            for handle in handles:
                try:
                    handle.receive(self.timeout)
                except WorkerError as error:
                    self._bury(handle, error)
        except BaseException:  # KeyboardInterrupt too: late replies would be taken for those to later commands
            self.close()
            raise

    def _bury(self, handle: Handle, error: WorkerError) -> None:
        """Mark as lost the episodes of a dead worker's lanes that were unfinished or about to begin. Raise WorkerError
        if it would only die again."""
        handle.deaths += 1
        if error.ours:
            raise error
        if handle.deaths >= DEATHS:
            raise WorkerError(
                error.lanes, f"{DEATHS} times without finishing an episode, the last time by: {error.headline}",
                error.report,
            )  # fmt: skip
        if error.headline != handle.said:
            log.warning("%s; its unfinished episodes are dropped and its game is restarted\n%s", error, error.report)
        else:
            log.warning("%s; again", error)
        handle.said = error.headline
        stop([handle])
        shared = self._arrays
        lanes = np.array(handle.lanes)
        lanes = lanes[shared["running"][lanes] | shared["due"][lanes]]
        for name in ("obs", "state", "reward", "terminated", "won", "alive", "running"):
            shared[name][lanes] = 0
        shared["avail"][lanes] = shared["truncated"][lanes] = True
        self._lost[lanes] = True

    def _open_handles(self) -> list[Handle]:
        if not self._handles:
            raise RuntimeError("the environment is closed")
        return self._handles

    def _ask(self, *command: Any, handles: list[Handle] | None = None) -> list[Any]:
        """Send a command to the given workers (default: all), wait for all replies; a failure closes the pool."""
        handles = self._open_handles() if handles is None else handles
        for handle in handles:
            handle.send(*command)
        return self._collect(handles)

    def _collect(self, handles: list[Handle]) -> list[Any]:
        try:
            return [handle.receive(self.timeout) for handle in handles]
        except BaseException:
            self.close()
            raise


def _in_torch(spec: GameSpec) -> EnvSpec:
    fields: dict[str, Any] = {}
    for name, value in vars(spec).items():
        fields[name] = torch.from_numpy(value) if isinstance(value, np.ndarray) else value
    return EnvSpec(**fields)


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
