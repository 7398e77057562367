"""Successive sub-value Q-learning (docs/s2q.md)."""

from algos.s2q.algorithm import S2Q
from algos.s2q.learner import S2QLearner

__all__ = ["S2Q", "S2QLearner"]
