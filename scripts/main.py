"""Shared entry point of the scripts: Hydra, one clear line and exit code 2 for bad input, no traceback."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from numba.core import event
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from marl.core.checks import refuse_strange, require_at_least, require_name, require_writable
from marl.core.distributed import world
from marl.core.processes import follow_starter
from marl.core.types import ConfigError, GameError
from marl.core.validation import refuse_early
from marl.run.checkpoint import CheckpointError
from marl.run.compose import one_line, refuse_bases, register_configs
from marl.run.files import WriteError
from marl.run.lock import tidied
from marl.run.metrics import NonFiniteError
from marl.run.output import outliving_readers
from marl.run.progress import Doing
from marl.run.quoting import repaired
from marl.run.report import short
from marl.run.resume import called_as, command_line
from marl.run.signals import StopRequest
from marl.run.sweep import Entry, Here, Sweep, failures, overview
from marl.run.trees import beside, named_by, tree_folder
from scripts.words import check_words, help_text, setting_up

log = logging.getLogger(__name__)
Task = Callable[[DictConfig], object]


class CompileNotice(event.Listener):
    """A listener that says once why nothing happens for a while: numba compiles whatever is not in its cache."""

    def __init__(self) -> None:
        self.said = False
        self.before: list[str] = []

    def on_start(self, event: event.Event) -> None:
        if not self.said:
            log.info("compiling for this machine, once: up to a minute")
        self.said = True
        self.before.append(Doing.begin("compiling"))

    def on_end(self, event: event.Event) -> None:
        if self.before:
            Doing.begin(self.before.pop())


class UnfinishedError(RuntimeError):
    """A run that this process started in another one did not finish; exit code 1."""


BAD_INPUT = (ConfigError, HydraException, OmegaConfBaseException)
BROKEN = (CheckpointError, GameError, NonFiniteError, UnfinishedError, WriteError)  # for known reasons


def complain(line: str) -> None:
    """Write a line to standard error. In a file that both streams go to, it comes after what was printed before."""
    print(end="", flush=True)
    print(line, file=sys.stderr)


def fail(line: str, code: int) -> NoReturn:
    """Exit with one line on standard error."""
    complain(f"error: {line}")
    sys.exit(code)


@contextmanager
def short_names() -> Iterator[None]:
    """Turn the system's refusal of a path that is too long into a ConfigError."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise ConfigError(f"{error.filename}: {error.strerror}") from error


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn errors that a user can fix into one line and an exit code; others keep their traceback."""
    try:
        with short_names():
            yield
    except BAD_INPUT as error:
        fail(one_line(error), 2)
    except BROKEN as error:
        fail(str(error), 1)
    except BrokenProcessPool:
        fail("a process that worked for this one was killed (out of memory?); the same command continues", 1)
    except KeyboardInterrupt:  # a second one, or before the work began
        complain("interrupted")
        sys.exit(130)


class Kept:
    """A backup of a file that Hydra overwrites before it looks at the runs of a sweep."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.before = (path.read_bytes(), path.stat()) if path.is_file() else None

    def put_back(self) -> None:
        """Restore the file and its folder."""
        if not self.path.is_file():
            return
        if self.before is None:
            with tidied(self.path.parent):
                self.path.unlink()
        elif self.path.read_bytes() != self.before[0] or self.path.stat().st_mtime_ns != self.before[1].st_mtime_ns:
            content, stat = self.before
            self.path.write_bytes(content)
            os.utime(self.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


class Sweeps:
    """The sweep of this command, for the callback below, which Hydra instantiates."""

    current = Sweep()
    around = contextlib.ExitStack()
    written: Kept | None = None


class FollowSweep(Callback):
    """Refuses, before any folder is made, names that lead elsewhere, nan and infinite numbers, sweeps under torchrun,
    and runs that would not reach Slurm. Around a sweep in other processes it passes signals to this one on to all runs,
    and makes this one wait until they have saved."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        if _launcher(config) == "SlurmLauncher":
            fail("launch=slurm needs -m; without it the run would be trained on this machine", 2)
        with exit_codes():
            refuse_early(config)
            refuse_bases(config.hydra.runtime.choices)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        if (ranks := world()[1]) > 1:  # after a run that fails on one of them, the others would still be in it
            fail(f"torchrun trains one run at a time, with its {ranks} processes; leave out -m", 2)
        if _launcher(config) == "SlurmLauncher" and shutil.which("srun") is None:
            fail(
                "launch=slurm needs Slurm, but there is no srun on this machine; launch=slurm_dry prints the job, "
                "launch=joblib uses the cores of this machine",
                2,
            )
        Sweeps.written = Kept(Path(config.hydra.sweep.dir) / "multirun.yaml")
        if _launcher(config) != "BasicLauncher":
            Sweeps.current.share(Path(config.hydra.sweep.dir))
            answer = "stopping once the current runs have saved; press again to stop immediately"
            Sweeps.around.enter_context(StopRequest(answer, Sweeps.current.ask_to_stop))
            Sweeps.around.enter_context(Sweeps.current.show_bars())

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Keep what a search has found next to its runs: Optuna's sweeper writes one file for all searches."""
        top = Path(config.hydra.sweep.dir)
        if (found := top / "optimization_results.yaml").is_file() and "optuna" in str(config.hydra.sweeper._target_):
            kept = top / str(config.name) / "search.yaml"
            kept.parent.mkdir(parents=True, exist_ok=True)
            found.replace(kept)
            best = OmegaConf.load(kept)
            with_values = " ".join(f"{key}={value}" for key, value in best.best_params.items())
            print(f"best {config.objective} {best.best_value:.4g} with {with_values}; kept in {short(kept.absolute())}")


def _launcher(config: DictConfig) -> str:
    return str(config.hydra.launcher.get("_target_")).rpartition(".")[2]


def _run_of_sweep(sweep: Sweep, task: Task, cfg: DictConfig) -> object:
    """Call ``task`` for one of the runs of a sweep. If it fails, the others still run."""
    run = short(Path(HydraConfig.get().runtime.output_dir))
    if not sweep.may_begin(run):
        log.info("not begun: %s", run)
        sweep.note(Entry(run, "stopped"))
        return None
    result, error = None, ""
    try:
        sweep.claim(run, list(HydraConfig.get().overrides.task))
        result = task(cfg)
    except (*BAD_INPUT, *BROKEN) as known:
        error = one_line(known)
    except Exception as unknown:
        traceback.print_exc()
        error = traceback.format_exception_only(unknown)[-1].strip()
    if error:
        complain(f"error: {run}: {error}")
        sweep.note(Entry(run, "failed", error))
    else:
        score = result if isinstance(result, float) else None
        stopped = Here.stopped and result is None  # with a result, the sweep was stopped during its final test
        sweep.note(Entry(run, "stopped" if stopped else "finished", score=score))
    return result


@contextmanager
def searching() -> Iterator[None]:
    """Leave it to the runs' own errors to say why a search has found nothing."""
    try:
        yield
    except ValueError as error:
        if "No trials are completed" not in str(error):  # Optuna's wording
            raise


CONF = tree_folder()


def positive(cfg: DictConfig, *keys: str) -> None:
    """Refuse values below one."""
    require_at_least("", 1, **{key: cfg[key] for key in keys})


def writable_file(cfg: DictConfig) -> None:
    """Refuse ``out=FILE`` if no such file can be written, before any work is done."""
    require_name(out=cfg.out)
    if cfg.out is not None:
        require_writable("", files=True, out=Path(cfg.out))


@outliving_readers()
def run(task: Task, config_name: str) -> None:
    """Compose ``conf/<config_name>.yaml`` with the command line and call ``task``.

    Exit codes: 2 bad input (configuration, paths), 1 a run that broke for a known reason, or a sweep with a run that
    failed.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us instead of being printed by Hydra
    begun: list[bool] = []
    sys.argv[1:] = repaired(sys.argv[1:])
    with exit_codes():
        register_configs()
        words = check_words(sys.argv[1:])
    places, typed = named_by(words.overrides, words.config_dir), command_line()
    if words.help:
        with beside(places):
            print(help_text(config_name, task.__globals__["__doc__"], words.overrides))
        return
    follow_starter()
    sweep, Sweeps.written = Sweep(), None
    Sweeps.current = sweep

    def checked(cfg: DictConfig) -> object:
        refuse_bases(HydraConfig.get().runtime.choices)
        refuse_strange(cfg)
        with short_names():
            return task(cfg)

    def job(cfg: DictConfig) -> object:
        begun.append(True)
        folder, top = Path(HydraConfig.get().runtime.output_dir), Path(cfg.get("runs_dir", "."))
        notice = event.install_listener("numba:compile", CompileNotice())
        # perhaps in a process of its own, with a command of its own
        with beside(places), called_as(typed), outliving_readers(), tidied(folder, top), notice:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                return _run_of_sweep(sweep, checked, cfg)
            with exit_codes():
                return checked(cfg)

    with beside(places), exit_codes():
        try:
            with setting_up(begun, words.config_dir), searching():
                hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(job)()
        finally:
            Sweeps.around.close()
            entries = sweep.close()
            if Sweeps.written is not None and all(entry.outcome == "failed" for entry in entries):
                Sweeps.written.put_back()
        print("".join(f"{line}\n" for line in overview(entries)), end="")
        if (line := failures(entries)) is not None:
            raise UnfinishedError(line)
