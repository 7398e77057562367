"""Formation-aware exploration (docs/fox.md)."""

from algos.fox.algorithm import FoX
from algos.fox.aware import Awareness
from algos.fox.hook import FoXHook
from algos.fox.learner import FoXLearner
from algos.fox.nets import FoXAgent

__all__ = ["Awareness", "FoX", "FoXAgent", "FoXHook", "FoXLearner"]
