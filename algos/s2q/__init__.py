"""Successive sub-value Q-learning (docs/s2q.md)."""

from algos.s2q.algorithm import S2Q

__all__ = ["S2Q"]
