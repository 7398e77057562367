"""The runs of one command with ``-m``: the outcome of each, and requests to stop, also across processes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import uuid
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from marl.core.processes import SAVING_S, follow_parent, ignore_signals, parent_lost
from marl.core.types import ConfigError
from marl.run.bars import Bars, Teller, short_name
from marl.run.output import error_console
from marl.run.progress import ConsoleHandler, Doing
from marl.run.signals import StopRequest

log = logging.getLogger(__name__)


class Here:
    """The state of a sweep in one of its processes; in attributes of a class, because joblib's workers get copies of
    globals."""

    stopped = False  # a signal stopped a run here: the remaining ones are not started
    is_worker = False  # prepared by ``begin_worker``
    busy = False  # with a run


@dataclass(frozen=True)
class Entry:
    """The outcome of a run."""

    run: str
    outcome: Literal["finished", "stopped", "failed"]
    error: str = ""
    score: float | None = None  # the objective of the run, if it is a number


class Sweep:
    """The record of a sweep's runs. Processes get copies of it, and share ``folder`` while the sweep lasts."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.folder: Path | None = None
        self.entries: list[Entry] = []
        self.claimed: dict[str, str] = {}  # the overrides of each run, if one process does them all
        Here.stopped = False

    def share(self, parent: Path) -> None:
        """Make a folder in ``parent`` that other processes can see, also on other machines."""
        self.folder = parent.absolute() / f".sweep-{uuid.uuid4().hex[:12]}"
        self.folder.mkdir(parents=True)

    def show_bars(self) -> AbstractContextManager[object]:
        """Draw a bar for every run, if this process has a terminal; runs that begin later then report to it."""
        assert self.folder is not None
        if not error_console().is_terminal:
            return contextlib.nullcontext()
        (self.folder / "bars").touch()
        return Bars(self.folder)

    def ask_to_stop(self, signal_name: str) -> None:
        """Tell the processes of the sweep that a signal reached the one that waits for them."""
        if self.folder is None:
            return
        whole = self.folder / "asking"
        try:
            whole.write_text(signal_name, encoding="utf8")
            whole.replace(self.folder / "stop")
        except OSError:  # a full disk still takes empty files
            (self.folder / "stop").touch()

    def may_begin(self, run: str) -> bool:
        """Prepare this process for a run; return whether the run may begin."""
        started_by = multiprocessing.parent_process()
        if started_by is not None and started_by.pid is not None and self.folder is not None:
            StopRequest.asked = self.folder / "stop"
            begin_worker()
            if StopRequest.asked.exists() or parent_lost(started_by.pid):
                Here.stopped = True
        elif os.getpid() != self.process and self.folder is not None:  # on a cluster, which ends its processes itself
            StopRequest.asked = self.folder / "stop"
            Here.stopped = StopRequest.asked.exists()
        Here.busy = not Here.stopped
        if os.getpid() != self.process and Here.busy:
            self._name_lines(run)
        return Here.busy

    def claim(self, run: str, overrides: list[str]) -> None:
        """Claim the folder ``run`` for ``overrides``; raise ConfigError if another run of the sweep has it. A search
        may come to the same overrides twice."""
        mine = json.dumps(sorted(overrides))
        if self.folder is None:
            theirs = self.claimed.setdefault(run, mine)
        else:
            path = self.folder / f"{hashlib.sha256(run.encode()).hexdigest()[:16]}.claim"
            try:
                with path.open("x", encoding="utf8") as file:
                    file.write(mine)
                return
            except FileExistsError:
                theirs = path.read_text(encoding="utf8") or mine  # being written just now, or on a full disk
            except OSError:
                return
        if theirs != mine:
            only = sorted(set(json.loads(mine)) ^ set(json.loads(theirs)))
            raise ConfigError(
                f"it has the folder of another run of this sweep, from which it differs in {', '.join(only)}: such "
                "options name no folder; sweep over name= too"
            )

    def _name_lines(self, run: str) -> None:
        """Put the run's name before the lines that this process prints; print only warnings where bars are drawn."""
        ConsoleHandler.whose = short_name(run)
        Doing.teller = None
        if self.folder is not None and (self.folder / "bars").exists():
            Doing.teller = Teller(self.folder, run)
            for handler in logging.getLogger().handlers:
                if isinstance(handler, ConsoleHandler):
                    handler.setLevel(logging.WARNING)

    def note(self, entry: Entry) -> None:
        """Record the outcome of a run. Raise RuntimeError if its failure would otherwise go unnoticed."""
        Here.busy = False
        if Doing.teller is not None:
            Doing.teller.close()
        if os.getpid() == self.process:
            self.entries.append(entry)
        elif self.folder is not None:
            path = self.folder / f"{uuid.uuid4().hex}.json"
            try:
                path.write_text(json.dumps(asdict(entry)), encoding="utf8")
            except FileNotFoundError:  # the sweep has ended without this run
                return
            except OSError as error:  # the file, if there is one, still counts as a run
                log.warning("%s %s, but that could not be noted: %s", entry.run, entry.outcome, error.strerror)
        elif entry.outcome == "failed":
            raise RuntimeError(f"{entry.run}: {entry.error}")

    def close(self) -> list[Entry]:
        """Return the outcomes of all runs and remove the folder."""
        if self.folder is not None:
            for path in self.folder.glob("*.json"):
                try:
                    self.entries.append(Entry(**json.loads(path.read_text(encoding="utf8"))))
                except (OSError, ValueError, TypeError):
                    self.entries.append(Entry("a run", "failed", "what became of it could not be noted"))
            shutil.rmtree(self.folder, ignore_errors=True)
        return sorted(self.entries, key=lambda entry: entry.run)


def begin_worker() -> None:
    """Let this process of a sweep leave signals to its parent and end with it. Joblib's workers call this before they
    wait for runs, those of other launchers at their first run."""
    if not Here.is_worker:
        Here.is_worker = True
        ignore_signals()  # outside of ``fit``
        follow_parent(grace=SAVING_S, busy=lambda: Here.busy)


def overview(entries: list[Entry]) -> list[str]:
    """Return lines with the outcomes of the runs of a sweep; none for a single run."""
    if len(entries) < 2:
        return []
    counts = {name: sum(entry.outcome == name for entry in entries) for name in ("finished", "stopped", "failed")}
    parts = [f"{count} {name}" for name, count in counts.items() if count]
    width = max(len(entry.run) for entry in entries)
    lines = [f"{len(entries)} runs: {', '.join(parts)}"]
    for entry in entries:
        score = "" if entry.score is None else f"{entry.score:10.3f}"
        lines.append(f"  {entry.run:<{width}}  {entry.outcome:<8}{score}")
    return lines


def failures(entries: list[Entry]) -> str | None:
    """Return one line that names the runs that failed, or None."""
    failed = [f"{entry.run}: {entry.error}" for entry in entries if entry.outcome == "failed"]
    if not failed:
        return None
    finished = sum(entry.outcome == "finished" for entry in entries)
    return f"{finished} of {len(entries)} runs finished; failed: {'; '.join(failed)}"
