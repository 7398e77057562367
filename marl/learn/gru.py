"""A GRU over ragged sequences, forward and backward, for the CPU: two compiled loops between torch's products.

torch's own GRU makes a dozen small calls per time step and more in the backward pass, and computes padding too. Here
four sequences advance together, so that the recurrent weight, which does not fit into the L1 cache, is loaded once for
all four. Products without recurrence stay in torch; they and the loops alternate every two thousand rows or so, which
stay in the L2 cache. The equations are those of ``nn.GRU`` (Cho et al. 2014, reset gate after the product).
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numba import prange
from torch import Tensor
from torch.autograd.function import once_differentiable

from marl.core.caching import njit
from marl.core.threads import by_threads

LANES = 4  # sequences that advance together; ``_add_products`` is written out for them
CHUNK = 2048  # rows (steps of one agent) after which products and loops alternate
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


P, Q = _lambert(13)  # 7 coefficients each; with |x| clipped at 9 the error is 4e-7, float32's rounding
EDGE, HALF, ONE = np.float32(9.0), np.float32(0.5), np.float32(1.0)


@njit(**FAST)
def _tanh(x: np.float32) -> np.float32:
    """Compute tanh without a branch or a call, so that loops over units can be vectorised."""
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
def _add_products(out: np.ndarray, x: np.ndarray, matrix: np.ndarray) -> None:
    """Add x [LANES, a] @ matrix [a, b] to out [LANES, b], four rows of the matrix at a time to load and store ``out``
    less often."""
    a = x.shape[1]
    for k in range(0, a - a % 4, 4):
        p0, p1, p2, p3 = x[0, k], x[0, k + 1], x[0, k + 2], x[0, k + 3]
        q0, q1, q2, q3 = x[1, k], x[1, k + 1], x[1, k + 2], x[1, k + 3]
        r0, r1, r2, r3 = x[2, k], x[2, k + 1], x[2, k + 2], x[2, k + 3]
        s0, s1, s2, s3 = x[3, k], x[3, k + 1], x[3, k + 2], x[3, k + 3]
        for j in range(out.shape[1]):
            m0, m1, m2, m3 = matrix[k, j], matrix[k + 1, j], matrix[k + 2, j], matrix[k + 3, j]
            out[0, j] += p0 * m0 + p1 * m1 + p2 * m2 + p3 * m3
            out[1, j] += q0 * m0 + q1 * m1 + q2 * m2 + q3 * m3
            out[2, j] += r0 * m0 + r1 * m1 + r2 * m2 + r3 * m3
            out[3, j] += s0 * m0 + s1 * m1 + s2 * m2 + s3 * m3
    for k in range(a - a % 4, a):
        for lane in range(LANES):
            for j in range(out.shape[1]):
                out[lane, j] += x[lane, k] * matrix[k, j]


@njit(**FAST)
def _step(
    gates: np.ndarray, inner: np.ndarray, recurrent: np.ndarray, bias: np.ndarray, h: np.ndarray, out: np.ndarray
) -> None:
    """Advance one sequence by one step: gates [3H], the input's part, become reset, update, new; inner [H] becomes the
    recurrent part of new, and h [H] the next state, which is also written to ``out`` [H]. ``recurrent`` [3H] contains
    all biases except that of new's input part, ``bias`` [H]."""
    H = len(h)
    for j in range(2 * H):
        gates[j] = _sigmoid(gates[j] + recurrent[j])
    for k in range(H):
        gates[2 * H + k] = _tanh(gates[2 * H + k] + bias[k] + gates[k] * recurrent[2 * H + k])
    for k in range(H):
        new = gates[2 * H + k]
        h[k] = new + gates[H + k] * (h[k] - new)
    for k in range(H):
        out[k] = h[k]
    for k in range(len(inner)):
        inner[k] = recurrent[2 * H + k]


@njit(**FAST)
def _step_back(
    grad_h: np.ndarray, gates: np.ndarray, inner: np.ndarray, before: np.ndarray, carried: np.ndarray, grads: np.ndarray
) -> None:
    """Backpropagate through one step: grads [4H] become those of inner, reset, update, new, and carried [H] the part of
    the previous state's gradient that does not pass through the recurrent weight."""
    H = len(inner)
    for k in range(H):
        reset, update, new = gates[k], gates[H + k], gates[2 * H + k]
        grad = grad_h[k] + carried[k]
        grad_new = grad * (ONE - update) * (ONE - new * new)
        grads[k] = grad_new * reset
        grads[H + k] = grad_new * inner[k] * reset * (ONE - reset)
        grads[2 * H + k] = grad * (before[k] - new) * update * (ONE - update)
        grads[3 * H + k] = grad_new
        carried[k] = grad * update


