"""StarCraft-like battles for many lanes at once, with SMAC's layout and a simulator of its own (docs/skirmish.md).

Importing the package registers ``skirmish/<map>-v0`` with Gymnasium; ``parallel_env`` is the PettingZoo view.
"""

from envs.skirmish.env import Skirmish, UnitView
from envs.skirmish.map_table import MAPS
from envs.skirmish.single import parallel_env, register_all

__all__ = ["MAPS", "Skirmish", "UnitView", "parallel_env"]

register_all()
