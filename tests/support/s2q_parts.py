"""Small S2Q teams that several tests share."""

from __future__ import annotations

from functools import partial
from typing import Any

from algos.s2q.algorithm import S2Q
from algos.s2q.learner import S2QLearner
from marl.core.types import EnvSpec
from tests.support.helpers import LEARNER
from tests.support.wqmix_parts import MIXER, build

S2Q_LEARNER: dict[str, Any] = {
    **LEARNER, "w_c": 0.3, "weight0": "s2q", "alpha": 1.0, "floor": None, "suppress_source": "online",
    "temperature": 0.1, "temperature_mode": "absolute", "dedup": False, "coef_kl": 1.0, "coef_state": 1.0,
    "target_source": "qstar",
}  # fmt: skip
S2Q_ALGO: dict[str, Any] = {
    "K": 2, "execute": "softmax", "p_mixed": 0.5, "comm": False, "latent_dim": 4, "decoder_dim": 8, "central_dim": 8,
}  # fmt: skip
PLAIN = {"target_source": "qtot", "weight0": "none", "w_c": 1.0}  # with K = 0: the base learner


def make_s2q(spec: EnvSpec, mixer: Any = MIXER, epsilon: float = 0.0, **changes: Any) -> S2Q:
    """Make an S2Q algorithm; ``changes`` are options of the algorithm or the learner."""
    own = {key: changes.pop(key, value) for key, value in S2Q_ALGO.items()}
    learner = partial(S2QLearner, **{**S2Q_LEARNER, **changes})
    return build(S2Q, learner, spec, mixer, epsilon, **own)
