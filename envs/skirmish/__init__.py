"""StarCraft-like battles for many lanes at once, with SMAC's layout and a simulator of its own (docs/skirmish.md).

Importing the package registers ``skirmish/<map>-v0`` with Gymnasium; ``parallel_env`` is the PettingZoo view. The
simulator itself is imported when one of its names is used: every command reads the table of maps, few run a battle.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import gymnasium

from envs.skirmish.map_table import MAPS

if TYPE_CHECKING:
    from envs.skirmish.env import Skirmish, UnitView
    from envs.skirmish.single import parallel_env

__all__ = ["MAPS", "Skirmish", "UnitView", "parallel_env"]

HOMES = {"Skirmish": "env", "UnitView": "env", "parallel_env": "single"}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *HOMES])


for _map in MAPS:
    if f"skirmish/{_map}-v0" not in gymnasium.registry:
        gymnasium.register(f"skirmish/{_map}-v0", "envs.skirmish.single:SkirmishGym", kwargs={"map": _map})
del _map
