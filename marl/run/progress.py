"""Progress display: a rich bar on a terminal, a log line every 30 s elsewhere, or nothing. A run alongside others
reports to the process that waits for all of them instead (``marl.run.bars``)."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from marl.core.config import ProgressMode
from marl.run.bars import Teller
from marl.run.output import error_console

log = logging.getLogger(__name__)
LINE_EVERY_S = 30.0
STOPPING = "stopping"


class ConsoleHandler(logging.StreamHandler):
    """A log handler that looks up ``sys.stderr`` at each line, so that lines appear above a live progress bar.
    ``whose``, if not empty, is the name of the run, put before every line since several processes write here."""

    whose: ClassVar[str] = ""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return f"{self.whose}  {text}" if self.whose else text


@contextmanager
def quiet(name: str) -> Iterator[None]:
    """Let only warnings through from the loggers below ``name`` in this context."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


class Doing:
    """What this process is doing, wherever that is shown."""

    now: ClassVar[str] = "training"
    teller: ClassVar[Teller | None] = None  # of a run alongside others, if bars are drawn for them

    @classmethod
    def begin(cls, what: str) -> str:
        """Switch to doing ``what``; return what was being done before. A run that is stopping keeps saying so."""
        before = cls.now
        if before != STOPPING:
            cls.now = what
        if cls.teller is not None:
            cls.teller.tell(at_once=True, doing=cls.now)
        return before


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Show that this process is doing ``what`` inside this context."""
    before = Doing.begin(what)
    try:
        yield
    finally:
        Doing.begin(before)


class _DoingColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{Doing.now:<9}")


def clock_text(seconds: float) -> str:
    """Format seconds as h:mm:ss."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


class TrainProgress:
    """The progress display of training. ``show`` receives the step and the newest scalars after every collection."""

    def __init__(self, mode: ProgressMode, total_steps: int, first_step: int) -> None:
        console = error_console()
        Doing.now = "training"
        self.teller = Doing.teller if mode in ("auto", "bar") else None
        self.mode = ("bar" if console.is_terminal else "lines") if mode == "auto" else mode
        if self.teller is not None:
            self.mode = "off"
            self.teller.tell(at_once=True, doing=Doing.now, step=first_step, total=total_steps)
        self.total = total_steps
        self.since: tuple[int, float] | None = None  # step and time of the first ``show``, after compilation
        self.last_line = time.monotonic()
        self.bar: Progress | None = None
        if self.mode == "bar":
            self.bar = Progress(
                SpinnerColumn(), _DoingColumn(), BarColumn(), TextColumn("{task.fields[status]}"),
                TimeElapsedColumn(), console=console,
            )  # fmt: skip
            self.task = self.bar.add_task("", total=total_steps, completed=first_step, status="")
            self.bar.start()

    def status(self, step: int, scalars: dict[str, float]) -> str:
        parts, left = [f"{step:,}/{self.total:,} steps"], []
        first, started = self.since or (step, 0.0)
        if step > first:
            speed = (step - first) / max(1e-9, time.monotonic() - started)
            parts.append(f"{speed:,.0f} steps/s")
            left.append(f"left {clock_text(max(0, self.total - step) / speed)}")
        for key, name in (("train/return", "return"), ("train/win_rate", "win"), ("eval/win_rate", "test win")):
            if key in scalars:
                parts.append(f"{name} {scalars[key]:.2f}")
        return "  ".join(parts + left)

    def show(self, step: int, scalars: dict[str, float]) -> None:
        self.since = self.since or (step, time.monotonic())
        if self.teller is not None:
            self.teller.tell(step=min(step, self.total), status=self.status(step, scalars))
        elif self.bar is not None:
            self.bar.update(self.task, completed=min(step, self.total), status=self.status(step, scalars))
        elif self.mode == "lines" and time.monotonic() - self.last_line >= LINE_EVERY_S:
            self.last_line = time.monotonic()
            log.info(self.status(step, scalars))

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def __enter__(self) -> TrainProgress:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class EpisodeProgress:
    """A counter of test episodes: a bar on a terminal, nothing elsewhere."""

    def __init__(self, episodes: int) -> None:
        console = error_console()
        self.bar = Progress(console=console, transient=True) if console.is_terminal else None
        self.episodes = episodes

    def show(self, done: int) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=done)

    def __enter__(self) -> EpisodeProgress:
        if self.bar is not None:
            self.task = self.bar.add_task("episodes", total=self.episodes)
            self.bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self.bar is not None:
            self.bar.stop()


class JobProgress:
    """A counter of ``total`` jobs: a bar on a terminal, a line every 30 s elsewhere."""

    def __init__(self, total: int) -> None:
        console = error_console()
        self.bar = Progress(console=console, transient=True) if console.is_terminal else None
        self.total, self.done, self.last_line = total, 0, time.monotonic()

    def show(self, title: str, part: float) -> None:
        """Show that the share ``part`` (0 to 1) of the current job is done."""
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done + part, description=escape(title))
        elif time.monotonic() - self.last_line >= LINE_EVERY_S:
            self.last_line = time.monotonic()
            log.info("%s: %.0f%%, %d of %d done", title, 100 * part, self.done, self.total)

    def finished(self) -> None:
        """Count one more finished job."""
        self.done += 1
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done)

    def __enter__(self) -> JobProgress:
        if self.bar is not None:
            self.task = self.bar.add_task("", total=self.total)
            self.bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self.bar is not None:
            self.bar.stop()
