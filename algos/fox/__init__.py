"""Formation-aware exploration (docs/fox.md)."""

from algos.fox.algorithm import FoX, FoXHook, FoXLearner

__all__ = ["FoX", "FoXHook", "FoXLearner"]
