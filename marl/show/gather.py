"""The runs of a plot: read, named, and in groups of seeds. Unfinished and damaged ones are left out and listed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from marl.core.checks import require_name
from marl.core.config import resolved
from marl.core.types import ConfigError
from marl.run import folders

T = TypeVar("T")
Rows = list[dict[str, Any]]  # one run's eval.jsonl


@dataclass(frozen=True)
class Run:
    """One seed. ``unfinished`` says how far it got; None: to its end. ``meta`` says where it comes from, and is read
    only for what is published."""

    folder: Path
    config: dict[str, Any]
    rows: Rows
    unfinished: str | None
    meta: dict[str, Any]

    @property
    def seed(self) -> int:
        return int(self.config["seed"])


@dataclass(frozen=True)
class LeftOut:
    """A run folder that takes part in no average, and why."""

    folder: Path
    why: str


Tasks = dict[str, dict[str, list[Run]]]  # environment -> group of runs -> its seeds


def gather(
    patterns: str | Sequence[str], *, unfinished: bool = False, also: tuple[str, ...] = (), metas: bool = False
) -> tuple[Tasks, list[LeftOut]]:
    """Return the runs below every path that one of ``patterns`` matches, by environment and, within it, by everything
    but the seed, and the run folders that are left out. ``unfinished`` includes runs that have not reached their end.
    Rows are those of tests, and those of training that have a scalar of ``also``. Raise ConfigError for a pattern that
    matches no run, where nothing is left, and for equal seeds in a group."""
    several = [patterns] if isinstance(patterns, str) else list(patterns)
    pattern = ",".join(several)
    kept: list[Run] = []
    left: list[LeftOut] = []
    for folder in _folders(several):
        try:
            run = _read(folder, also, metas)
        except ConfigError as error:
            left.append(LeftOut(folder, str(error)))
            continue
        if run.unfinished is None or (unfinished and run.rows):
            kept.append(run)
        else:
            left.append(LeftOut(folder, run.unfinished))
    if not kept:
        hint = "" if unfinished else "; unfinished=true takes in what is unfinished"
        count = f"{len(left)} run folder{'s' * (len(left) > 1)}"
        raise ConfigError(f"runs={pattern}: none of {count} can be averaged: {left[0].folder}: {left[0].why}{hint}")
    tasks: Tasks = {}
    names = folders.names([(run.folder, run.config) for run in kept])
    folders.refuse_equal_seeds([(run.folder, *name) for run, name in zip(kept, names, strict=True)], f"runs={pattern}")
    for (task, label, _), run in zip(names, kept, strict=True):
        tasks.setdefault(task, {}).setdefault(label, []).append(run)
    for groups in tasks.values():
        for members in groups.values():
            members.sort(key=lambda run: run.seed)  # folders sort as text: 10 before 2
    return tasks, left


def _folders(patterns: Sequence[str]) -> list[Path]:
    """Return the run folders that patterns match, each once, in order. Raise ConfigError for a pattern that matches
    none, and where none of them has been tested."""
    found: dict[Path, Path] = {}
    none = ",".join(patterns)
    for pattern in patterns:
        require_name(runs=pattern)
        begun = folders.find_runs(pattern, "meta.json")
        tested = folders.find_runs(pattern, folders.TESTED, folders.TESTED)
        if not (begun or tested):
            raise ConfigError(f"runs={pattern} matches no run folder with test results (eval.jsonl)")
        none = "" if tested else none
        found |= {folder.resolve(): folder for folder in (*begun, *tested)}
    if none:
        raise ConfigError(f"runs={none} matches no run folder with test results (eval.jsonl)")
    return sorted(found.values())


def _read(folder: Path, also: tuple[str, ...], metas: bool) -> Run:
    """Read one run folder; raise ConfigError saying what is wrong with it."""

    def config() -> tuple[dict[str, Any], int | None]:
        found = resolved(folders.read_config(folder))
        folders.identify(found)
        steps = found.get("train", {}).get("total_steps")
        return found, None if steps is None else int(steps)

    def done() -> int:
        return int(json.loads((folder / "DONE").read_text(encoding="utf8"))["env_steps"])

    def meta() -> dict[str, Any]:
        found = folders.read_meta(folder)
        return {**{key: str(found[key]) for key in ("commit", "command")}, "physics": str(found.get("physics", 1))}

    options, total = _whole("config.json", config)  # a run that does not say how long it is counts as finished
    short = total is not None and not ((folder / "DONE").exists() and _whole("DONE", done) >= total)
    rows = _rows(folder / folders.TESTED, may_be_cut=short)
    training = _rows(folder / "metrics.jsonl", may_be_cut=short) if also or short else []
    if not (rows or short):
        raise ConfigError("it has no test results")
    reached = max((int(row["env_steps"]) for row in rows + training), default=0)
    return Run(
        folder, options, rows + [row for row in training if rows and any(key in row for key in also)],
        f"unfinished, at step {reached:,} of {total:,}" if short else None, _whole("meta.json", meta) if metas else {},
    )  # fmt: skip


def _whole(file: str, read: Callable[[], T]) -> T:
    """Return what ``read`` returns; raise ConfigError naming the file if it cannot."""
    try:
        return read()
    except Exception as error:
        raise ConfigError(f"{file} is damaged or missing ({type(error).__name__})") from error


def _rows(path: Path, may_be_cut: bool) -> Rows:
    """Return the rows of a ``.jsonl`` file of scalars. Raise ConfigError for a malformed line; the last one of an
    unfinished run ``may_be_cut``."""
    rows: Rows = []
    lines = path.read_bytes().splitlines() if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            int(row["env_steps"])
            [float(value) for key, value in row.items() if "/" in key and value is not None]
        except (ValueError, KeyError, TypeError):
            if may_be_cut and number == len(lines):
                break
            raise ConfigError(f"{path.name} is damaged in line {number}") from None
        rows.append(row)
    return rows
