"""Progress bars of runs that train side by side: each process reports its progress in a file, and the one that waits
for them draws a line per run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Column

from marl.run.output import error_console

EVERY_S = 0.5  # between a run's reports
SUFFIX = ".bar"


def short_name(run: str) -> str:
    """Return the parts of a run's path that tell the runs of a sweep apart: environment, algorithm and attack, seed."""
    return "/".join(Path(run).parts[-3:])


class Teller:
    """The reporter of a run's progress, in a file of ``folder`` that other processes see; ``run`` is the path of its
    folder. A run that is restarted because its process is gone uses the same file."""

    def __init__(self, folder: Path, run: str) -> None:
        self.path = folder / f"{hashlib.sha256(run.encode()).hexdigest()[:16]}{SUFFIX}"
        self.run, self.told = short_name(run), -EVERY_S
        self.last: dict[str, Any] = {}

    def tell(self, *, at_once: bool = False, **facts: Any) -> None:
        """Report ``doing``, ``step``, ``total`` and ``status``; what is left out stays as it was. A report too soon
        after another is held back for the next one, unless ``at_once``."""
        self.last |= facts
        if not at_once and time.monotonic() - self.told < EVERY_S:
            return
        self.told = time.monotonic()
        whole = self.path.with_suffix(".asking")
        with contextlib.suppress(OSError):  # the sweep has ended, or the disk is full: no run fails for its bar
            whole.write_text(json.dumps({"run": self.run, **self.last}), encoding="utf8")
            whole.replace(self.path)

    def close(self) -> None:
        """Remove the bar."""
        with contextlib.suppress(OSError):
            self.path.unlink()


class Bars:
    """The bars of the runs that report in ``folder``, drawn inside this context."""

    def __init__(self, folder: Path, console: Console | None = None) -> None:
        self.folder, self.tasks = folder, dict[Path, TaskID]()
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[run]}", markup=False, table_column=Column(no_wrap=True, min_width=24)),
            TextColumn("{task.fields[doing]}", markup=False, table_column=Column(no_wrap=True, min_width=9)),
            BarColumn(12),
            TextColumn("{task.fields[status]}", markup=False,
                       table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
            console=console or error_console(), expand=True,
        )  # fmt: skip
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="bars", daemon=True)

    def look(self) -> None:
        """Draw what the runs have reported."""
        told = {}
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            with contextlib.suppress(OSError, ValueError):  # it has just been removed
                told[path] = json.loads(path.read_text(encoding="utf8"))
        for path in set(self.tasks) - set(told):
            self.progress.remove_task(self.tasks.pop(path))
        for path, facts in sorted(told.items(), key=lambda item: item[1]["run"]):
            what = "stopping" if (self.folder / "stop").exists() else facts.get("doing", "")
            shown = {"run": facts["run"], "doing": what, "status": facts.get("status", "")}
            done, total = facts.get("step", 0), facts.get("total")
            if path not in self.tasks:
                self.tasks[path] = self.progress.add_task("", total=total, **shown)
            self.progress.update(self.tasks[path], completed=done, total=total, **shown)

    def _watch(self) -> None:
        while not self.ended.wait(EVERY_S):
            self.look()

    def __enter__(self) -> Bars:
        self.progress.start()
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()
        self.progress.stop()
