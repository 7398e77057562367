"""Builders that tests of several packages share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from marl.core.types import ActedOn, EnvSpec
from marl.learn.mixers import VDN, Mixer
from marl.learn.policy import EpsilonGreedy
from tests.support.helpers import make_agent


def make_victim(
    spec: EnvSpec,
    mixer: Callable[[EnvSpec], Mixer] = VDN,
    *,
    seed: int = 5,
    scale: float = 1.0,
    bias: Sequence[float] | None = None,
    epsilon: float = 0.0,
    act_on: ActedOn = "intended",
    **agent: Any,
) -> EpsilonGreedy:
    """Build an untrained team without touching the global generator. ``scale`` multiplies all weights of the agent, so
    that values differ clearly between observations; ``bias`` [A] then replaces the bias of its output layer."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = make_agent(spec, **agent)
        mixing = mixer(spec)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(scale)
        if bias is not None:
            net.fc_out.bias.copy_(torch.tensor(bias))
    return EpsilonGreedy(net, mixing, epsilon, act_on)
