"""Decide what to do with an existing run folder: continue it, refuse it, or set it aside and start over."""

from __future__ import annotations

import functools
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from marl.core.config import ResumeMode, config_hash, identity, resolved
from marl.core.distributed import world
from marl.core.types import ConfigError
from marl.run import checkpoint
from marl.run.folders import read_config
from marl.run.quoting import shell
from marl.run.trees import own_folders

log = logging.getLogger(__name__)
OURS = (
    "checkpoints",
    "tb",
    "metrics.jsonl",
    "eval.jsonl",
    "config.json",
    "meta.json",
    "DONE",
    "learning_curve.png",
    "metrics.csv",
    "eval.csv",
    "wandb",
    "wandb.id",
    "mlflow.id",
    "reports",
    "train.log",
)
SOURCE = Path(__file__).resolve().parent
# git's patterns: plug-ins anywhere in the repository, but not the configurations that Hydra writes next to results
UNTRACKED = (":(top)*.py", ":(top)*.yaml", ":(top)*.yml", ":(top,exclude)*.hydra/*")


def run_meta(config: dict[str, Any]) -> dict[str, Any]:
    """Return the origin of a result: configuration digest, commit, machine, package versions, command."""
    return {
        "config_hash": config_hash(config),
        "commit": git_commit(),
        "machine": machine(),
        "python": platform.python_version(),
        "packages": dict(versions()),
        "command": command_line(),
        "folder": str(Path.cwd()),
    }


@functools.cache
def versions() -> tuple[tuple[str, str], ...]:
    """Return the packages that results depend on and their versions, as they were when this was first called."""
    found = []
    for name in ("torch", "numpy", "numba", "hydra-core", "gymnasium", "pettingzoo"):
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            found.append((name, "not installed"))
    return tuple(found)


@functools.cache
def machine() -> str:
    """Return the processor, the number of cores and the system of this machine, and nothing that tells whose it is."""
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text(encoding="utf8").splitlines() if cpus.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{model or platform.machine()}, {os.cpu_count()} cores, {platform.system()}"


_call: ContextVar[str | None] = ContextVar("call", default=None)  # a call of the library, in place of a script


@contextmanager
def called_as(call: str) -> Iterator[None]:
    """Let ``command_line`` return ``call`` inside this context: the library call, not the command of the program."""
    token = _call.set(call)
    try:
        yield
    finally:
        _call.reset(token)


def spelled(name: str, *arguments: Any, **options: Any) -> str:
    """Return a call of the library as one would type it, preceded by the calls that add folders of configurations."""
    before = "".join(f"marl.use_configs({str(folder)!r}); " for folder in own_folders())
    words = [repr(argument) for argument in arguments]
    words += [f"{key}={value!r}" for key, value in options.items() if value is not None]
    return f"{before}marl.{name}({', '.join(words)})"


def command_line() -> str:
    """Return the command of this process, quoted for a shell, so that it can be run again."""
    if (call := _call.get()) is not None:
        return call
    program = Path(sys.argv[0])
    words = ["python", "-m", f"scripts.{program.stem}"] if program.parent.name == "scripts" else [sys.argv[0]]
    return shell([*words, *sys.argv[1:]])


@functools.cache
def git_commit() -> str:
    """Return the commit of the source tree as it was at the first call, when a run opened: later edits do not run in
    this process. "unknown" outside a repository. "-dirty" means that files differ from it, or that there is code or
    configuration that it does not contain (``UNTRACKED``)."""
    try:
        commit = _git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
        untracked = _git("ls-files", "--others", "--exclude-standard", *UNTRACKED)
        return f"{commit}-dirty" if untracked and not commit.endswith("-dirty") else commit
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=SOURCE, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def differing_keys(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return 'key: old -> new' for every key that must not change but did."""
    before, after = identity(old), identity(new)
    return [
        f"{key}: {before.get(key)} -> {after.get(key)}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def set_aside(run_dir: Path) -> None:
    """Move everything of an earlier run into ``previous/<k>``; nothing is deleted. Under torchrun, rank 0 does it."""
    if world()[0] != 0:
        return
    present = [run_dir / name for name in OURS if (run_dir / name).exists()]
    if not present:
        return
    taken = [int(p.name) for p in (run_dir / "previous").glob("*") if p.name.isdigit()]
    target = run_dir / "previous" / str(max(taken, default=0) + 1)
    target.mkdir(parents=True)
    for path in present:
        path.rename(target / path.name)
    for path in (target / "tb").glob("*tfevents*"):  # TensorBoard reads exactly the files with this in the name
        path.rename(path.with_name(path.name.replace("tfevents", "set_aside")))
    log.info("the run that was here is kept in %s", target)


def find(run_dir: Path, config: dict[str, Any], resume: ResumeMode) -> Path | None:
    """Return the checkpoint to continue from, or None for a fresh start, before which the folder must be cleared
    (``set_aside``). Nothing is written.

    Raises ConfigError if ``resume=must`` finds none, or if the folder belongs to another configuration.
    """
    if resume == "never":
        return None
    found = checkpoint.newest(run_dir / "checkpoints")
    if found is None:
        if resume == "must":
            raise ConfigError(f"resume=must, but {run_dir / 'checkpoints'} holds no usable checkpoint")
        return None
    _require_same(run_dir, config, found[1])
    return found[0]


def holds(run_dir: Path, config: dict[str, Any], resume: ResumeMode) -> bool:
    """Return whether the folder of a finished run holds the run of ``config``: with a usable checkpoint, or with none
    at all, if they were deleted to save space. Raise ConfigError as ``find`` does."""
    if find(run_dir, config, resume) is not None:
        return True
    if checkpoint.folders(run_dir / "checkpoints") or not (run_dir / "config.json").exists():
        return False
    _require_same(run_dir, config, {})
    return True


def _require_same(run_dir: Path, config: dict[str, Any], meta: dict[str, Any]) -> None:
    if changed := _changes(run_dir, config, meta):
        raise ConfigError(
            f"{run_dir} was trained with another configuration ({'; '.join(changed)}); "
            "give the run another name=..., or start over with resume=never"
        )


def _changes(run_dir: Path, config: dict[str, Any], meta: dict[str, Any]) -> list[str]:
    """Return how ``config`` differs from the configuration that a run folder was trained with. Where its config.json is
    missing or damaged, the digest in the checkpoint's ``meta`` says whether it does."""
    try:
        return differing_keys(resolved(read_config(run_dir)), config)
    except ConfigError as error:
        if meta.get("config_hash") != config_hash(config):
            raise ConfigError(f"{error}, and the checkpoint is of another configuration") from error
        log.warning("%s; it is written again: the checkpoint is of this configuration", error)
        return []
