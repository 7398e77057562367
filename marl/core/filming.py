"""Schemas of the scripts that record teams, ``record`` and ``report``; all others are in ``marl.core.config``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class FilmedConfig:
    """Options shared by all recordings of a team."""

    episodes: int = MISSING
    act: str | None = None  # greedy or sample, for teams of actors
    seed: int = 0
    device: str = "cpu"
    threads: int | None = None
    fps: float = MISSING
    attack: Any = MISSING


@dataclass
class RecordConfig(FilmedConfig):
    run: str | None = None
    policy: Any = None
    checkpoint: int | None = None
    show: bool = False
    out: str | None = None
    env: Any = None
    env_options: dict[str, Any] = field(default_factory=dict)


@dataclass
class ReportConfig(FilmedConfig):
    runs: Any = None
    robustness: Any = None
    crossplay: Any = None
    out: str = MISSING
    title: str | None = None
    metrics: list[str] | None = None
    last: int = 1
    fractions: list[float] = MISSING
    unfinished: bool = False
    statistics: bool = True
    megabytes: float = MISSING
