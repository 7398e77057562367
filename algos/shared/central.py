"""An unrestricted joint value Q* alongside a monotonic team value; WQMIX and S2Q share it.

Rashid et al. 2020, "Weighted QMIX", section 4 and appendix B (the central agent and its feed-forward mixer).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from marl.core.checks import require_at_least, require_choice
from marl.core.networks import rectified
from marl.core.protocols import LearnerHook
from marl.core.rows import Rows
from marl.core.types import ConfigError, EnvSpec, EpisodeBatch, Forward
from marl.learn.agents import RecurrentAgent
from marl.learn.algorithm import Factories, ValueAlgorithm
from marl.learn.learner import ValueLearner, best_available, frozen_copy, gather_actions, previous_actions
from marl.learn.mixers import Mixer, NoMixer
from marl.learn.rhythm import Rhythm

TargetSource = Literal["qstar", "qtot"]


class CentralValue(nn.Module):
    """Q*(s, tau, a) without a monotonicity constraint: an MLP that mixes the utilities of its own recurrent network.

    The joint action enters through one number per agent, the utility of its action.
    """

    def __init__(self, spec: EnvSpec, agent: RecurrentAgent, *, embed_dim: int) -> None:
        super().__init__()
        require_at_least("algo", 1, central_dim=embed_dim)
        S, E = spec.state_dim, embed_dim
        self.agent = agent
        self.mix = nn.Sequential(
            nn.Linear(S + spec.n_agents, E), nn.ReLU(), nn.Linear(E, E), nn.ReLU(), nn.Linear(E, E), nn.ReLU(),
            nn.Linear(E, 1),
        )  # fmt: skip
        self.value = nn.Sequential(nn.Linear(S, E), nn.ReLU(), nn.Linear(E, 1))

    def forward(self, u: Tensor, state: Tensor) -> Tensor:
        """Map chosen utilities u [*, n] and states [*, S] to Q* [*, 1]; state axes of size 1 broadcast."""
        x = torch.cat([state.expand(*u.shape[:-1], -1), u], -1)
        return _through(self.mix, x) + _through(self.value, state)


def _through(net: nn.Sequential, x: Tensor) -> Tensor:
    """Apply linear layers with ReLUs between them to x [*, a] -> [*, b], as one matrix and in place, without copies."""
    *hidden, last = (layer for layer in net if isinstance(layer, nn.Linear))
    rows = x.reshape(-1, x.shape[-1])
    for layer in hidden:
        rows = rectified(layer, rows)
    return last(rows).view(*x.shape[:-1], -1)


@dataclass
class CentralForward(Forward):
    """A forward pass with the unrestricted value."""

    x: Tensor  # [N, n, I] input of the agents
    u: Tensor  # [N, n, A] central utilities, with gradient
    target_u: Tensor  # [N, n, A] utilities of the target network
    central_v: Tensor  # [N, 1] target Q* at the greedy joint action


class CentralLearner(ValueLearner):
    """A value learner with an unrestricted value, which is trained on the same targets and may supply the bootstrap
    values.

    ``target_source``: qstar bootstraps from target Q* at the greedy joint action of the online agents, qtot from the
    base learner's target networks. Only the target networks needed for this are created.
    """

    def __init__(
        self,
        spec: EnvSpec,
        agent: RecurrentAgent,
        mixer: Mixer,
        hooks: Sequence[LearnerHook],
        central: CentralValue | None,
        *,
        target_source: TargetSource,
        device: torch.device | str = "cpu",
        **base: Any,
    ) -> None:
        require_choice("learner", get_args(TargetSource), target_source=target_source)
        if isinstance(mixer, NoMixer):
            raise ConfigError("algo.mixer=none knows no value of joint actions; choose vdn, qmix or qplex")
        if target_source == "qstar" and not base["double_q"]:
            raise ConfigError("learner.double_q=false needs target_source=qtot: Q* is taken at the online choice")
        self.target_source = target_source  # set before the base learner asks for networks and targets
        self.central = None if central is None else central.to(device)
        super().__init__(spec, agent, mixer, hooks, device=device, **base)

    def online(self) -> dict[str, nn.Module]:
        return super().online() | ({} if self.central is None else {"central": self.central})

    def make_targets(self) -> None:
        if self.target_source == "qtot":
            super().make_targets()
        self.target_central = None if self.central is None else frozen_copy(self.central)

    def targets(self) -> dict[str, tuple[nn.Module, nn.Module]]:
        pairs = super().targets() if self.target_source == "qtot" else {}
        if self.central is not None and self.target_central is not None:
            pairs["target_central"] = (self.central, self.target_central)
        return pairs

    def forward(self, batch: EpisodeBatch) -> Forward:
        if self.central is None or self.target_central is None:
            return super().forward(batch)
        rows = self.rows(batch)
        x = self.inputs(batch, rows)
        q, h = self.agent.along(x, rows)
        greedy = best_available(q.detach(), rows["avail"])
        x_central = self.central_inputs(batch, rows)
        u, _ = self.central.agent.along(x_central, rows)
        with torch.no_grad():
            target_u, _ = self.target_central.agent.along(x_central, rows)
            central_v = self.target_central(gather_actions(target_u, greedy), rows["state"])
            from_central = self.target_source == "qstar"
            target_v = central_v if from_central else self.bootstrap(rows, x, greedy)
        return CentralForward(rows, q, h.detach(), target_v, greedy, x, u, target_u, central_v)

    def central_inputs(self, batch: EpisodeBatch, rows: Rows) -> Tensor:
        """Return the inputs [N, n, I] of the networks of Q*."""
        assert self.central is not None
        last = previous_actions(batch.acted(self.last_action))
        return self.central.agent.inputs(rows.of(batch.policy_obs), rows.of(last))

    def central_taken(self, fwd: CentralForward) -> Tensor:
        """Return Q* of the joint actions that were taken, [N, 1]."""
        assert self.central is not None
        return self.central(gather_actions(fwd.u, self.taken(fwd.rows)), fwd.rows["state"])


def is_joint(actions: Tensor, joint: Tensor) -> Tensor:
    """Return whether all agents' actions long [*, n] are those of the joint action long [*, n], as bool [*, 1]."""
    return (actions == joint).all(-1, keepdim=True)


