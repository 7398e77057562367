"""QMIX's two layers of mixing on the CPU: one compiled loop over rows, forward and backward.

torch makes a pass over memory for each of the absolute values, products, sums and the ELU, and one more for each in the
backward pass. Here a row of weights is read once. The products that compute the weights from the state stay in torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import prange
from torch import Tensor
from torch.autograd.function import once_differentiable

from marl.core.caching import njit
from marl.core.threads import by_threads
from marl.learn.gru import FAST, HALF, ONE, _tanh

# sums over units may be reordered, so that they can be vectorised
SUMS: dict[str, Any] = {**FAST, "fastmath": {"contract", "reassoc", "nsz"}}


@njit(**FAST)
def _elu(x: np.float32) -> np.float32:
    """Compute ELU (Clevert et al. 2016) without a branch or a call: e^x - 1 = 2 t / (1 - t) with t = tanh(x / 2)."""
    t = _tanh(HALF * (x if x < np.float32(0.0) else np.float32(0.0)))
    return x if x > np.float32(0.0) else (t + t) / (ONE - t)


@by_threads(**SUMS)
def _forward(
    q: np.ndarray, w1: np.ndarray, b1: np.ndarray, w2: np.ndarray, hidden: np.ndarray, total: np.ndarray
) -> None:
    """Compute hidden [N, E] and total [N] from q [N, n], w1 [N, n E], b1 and w2 [N, E]."""
    n, E = q.shape[1], b1.shape[1]
    for row in prange(len(q)):
        out, first, second, sums = hidden[row], w1[row], w2[row], np.float32(0.0)
        for e in range(E):
            out[e] = b1[row, e]
        for i in range(n):
            value, own = q[row, i], first[i * E : (i + 1) * E]
            for e in range(E):
                out[e] += value * abs(own[e])
        for e in range(E):
            out[e] = _elu(out[e])
        for e in range(E):
            sums += out[e] * abs(second[e])
        total[row] = sums


@by_threads(**SUMS)
def _backward(
    grad: np.ndarray, q: np.ndarray, w1: np.ndarray, w2: np.ndarray, hidden: np.ndarray,
    grad_q: np.ndarray, grad_w1: np.ndarray, grad_b1: np.ndarray, grad_w2: np.ndarray,
) -> None:  # fmt: skip
    """Compute the gradients of the inputs of ``_forward`` from grad [N], the gradient of its total."""
    n, E, none = q.shape[1], w2.shape[1], np.float32(0.0)
    for row in prange(len(q)):
        above, out, second, before = grad[row], hidden[row], w2[row], grad_b1[row]
        for e in range(E):
            slope = ONE if out[e] > none else out[e] + ONE
            before[e] = above * abs(second[e]) * slope
        for e in range(E):
            signed = above * out[e]
            grad_w2[row, e] = signed if second[e] > none else (-signed if second[e] < none else none)
        for i in range(n):
            value, own, theirs, sums = q[row, i], w1[row, i * E : (i + 1) * E], grad_w1[row, i * E : (i + 1) * E], none
            for e in range(E):
                sums += before[e] * abs(own[e])
            for e in range(E):
                signed = before[e] * value
                theirs[e] = signed if own[e] > none else (-signed if own[e] < none else none)
            grad_q[row, i] = sums


def _run(q: Tensor, w1: Tensor, b1: Tensor, w2: Tensor) -> tuple[Tensor, Tensor]:
    hidden, total = torch.empty_like(b1), q.new_empty(len(q))
    _forward(*(v.numpy() for v in (q, w1, b1, w2, hidden, total)))
    return hidden, total


class _Mixing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, w1: Tensor, b1: Tensor, w2: Tensor) -> Tensor:
        hidden, total = _run(q, w1, b1, w2)
        ctx.save_for_backward(q, w1, w2, hidden)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        q, w1, w2, hidden = ctx.saved_tensors
        grads = torch.empty_like(q), torch.empty_like(w1), torch.empty_like(hidden), torch.empty_like(w2)
        _backward(*(v.numpy() for v in (grad.contiguous(), q, w1, w2, hidden, *grads)))
        return grads


def mix(q: Tensor, w1: Tensor, b1: Tensor, w2: Tensor) -> Tensor:
    """Return sum_e |w2_e| ELU(b1_e + sum_i |w1_ie| q_i), [N] (Rashid et al. 2018, fig. 2), on the CPU, float32.

    ``q`` [N, n] are the agents' values, ``w1`` [N, n E], ``b1`` [N, E] and ``w2`` [N, E] the hypernetworks' outputs.
    It has first derivatives only, and no ``vmap`` rule.
    """
    given = tuple(v.contiguous() for v in (q, w1, b1, w2))
    if torch.is_grad_enabled() and any(v.requires_grad for v in given):
        return _Mixing.apply(*given)
    return _run(*(v.detach() for v in given))[1]
