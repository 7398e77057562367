"""Whatever this project writes to a disk passes here: files that are whole or not there, rows that are never torn, and
one way to say that a disk is full or read-only.

Results raise ``WriteError``. Rows and reports of a run that goes on are ``expendable``: a warning, and no more.
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
    """Go on after this context where ``path`` cannot be written, with one warning until it can be again."""
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
    """Give a file that takes the place of ``path`` after this context, if nothing fails: readers see the old bytes or
    the new, never a part. Makes the folder. Raise WriteError."""
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
    """Replace the text of ``path`` in one step (``replacing``)."""
    with replacing(path) as file:
        file.write(text.encode())


def save_figure(figure: Any, path: Path, dpi: int) -> None:
    """Replace ``path`` in one step by a picture of a figure of matplotlib. Raise WriteError."""
    with replacing(path) as file:
        figure.savefig(file, dpi=dpi, format=path.suffix.removeprefix(".") or "png")


class _Watched:
    """A file for ``torch.save``, which tells of a failed write in a RuntimeError that does not say why."""

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
    """Replace ``path`` in one step by tensors and builtins. What could not be read back is saved as the nearest thing
    that can, with a warning; where there is none, WriteError."""
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
    """Add ``data`` at the end of a file, all of it or nothing. In a file of ``lines`` it begins a new one, whatever a
    crash has left of the last. Raise WriteError."""
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            if lines and end:
                file.seek(end - 1)
                data = data if file.read(1) == b"\n" else b"\n" + data
            try:
                while data:  # a disk that is nearly full takes a part
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
    """Keeps log lines in a file, as far as the disk takes them."""

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
    """Keep log lines also in ``path``, inside this context: those of level INFO and above, whatever the process shows
    elsewhere."""
    root, file = logging.getLogger(), LogFile(path)
    level, added = root.level, []
    if not root.handlers and logging.lastResort is not None:  # what Python shows warnings by, where nobody listens
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
