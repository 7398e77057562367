"""Small forward models, hooks and episodes that the tests of FIM, LAIES and count bonuses share."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from algos.fim.cog import CenterOfGravity
from algos.fim.hook import FIM
from algos.shared.influence import Dynamics
from marl.core.types import EnvSpec, EpisodeBatch
from tests.support.helpers import random_batch

MODEL: dict[str, Any] = {
    "kind": "mlp", "inputs": "state+obs", "predict": "change", "hidden_dim": 16, "xavier": True, "lr": 0.003,
    "grad_clip": 1.0, "steps_per_update": 1, "batch_size": 32, "event_frac": 0.5, "slow_every": None,
}  # fmt: skip
COG: dict[str, Any] = {
    "delta": 0.6, "h_min": 1e-6, "bins": 20, "normaliser": "max", "least_gap": 1.0, "candidates": [".*"], "exclude": [],
}  # fmt: skip
HOOK: dict[str, Any] = {
    "scale": 0.5, "eta": 0.9, "kappa": 1.0, "tau": 0.0, "r_clip": 1.0, "influence": "abs", "average": "uniform",
    "temperature": 1.0, "trace": "shared", "trace_form": "gain", "id_steps": 60, "pretrain": 30, "refresh_every": 0,
    "anneal_steps": None,
}  # fmt: skip


def make_dynamics(spec: EnvSpec, seed: int = 0, **changes: Any) -> Dynamics:
    return Dynamics(spec, seed, **{**MODEL, **changes})


def make_cog(spec: EnvSpec, **changes: Any) -> CenterOfGravity:
    return CenterOfGravity(spec, **{**COG, **changes})


def make_fim(
    spec: EnvSpec,
    cog: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    seed: int | None = 0,
    **own: Any,
) -> FIM:
    """Make a FIM hook; ``seed`` None leaves torch's global generator as it is."""
    if seed is not None:
        torch.manual_seed(seed)
    parts = {
        "cog": partial(CenterOfGravity, **{**COG, **(cog or {})}),
        "model": partial(Dynamics, **{**MODEL, **(model or {})}),
    }
    return FIM(spec, **parts, **{**HOOK, **own})


def button_batch(spec: EnvSpec, episodes: int, seed: int = 0) -> EpisodeBatch:
    """Make ragged random episodes in which feature 0 rises by 0.1 when agent 0 takes action 1, feature 1 ticks like a
    clock, feature 2 never changes, and the others move all the time."""
    batch = random_batch(spec, episodes, seed)
    state, T = batch.state, batch.horizon
    pressed = (batch.actions[..., 0] == 1).float().cumsum(1)
    state[:, 1:, 0] = 0.1 * pressed[:, :-1]
    state[:, 0, 0] = 0.0
    state[..., 1] = torch.arange(T + 1) / 8  # exact in float32
    state[..., 2] = 1.0
    return batch


def additive(dynamics: Dynamics, table: Tensor) -> None:
    """Make the model predict f_d = 5 + sum_i table[i, a_i, d]: table [n, A, S], entries above -5 / n."""
    net, S = dynamics.model, table.shape[-1]
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
        net.first.bias[:S] = 5.0
        net.first.weight[:S, net.inputs :] = table.flatten(0, 1).t()
        net.second.weight[:S, :S] = torch.eye(S)
        net.head.weight[:, :S] = torch.eye(S)
    dynamics.slow.load_state_dict(net.state_dict())
