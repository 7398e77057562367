"""Signals that ask a run to save and stop; a second one stops at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, ClassVar

HANDLED = ("SIGINT", "SIGTERM", "SIGUSR1")


class StopRequest:
    """A context in which the first signal of ``HANDLED`` sets ``name``, is answered on the terminal at once (``answer``
    says what happens now) and calls ``then``.

    If ``asked`` names a file, its existence requests a stop too: the parent of a sweep writes the signal's name there.
    ``heard`` stays true after a signal reached any of these contexts in this process, until it is set to False.
    """

    asked: ClassVar[Path | None] = None
    heard: ClassVar[bool] = False

    def __init__(
        self, answer: str = "stopping after this collection; again to stop at once",
        then: Callable[[str], object] | None = None,
    ) -> None:  # fmt: skip
        self.answer, self.then = answer, then
        self.name: str | None = None
        self._previous: dict[int, Any] = {}

    def __bool__(self) -> bool:
        if self.name is None and self.asked is not None and self.asked.exists():
            self.name = self.asked.read_text() or "a signal"
        return self.name is not None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name
        StopRequest.heard = True
        self._restore()
        if self.asked is None and sys.stderr is not None:  # otherwise the parent answers
            with suppress(OSError):  # nobody reads it any more
                os.write(2, f"\n{self.name}: {self.answer}\n".encode())  # streams may be in the middle of a line
        if self.then is not None:
            with suppress(OSError):  # a full disk
                self.then(self.name)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def __enter__(self) -> StopRequest:
        for name in HANDLED:
            number = getattr(signal, name, None)  # no SIGUSR1 on Windows
            if number is not None:
                try:
                    self._previous[number] = signal.signal(number, self._handle)
                except ValueError:  # not the main thread: the program that runs it there handles signals
                    break
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._restore()
