"""Shared entry point of the scripts: Hydra, one clear line and exit code 2 for bad input, no traceback."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import hydra
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from numba.core import event
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from envs.adapters.pool import WorkerError
from marl.core.checks import require_at_least
from marl.core.types import ConfigError
from marl.run.checkpoint import CheckpointError
from marl.run.compose import one_line, register_configs, tree_folder
from marl.run.metrics import NonFiniteError
from marl.run.signals import StopRequest

log = logging.getLogger(__name__)


class CompileNotice(event.Listener):
    """A listener that says once why nothing happens for a while: numba compiles what its cache does not hold."""

    said = False

    def on_start(self, event: event.Event) -> None:
        if not self.said:
            log.info("compiling for this machine, once: up to a minute")
        self.said = True

    def on_end(self, event: event.Event) -> None:
        """Ignore the end: several compilations follow each other."""


class UnfinishedError(RuntimeError):
    """A run that this process started in another one did not finish; exit code 1."""


class Sweep:
    """The state of a sweep in this process. It is an attribute, because joblib's workers get copies of globals."""

    stopped = False  # by a signal: what is left of a sweep is not begun


class LetRunsSave(Callback):
    """Around a sweep in other processes: Ctrl-C reaches them too, and this one waits until they have saved."""

    def __init__(self) -> None:
        self.stop = StopRequest(("SIGINT",))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self.stop.__enter__()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        self.stop.__exit__()


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn errors that a user can mend into one line and an exit code; others keep their traceback."""
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


CONF = tree_folder()


def positive(cfg: DictConfig, *keys: str) -> None:
    """Refuse values below one."""
    require_at_least("", 1, **{key: cfg[key] for key in keys})


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
