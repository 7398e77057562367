"""State-blocking coordination and its zero-shot baselines (docs/sbc.md)."""

from algos.sbc.actors import RoleActorLearner
from algos.sbc.algorithm import SBC, ActorSBC
from algos.sbc.e3t import E3T, ActorE3T
from algos.sbc.mep import ActorDiverse, Diverse
from algos.sbc.population import ActorBestResponse, BestResponse
from algos.sbc.rewards import Against, Fading, HiddenReward, Unblocked
from algos.sbc.roles import RoleLearner
from algos.sbc.sets import BlockedSets
from algos.sbc.table import Tables
from algos.sbc.wishing import ActorWishing, Wishing

__all__ = [
    "E3T",
    "SBC",
    "ActorBestResponse",
    "ActorDiverse",
    "ActorE3T",
    "ActorSBC",
    "ActorWishing",
    "Against",
    "BestResponse",
    "BlockedSets",
    "Diverse",
    "Fading",
    "HiddenReward",
    "RoleActorLearner",
    "RoleLearner",
    "Tables",
    "Unblocked",
    "Wishing",
]
