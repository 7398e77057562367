"""The recurrence of a GRU over ragged sequences, forward and backward, as two compiled loops for the CPU.

torch's own GRU makes a dozen small calls per time step and more in the backward pass, and computes padding too; here a
sequence is one loop over its own steps, and sequences run in parallel. The equations are those of ``nn.GRU`` (Cho et
al. 2014, with the reset gate after the product). Everything that is not recurrent stays in torch: callers give the
input's part of the gates, and the gradient of the recurrent weights is one product over all steps.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor
from torch.autograd.function import once_differentiable

FAST = {"contract"}  # fused multiply-add; nothing that would reorder sums


@njit(cache=True, fastmath=FAST)
def _sigmoid(x: np.float32) -> np.float32:
    return np.float32(1.0) / (np.float32(1.0) + math.exp(-x))


@njit(parallel=True, cache=True, fastmath=FAST)
def _forward(
    gates_x: np.ndarray, weight: np.ndarray, bias: np.ndarray, start: np.ndarray, h: np.ndarray, saved: np.ndarray
) -> None:
    """gates_x [N, n, 3H], weight [g, H, 3H] (transposed), bias [g, 3H], start [M + 1] -> h [N, n, H], saved [N, n, 4H]
    (reset, update, new, recurrent part of new). Sequence m of agent i is rows start[m] to start[m + 1]."""
    n, H, groups = h.shape[1], h.shape[2], weight.shape[0]
    for sequence in prange((len(start) - 1) * n):
        m, i = sequence // n, sequence % n
        w, gates = weight[i % groups], np.empty(3 * H, np.float32)
        for row in range(start[m], start[m + 1]):
            gates[:] = bias[i % groups]
            if row > start[m]:
                for k in range(H):
                    before = h[row - 1, i, k]
                    for j in range(3 * H):
                        gates[j] += before * w[k, j]
            for k in range(H):
                reset = _sigmoid(gates_x[row, i, k] + gates[k])
                update = _sigmoid(gates_x[row, i, H + k] + gates[H + k])
                inner = gates[2 * H + k]
                # tanh by the exponential that the gates use; exact to float32
                new = np.float32(2.0) * _sigmoid(np.float32(2.0) * (gates_x[row, i, 2 * H + k] + reset * inner))
                new -= np.float32(1.0)
                before = h[row - 1, i, k] if row > start[m] else np.float32(0.0)
                h[row, i, k] = new + update * (before - new)
                saved[row, i, k], saved[row, i, H + k] = reset, update
                saved[row, i, 2 * H + k], saved[row, i, 3 * H + k] = new, inner


@njit(parallel=True, cache=True, fastmath=FAST)
def _backward(
    grad_h: np.ndarray, h: np.ndarray, saved: np.ndarray, weight: np.ndarray, start: np.ndarray, grad_x: np.ndarray,
    grad_inner: np.ndarray,
) -> None:  # fmt: skip
    """grad_h [N, n, H], weight [g, 3H, H] -> grad_x [N, n, 3H] (of the gates' input part) and grad_inner [N, n, H] (of
    the recurrent part of new; the other two gates' recurrent parts have the gradient of their input parts)."""
    n, H, groups = h.shape[1], h.shape[2], weight.shape[0]
    for sequence in prange((len(start) - 1) * n):
        m, i = sequence // n, sequence % n
        w, carried = weight[i % groups], np.zeros(H, np.float32)
        for row in range(start[m + 1] - 1, start[m] - 1, -1):
            for k in range(H):
                reset, update = saved[row, i, k], saved[row, i, H + k]
                new, inner = saved[row, i, 2 * H + k], saved[row, i, 3 * H + k]
                before = h[row - 1, i, k] if row > start[m] else np.float32(0.0)
                grad = grad_h[row, i, k] + carried[k]
                grad_new = grad * (np.float32(1.0) - update) * (np.float32(1.0) - new * new)
                grad_x[row, i, k] = grad_new * inner * reset * (np.float32(1.0) - reset)
                grad_x[row, i, H + k] = grad * (before - new) * update * (np.float32(1.0) - update)
                grad_x[row, i, 2 * H + k] = grad_new
                grad_inner[row, i, k] = grad_new * reset
                carried[k] = grad * update
            for j in range(3 * H):
                share = grad_x[row, i, j] if j < 2 * H else grad_inner[row, i, j - 2 * H]
                for k in range(H):
                    carried[k] += share * w[j, k]


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates_x: Tensor, weight: Tensor, bias: Tensor, start: Tensor) -> Tensor:
        N, n, width = gates_x.shape
        h = torch.empty(N, n, width // 3)
        saved = torch.empty(N, n, width // 3 * 4)
        transposed = weight.detach().transpose(1, 2).contiguous()
        arrays = (gates_x.detach().contiguous(), transposed, bias.detach().contiguous(), start, h, saved)
        _forward(*(a.numpy() for a in arrays))
        ctx.save_for_backward(h, saved, weight, start)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        h, saved, weight, start = ctx.saved_tensors
        grad_x, grad_inner = torch.empty(*h.shape[:2], 3 * h.shape[2]), torch.empty_like(h)
        arrays = (grad_h.contiguous(), h, saved, weight.detach().contiguous(), start, grad_x, grad_inner)
        _backward(*(a.numpy() for a in arrays))
        H = h.shape[2]
        recurrent = torch.cat([grad_x[..., : 2 * H], grad_inner], -1)  # [N, n, 3H]
        before = h.roll(1, 0)
        before[start[:-1][start[:-1] < start[1:]]] = 0.0
        if weight.shape[0] == 1:
            grad_weight = (recurrent.flatten(0, 1).T @ before.flatten(0, 1)).unsqueeze(0)
            grad_bias = recurrent.sum((0, 1)).unsqueeze(0)
        else:
            grad_weight = torch.bmm(recurrent.permute(1, 2, 0), before.transpose(0, 1))
            grad_bias = recurrent.sum(0)
        return grad_x, grad_weight, grad_bias, None


def gru_recurrence(gates_x: Tensor, weight: Tensor, bias: Tensor, start: Tensor) -> Tensor:
    """Hidden states [N, n, H] of M sequences from a zero state, on the CPU, float32.

    Sequence m holds rows ``start[m]`` to ``start[m + 1]`` (long [M + 1]) of ``gates_x`` [N, n, 3H], the input's part of
    the gates with its bias, in torch's order reset, update, new. ``weight`` [g, 3H, H] and ``bias`` [g, 3H] are the
    recurrent parameters, g = 1 (shared by all agents) or n (one set each).
    """
    return _Recurrence.apply(gates_x, weight, bias, start)
