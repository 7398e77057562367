"""State-blocking coordination and the zero-shot baselines beside it (docs/sbc.md)."""

from algos.sbc.algorithm import SBC
from algos.sbc.e3t import E3T
from algos.sbc.mep import Diverse
from algos.sbc.population import BestResponse
from algos.sbc.rewards import Fading, HiddenReward, Unblocked
from algos.sbc.roles import RoleLearner
from algos.sbc.sets import BlockedSets
from algos.sbc.table import Tables

__all__ = [
    "E3T",
    "SBC",
    "BestResponse",
    "BlockedSets",
    "Diverse",
    "Fading",
    "HiddenReward",
    "RoleLearner",
    "Tables",
    "Unblocked",
]
