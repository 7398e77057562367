"""Everything this project writes to disk goes through here: files are complete or absent, rows are never torn, and
there is one way to say that a disk is full or read-only.

Results that cannot be written raise ``WriteError``. Rows and reports of a run in progress are ``expendable``: losing
them costs a warning and no more.
"""

from __future__ import annotations

import errno
import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch

from marl.core.states import as_readable, says_unreadable, unreadable

log = logging.getLogger(__name__)


class WriteError(OSError):
    """A file could not be written; its text names the file and the reason in one line."""

    def __str__(self) -> str:
        return f"{self.filename} not written: {self.strerror}"


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Raise a WriteError that names ``path`` in place of any OSError."""
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error


_warned: set[Path] = set()


@contextmanager
def expendable(path: Path) -> Iterator[None]:
    """Carry on if ``path`` cannot be written inside this context; warn once until it can be written again."""
    try:
        with naming(path):
            yield
    except WriteError as error:
        if path not in _warned:
            _warned.add(path)
            log.warning("%s; what belongs there is left out, the work goes on", error)
    else:
        _warned.discard(path)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that takes the place of ``path`` after this context, if nothing fails: readers see the old bytes or
    the new, never a part. Create its folder. Raise WriteError."""
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


def write_atomic(path: Path, text: str) -> None:
    """Replace the text of ``path`` atomically (``replacing``)."""
    with replacing(path) as file:
        file.write(text.encode())


def save_figure(figure: Any, path: Path, dpi: int) -> None:
    """Save a matplotlib figure as ``path``, atomically. Raise WriteError."""
    with replacing(path) as file:
        figure.savefig(file, dpi=dpi, format=path.suffix.removeprefix(".") or "png")


class _Watched:
    """A file for ``torch.save`` that keeps the OSError of a failed write; torch raises a RuntimeError that does not say
    why."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.flush = file, file.flush
        self.failed: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.failed = error
            raise


def save_tensors(value: dict[str, Any], path: Path) -> None:
    """Save tensors and builtins as ``path``, atomically. Values that could not be read back are saved as the nearest
    ones that can, with a warning; raise WriteError if there are none."""
    if lost := list(unreadable(value, "")):
        value = as_readable(value)
        for place, strange in unreadable(value, ""):
            raise WriteError(errno.EINVAL, says_unreadable(place, strange), str(path))
        for place, strange in lost:
            log.warning("%s; it is saved as the nearest of these", says_unreadable(place, strange))
    with replacing(path) as file:
        watched = _Watched(file)
        try:
            torch.save(value, watched)  # type: ignore[arg-type]
        except RuntimeError as error:
            if watched.failed is None:
                raise
            raise watched.failed from error


def append(path: Path, data: bytes, *, lines: bool = True) -> None:
    """Append ``data`` to a file, all of it or nothing. In a file of ``lines`` it starts on a new line, even if a crash
    has cut the last one short. Raise WriteError."""
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            if lines and end:
                file.seek(end - 1)
                data = data if file.read(1) == b"\n" else b"\n" + data
            try:
                while data:  # a disk that is nearly full takes only a part
                    data = data[file.write(data) :]
            except OSError:
                file.truncate(end)
                raise


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to the disk, where the system can open folders (Windows cannot)."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class LogFile(logging.Handler):
    """A log handler that writes to a file, as far as the disk allows."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.failed = path, False
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            append(self.path, f"{self.format(record)}\n".encode())
        except WriteError as error:
            if not self.failed:  # the warning comes here too
                self.failed = True
                log.warning("%s", error)
        else:
            self.failed = False


@contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """Write log lines to ``path`` as well, inside this context: those of level INFO and above, whatever the process
    shows elsewhere."""
    root, file = logging.getLogger(), LogFile(path)
    level, added = root.level, []
    if not root.handlers and logging.lastResort is not None:  # Python's handler for warnings if there is no other
        added.append(logging.lastResort)

    def shown(record: logging.LogRecord) -> bool:
        source: logging.Logger | None = logging.getLogger(record.name)
        while source is not None and source is not root and not source.level:
            source = source.parent
        return source is not root or record.levelno >= level

    elsewhere = [*root.handlers, *added]
    for handler in elsewhere:
        handler.addFilter(shown)
    for handler in (*added, file):
        root.addHandler(handler)
    root.setLevel(min(level, logging.INFO))
    try:
        yield
    finally:
        root.setLevel(level)
        for handler in (*added, file):
            root.removeHandler(handler)
        for handler in elsewhere:
            handler.removeFilter(shown)
