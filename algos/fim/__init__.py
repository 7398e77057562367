"""Focused influence maximisation (docs/fim.md)."""

from algos.fim.hook import FIM, RandomFirst

__all__ = ["FIM", "RandomFirst"]
