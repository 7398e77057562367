"""Output that outlives its reader: once the other end of a pipe, or the terminal, is gone, only the output is lost."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from rich.console import Console


class Lasting:
    """A text stream that silently drops what it can no longer write."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write, unless the reader is gone."""
        with suppress(OSError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, unless the reader is gone."""
        with suppress(OSError):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def lasting(stream: TextIO | None) -> TextIO | None:
    """Return a stream on which no write fails; None for None, which a process started with closed streams has."""
    return stream if stream is None or isinstance(stream, Lasting) else cast(TextIO, Lasting(stream))


def error_console() -> Console:
    """Return a console on standard error that outlives its reader."""
    return Console(stderr=True) if sys.stderr is None else Console(file=lasting(sys.stderr))


@contextmanager
def outliving_readers() -> Iterator[None]:
    """Keep this process from failing when it prints inside this context and the reader is gone."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = cast(Any, [lasting(stream) for stream in before])
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in before:
            try:
                if stream is not None:
                    stream.flush()
            except OSError:  # Python flushes once more at exit
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
