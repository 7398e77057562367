"""Shared entry point of the scripts: Hydra, one clear line and exit code 2 for bad input, no traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from marl.checkpoint import CheckpointError
from marl.config import register
from marl.metrics import NonFiniteError
from marl.types import ConfigError


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def fail(error: BaseException, code: int) -> None:
    print(f"error: {one_line(error)}", file=sys.stderr)
    sys.exit(code)


def positive(cfg: DictConfig, *keys: str) -> None:
    """Refuse values below one."""
    for key in keys:
        if cfg[key] < 1:
            raise ConfigError(f"{key}={cfg[key]} is too small; it must be at least 1")


def chosen(cfg: DictConfig) -> dict[str, Any]:
    """What a command line changes of a stored run's configuration."""
    return {key: cfg[key] for key in ("seed", "device", "threads", "env", "attack")}


def run(task: Callable[[DictConfig], object], config_name: str) -> None:
    """Compose ``conf/<config_name>.yaml`` with the command line and call ``task``.

    Exit codes: 2 bad input (configuration, paths), 1 a run that broke for a reason it could name.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us instead of being printed by Hydra
    register()
    main = hydra.main(version_base="1.3", config_path="../conf", config_name=config_name)(
        lambda cfg: (task(cfg), None)[1]
    )
    try:
        main()
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        fail(error, 2)
    except (CheckpointError, NonFiniteError) as error:
        fail(error, 1)
