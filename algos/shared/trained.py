"""Teams of earlier runs, for algorithms that play with them or leave them as they are."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Generator

from marl.core.protocols import Algorithm
from marl.core.types import Clock, EnvSpec
from marl.learn.actor import Act
from marl.run.build import call, factory
from marl.run.folders import pick_checkpoint, read_team
from marl.run.teams import restore, with_act


def load_team(
    run: Path,
    key: str,
    spec: EnvSpec,
    device: torch.device | str,
    gen: Generator,
    step: int | None = None,
    act: Act | None = None,
) -> tuple[Algorithm, Clock]:
    """Return the algorithm of the run folder ``run`` as it was at ``step`` (None: its newest checkpoint), and the clock
    of that checkpoint. Raise ConfigError, which calls the folder ``key``, where there is no such run or checkpoint, and
    where the team does not fit ``spec``. Actors play as ``act`` says (None: as their run tests them)."""
    algo = read_team(run, key).algo
    algo = with_act(algo, act, run) if "act" in algo else algo
    team: Algorithm = call(factory(algo, "algo"), "algo", spec, device, gen)
    return team, restore(team, run, pick_checkpoint(run, step, key))
