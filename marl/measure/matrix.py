"""The engine of every matrix of measurements: cells that are identified by content, measured once and kept in files.

``robustness`` (teams against attacks) and ``crossplay`` (teams with each other) describe what their cells are and how
one is played. What they share is here: the setting, keys, files, the pass over what is still missing, and reading it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import pkgutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from omegaconf import DictConfig

from marl.core.checks import require_at_least, require_choice, require_name, require_writable
from marl.core.config import pick_device
from marl.core.seeding import globals_kept
from marl.core.types import ConfigError
from marl.run.build import use_threads
from marl.run.checkpoint import CheckpointError
from marl.run.files import write_atomic
from marl.run.jobs import Stopped, require_jobs, run_jobs
from marl.run.progress import JobProgress
from marl.run.resume import command_line, git_commit
from marl.run.signals import StopRequest

log = logging.getLogger(__name__)
LAYOUT = 1  # of the files that are kept; raise it when their meaning changes, so that old files are no longer read
MEASUREMENT = 1  # of how episodes are played and counted; raise it when a fix to the rules makes old cells wrong
METRICS = {"win_rate": "won", "return": "return"}  # metric: the per-episode values that it is the mean of
Tell = Callable[[float], None]  # receives the share of a job that is done, 0 to 1
Episodes = dict[str, list[Any]]  # per-episode values, as they are kept
Results = dict[str, np.ndarray]  # per-episode values of a cell, as they are read


@dataclass(frozen=True)
class Setting:
    """What all cells of a matrix share. ``device`` and ``threads`` say where they are computed and change no cell."""

    episodes: int  # of every cell
    n_envs: int  # lanes played at once
    seed: int  # of the episodes
    device: str
    threads: int | None
    out: Path

    @property
    def lanes(self) -> int:
        """Return how many lanes one cell uses."""
        return min(self.n_envs, self.episodes)


class Job(Protocol):
    """Work whose result is kept in ``path``; ``key`` is the digest of everything that decides the result."""

    @property
    def title(self) -> str: ...

    @property
    def key(self) -> str: ...

    @property
    def path(self) -> Path: ...


class Preparation(Job, Protocol):
    """Work that cells need first, such as fitting an attack."""

    def prepare(self, tell: Tell) -> str | None: ...  # keeps its result; returns the reason where it is not possible


class Cell(Job, Protocol):
    """Episodes to be measured: a frozen dataclass, so that it can be sent to another process."""

    @property
    def needs(self) -> Preparation | None: ...

    @property
    def why(self) -> str | None: ...  # the reason where it is known beforehand that the cell is not possible

    def about(self) -> dict[str, Any]: ...  # what is kept alongside the episodes, for the record

    def play(self, tell: Tell) -> Episodes: ...  # ConfigError where the cell is not possible


J = TypeVar("J", bound=Job)
C = TypeVar("C", bound=Cell)


def check_outputs(cfg: DictConfig) -> None:
    """Raise ConfigError where the files of a matrix could not be written."""
    require_name(out=cfg.out, results=cfg.results)
    require_writable("", out=Path(cfg.out))
    if cfg.results is not None:
        if not cfg.results.endswith(".json"):
            raise ConfigError(f"results={cfg.results} must end in .json; the picture is drawn next to it")
        require_writable("", files=True, results=Path(cfg.results))


def read_options(cfg: DictConfig) -> dict[str, Any]:
    """Return the fields of ``Setting`` from a script's options. Raise ConfigError for what no matrix can have."""
    require_at_least("", 1, episodes=cfg.episodes, n_envs=cfg.n_envs)
    require_jobs(cfg.jobs)
    require_at_least("", 0, seed=cfg.seed)
    require_choice("", METRICS, metric=cfg.metric)
    use_threads(cfg.threads)
    check_outputs(cfg)
    return {
        "episodes": cfg.episodes, "n_envs": cfg.n_envs, "seed": cfg.seed, "device": str(pick_device(cfg.device)),
        "threads": cfg.threads, "out": Path(cfg.out),
    }  # fmt: skip


