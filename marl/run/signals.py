"""Signals that ask a run to save and stop; a second one of the same kind stops at once."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

HANDLED = ("SIGINT", "SIGTERM", "SIGUSR1")


class StopRequest:
    """A context in which the first signal that ``handled`` names only sets ``name``."""

    def __init__(self, handled: tuple[str, ...] = HANDLED) -> None:
        self.handled = handled
        self.name: str | None = None
        self._previous: dict[int, Any] = {}

    def __bool__(self) -> bool:
        return self.name is not None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def __enter__(self) -> StopRequest:
        for name in self.handled:
            number = getattr(signal, name, None)  # no SIGUSR1 on Windows
            if number is not None:
                try:
                    self._previous[number] = signal.signal(number, self._handle)
                except ValueError:  # not the main thread: the program that runs it there handles signals
                    break
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._restore()
