"""Shared entry point of the scripts: Hydra, one clear line and exit code 2 for bad input, no traceback."""

from __future__ import annotations

import difflib
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, MissingConfigException
from hydra.experimental.callback import Callback
from numba.core import event
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

import envs.configs
import scripts.options
from envs.adapters.pool import WorkerError
from marl.core.config import pick_device, register
from marl.core.types import ConfigError
from marl.run.build import use_threads
from marl.run.checkpoint import CheckpointError
from marl.run.metrics import NonFiniteError
from marl.run.signals import StopRequest

log = logging.getLogger(__name__)


class CompileNotice(event.Listener):
    """Says once why nothing happens for a while: numba is at work, not what it stored earlier."""

    said = False

    def on_start(self, event: event.Event) -> None:
        if not self.said:
            log.info("compiling for this machine, once: up to a minute")
        self.said = True

    def on_end(self, event: event.Event) -> None:
        """Several follow each other; the end of one means nothing."""


class UnfinishedError(RuntimeError):
    """A run that this process started in another one did not finish; exit code 1."""


class Sweep:
    """Of this process. An attribute and no global: joblib's workers get a copy of what the main script holds."""

    stopped = False  # by a signal: what is left of a sweep is not begun


class LetRunsSave(Callback):
    """Around a sweep in other processes: Ctrl-C reaches them too, and this one waits until they have saved."""

    def __init__(self) -> None:
        self.stop = StopRequest(("SIGINT",))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self.stop.__enter__()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        self.stop.__exit__()


def register_configs() -> None:
    """Make the schemas, and every option that has no file of its own, known to Hydra; safe to call twice."""
    register()
    envs.configs.register()
    scripts.options.register()


def stored(group: str) -> Iterator[str]:
    """Yield the names that the config store has for ``group``; subgroups as ``folder/NAME``."""
    store = ConfigStore.instance()
    try:
        nodes = store.list(group)
    except OSError:  # the store has no such group
        return
    for node in nodes:
        if node.endswith(".yaml"):
            yield node.removesuffix(".yaml")
        else:
            yield from (f"{node}/{name}" for name in stored(f"{group}/{node}"))


def choices(group: str) -> list[str]:
    """Return the names that ``group=NAME`` accepts, from files and the config store; subgroups as ``folder/NAME``."""
    register_configs()
    folder = CONF / group
    names = {str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml")} | set(stored(group))
    return sorted(name for name in names if Path(name).name != "base")


def one_line(error: BaseException) -> str:
    """The error's own words on one line; a choice that does not exist gets its nearest neighbours."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).partition("/")
        names = choices(group)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        return f"{group}={name} does not exist; {hint}there are {', '.join(names)}"
    words = " ".join(str(error).split())
    cause = error.__cause__
    if isinstance(error, HydraException) and isinstance(cause, OmegaConfBaseException):
        words = f"{words.removesuffix('.')}: {str(cause.msg or cause).splitlines()[0]}"
        if isinstance(cause, ConfigKeyError | ConfigAttributeError) and cause.parent_node is not None:
            words += f"; there are {', '.join(map(str, cause.parent_node))}"
    return words


@contextmanager
def exit_codes() -> Iterator[None]:
    """Errors that a user can mend become one line and an exit code; others keep their traceback."""
    try:
        yield
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except (CheckpointError, NonFiniteError, UnfinishedError, WorkerError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:  # a second one, or before the work began
        print("interrupted", file=sys.stderr)
        sys.exit(130)


CONF = Path(__file__).resolve().parent.parent / "conf"


def option(group: str, name: str) -> DictConfig:
    """The configuration that ``group=name`` selects, for the groups of ``scripts.evaluate``; called within ``run``."""
    return hydra.compose("evaluate", overrides=[f"{group}={name}"])[group]


def positive(cfg: DictConfig, *keys: str) -> None:
    """Refuse values below one."""
    for key in keys:
        if cfg[key] < 1:
            raise ConfigError(f"{key}={cfg[key]} is too small; it must be at least 1")


def plain(node: Any) -> Any:
    """Builtins in the place of a configuration."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def check_matrix(cfg: DictConfig, metrics: Iterable[str]) -> str:
    """Refuse what no matrix of measurements can be made with; returns the device."""
    positive(cfg, "episodes", "n_envs", "jobs")
    use_threads(cfg.threads)
    if cfg.seed < 0:
        raise ConfigError(f"seed={cfg.seed} is too small; it must be at least 0")
    if cfg.metric not in metrics:
        raise ConfigError(f"metric={cfg.metric} is not known; choose one of {', '.join(metrics)}")
    if cfg.results is not None and not cfg.results.endswith(".json"):
        raise ConfigError(f"results={cfg.results} must end in .json; the picture is drawn beside it")
    return str(pick_device(cfg.device))


def run(task: Callable[[DictConfig], object], config_name: str) -> None:
    """Compose ``conf/<config_name>.yaml`` with the command line and call ``task``.

    Exit codes: 2 bad input (configuration, paths), 1 a run that broke for a reason it could name.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us instead of being printed by Hydra
    register_configs()

    def job(cfg: DictConfig) -> None:
        with exit_codes(), event.install_listener("numba:compile", CompileNotice()):
            task(cfg)

    with exit_codes():
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(job)()
