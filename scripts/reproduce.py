"""Reproduce a published table from scratch: ``python -m scripts.reproduce table=s2q_shift jobs=2``.

``conf/table/NAME.yaml`` says which sweeps train its runs, one sweep after the other, and what is measured afterwards.
At the end a page shows both (``scripts.report``). Finished runs and cells are kept: the same command continues.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import logging
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from marl.core.checks import require_below, require_name, require_writable
from marl.core.config import SCHEMAS, plain
from marl.core.processes import started_with
from marl.core.types import ConfigError
from marl.core.validation import validate
from marl.run.compose import compose
from marl.run.jobs import Stopped, require_jobs, run_jobs
from marl.run.lock import held
from marl.run.progress import JobProgress
from marl.run.quoting import quoted, shell
from marl.run.signals import StopRequest
from marl.run.trees import flags
from scripts.main import UnfinishedError, run

log = logging.getLogger(__name__)
POLL_S = 0.2


@dataclass(frozen=True)
class Command:
    """A script of this project with its options."""

    script: str
    words: tuple[str, ...]

    @property
    def title(self) -> str:
        return shell((self.script, *self.words))

    @property
    def argv(self) -> list[str]:
        return [sys.executable, "-m", f"scripts.{self.script}", *self.words, *flags()]


def words_of(line: str, key: str) -> list[str]:
    """Return the words of a command line. Raise ConfigError, naming ``key``, if it has none or a quote is unclosed."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise ConfigError(f"{key}: '{line}' is no command line: {error}") from error
    if not words:
        raise ConfigError(f"{key} has an empty line; it must be a script's options")
    return words


def runs_of(sweep: str, more: list[str]) -> list[Command]:
    """Return the single runs of a sweep, in Hydra's grammar and order: ``algo=vdn,qmix seed=range(3)`` gives six. The
    overrides ``more`` replace those of the sweep that have the same key: of equal keys, the last one counts."""
    overrides = OverridesParser.create().parse_overrides([*words_of(sweep, "table.train"), *more])
    by_key = {(one.key_or_group, one.package): one for one in overrides}
    values = [
        [f"{one.get_key_element()}={value}" for value in one.sweep_string_iterator()]
        if one.is_sweep_override()
        else [str(one.input_line)]
        for one in by_key.values()
    ]
    return [Command("train", words) for words in itertools.product(*values)]


def measurement(name: str, line: str, folder: Path, jobs: int | str) -> Command:
    """Return ``line``, a script and its options, changed to write ``folder/name.json`` and its picture."""
    script, *words = words_of(line, f"table.measure.{name}")
    require_below("results", **{f"table.measure.{name}": name})
    options = {key: {field.name for field in fields(schema)} for key, schema in SCHEMAS.items()}
    able = sorted(key for key in options if "results" in options[key] and key != "reproduce")
    if script not in able:
        raise ConfigError(f"table.measure.{name} begins with {script}; it must be one of {', '.join(able)}")
    if "jobs" in options[script]:
        words.append(f"jobs={jobs}")
    return Command(script, (*words, f"results={folder / name}.json"))


@functools.cache
def folder_of(run: Command) -> Path:
    """Return the folder of a run; it need not exist."""
    cfg = compose(*run.words)
    return Path(cfg.runs_dir) / cfg.run_path


def report(sweeps: list[list[Command]], measured: list[Command], path: Path) -> list[Command]:
    """Return the command that shows the runs of ``sweeps``, and the matrices that ``measured`` write, on one page; none
    if there are neither."""
    folders = [folder_of(one) for one in itertools.chain(*sweeps)]
    given = {"runs": [str(folder) for folder in folders]} if folders else {}
    for one in measured:
        if one.script in ("robustness", "crossplay"):
            given.setdefault(one.script, []).append(one.words[-1].removeprefix("results="))
    words = [f"{key}=[{','.join(map(quoted, paths))}]" for key, paths in given.items()]
    return [Command("report", (*words, f"out={quoted(str(path))}", f"title={quoted(path.stem)}"))] if given else []


def finish(command: Command, tell: Callable[[float], None], output: IO[str] | None = None) -> int:
    """Run a command in another process, which ends with this one, and return its exit code. A stop lets it save."""
    # a session of its own, so that Ctrl-C reaches it only once, from here
    with subprocess.Popen(
        command.argv, stdout=output, stderr=output, start_new_session=True, env=started_with()
    ) as child:
        try:
            while (code := child.poll()) is None:
                tell(0.0)
                time.sleep(POLL_S)
        except Stopped:
            child.terminate()
            raise
        return code


def train(command: Command, tell: Callable[[float], None]) -> str | None:
    """Train in another process; return its last output line if it did not finish."""
    with tempfile.TemporaryFile("w+", encoding="utf8") as said:
        code = finish(command, tell, said)
        said.seek(0)
        last = (said.read().strip().splitlines() or [f"exit code {code}"])[-1]
        return None if code == 0 and "the same command continues" not in last else last