@by_threads(**FAST)
def _forward(
    gates: np.ndarray, weight: np.ndarray, bias: np.ndarray, spans: np.ndarray, begin: np.ndarray, h: np.ndarray,
    inner: np.ndarray,
) -> None:  # fmt: skip
    """Run the recurrence: gates [R, n, 3H] (in: the input's part; out: reset, update, new), weight [g, H, 3H]
    (transposed), bias [g, 4H] (of reset, update, the recurrent and the input's part of new), spans long [M, 2], begin
    [M, n, H] (the initial states; [0, n, H]: zeros) -> h [R, n, H], inner [R, n, H] (the recurrent part of new; [R, n,
    0]: not kept). Sequence m of agent i is rows spans[m, 0] to spans[m, 1], the longest sequence first."""
    n, H, groups = h.shape[1], h.shape[2], weight.shape[0]
    each = n // groups  # agents that share a weight
    count = len(spans) * each  # sequences of a group
    for task in prange((count + LANES - 1) // LANES * groups):
        first, group = task // groups * LANES, task % groups
        lanes, w = min(LANES, count - first), weight[group]
        state, recurrent = np.zeros((LANES, H), np.float32), np.empty((LANES, 3 * H), np.float32)
        if len(begin) > 0:
            for lane in range(lanes):
                for k in range(H):
                    state[lane, k] = begin[(first + lane) // each, group + (first + lane) % each, k]
        for t in range(spans[first // each, 1] - spans[first // each, 0]):  # the first is the longest
            for lane in range(LANES):
                for j in range(3 * H):
                    recurrent[lane, j] = bias[group, j]
            if t or len(begin) > 0:
                _add_products(recurrent, state, w)
            for lane in range(lanes):
                m, i = (first + lane) // each, group + (first + lane) % each
                row = spans[m, 0] + t
                if row < spans[m, 1]:
                    _step(gates[row, i], inner[row, i], recurrent[lane], bias[group, 3 * H :], state[lane], h[row, i])


@by_threads(**FAST)
def _backward(
    grad_h: np.ndarray, gates: np.ndarray, inner: np.ndarray, h: np.ndarray, weight: np.ndarray, spans: np.ndarray,
    begin: np.ndarray, grads: np.ndarray,
) -> None:  # fmt: skip
    """Compute gradients: grad_h [R, n, H], the results of ``_forward``, weight [g, 3H, H] (of inner, reset, update) ->
    grads [R, n, 4H] of inner, reset, update, new."""
    n, H, groups = h.shape[1], h.shape[2], weight.shape[0]
    each = n // groups
    count = len(spans) * each
    for task in prange((count + LANES - 1) // LANES * groups):
        first, group = task // groups * LANES, task % groups
        lanes, w = min(LANES, count - first), weight[group]
        carried, recurrent = np.zeros((LANES, H), np.float32), np.zeros((LANES, 3 * H), np.float32)
        nothing = np.zeros(H, np.float32)
        for t in range(spans[first // each, 1] - spans[first // each, 0] - 1, -1, -1):
            for lane in range(lanes):
                m, i = (first + lane) // each, group + (first + lane) % each
                row = spans[m, 0] + t
                if row < spans[m, 1]:
                    old, grad, kept = h[row - 1, i] if t else nothing, grads[row, i], recurrent[lane]
                    if t == 0 and len(begin) > 0:
                        old = begin[m, i]
                    _step_back(grad_h[row, i], gates[row, i], inner[row, i], old, carried[lane], grad)
                    for k in range(3 * H):
                        kept[k] = grad[k]
            if t:
                _add_products(carried, recurrent, w)


def _product(x: Tensor, weight: Tensor, out: Tensor) -> None:
    """Write x [R, n, a] times weight [g, a, b] into out [R, n, b], contiguous."""
    if len(weight) == 1:
        torch.mm(x.flatten(0, 1), weight[0], out=out.flatten(0, 1))
    else:
        out.copy_(torch.bmm(x.transpose(0, 1), weight).transpose(0, 1))


def _add_outer(total: Tensor, grad: Tensor, x: Tensor) -> None:
    """Add to total [g, a, b] the sum over rows of the products of grad [R, n, a] and x [R, n, b]."""
    if len(total) == 1:
        total[0].addmm_(grad.flatten(0, 1).t(), x.flatten(0, 1))
    else:
        total.baddbmm_(grad.permute(1, 2, 0), x.transpose(0, 1))


def _chunks(start: Tensor, n: int) -> list[tuple[int, int, np.ndarray, np.ndarray]]:
    """Cut sequences into chunks of about ``CHUNK`` rows: the first row of each, the row after its last, and its
    sequences' spans and numbers, the longest first."""
    rows = start.numpy()
    cuts = np.flatnonzero(np.diff(rows[:-1] * n // CHUNK, prepend=-1))
    found = []
    for a, b in zip(cuts, [*cuts[1:], len(rows) - 1], strict=True):
        order = np.argsort(rows[a:b] - rows[a + 1 : b + 1], kind="stable") + a
        found.append((int(rows[a]), int(rows[b]), np.stack([rows[order], rows[order + 1]], 1) - rows[a], order))
    return found


def _before(begin: Tensor, numbers: np.ndarray) -> Tensor:
    """Return the initial states [K, n, H] of some sequences; [0, n, H] if all begin with zeros."""
    return begin[torch.from_numpy(numbers)] if len(begin) else begin


def _run(
    weights: tuple[Tensor, ...], x: Tensor, start: Tensor, begin: Tensor, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return h, and with ``keep`` what the backward pass needs: the gates [N, n, 3H] and inner [N, n, H]."""
    w_x, w_h, b_x, b_h = weights
    n, H, chunks = x.shape[1], w_h.shape[-1], _chunks(start, x.shape[1])
    h, inner = x.new_empty(len(x), n, H), x.new_empty(len(x), n, H * keep)
    gates = x.new_empty(len(x) if keep else max((b - a for a, b, *_ in chunks), default=0), n, 3 * H)
    bias = torch.cat([b_x[:, : 2 * H] + b_h[:, : 2 * H], b_h[:, 2 * H :], b_x[:, 2 * H :]], 1).numpy()
    weight = w_h.transpose(1, 2).contiguous().numpy()
    for a, b, own, numbers in chunks:
        part = gates[a:b] if keep else gates[: b - a]
        _product(x[a:b], w_x.transpose(1, 2), part)
        before = _before(begin, numbers).numpy()
        _forward(part.numpy(), weight, bias, own, before, h[a:b].numpy(), inner[a:b].numpy())
    return h, gates, inner


class _GRU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w_x: Tensor, w_h: Tensor, b_x: Tensor, b_h: Tensor, start: Tensor, begin: Tensor
    ) -> Tensor:
        h, gates, inner = _run((w_x, w_h, b_x, b_h), x, start, begin, True)
        ctx.save_for_backward(x, w_x, w_h, start, begin, h, gates, inner)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, None, None]:
        x, w_x, w_h, start, begin, h, gates, inner = ctx.saved_tensors
        grad_h, H, chunks = grad_h.contiguous(), h.shape[2], _chunks(start, h.shape[1])
        turned = torch.cat([w_h[:, 2 * H :], w_h[:, : 2 * H]], 1)  # inner, reset, update
        grad_x, grad_wx, grad_turned = torch.empty_like(x), torch.zeros_like(w_x), torch.zeros_like(turned)
        grad_b = h.new_zeros(len(w_h), 4 * H)
        most = max((b - a for a, b, *_ in chunks), default=0)
        room = h.new_empty(most, h.shape[1], 4 * H)
        for a, b, own, numbers in chunks:
            grads, before = room[: b - a], _before(begin, numbers)
            arrays = (grad_h[a:b], gates[a:b], inner[a:b], h[a:b], turned)
            _backward(*(v.numpy() for v in arrays), own, before.numpy(), grads.numpy())
            _product(grads[..., H:], w_x, grad_x[a:b])
            _add_outer(grad_wx, grads[..., H:], x[a:b])
            recurrent = grads[..., : 3 * H]  # all rows times the previous row's state, minus where sequences meet
            _add_outer(grad_turned, recurrent[1:], h[a : b - 1])
            meet = torch.from_numpy(own[(own[:, 0] > 0) & (own[:, 0] < own[:, 1]), 0])
            _add_outer(grad_turned, -recurrent[meet], h[a + meet - 1])
            if len(before):
                some = torch.from_numpy(own[:, 0] < own[:, 1])
                _add_outer(grad_turned, recurrent[torch.from_numpy(own[:, 0])[some]], before[some])
            grad_b += grads.sum((0, 1)) if len(w_h) == 1 else grads.sum(0)
        grad_wh = torch.cat([grad_turned[:, H:], grad_turned[:, :H]], 1)
        grad_bh = torch.cat([grad_b[:, H : 3 * H], grad_b[:, :H]], 1)
        return grad_x, grad_wx, grad_wh, grad_b[:, H:], grad_bh, None, None


def gru(
    x: Tensor, w_x: Tensor, w_h: Tensor, b_x: Tensor, b_h: Tensor, start: Tensor, begin: Tensor | None = None
) -> Tensor:
    """Return the hidden states [N, n, H] of M sequences on the CPU, float32, from the states ``begin`` [M, n, H] (None:
    zeros), which no gradient reaches.

    Sequence m holds rows ``start[m]`` to ``start[m + 1]`` (long [M + 1]) of the inputs ``x`` [N, n, I]; it is fastest
    if neighbours have similar lengths. The weights ``w_x`` [g, 3H, I], ``w_h`` [g, 3H, H] and biases ``b_x``, ``b_h``
    [g, 3H] are in torch's order reset, update, new; g = 1 (shared by all agents) or n (one set each).
    """
    weights, x = (w_x, w_h, b_x, b_h), x.contiguous()
    before = x.new_zeros(0, x.shape[1], w_h.shape[-1]) if begin is None else begin.detach().contiguous()
    if torch.is_grad_enabled() and any(v.requires_grad for v in (x, *weights)):
        return _GRU.apply(x, *weights, start, before)
    return _run(tuple(w.detach() for w in weights), x.detach(), start, before, False)[0]
