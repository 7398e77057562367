"""StarCraft-like battles for many lanes at once, with SMAC's layout and a simulator of its own (docs/skirmish.md)."""

from envs.skirmish.env import Skirmish, UnitView
from envs.skirmish.map_table import MAPS

__all__ = ["MAPS", "Skirmish", "UnitView"]
