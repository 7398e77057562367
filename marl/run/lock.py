"""Locks on folders: one process at a time writes into a run folder, or into a folder of results.

The file ``.lock`` names its owner. It is made in one step. What a process of this machine left when it died is taken
over; the lock of another machine counts until somebody removes it.
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
    """A process, also among those that have its number later: ``started`` is the system's word for when it began."""

    host: str
    pid: int
    started: str

    @property
    def alive(self) -> bool:
        """Return whether it still runs, as far as this machine can know."""
        return self.host != socket.gethostname() or started(self.pid) == self.started


def started(pid: int) -> str | None:
    """Return when a process of this machine began; None if it has ended."""
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
    """Own ``folder`` inside this context. Raise ConfigError where another process does; ``key`` is the option that
    named it."""
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
    """Remove the lock of ``folder``, whose owner is known to be gone, also from another machine."""
    (folder / LOCK).unlink(missing_ok=True)


@contextmanager
def tidied(folder: Path, top: Path | None = None, *, keep_present: bool = False) -> Iterator[None]:
    """Leave no empty folders behind: ``folder`` and, if it is empty, those above it that are empty and below ``top`` or
    the working directory are removed after this context. ``keep_present``: but for those that are there before."""
    folder = folder.absolute()
    kept = {place for place in (folder, *folder.parents) if place.exists()} if keep_present else set()
    try:
        yield
    finally:
        _prune(folder, top, kept)


def made_by_hydra(folder: Path) -> bool:
    """Return whether ``folder`` is the one that Hydra has made for this script's run."""
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
        except FileExistsError:  # made by another machine, just now
            raise ConfigError(f"{path.parent} is in use by another process, which has just begun") from None


def _place(path: Path, text: str) -> None:
    """Make ``path`` with all of its text in one step. Raise FileExistsError where it exists."""
    beside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        beside.write_text(text, encoding="utf8")
        try:
            os.link(beside, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            with path.open("x", encoding="utf8") as file:
                file.write(text)
    finally:
        beside.unlink(missing_ok=True)


def _owner(path: Path) -> Owner | None:
    """Return who made a lock; None where it does not say."""
    try:
        return Owner(**json.loads(path.read_text(encoding="utf8")))
    except (OSError, ValueError, TypeError):
        return None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process of this machine at a time look at the lock of ``folder`` and change it."""
    if fcntl is None:
        yield
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a system that opens no folders
        yield
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:  # a file system that knows no locks
            log.debug("%s takes no locks", folder)
        yield
    finally:
        os.close(descriptor)


def _prune(folder: Path, top: Path | None, kept: set[Path]) -> None:
    """Remove ``folder`` and those above it, as far as they are empty, not to be ``kept``, and below ``top`` or the
    working directory."""
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
        except OSError:  # it holds something
            return
