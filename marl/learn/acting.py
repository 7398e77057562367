"""Acting on the CPU as one compiled loop: the agents' networks, and the best available action by their values.

The policy's own ``act`` and the compiled rollout (``marl.run.rollout``) call the same ``forward_step``: greedy play is
identical bit for bit however it is collected. Each lane is computed on its own: its values depend neither on the other
lanes nor on threads. The equations are those of ``RecurrentAgent.step``, which attacks use for gradients; tests keep
the two equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import prange
from torch import Tensor, nn

from marl.core.caching import njit
from marl.core.rolling import Seats
from marl.core.threads import by_threads
from marl.core.types import Carry
from marl.learn.agents import FeedForwardAgent, RecurrentAgent
from marl.learn.gru import EDGE, HALF, P, Q

# as in marl.learn.gru: nothing here allocates, and every caller must compute the same to the last bit
RULE: dict[str, Any] = {"_nrt": False, "error_model": "numpy", "fastmath": {"contract"}}


class Scratch(NamedTuple):
    """Working memory for one lane's computations."""

    z: np.ndarray  # f32 [n, H]
    x: np.ndarray  # f32 [n, 3H]
    r: np.ndarray  # f32 [n, 3H]
    q: np.ndarray  # f32 [n, A], the values


class Network(NamedTuple):
    """The weights of g networks (1: shared by all agents, or n), laid out for products x @ weight."""

    first: np.ndarray  # f32 [g, O, H], the observation's part of the first layer
    first_bias: np.ndarray  # f32 [g, H]
    of_last: np.ndarray  # f32 [g, A, H], the part of the last action as a one-hot; [g, 0, H] if it is not an input
    of_agent: np.ndarray  # f32 [g, n, H], the part of the agent's number; [g, 0, H] if it is not an input
    core: np.ndarray  # f32 [g, H, 3H], the input's part of a GRU's gates; [g, H, H] without memory
    core_bias: np.ndarray
    back: np.ndarray  # f32 [g, H, 3H], the hidden state's part; [g, 0, 0] without memory
    back_bias: np.ndarray
    last: np.ndarray  # f32 [g, H, A]
    last_bias: np.ndarray  # f32 [g, A]


def network_of(agent: nn.Module) -> Network | None:
    """Return the current weights of ``agent``, None if ``forward_step`` does not support it: it must be exactly one of
    our two classes (a subclass may compute something else), in float32 on the CPU."""
    if type(agent) not in (RecurrentAgent, FeedForwardAgent):
        return None
    assert isinstance(agent, RecurrentAgent)
    first, last = _linear(agent.fc_in), _linear(agent.fc_out)
    if first is None or last is None:
        return None
    if isinstance(agent, FeedForwardAgent):
        core, g = _linear(agent.fc_mid), len(first[0])
        assert core is not None
        back = (np.zeros((g, 0, 0), np.float32), np.zeros((g, 0), np.float32))
    else:
        core = _gates([(gru.weight_ih_l0, gru.bias_ih_l0) for gru in agent.gru])
        back = _gates([(gru.weight_hh_l0, gru.bias_hh_l0) for gru in agent.gru])
    obs, of_last, of_agent = _split(first[0], agent, last[0].shape[2])
    return Network(obs, first[1], of_last, of_agent, *core, *back, *last)


def _split(weight: np.ndarray, agent: RecurrentAgent, actions: int) -> list[np.ndarray]:
    """Split a first layer's weights [g, I, H] by what the inputs are: observation, last action, number of the agent."""
    ids = agent.agent_id * agent.n_agents
    ends = np.cumsum([weight.shape[1] - agent.last_action * actions - ids, agent.last_action * actions])
    return [np.ascontiguousarray(part) for part in np.split(weight, ends, 1)]


def stack(networks: Sequence[Network]) -> Network | None:
    """Return the weights of several networks, numbered in this order; None if their hidden layers or actions differ.
    Inputs that only others have get zero weights."""
    if len({(net.core.shape[1:], net.back.shape[1:], net.last.shape[1:]) for net in networks}) != 1:
        return None
    return Network(*(_joined(arrays) for arrays in zip(*networks, strict=True)))


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Concatenate arrays [g_k, I_k, *], or [g_k, *], filled up with zeros to the largest I_k."""
    most = max(array.shape[1] for array in arrays)
    rest = [(0, 0)] * (arrays[0].ndim - 2)
    return np.concatenate([np.pad(array, [(0, 0), (0, most - array.shape[1]), *rest]) for array in arrays])


def _gates(parts: list[tuple[Any, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Return weights [g, H, 3H] and biases [g, 3H] from each network's own."""
    weight = [np.ascontiguousarray(w.detach().numpy().T) for w, _ in parts]
    return np.stack(weight), np.stack([b.detach().numpy() for _, b in parts])


