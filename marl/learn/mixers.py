"""Mixers, which combine the values of the agents' chosen actions into the team's value. All take the same arguments
and return [*, m].

VDN: Sunehag et al. 2018. QMIX: Rashid et al. 2018, eq. 4-5. QPLEX: Wang et al. 2021, eq. 6-11. No mixer: IQL.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marl.core.checks import require_at_least
from marl.core.networks import stacked_mlp
from marl.core.types import ConfigError, EnvSpec
from marl.learn.mixing import mix


class Mixer(nn.Module):
    """The base of all mixers; ``outputs`` is m. Subclasses implement ``forward(q, state, *, actions, q_max) -> [*, m]``
    with q [*, n] the values of the chosen actions, state [*, S], actions long [*, n], q_max [*, n] the best values.
    One that does not read ``q_max`` sets ``reads_best`` to false; the learner then does not compute it."""

    outputs: int = 1
    reads_best: bool = True


class NoMixer(Mixer):
    """No mixing, for independent learners: m = n, and each agent fits the team reward with its own value."""

    reads_best = False

    def __init__(self, spec: EnvSpec) -> None:
        super().__init__()
        self.outputs = spec.n_agents

    def forward(
        self, q: Tensor, state: Tensor, *, actions: Tensor | None = None, q_max: Tensor | None = None
    ) -> Tensor:
        return q


class VDN(Mixer):
    """The sum of the agents' values."""

    reads_best = False

    def __init__(self, spec: EnvSpec) -> None:
        super().__init__()

    def forward(
        self, q: Tensor, state: Tensor, *, actions: Tensor | None = None, q_max: Tensor | None = None
    ) -> Tensor:
        return q.sum(-1, keepdim=True)


class QMix(Mixer):
    """A two-layer mixing network with non-negative weights computed from the state, hence monotonic in every value."""

    reads_best = False

    def __init__(self, spec: EnvSpec, *, embed_dim: int, hypernet_dim: int) -> None:
        super().__init__()
        require_at_least("mixer", 1, embed_dim=embed_dim, hypernet_dim=hypernet_dim)
        self.n_agents, self.embed_dim, S = spec.n_agents, embed_dim, spec.state_dim
        self.hyper_w1 = nn.Sequential(
            nn.Linear(S, hypernet_dim), nn.ReLU(), nn.Linear(hypernet_dim, spec.n_agents * embed_dim)
        )
        self.hyper_b1 = nn.Linear(S, embed_dim)
        self.hyper_w2 = nn.Sequential(nn.Linear(S, hypernet_dim), nn.ReLU(), nn.Linear(hypernet_dim, embed_dim))
        self.value = nn.Sequential(nn.Linear(S, embed_dim), nn.ReLU(), nn.Linear(embed_dim, 1))

    def forward(
        self, q: Tensor, state: Tensor, *, actions: Tensor | None = None, q_max: Tensor | None = None
    ) -> Tensor:
        if q.dim() == 2 and q.device.type == "cpu" and q.dtype == state.dtype == torch.float32:  # rows of a learner
            mixed = mix(q, self.hyper_w1(state), self.hyper_b1(state), self.hyper_w2(state))
            return mixed.unsqueeze(-1) + self.value(state)
        w1 = self.hyper_w1(state).abs().unflatten(-1, (self.n_agents, self.embed_dim))  # [*, n, E]
        hidden = F.elu((q.unsqueeze(-1) * w1).sum(-2) + self.hyper_b1(state))  # [*, E]
        w2 = self.hyper_w2(state).abs()  # [*, E]
        return (hidden * w2).sum(-1, keepdim=True) + self.value(state)


class QPlex(Mixer):
    """Duplex dueling: Q_tot = sum_i v_i + sum_i lambda_i(s, a) (q_i - v_i) with q_i, v_i transformed by a positive
    weight and a bias from the state, and lambda_i > 0 a sum over ``n_kernels`` products of state-action networks.

    Computed as Q_tot = sum_i q_i + sum_i (q_i - v_i) (lambda_i - 1). With ``stop_advantage``, as in the
    published code, the advantage there carries no gradient and the agents learn through the plain sum alone.
    ``transform`` false leaves out the positive weight and the bias: on a one-step game the weight can vanish while
    lambda grows without bound; without them the non-monotonic game is solved exactly (see the tests).
    """

    def __init__(
        self,
        spec: EnvSpec,
        *,
        hypernet_dim: int,
        n_kernels: int,
        kernel_dim: int,
        stop_advantage: bool,
        transform: bool,
    ) -> None:
        super().__init__()
        require_at_least("mixer", 1, hypernet_dim=hypernet_dim, n_kernels=n_kernels, kernel_dim=kernel_dim)
        if spec.state_dim == 0:
            raise ConfigError(
                "mixer=qplex weighs advantages by the state, and this game's is empty; choose vdn or qmix"
            )
        self.stop_advantage, self.transform = stop_advantage, transform
        n, S, self.n_actions, self.n_kernels = spec.n_agents, spec.state_dim, spec.n_actions, n_kernels
        if transform:
            self.hyper_w = nn.Sequential(nn.Linear(S, hypernet_dim), nn.ReLU(), nn.Linear(hypernet_dim, n))
            self.hyper_b = nn.Sequential(nn.Linear(S, hypernet_dim), nn.ReLU(), nn.Linear(hypernet_dim, n))
        with_actions = S + n * spec.n_actions
        self.keys = stacked_mlp(n_kernels, [S, kernel_dim, kernel_dim, 1])
        self.agents = stacked_mlp(n_kernels, [S, kernel_dim, kernel_dim, n])
        self.joint = stacked_mlp(n_kernels, [with_actions, kernel_dim, kernel_dim, n])

    def importance(self, state: Tensor, actions: Tensor) -> Tensor:
        """Return lambda [*, n] > 0 for state [*, S] and joint action long [*, n]."""
        # a comparison, since F.one_hot has no vmap rule
        taken = (actions.unsqueeze(-1) == torch.arange(self.n_actions, device=state.device)).to(state.dtype)
        lead, K = state.shape[:-1], self.n_kernels
        s = state.unsqueeze(-2).expand(*lead, K, -1)
        sa = torch.cat([state, taken.flatten(-2)], -1).unsqueeze(-2).expand(*lead, K, -1)
        key = self.keys(s).abs() + 1e-10  # [*, K, 1]
        return (key * torch.sigmoid(self.agents(s)) * torch.sigmoid(self.joint(sa))).sum(-2)

    def forward(
        self, q: Tensor, state: Tensor, *, actions: Tensor | None = None, q_max: Tensor | None = None
    ) -> Tensor:
        if actions is None or q_max is None:
            raise ValueError("QPLEX needs the joint action and the best values: pass actions= and q_max=")
        if self.transform:
            w, b = self.hyper_w(state).abs() + 1e-10, self.hyper_b(state)  # [*, n]
            q, q_max = w * q + b, w * q_max + b
        advantage = q - q_max
        if self.stop_advantage:
            advantage = advantage.detach()
        return q.sum(-1, keepdim=True) + (advantage * (self.importance(state, actions) - 1.0)).sum(-1, keepdim=True)
