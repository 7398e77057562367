"""Focused influence maximisation (docs/fim.md)."""

from algos.fim.cog import CenterOfGravity
from algos.fim.hook import FIM
from algos.fim.schedule import RandomFirst

__all__ = ["FIM", "CenterOfGravity", "RandomFirst"]