def wqmix_weight(rule: str, w: float, delta: Tensor, target: Tensor, central_v: Tensor, is_greedy: Tensor) -> Tensor:
    """Return the weights [*, 1] of squared errors, ``delta`` = value - target: 1 where the rule says so, else ``w``.

    ow gives 1 where the target exceeds the value (optimistic); cw where the joint action taken is the greedy one
    (bool ``is_greedy``) or its target exceeds Q* of the greedy one (``central_v``). Rashid et al. 2020, eq. 6 and 7.
    """
    if rule == "none":
        return torch.ones_like(delta)
    keep = delta < 0 if rule == "ow" else is_greedy | (target > central_v)
    return torch.where(keep, 1.0, w)


class CentralAlgorithm(ValueAlgorithm):
    """A ``ValueAlgorithm`` whose learner has an unrestricted value with ``central_dim`` hidden units."""

    published = Rhythm(batch_size=32, episodes_per_update=1, target_every=200)  # WQMIX

    def __init__(self, *args: Any, central_dim: int, **base: Any) -> None:
        self.central_dim = central_dim
        super().__init__(*args, **base)

    def make_learner(self, spec: EnvSpec, make: Factories) -> ValueLearner:
        agent, mixer = make.agent(spec), make.mixer(spec)  # the base algorithm's order keeps its initial weights
        central = CentralValue(spec, make.agent(spec), embed_dim=self.central_dim)
        return make.learner(spec, agent, mixer, self.hooks, central, device=self.device)
