"""A GRU's recurrence over ragged sequences, forward and backward, as two compiled loops for the CPU.

torch's own GRU makes a dozen small calls per time step and more in the backward pass, and computes padding too; here a
sequence is one loop over its own steps, and sequences run in parallel. The equations are those of ``nn.GRU`` (Cho et
al. 2014, with the reset gate after the product). Everything that is not recurrent stays in torch: callers pass the
input's part of the gates, and the gradient of the recurrent weights is one product over all steps.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor
from torch.autograd.function import once_differentiable

# fused multiply-add, but nothing that would reorder sums; no check for a zero divisor, which would keep loops scalar
FAST: dict[str, Any] = {"cache": True, "fastmath": {"contract"}, "error_model": "numpy"}


def _lambert(levels: int) -> tuple[tuple[np.float32, ...], tuple[np.float32, ...]]:
    """Return the coefficients of P and Q in tanh x = x P(x^2) / Q(x^2), a convergent of Lambert's continued fraction
    x / (1 + x^2 / (3 + x^2 / (5 + ...)))."""
    upper, lower = [Fraction(2 * levels - 1)], [Fraction(1)]
    for k in range(levels - 1, 0, -1):
        shifted = [Fraction(0), *lower]
        width = max(len(upper), len(shifted))
        total = [Fraction(0)] * width
        for i in range(width):
            total[i] += (2 * k - 1) * upper[i] if i < len(upper) else 0
            total[i] += shifted[i] if i < len(shifted) else 0
        upper, lower = total, upper
    scale = upper[0]
    return tuple(np.float32(c / scale) for c in lower), tuple(np.float32(c / scale) for c in upper)


P, Q = _lambert(13)  # 7 coefficients each; with |x| cut at 9 the error is 4e-7, float32's rounding
EDGE, HALF, ONE = np.float32(9.0), np.float32(0.5), np.float32(1.0)


@njit(**FAST)
def _tanh(x: np.float32) -> np.float32:
    """Compute tanh without a branch or a call, so that loops over units become vector instructions."""
    x = EDGE if x > EDGE else x
    x = -EDGE if x < -EDGE else x
    y = x * x
    p = (((((P[6] * y + P[5]) * y + P[4]) * y + P[3]) * y + P[2]) * y + P[1]) * y + P[0]
    q = (((((Q[6] * y + Q[5]) * y + Q[4]) * y + Q[3]) * y + Q[2]) * y + Q[1]) * y + Q[0]
    return x * p / q


@njit(**FAST)
def _sigmoid(x: np.float32) -> np.float32:
    return HALF + HALF * _tanh(HALF * x)


@njit(**FAST)
def _add_product(out: np.ndarray, vector: np.ndarray, matrix: np.ndarray) -> None:
    """Add vector [a] @ matrix [a, b] to out [b], four rows at a time to load and store ``out`` less often."""
    a = len(vector)
    for k in range(0, a - a % 4, 4):
        v0, v1, v2, v3 = vector[k], vector[k + 1], vector[k + 2], vector[k + 3]
        for j in range(len(out)):
            out[j] += v0 * matrix[k, j] + v1 * matrix[k + 1, j] + v2 * matrix[k + 2, j] + v3 * matrix[k + 3, j]
    for k in range(a - a % 4, a):
        for j in range(len(out)):
            out[j] += vector[k] * matrix[k, j]


@njit(parallel=True, **FAST)
def _forward(
    gates_x: np.ndarray, weight: np.ndarray, bias: np.ndarray, start: np.ndarray, h: np.ndarray, saved: np.ndarray
) -> None:
    """Run the recurrence: gates_x [N, n, 3H], weight [g, H, 3H] (transposed), bias [g, 3H], start [M + 1] -> h
    [N, n, H], saved [N, n, 4H] (reset, update, new, recurrent part of new). Sequence m of agent i is rows start[m] to
    start[m + 1]."""
    n, H, groups = h.shape[1], h.shape[2], weight.shape[0]
    for sequence in prange((len(start) - 1) * n):
        m, i = sequence // n, sequence % n
        w, gates = weight[i % groups], np.empty(3 * H, np.float32)
        for row in range(start[m], start[m + 1]):
            for j in range(3 * H):
                gates[j] = bias[i % groups, j]
            if row > start[m]:
                _add_product(gates, h[row - 1, i], w)
            x, keep, out = gates_x[row, i], saved[row, i], h[row, i]
            for j in range(2 * H):
                keep[j] = _sigmoid(x[j] + gates[j])
            for k in range(H):
                keep[3 * H + k] = gates[2 * H + k]
                keep[2 * H + k] = _tanh(x[2 * H + k] + keep[k] * gates[2 * H + k])
            for k in range(H):
                before = h[row - 1, i, k] if row > start[m] else np.float32(0.0)
                out[k] = keep[2 * H + k] + keep[H + k] * (before - keep[2 * H + k])


@njit(parallel=True, **FAST)
def _backward(
    grad_h: np.ndarray, h: np.ndarray, saved: np.ndarray, weight: np.ndarray, start: np.ndarray, grad_x: np.ndarray,
    grad_inner: np.ndarray,
) -> None:  # fmt: skip
    """Compute gradients: grad_h [N, n, H], weight [g, 3H, H] -> grad_x [N, n, 3H] (of the gates' input part) and
    grad_inner [N, n, H] (of the recurrent part of new; the recurrent parts of the other two gates have the same
    gradient as their input parts)."""
    n, H, groups = h.shape[1], h.shape[2], weight.shape[0]
    for sequence in prange((len(start) - 1) * n):
        m, i = sequence // n, sequence % n
        w, carried, grads = weight[i % groups], np.zeros(H, np.float32), np.empty(3 * H, np.float32)
        for row in range(start[m + 1] - 1, start[m] - 1, -1):
            for k in range(H):
                reset, update = saved[row, i, k], saved[row, i, H + k]
                new, inner = saved[row, i, 2 * H + k], saved[row, i, 3 * H + k]
                before = h[row - 1, i, k] if row > start[m] else np.float32(0.0)
                grad = grad_h[row, i, k] + carried[k]
                grad_new = grad * (ONE - update) * (ONE - new * new)
                grads[k] = grad_new * inner * reset * (ONE - reset)
                grads[H + k] = grad * (before - new) * update * (ONE - update)
                grads[2 * H + k] = grad_new * reset
                grad_x[row, i, 2 * H + k] = grad_new
                carried[k] = grad * update
                grad_x[row, i, k], grad_x[row, i, H + k] = grads[k], grads[H + k]
                grad_inner[row, i, k] = grads[2 * H + k]
            _add_product(carried, grads, w)


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
    """Return the hidden states [N, n, H] of M sequences from a zero state, on the CPU, float32.

    Sequence m holds rows ``start[m]`` to ``start[m + 1]`` (long [M + 1]) of ``gates_x`` [N, n, 3H], the input's part of
    the gates with its bias, in torch's order reset, update, new. ``weight`` [g, 3H, H] and ``bias`` [g, 3H] are the
    recurrent parameters, g = 1 (shared by all agents) or n (one set each).
    """
    return _Recurrence.apply(gates_x, weight, bias, start)
