"""Small FoX teams that several tests share, and formations written out one pair of agents at a time."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from algos.fox import Awareness, FoX, FoXHook, FoXLearner
from algos.fox.formation import Formations
from algos.fox.nets import FoXAgent
from marl.core.types import EnvSpec, EpisodeBatch
from marl.learn.agents import RecurrentAgent
from marl.learn.policy import LinearSchedule
from tests.support.helpers import AGENT, LEARNER, random_batch
from tests.support.wqmix_parts import MIXER

HOOK: dict[str, Any] = {
    "variant": "fixed", "beta1": 0.1, "beta2": 0.1, "shift": "none", "count_mode": None, "decimals": 3, "bits": 3,
    "features": None, "partners": "minmax", "mask_dead": False, "canonical": False, "max_keys": 1000,
    "calib_steps": 0,
}  # fmt: skip
AWARE: dict[str, Any] = {
    "form_target": None, "samples": 2, "minibatch": 16, "interval": 1, "latent_dim": 4, "encoder_dim": 8, "flip": 0.1,
    "kl_weight": 0.001, "lr": 0.01, "grad_clip": 1.0,
}  # fmt: skip


def make_fox(spec: EnvSpec, mixer: Any = MIXER, heads: bool = True, **changes: Any) -> FoX:
    """Make a FoX algorithm; ``changes`` are options of the hook, its awareness or the learner; ``heads``: FoX's
    agent."""
    torch.manual_seed(0)
    hook = {key: changes.pop(key, value) for key, value in HOOK.items()}
    aware = partial(Awareness, **{key: changes.pop(key, value) for key, value in AWARE.items()})
    act = changes.pop("act", "mean")
    learner = partial(FoXLearner, **{**LEARNER, "local_weight": 0.1, **changes})
    sizes = {key: aware.keywords[key] for key in ("latent_dim", "encoder_dim")}
    return FoX(
        spec, "cpu", torch.Generator().manual_seed(0), mixer=mixer, learner=learner, hooks={},
        agent=partial(FoXAgent, **AGENT, **sizes) if heads else partial(RecurrentAgent, **AGENT),
        fox=partial(FoXHook, **hook, aware=aware), act=act, epsilon=LinearSchedule(0.0, 0.0, 1), batch_size=4,
        warmup_episodes=4, episodes_per_update=1,
    )  # fmt: skip


def collected(algo: FoX, episodes: int, seed: int = 0) -> EpisodeBatch:
    """Make random episodes with the algorithm's fields and annotate them."""
    batch = random_batch(algo.learner.spec, episodes, seed)
    add_fields(algo, batch)
    algo.annotate(batch)
    return batch


def add_fields(algo: FoX, batch: EpisodeBatch) -> None:
    batch.fields |= algo.fields()
    for name, field in algo.fields().items():
        batch.data[name] = torch.zeros(*batch.filled.shape, *field.shape, dtype=field.dtype)


def gradients(net: torch.nn.Module, loss: Tensor) -> list[Tensor]:
    """Return the gradient of ``loss`` in every parameter of ``net``, zeros where there is none."""
    grads = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(net.parameters(), grads, strict=True)]


def formations(matrix: Tensor, **changes: Any) -> Formations:
    options = {name: HOOK[name] for name in ("decimals", "features", "partners", "mask_dead", "canonical")}
    return Formations(matrix, **{**options, **changes})


def by_hand(obs: Tensor, matrix: Tensor, decimals: int) -> tuple[list[float], list[int], list[int]]:
    """Compute (F, farthest, nearest) of one joint observation [n, O]."""
    F, farthest, nearest = [], [], []
    o, rows = obs.double().tolist(), matrix.double().tolist()
    for mine in o:
        d = [round(math.sqrt(sum((x - y) ** 2 for x, y in zip(mine, other, strict=True))), decimals) for other in o]
        i = len(farthest)
        far, near = d.index(max(d)), min((j for j in range(len(o)) if j != i), key=lambda j, d=d: d[j])
        keys = []
        for j in (far, near):
            v = [x - y for x, y in zip(mine, o[j], strict=True)]
            bits = [sum(a * x for a, x in zip(row, v, strict=True)) > 0 for row in rows]
            keys.append(sum(2 ** (len(rows) - 1 - k) for k, bit in enumerate(bits) if bit))
        farthest.append(far), nearest.append(near)
        F += [d[far], d[near], *keys]
    return F, farthest, nearest