def _linear(layer: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the weights [g, a, b] and biases [g, b] of a layer that is shared, or stacked; None if it is not on the
    CPU or not in float32."""
    weight, bias = layer.weight.detach(), layer.bias.detach()
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return None
    if weight.dim() == 2:
        return np.ascontiguousarray(weight.numpy().T)[None], bias.numpy()[None].copy()
    return weight.contiguous().numpy(), np.ascontiguousarray(bias.squeeze(1).numpy())


def seats_of(net: Network, carry: Carry, *, epsilon: float | Tensor = 0.0, sampled: bool = False) -> Seats:
    """Return the seats of a team with the networks ``net`` and the memory ``carry``; ``epsilon`` broadcasts against
    [B, n]."""
    last, h = carry["last"], carry["h"]
    return Seats(
        last, h, (torch.arange(last.shape[1]) % len(net.first)).expand(last.shape),
        epsilon=torch.as_tensor(epsilon, dtype=torch.float64).expand(last.shape),
        sampled=torch.tensor(sampled).expand(last.shape), fields={},
    )  # fmt: skip


def told(net: Network, seats: Seats, flags: Tensor) -> Seats:
    """Return ``seats`` whose networks also see ``flags`` [B, n, C], the same in every step, behind the observations."""
    weight = torch.from_numpy(net.first)[:, -flags.shape[2] :][seats.network]  # [B, n, C, H]
    return seats._replace(shift=torch.einsum("bnc,bnch->bnh", flags.to(weight.dtype), weight))


@njit(error_model="numpy")
def make_scratch(n: int, hidden: int, actions: int) -> Scratch:
    x, r = np.empty((n, 3 * hidden), np.float32), np.empty((n, 3 * hidden), np.float32)
    return Scratch(np.empty((n, hidden), np.float32), x, r, np.empty((n, actions), np.float32))


@njit(**RULE)
def tanh_(x: np.ndarray) -> None:
    """Replace x by its tanh, as ``marl.learn.gru`` computes it."""
    for k in range(len(x)):
        v = min(max(x[k], -EDGE), EDGE)
        y = v * v
        p = (((((P[6] * y + P[5]) * y + P[4]) * y + P[3]) * y + P[2]) * y + P[1]) * y + P[0]
        q = (((((Q[6] * y + Q[5]) * y + Q[4]) * y + Q[3]) * y + Q[2]) * y + Q[1]) * y + Q[0]
        x[k] = v * p / q


@njit(**RULE)
def copy_row(out: np.ndarray, row: np.ndarray) -> None:
    for j in range(len(out)):
        out[j] = row[j]


@njit(**RULE)
def add_row(out: np.ndarray, row: np.ndarray) -> None:
    for j in range(len(out)):
        out[j] += row[j]


@njit(**RULE)
def add_product(out: np.ndarray, x: np.ndarray, w: np.ndarray) -> None:
    """Add x [a] @ w [a or more, b] to out [b]: four rows at a time, to load and store ``out`` less often."""
    a, b = len(x), len(out)
    for k in range(0, a - a % 4, 4):
        x0, x1, x2, x3 = x[k], x[k + 1], x[k + 2], x[k + 3]
        for j in range(b):
            out[j] += x0 * w[k, j] + x1 * w[k + 1, j] + x2 * w[k + 2, j] + x3 * w[k + 3, j]
    for k in range(a - a % 4, a):
        for j in range(b):
            out[j] += x[k] * w[k, j]


@njit(**RULE)
def add_two_products(out: np.ndarray, also: np.ndarray, x: np.ndarray, y: np.ndarray, w: np.ndarray) -> None:
    """Add x @ w to ``out`` and y @ w to ``also``, to load the weights once for both."""
    a, b = len(x), len(out)
    for k in range(0, a - a % 4, 4):
        x0, x1, x2, x3 = x[k], x[k + 1], x[k + 2], x[k + 3]
        y0, y1, y2, y3 = y[k], y[k + 1], y[k + 2], y[k + 3]
        for j in range(b):
            w0, w1, w2, w3 = w[k, j], w[k + 1, j], w[k + 2, j], w[k + 3, j]
            out[j] += x0 * w0 + x1 * w1 + x2 * w2 + x3 * w3
            also[j] += y0 * w0 + y1 * w1 + y2 * w2 + y3 * w3
    for k in range(a - a % 4, a):
        for j in range(b):
            out[j] += x[k] * w[k, j]
            also[j] += y[k] * w[k, j]


@njit(**RULE)
def apply_layer(out: np.ndarray, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, which: np.ndarray) -> None:
    """Write x [n, a] @ weight [g, a or more, b] + bias [g, b] to out [n, b]; agent i uses the weights which[i]."""
    n = x.shape[0]
    for i in range(n):
        copy_row(out[i], bias[which[i]])
    i = 0
    while i < n:
        if i + 1 < n and which[i] == which[i + 1]:
            add_two_products(out[i], out[i + 1], x[i], x[i + 1], weight[which[i]])
            i += 2
        else:
            add_product(out[i], x[i], weight[which[i]])
            i += 1


@njit(**RULE)
def relu_(x: np.ndarray) -> None:
    """Replace the negative entries of x [n, a] by 0."""
    for i in range(x.shape[0]):
        for k in range(x.shape[1]):
            x[i, k] = max(x[i, k], np.float32(0.0))


@njit(**RULE)
def gru_cell_(h: np.ndarray, x: np.ndarray, r: np.ndarray) -> None:
    """Update a hidden state [H] by a GRU's gates: the input's part x [3H] and the hidden state's part r [3H]."""
    H = len(h)
    for k in range(2 * H):
        x[k] = HALF * (x[k] + r[k])
    tanh_(x[: 2 * H])
    for k in range(H):
        x[2 * H + k] += (HALF + HALF * x[k]) * r[2 * H + k]
    tanh_(x[2 * H :])
    for k in range(H):
        h[k] = x[2 * H + k] + (HALF + HALF * x[H + k]) * (h[k] - x[2 * H + k])


@njit(**RULE)
def forward_step(
    net: Network, scratch: Scratch, obs: np.ndarray, last: np.ndarray, h: np.ndarray, which: np.ndarray,
    shift: np.ndarray,
) -> None:  # fmt: skip
    """Make one step of a lane's networks: obs [n, O], last action [n] (-1: none) -> h [n, H] in place, values in
    ``scratch.q``. Agent i is played by network which[i]; ``shift`` [n, H or 0] is added to its first layer."""
    z, x, r = scratch.z, scratch.x, scratch.r
    apply_layer(z, obs, net.first, net.first_bias, which)
    for i in range(len(which)):
        if net.of_last.shape[1] > 0 and last[i] >= 0:
            add_row(z[i], net.of_last[which[i], last[i]])
        if net.of_agent.shape[1] > 0:
            add_row(z[i], net.of_agent[which[i], i])
        if shift.shape[1] > 0:
            add_row(z[i], shift[i])
    relu_(z)
    if net.back.shape[1] > 0:
        apply_layer(x, z, net.core, net.core_bias, which)
        apply_layer(r, h, net.back, net.back_bias, which)
        for i in range(len(which)):
            gru_cell_(h[i], x[i], r[i])
    else:
        apply_layer(h, z, net.core, net.core_bias, which)
        relu_(h)
    apply_layer(scratch.q, h, net.last, net.last_bias, which)


@njit(**RULE)
def best(q: np.ndarray, avail: np.ndarray) -> int:
    """Return the available action with the largest value, the first of ties; 0 if none is available."""
    found = -1
    for a in range(len(q)):
        if avail[a] and (found < 0 or q[a] > q[found]):
            found = a
    return max(found, 0)


@by_threads(cache=True)
def _act(
    net: Network, obs: np.ndarray, avail: np.ndarray, last: np.ndarray, h: np.ndarray, actions: np.ndarray
) -> None:
    B, n, A = avail.shape
    which, nothing = np.arange(n) % len(net.first), np.empty((n, 0), np.float32)
    for b in prange(B):
        scratch = make_scratch(n, h.shape[2], A)
        forward_step(net, scratch, obs[b], last[b], h[b], which, nothing)
        for i in range(n):
            actions[b, i] = best(scratch.q[i], avail[b, i])


def act(net: Network, obs: Tensor, avail: Tensor, last: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Return the best available actions long [B, n] and the next hidden state: obs [B, n, O], avail bool [B, n, A],
    last long [B, n], h [B, n, H]. Raise ValueError for other shapes: compiled loops check no bounds."""
    n, A = last.shape[1], net.last.shape[2]
    for name, shown, sees in (("obs", obs, (n, net.first.shape[1])), ("avail", avail, (n, A))):
        if shown.shape != (len(last), *sees):
            raise ValueError(f"{name} is {list(shown.shape)}; this team sees {[len(last), *sees]}")
    after = h.detach().clone(memory_format=torch.contiguous_format)
    actions = torch.empty(last.shape, dtype=torch.long)
    given = (obs.detach().contiguous(), avail.contiguous(), last.contiguous(), after, actions)
    _act(net, *(tensor.numpy() for tensor in given))
    return actions, after
