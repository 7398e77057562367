"""Output that nobody reads any more, as once a pipe's reader or a terminal is gone: it is lost, and nothing else is."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from rich.console import Console


class Lasting:
    """A text stream that takes what it cannot write any more, and drops it."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write, as far as somebody reads."""
        with suppress(OSError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, as far as somebody reads."""
        with suppress(OSError):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def lasting(stream: TextIO | None) -> TextIO | None:
    """Return a stream that no write fails on; None for none, which a process begun with closed streams has."""
    return stream if stream is None or isinstance(stream, Lasting) else cast(TextIO, Lasting(stream))


def error_console() -> Console:
    """Return a console for the standard error that outlives its reader."""
    return Console(stderr=True) if sys.stderr is None else Console(file=lasting(sys.stderr))


@contextmanager
def outliving_readers() -> Iterator[None]:
    """Let nothing that this process prints inside this context fail."""
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
            except OSError:  # Python flushes once more at its end
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
