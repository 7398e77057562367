"""Folder locks: only one process at a time writes into a run folder or a folder of results.

The file ``.lock`` names its owner and is created atomically. A lock left by a dead process of this machine is taken
over; a lock of another machine holds until somebody removes it.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from marl.core.types import ConfigError
from marl.run.files import naming

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)
LOCK = ".lock"


@dataclass(frozen=True)
class Owner:
    """A process; ``started``, its start time as the system gives it, tells it from later ones with the same pid."""

    host: str
    pid: int
    started: str

    @property
    def alive(self) -> bool:
        """Return whether it is still running, as far as this machine can tell."""
        return self.host != socket.gethostname() or started(self.pid) == self.started


def started(pid: int) -> str | None:
    """Return the start time of a process of this machine; None if it has ended."""
    if Path("/proc/self/stat").exists():
        try:
            state, *words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if state in "ZX" else words[18]  # a zombie has ended
    done = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def here() -> Owner:
    """Return this process."""
    return Owner(socket.gethostname(), os.getpid(), started(os.getpid()) or "")


@contextmanager
def held(folder: Path, key: str = "") -> Iterator[None]:
    """Hold the lock of ``folder`` inside this context. Raise ConfigError if another process holds it; ``key`` is the
    option that named the folder."""
    path, mine = folder / LOCK, here()
    with nullcontext() if folder.exists() else tidied(folder):
        with naming(folder):
            folder.mkdir(parents=True, exist_ok=True)
        _acquire(path, mine, key)
        try:
            yield
        finally:
            if os.getpid() == mine.pid and _owner(path) == mine:
                path.unlink(missing_ok=True)


def release(folder: Path) -> None:
    """Remove the lock of ``folder``, whose owner is known to be gone, even if it belonged to another machine."""
    (folder / LOCK).unlink(missing_ok=True)


@contextmanager
def tidied(folder: Path, top: Path | None = None, *, keep_present: bool = False) -> Iterator[None]:
    """Leave no empty folders behind: after this context, remove ``folder`` if it is empty, then its empty parents below
    ``top`` or the working directory. ``keep_present``: except those that existed before."""
    folder = folder.absolute()
    kept = {place for place in (folder, *folder.parents) if place.exists()} if keep_present else set()
    try:
        yield
    finally:
        _prune(folder, top, kept)


def made_by_hydra(folder: Path) -> bool:
    """Return whether ``folder`` is the one that Hydra made for this script's run."""
    if not HydraConfig.initialized() or OmegaConf.is_missing(HydraConfig.get().runtime, "output_dir"):
        return False
    return Path(HydraConfig.get().runtime.output_dir) == folder.absolute()


def _acquire(path: Path, mine: Owner, key: str) -> None:
    with _alone(path.parent), naming(path):
        if os.path.lexists(path):
            theirs = _owner(path)
            if theirs is not None and theirs.alive:
                who = f"process {theirs.pid} on {theirs.host}"
                away = theirs.host != mine.host
                hint = f"; if that process is gone, remove {path}" if away else "; wait for it, or give another folder"
                raise ConfigError(f"{key}{'=' if key else ''}{path.parent} is in use by {who}{hint}")
            log.warning("%s was left by %s; taken over", path, f"process {theirs.pid}" if theirs else "nobody known")
            path.unlink()
        try:
            _place(path, json.dumps(asdict(mine)))
        except FileExistsError:  # another machine has just made it
            raise ConfigError(f"{path.parent} is in use by another process, which has just begun") from None


def _place(path: Path, text: str) -> None:
    """Create ``path`` with all of its text, atomically. Raise FileExistsError if it exists."""
    beside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        beside.write_text(text, encoding="utf8")
        try:
            os.link(beside, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            with path.open("x", encoding="utf8") as file:
                file.write(text)
    finally:
        beside.unlink(missing_ok=True)


def _owner(path: Path) -> Owner | None:
    """Return the owner of a lock; None if the file does not name one."""
    try:
        return Owner(**json.loads(path.read_text(encoding="utf8")))
    except (OSError, ValueError, TypeError):
        return None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let only one process of this machine at a time read and change the lock of ``folder``."""
    if fcntl is None:
        yield
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a system that cannot open folders
        yield
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            log.debug("%s takes no locks", folder)
        yield
    finally:
        os.close(descriptor)


def _prune(folder: Path, top: Path | None, kept: set[Path]) -> None:
    """Remove ``folder`` and then its parents, as long as they are empty, not ``kept``, and below ``top`` or the working
    directory."""
    roots = [Path.cwd(), *([top.absolute()] if top is not None else [])]
    for place in (folder, *folder.parents):
        if (
            place == Path.cwd()
            or place in kept
            or (place != folder and not any(root in place.parents for root in roots))
        ):
            return
        try:
            place.rmdir()
        except OSError:  # it is not empty
            return
