"""Network parts that torch lacks: linear layers with one set of weights per group, applied in one call."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class StackedLinear(nn.Module):
    """``groups`` linear layers side by side: x [*, groups, inputs] -> [*, groups, outputs].

    Each group is initialised as its own ``nn.Linear`` would be.
    """

    def __init__(self, groups: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(groups, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(groups, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, *x.shape[-2:]).transpose(0, 1)  # [groups, rows, inputs]
        out = torch.baddbmm(self.bias, rows, self.weight)
        return out.transpose(0, 1).reshape(*x.shape[:-1], out.shape[-1])


def stacked_mlp(groups: int, sizes: list[int]) -> nn.Sequential:
    """Build ``groups`` multilayer perceptrons with ReLU between layers, for x [*, groups, sizes[0]]."""
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        if i:
            layers.append(nn.ReLU())
        layers.append(StackedLinear(groups, a, b))
    return nn.Sequential(*layers)


def rectified(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a linear layer and ReLU: x [*, a] -> [*, b].

    Leading dimensions are flattened first: with more of them, ``nn.Linear`` returns a view, and changing a view in
    place makes autograd copy the whole gradient twice.
    """
    if not isinstance(layer, nn.Linear):
        return F.relu(layer(x))
    return F.relu(layer(x.flatten(0, -2)), inplace=True).unflatten(0, x.shape[:-1])