def digest(document: dict[str, Any]) -> str:
    """Return the digest of plain data, whatever the order of its keys. It does not change with ``MEASUREMENT``, so that
    what is ordered by it (players who share a random stream) plays the same episodes under every version."""
    text = json.dumps({"layout": LAYOUT, **document}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def physics_of(env: Any) -> int:
    """Return the version of a game's rules: the highest that a class named in its configuration declares; 1 where none
    does. Nothing is instantiated."""
    if not isinstance(env, dict):
        return 1
    inner = [physics_of(value) for value in env.values()]
    try:
        own = int(getattr(pkgutil.resolve_name(str(env["_target_"])), "physics", 1)) if "_target_" in env else 1
    except (ImportError, AttributeError, ValueError):  # making it says what is wrong
        own = 1
    return max([own, *inner])


def content_key(document: dict[str, Any]) -> str:
    """Return the key of a job from everything that decides its result, including ``env``, under the current rules of
    measurement and of the game."""
    version = physics_of(document["env"])
    return digest({"measurement": MEASUREMENT, **({"physics": version} if version > 1 else {}), **document})


def missing(jobs: Iterable[J]) -> list[J]:
    """Return the jobs whose result is not there yet, each key once."""
    return list({job.key: job for job in jobs if not _is_kept(job)}.values())


def _is_kept(job: Job) -> bool:
    return kept(job) is not None if job.path.suffix == ".json" else job.path.exists()


def kept(job: Job) -> dict[str, Any] | None:
    """Return what is kept of a measured cell; None where there is nothing, or where its file is damaged."""
    try:
        document = json.loads(job.path.read_text(encoding="utf8"))
        return document if document["episodes"] and document["commit"] else None
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        log.warning("%s is damaged; it is measured again", job.path)
        return None


@dataclass
class Outcome:
    """The result of a pass over cells: why some are impossible, by key, and whether nothing is left to do."""

    impossible: dict[str, str]
    complete: bool


@globals_kept()
def measure(cells: Iterable[C], processes: int | str) -> Outcome:
    """Prepare and measure whatever is not there yet, in ``processes``. A signal stops the pass after the current round;
    finished cells are kept."""
    pending = missing(cells)
    needed = missing(cell.needs for cell in pending if cell.needs is not None)
    with _one_pass(len(needed) + len(pending), processes) as (outcome, do):
        do(_prepare, needed)
        do(_measure_cell, [_after_preparation(cell, outcome.impossible) for cell in pending])
    for job in needed:
        outcome.impossible.pop(job.key, None)
    return outcome


def _after_preparation(cell: Any, failed: dict[str, str]) -> Any:
    """Return the cell, with the reason if what it needs turned out not to be possible."""
    return replace(cell, why=failed[cell.needs.key]) if cell.needs is not None and cell.needs.key in failed else cell


def _prepare(job: Preparation, tell: Tell) -> str | None:
    return job.prepare(tell)


def _measure_cell(cell: Cell, tell: Tell) -> str | None:
    """Play a cell and keep its episodes; return the reason where it is not possible."""
    if cell.why is not None:
        return cell.why
    started = time.perf_counter()
    try:
        episodes = cell.play(tell)
    except (ConfigError, CheckpointError) as error:
        return str(error)
    document = {
        "title": cell.title, **cell.about(), "commit": git_commit(), "seconds": time.perf_counter() - started,
        "episodes": episodes,
    }  # fmt: skip
    write_atomic(cell.path, json.dumps(document))
    return None


@contextmanager
def _one_pass(total: int, processes: int | str) -> Iterator[tuple[Outcome, Callable[..., None]]]:
    """Yield the outcome of a pass over ``total`` jobs, and a function ``do(work, jobs)`` that does some of them. A
    signal leaves the block after the current round."""
    outcome = Outcome({}, complete=False)
    with StopRequest("stopping after the round in hand") as stop, JobProgress(total) as progress:

        def do(work: Callable[[J, Tell], str | None], jobs: Sequence[J]) -> None:
            for job, why in run_jobs(work, jobs, processes, stop, progress):
                log.info("%s: %s", job.title, f"not possible: {why}" if why else "done")
                if why is not None:
                    outcome.impossible[job.key] = why

        try:
            yield outcome, do
            outcome.complete = True
        except Stopped:
            log.info("stopped by %s; the same command continues", stop.name)


def read_cell(cell: Job, outcome: Outcome) -> Results | str:
    """Return the per-episode values of a measured cell, or why there are none."""
    document = kept(cell)
    if document is None:
        why = outcome.impossible.get(cell.key)
        return "not measured yet" if why is None else f"not possible: {why}"
    return {name: np.asarray(values) for name, values in document["episodes"].items()}


def provenance(cells: Iterable[Job], setting: Setting) -> dict[str, Any]:
    """Return how a matrix came about: commits of this pass and of the cells, the command, lanes and seed."""
    commits = {document["commit"] for cell in cells if (document := kept(cell)) is not None}
    return {
        "commit": git_commit(), "commits": sorted(commits), "command": command_line(), "seed": setting.seed,
        "n_envs": setting.lanes,
    }  # fmt: skip


def in_columns(title: str, lines: list[list[str]]) -> str:
    """Return a title and lines of words below it, the first word left-aligned and the others right-aligned."""
    widths = [max(map(len, words)) for words in zip(*lines, strict=True)]
    texts = ["  ".join([name.ljust(widths[0]), *map(str.rjust, words, widths[1:])]).rstrip() for name, *words in lines]
    return "\n".join([title, *texts])
