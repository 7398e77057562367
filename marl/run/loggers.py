"""Loggers take a run's scalars in addition to its JSON lines: TensorBoard, CSV, Weights & Biases, MLflow, or your own.

A logger is made as ``Class(run, **options)`` and receives every row that ``metrics.jsonl`` and ``eval.jsonl`` get. The
JSON lines are the record that everything else reads; a logger that fails is dropped with one warning and does the run
no other harm.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import logging
import math
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from omegaconf import DictConfig

from marl.core.checks import require_choice, require_extra
from marl.core.config import flatten
from marl.core.types import ConfigError
from marl.run.build import call, check_call, factory
from marl.run.events import EventFile, hparams
from marl.run.files import append, expendable, write_atomic

log = logging.getLogger(__name__)
Scalars = dict[str, float]


@dataclass(frozen=True)
class LoggedRun:
    """The run that a logger is made for. ``env_steps``: the step it continues from, 0 for a fresh start; rows of later
    steps that it wrote before it was interrupted are written again."""

    dir: Path
    config: dict[str, Any]
    env_steps: int

    @property
    def name(self) -> str:
        """Return the folder of the run's seed and the one above it: ``qmix-none/seed0``."""
        return "/".join(self.dir.absolute().parts[-2:])

    def hyperparameters(self) -> dict[str, bool | int | float | str]:
        """Return the options that define a run, by dotted key, as values of types that dashboards support."""
        kept = {key: self.config[key] for key in ("name", "seed", "algo", "env", "attack", "train", "replay")}
        return {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in flatten(kept).items()}

    def key(self, file: str) -> str:
        """Return this run's id with a service. It is kept in ``file`` of the run folder, so that a continued run writes
        to the same record and one that starts over does not."""
        path = self.dir / file
        if not path.exists():
            seed = f"{self.dir.absolute()} {time.time_ns()} {uuid.uuid4()}"
            write_atomic(path, hashlib.sha256(seed.encode()).hexdigest()[:16])
        return path.read_text(encoding="utf8").strip()


class Logger(Protocol):
    """A receiver of rows of scalars. A static method ``require(**options)``, if there is one, raises ConfigError for a
    missing package or a bad option before anything is written."""

    def write(self, table: str, scalars: Scalars, env_steps: int) -> None:
        """Write one row of ``table`` ("metrics" or "eval"). Whatever this raises, the run goes on."""

    def close(self) -> None:
        """Write what is left; the run has ended or was stopped."""


class TensorBoard:
    """Event files in ``tb/``, with the run's options as TensorBoard's hyperparameters."""

    def __init__(self, run: LoggedRun) -> None:
        begin = () if run.env_steps else hparams(run.name, run.hyperparameters())
        self.file = EventFile(run.dir / "tb", run.env_steps + 1 if run.env_steps else None, begin)

    def write(self, table: str, scalars: Scalars, env_steps: int) -> None:
        with expendable(self.file.path):
            self.file.write(scalars, env_steps)

    def close(self) -> None:
        """Do nothing: every row is on the disk already."""


class CSV:
    """``metrics.csv`` and ``eval.csv``: one column per scalar, empty where a row lacks it."""

    def __init__(self, run: LoggedRun) -> None:
        self.dir = run.dir
        self.columns: dict[str, list[str]] = {}
        for table in ("metrics", "eval"):
            path = run.dir / f"{table}.csv"
            if path.exists():
                with path.open(encoding="utf8", newline="") as file:
                    rows = [row for row in csv.DictReader(file) if int(row["env_steps"]) <= run.env_steps]
                self._replace(table, rows, list(dict.fromkeys(key for row in rows for key in row)))

    def write(self, table: str, scalars: Scalars, env_steps: int) -> None:
        row = {"env_steps": str(env_steps), **{k: repr(v) if math.isfinite(v) else "" for k, v in scalars.items()}}
        path, columns = self.dir / f"{table}.csv", self.columns.get(table, [])
        with expendable(path):
            if new := [key for key in row if key not in columns]:
                rows: list[dict[str, str]] = []
                if path.exists():
                    with path.open(encoding="utf8", newline="") as file:
                        rows = list(csv.DictReader(file))
                self._replace(table, [*rows, row], [*columns, *new])
            else:
                append(path, _csv([row], columns, head=False).encode())

    def _replace(self, table: str, rows: list[dict[str, str]], columns: list[str]) -> None:
        write_atomic(self.dir / f"{table}.csv", _csv(rows, columns, head=True))
        self.columns[table] = columns

    def close(self) -> None:
        """Do nothing: every row is on the disk already."""


def _csv(rows: list[dict[str, str]], columns: list[str], *, head: bool) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    if head:
        writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