def train_all(sweeps: list[list[Command]], jobs: int | str, stop: StopRequest) -> None:
    """Train one sweep after the other, ``jobs`` runs at once. If a run fails, the others of its sweep still finish, but
    later sweeps are not started."""
    with JobProgress(sum(map(len, sweeps))) as progress:
        for sweep in sweeps:
            failed: dict[str, str] = {}
            for command, why in run_jobs(train, sweep, jobs, stop, progress, only_waits=True):
                log.info("%s: %s", command.title, why or "done")
                failed |= {command.title: why} if why else {}
            if failed:
                raise UnfinishedError(f"{len(failed)} of {len(sweep)} runs did not finish, first {next(iter(failed))}")


def measure_all(commands: list[Command], stop: StopRequest) -> int:
    """Measure; return the exit code of the first that fails, or 0."""

    def tell(done: float) -> None:
        if stop:
            raise Stopped

    for command in commands:
        tell(0.0)
        log.info(command.title)
        code = finish(command, tell)
        if code:
            return code
    return 0


def check(commands: list[Command]) -> None:
    """Compose each command before anything starts."""
    for command in commands:
        cfg = compose(*command.words, config=command.script)
        if command.script == "train":
            validate(cfg)


def different(sweep: list[Command]) -> list[Command]:
    """Return one run of each kind of a sweep: those that differ only in their seeds compose the same way."""
    kinds = {tuple(word for word in run.words if not word.startswith("seed=")): run for run in reversed(sweep)}
    return list(kinds.values())


def texts(tree: Any) -> Iterator[str]:
    """Yield the texts in a configuration, at any depth."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, list | dict):
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from texts(part)


def finds(pattern: str, folder: Path) -> bool:
    """Return whether a run in ``folder``, which need not exist, would be at or below what ``pattern`` matches."""

    def at_or_below(parts: Sequence[str], pieces: Sequence[str]) -> bool:
        if not pieces:
            return True
        if pieces[0] == "**":
            return any(at_or_below(parts[k:], pieces[1:]) for k in range(len(parts) + 1))
        here = bool(parts) and (parts[0] == pieces[0] or fnmatchcase(parts[0], pieces[0]))
        return here and at_or_below(parts[1:], pieces[1:])

    return bool(pattern) and at_or_below(Path(os.path.abspath(folder)).parts, Path(os.path.abspath(pattern)).parts)


def refuse_moved(lines: Sequence[str], more: list[str], measured: Mapping[str, Command]) -> None:
    """Raise ConfigError if the overrides ``more`` move runs of a recipe from where its measurements look for them."""
    moving = [word for word in more if not word.startswith("seed=")]
    if not moving:
        return
    seeds = [word for word in more if word.startswith("seed=")]
    patterns = [
        (name, text) for name, one in measured.items() for text in texts(plain(compose(*one.words, config=one.script)))
    ]
    for line in lines:
        try:
            meant = [folder_of(one) for one in different(runs_of(line, seeds))]
        except ConfigError:  # a line that is whole only with the overrides
            continue
        found = [folder_of(one) for one in different(runs_of(line, more))]
        for name, pattern in patterns:
            if any(finds(pattern, one) for one in meant) and not any(finds(pattern, one) for one in found):
                raise ConfigError(
                    f"overrides: {' '.join(moving)} would train {found[0]}, where table.measure.{name} does not look; "
                    f"it looks for {pattern}. Options that name no folder are allowed, as log.to=[]"
                )


def main(cfg: DictConfig) -> None:
    require_jobs(cfg.jobs)
    require_name(results=cfg.results)
    require_writable("", results=Path(cfg.results))
    if not cfg.table.train and not cfg.table.measure:
        raise ConfigError("table has neither runs to train nor anything to measure")
    sweeps = [runs_of(sweep, plain(cfg.overrides)) for sweep in cfg.table.train]
    measured = [measurement(name, line, Path(cfg.results), cfg.jobs) for name, line in cfg.table.measure.items()]
    check([*itertools.chain(*map(different, sweeps)), *measured])
    refuse_moved(cfg.table.train, plain(cfg.overrides), dict(zip(cfg.table.measure, measured, strict=True)))
    if cfg.report and importlib.util.find_spec("plotly") is None:
        log.info("there will be no report, which needs the package 'plotly': pip install -e .[report]")
    elif cfg.report:
        name = HydraConfig.get().runtime.choices["table"]
        measured += report(sweeps, measured, Path(cfg.results) / f"{name}.html")
    if cfg.dry_run:
        for command in [*itertools.chain(*sweeps), *measured]:
            print(shell(["python", *command.argv[1:]]))
        return
    answer = "stopping once the current runs have saved; press again to stop immediately"
    with held(Path(cfg.results), "results"), StopRequest(answer) as stop:
        try:
            train_all(sweeps, cfg.jobs, stop)
            code = measure_all(measured, stop)
        except Stopped:
            log.info("stopped by %s; the same command continues", stop.name)
            return
    if code:
        sys.exit(code)


if __name__ == "__main__":
    run(main, "reproduce")
