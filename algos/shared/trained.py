"""Teams of earlier runs, for algorithms that play with them or leave them as they are."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Generator

from marl.core.protocols import Algorithm
from marl.core.types import Clock, EnvSpec
from marl.run.build import call, factory
from marl.run.folders import pick_checkpoint, read_team
from marl.run.teams import restore


def load_team(
    run: Path, key: str, spec: EnvSpec, device: torch.device | str, gen: Generator, step: int | None = None
) -> tuple[Algorithm, Clock]:
    """Return the algorithm of the run folder ``run`` as it was at ``step`` (None: its newest checkpoint), and the clock
    of that checkpoint. Raise ConfigError, which calls the folder ``key``, where there is no such run or checkpoint, and
    where the team does not fit ``spec``."""
    team: Algorithm = call(factory(read_team(run, key).algo, "algo"), "algo", spec, device, gen)
    return team, restore(team, run, pick_checkpoint(run, step, key))