class WandB:
    """Weights & Biases. ``mode``: "offline" keeps the record in ``wandb/`` of the run folder, for ``wandb sync``;
    "online" sends it. ``group`` null: environment, algorithm and attack."""

    def __init__(
        self, run: LoggedRun, *, project: str, mode: str, entity: str | None, group: str | None, tags: list[str]
    ) -> None:
        import wandb

        self.run = wandb.init(
            project=project, entity=entity, mode=cast(Any, mode), tags=tags, name=run.name, dir=str(run.dir),
            group=group or "/".join(run.dir.absolute().parts[-3:-1]), id=run.key("wandb.id"), resume="allow",
            config=run.config, settings=wandb.Settings(console="off", silent=True),
        )  # fmt: skip

    @staticmethod
    def require(*, mode: str, **other: Any) -> None:
        require_choice("log.loggers.wandb", ("offline", "online"), mode=mode)
        require_extra("wandb", "wandb", "log.to=[wandb]")

    def write(self, table: str, scalars: Scalars, env_steps: int) -> None:
        self.run.log(dict(scalars), step=env_steps)

    def close(self) -> None:
        """Wait until the record is complete."""
        self.run.finish()


class MLflow:
    """MLflow. ``uri``: the tracking server or store; null: MLFLOW_TRACKING_URI if it is set, or else ``mlflow.db`` in
    ``runs_dir``."""

    def __init__(self, run: LoggedRun, *, uri: str | None, experiment: str) -> None:
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        self.dir, self.done = run.dir, _written(run.dir / "DONE")
        store = f"sqlite:///{Path(run.config['runs_dir']).absolute() / 'mlflow.db'}"
        self.client = MlflowClient(tracking_uri=uri or os.environ.get("MLFLOW_TRACKING_URI") or store)
        kept = run.dir / "mlflow.id"
        if kept.exists():
            self.id = kept.read_text(encoding="utf8").strip()
            self.client.update_run(self.id, status="RUNNING")
            return
        known = self.client.get_experiment_by_name(experiment)
        try:
            where = known.experiment_id if known else self.client.create_experiment(experiment)
        except MlflowException:  # another run of the sweep was faster
            known = self.client.get_experiment_by_name(experiment)
            if known is None:
                raise
            where = known.experiment_id
        self.id = self.client.create_run(where, run_name=run.name).info.run_id
        write_atomic(kept, self.id)
        values = [Param(key, str(value)[:500]) for key, value in run.hyperparameters().items()]
        for first in range(0, len(values), 100):  # as many as the service takes at once
            self.client.log_batch(self.id, params=values[first : first + 100])

    @staticmethod
    def require(**options: Any) -> None:
        require_extra("mlflow", "mlflow", "log.to=[mlflow]")

    def write(self, table: str, scalars: Scalars, env_steps: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        finite = [Metric(key, value, now, env_steps) for key, value in scalars.items() if math.isfinite(value)]
        self.client.log_batch(self.id, metrics=finite)

    def close(self) -> None:
        """Mark the run as finished, or as killed if it did not reach its end."""
        ended = _written(self.dir / "DONE") not in (None, self.done)  # a continued run may have an earlier DONE
        self.client.set_terminated(self.id, "FINISHED" if ended else "KILLED")


def _written(path: Path) -> tuple[int, int] | None:
    """Return inode and modification time of a file, which change when it is replaced; None if it does not exist."""
    return (path.stat().st_ino, path.stat().st_mtime_ns) if path.exists() else None


def chosen(cfg: DictConfig) -> list[str]:
    """Return the names of the loggers, each once: those of ``log.to``, adjusted by ``log.tensorboard``, an option from
    earlier versions."""
    names = [name for name in dict.fromkeys(cfg.log.to) if name != "tensorboard" or cfg.log.tensorboard is not False]
    return [*names, "tensorboard"] if cfg.log.tensorboard and "tensorboard" not in names else names


def require_loggers(cfg: DictConfig) -> None:
    """Raise ConfigError for a name in ``log.to`` that is not a logger, or one whose package is missing."""
    for name in chosen(cfg):
        if name not in cfg.log.loggers:
            raise ConfigError(
                f"log.to names '{name}', which is no logger; there are {', '.join(sorted(cfg.log.loggers))}, "
                "and your own with +logger@log.loggers.NAME=FILE"
            )
        made = factory(cfg.log.loggers[name], f"log.loggers.{name}")
        check_call(made, f"log.loggers.{name}", run=None)
        if isinstance(made, functools.partial) and hasattr(made.func, "require"):
            made.func.require(**made.keywords)


class Loggers:
    """The loggers of ``log.to``. One that fails is dropped from then on, with one warning."""

    def __init__(self, cfg: DictConfig, run: LoggedRun) -> None:
        self.open: dict[str, Logger] = {}
        for name in chosen(cfg):
            section = f"log.loggers.{name}"
            with self._guard(name):
                self.open[name] = call(factory(cfg.log.loggers[name], section), section, run=run)

    def write(self, table: str, scalars: Scalars, env_steps: int) -> None:
        """Pass a row to every logger."""
        for name, logger in list(self.open.items()):
            with self._guard(name):
                logger.write(table, scalars, env_steps)

    def close(self) -> None:
        """Close every logger."""
        for name, logger in list(self.open.items()):
            with self._guard(name):
                logger.close()
        self.open.clear()

    @contextmanager
    def _guard(self, name: str) -> Iterator[None]:
        """Drop a logger that raises inside this context."""
        try:
            yield
        except Exception as error:
            self.open.pop(name, None)
            words = " ".join(str(error).split()) or type(error).__name__
            log.warning("log.to: %s failed (%s); the run goes on without it", name, words[:300])
