"""The value-decomposition learner: TD(lambda) on mixed values with double Q-learning and target networks.

IQL, VDN, QMIX and QPLEX differ only in the mixer that they pass in; plug-ins add rewards and losses through hooks.
"""

from __future__ import annotations

import copy
import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from marl.core.checks import require_choice, require_positive, require_share, require_within
from marl.core.distributed import all_reduce_gradients, global_count
from marl.core.memory import keep_freed_memory
from marl.core.optimizers import Adam, RMSprop
from marl.core.protocols import LearnerHook
from marl.core.rows import Rows
from marl.core.types import ActedOn, ConfigError, EnvSpec, EpisodeBatch, Forward, Metrics
from marl.learn.agents import RecurrentAgent
from marl.learn.mixers import Mixer
from marl.learn.returns import td_lambda as lambda_returns
from marl.learn.rhythm import crossed

NetT = TypeVar("NetT", bound=nn.Module)
OptimizerName = Literal["adam", "rmsprop"]


def best_available(q: Tensor, avail: Tensor) -> Tensor:
    """Return the index of the largest available value: q [*, A], avail bool [*, A] -> long [*]; 0 where none is."""
    return q.masked_fill(~avail, -torch.inf).argmax(-1)


def gather_actions(q: Tensor, actions: Tensor) -> Tensor:
    """Pick q [*, A] at actions long [*] -> [*]."""
    return q.gather(-1, actions.unsqueeze(-1)).squeeze(-1)


def previous_actions(actions: Tensor) -> Tensor:
    """Return the action before each slot, -1 at the first: actions [M, T+1, n] -> long [M, T+1, n]."""
    before = actions.long().roll(1, dims=1)
    before[:, 0] = -1
    return before


def masked_td_loss(chosen: Tensor, target: Tensor, filled: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum of squared errors and their number: chosen, target [*, m], filled bool [*, 1]."""
    error = torch.where(filled, chosen - target, 0.0)
    return error.square().sum(), filled.sum() * chosen.shape[-1]


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of x [*] where ``mask`` bool [*] is true: this rank's sum over the count of all ranks."""
    return torch.where(mask, x, 0.0).sum() / global_count(mask.sum())


def td_metrics(chosen: Tensor, target: Tensor, filled: Tensor) -> Metrics:
    """Return means over the filled steps: chosen, target [*, m] (0 elsewhere), filled bool [*, 1]."""
    with torch.no_grad():
        mean = 1.0 / (filled.sum() * chosen.shape[-1])
        return {
            "q/taken": torch.where(filled, chosen, 0.0).sum() * mean,
            "q/target": target.sum() * mean,
            "q/td_abs": torch.where(filled, (chosen - target).abs(), 0.0).sum() * mean,
        }


def team_value(mixer: Mixer, q: Tensor, greedy: Tensor, actions: Tensor, state: Tensor) -> Tensor:
    """Return the team value [*, m] of joint actions long [*, n], from the agents' values q [*, n, A], their best
    actions ``greedy`` long [*, n] and state [*, S]."""
    best = gather_actions(q, greedy) if mixer.reads_best else None
    return mixer(gather_actions(q, actions), state, actions=actions, q_max=best)


def hook_reward(hook: LearnerHook, batch: EpisodeBatch, fwd: Forward, m: int) -> Tensor | float:
    """Return what a hook adds to the reward: a number, or a tensor [M, T, 1] or, for each of ``m`` values, [M, T, m].
    Raise ConfigError for another shape, which would be paid to steps that did not earn it."""
    bonus = hook.reward(batch, fwd)
    if not isinstance(bonus, Tensor) or bonus.dim() == 0:
        return bonus
    M, T = len(batch), batch.horizon
    if bonus.shape not in ((M, T, 1), (M, T, m)):
        wanted = f"[{M}, {T}, 1]" + f" or [{M}, {T}, {m}]" * (m > 1)
        raise ConfigError(f"{type(hook).__name__}.reward returned {list(bonus.shape)}; it must be a number or {wanted}")
    return bonus


def frozen_copy(net: NetT) -> NetT:
    """Copy a network as a target network, which has the same weights and is never trained."""
    return copy.deepcopy(net).requires_grad_(False)


def make_optimizer(name: str, parameters: list[nn.Parameter], lr: float, eps: float) -> torch.optim.Optimizer:
    """Build Adam, or RMSprop with the smoothing constant 0.99 of PyMARL and its successors."""
    require_positive("", lr=lr, optimizer_eps=eps)  # with eps 0, a weight that never had a gradient becomes nan
    require_choice("", get_args(OptimizerName), optimizer=name)
    if name == "adam":
        return Adam(parameters, lr=lr, eps=eps, fused=True)
    return RMSprop(parameters, lr=lr, alpha=0.99, eps=eps)


class Learner(ABC):
    """The base of learners. Checkpoints hold their ``networks()``, optimizer, number of updates and hooks."""

    optimizer: torch.optim.Optimizer
    hooks: list[LearnerHook]
    updates: int
    device: torch.device

    def rows(self, batch: EpisodeBatch) -> Rows:
        """Return the slots of ``batch`` that matter: on the CPU, steps and one slot to bootstrap from."""
        slots = batch.length.cpu() + 1 if self.device.type == "cpu" else None
        return Rows(len(batch), batch.horizon + 1, slots, batch.data)

    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """Return every network by the name that messages and checkpoints use."""

    def state_dict(self) -> dict[str, Any]:
        return {
            **{name: net.state_dict() for name, net in self.networks().items()},
            "optimizer": self.optimizer.state_dict(),
            "updates": self.updates,
            "hooks": [hook.state_dict() for hook in self.hooks],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, net in self.networks().items():
            net.load_state_dict(state[name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.updates = int(state["updates"])
        for hook, saved in zip(self.hooks, state["hooks"], strict=True):
            hook.load_state_dict(saved)


class ValueLearner(Learner):
    """Learns agents and a mixer; one ``update`` is one gradient step on a batch of whole episodes.

    ``target_every`` is the number of episodes between copies of the online weights to the target (hard); ``tau`` moves
    the target by that fraction after each update (soft); exactly one of the two is set. ``act_on`` says whether values
    are fitted at the executed or at the intended actions (they differ under an attack); ``last_action`` says which of
    the two the networks get as input, and must equal that of the acting policy.
    """

    episodes_per_update: float = 1.0  # how many new episodes an update stands for; set by the algorithm

    def __init__(
        self,
        spec: EnvSpec,
        agent: RecurrentAgent,
        mixer: Mixer,
        hooks: Sequence[LearnerHook] = (),
        *,
        lr: float,
        optimizer: str,
        optimizer_eps: float,
        gamma: float,
        td_lambda: float,
        double_q: bool,
        grad_clip: float,
        target_every: float | None,
        tau: float | None,
        act_on: ActedOn,
        last_action: ActedOn,
        device: torch.device | str = "cpu",
    ) -> None:
        if (target_every is None) == (tau is None):
            raise ConfigError(
                f"learner.target_every={target_every} and learner.tau={tau}: set exactly one, the other null"
            )
        require_positive("learner", or_null=True, target_every=target_every)
        require_share("learner", gamma=gamma, td_lambda=td_lambda)
        require_positive("learner", lr=lr, grad_clip=grad_clip, optimizer_eps=optimizer_eps)
        require_within("learner", 0, 1, ends="(]", or_null=True, tau=tau)
        require_choice("learner", get_args(ActedOn), act_on=act_on, last_action=last_action)
        self.spec, self.hooks, self.device = spec, list(hooks), torch.device(device)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.agent, self.mixer = agent.to(device), mixer.to(device)
        self.make_targets()
        self.gamma, self.td_lambda, self.double_q, self.grad_clip = gamma, td_lambda, double_q, grad_clip
        self.target_every, self.tau = target_every, tau
        self.act_on, self.last_action = act_on, last_action
        owned = {id(p) for hook in self.hooks for p in hook.parameters()}
        online = itertools.chain.from_iterable(net.parameters() for net in self.online().values())
        self.parameters = [p for p in online if id(p) not in owned]
        self.optimizer = make_optimizer(optimizer, self.parameters, lr, optimizer_eps)
        self.updates = 0

    def taken(self, rows: Rows) -> Tensor:
        """Return the actions at which values are fitted, long [N, n]."""
        return rows["actions" if self.act_on == "executed" else "intended"].long()

    # learners of other papers override the following: networks, bootstrap values, losses

    def online(self) -> dict[str, nn.Module]:
        """Return the networks that the optimizer trains, by the name that messages and checkpoints use."""
        return {"agent": self.agent, "mixer": self.mixer}

    def make_targets(self) -> None:
        """Create the copies of online networks that ``bootstrap`` needs."""
        self.target_agent, self.target_mixer = frozen_copy(self.agent), frozen_copy(self.mixer)

    def targets(self) -> dict[str, tuple[nn.Module, nn.Module]]:
        """Return the pair (online, target) of every copy, by the target's name."""
        return {
            "target_agent": (self.agent, self.target_agent),
            "target_mixer": (self.mixer, self.target_mixer),
        }

    def inputs(self, batch: EpisodeBatch, rows: Rows) -> Tensor:
        """Return the networks' inputs [N, n, I]."""
        last = previous_actions(batch.acted(self.last_action))
        return self.agent.inputs(rows.of(self.observed(batch, last)), rows.of(last))

    def observed(self, batch: EpisodeBatch, last: Tensor) -> Tensor:
        """Return the agents' observations [M, T+1, n, O]; ``last`` long [M, T+1, n] are their last actions."""
        return batch.policy_obs

    def forward(self, batch: EpisodeBatch) -> Forward:
        """Unroll the online and the target networks once over the slots that matter."""
        rows = self.rows(batch)
        x = self.inputs(batch, rows)
        q, h = self.agent.along(x, rows)
        with torch.no_grad():
            greedy = best_available(q.detach(), rows["avail"])
            return Forward(rows, q, h.detach(), self.bootstrap(rows, x, greedy), greedy)

    def bootstrap(self, rows: Rows, x: Tensor, greedy: Tensor) -> Tensor:
        """Return the target networks' values [N, m], without gradient, from inputs [N, n, I] and the online networks'
        best actions long [N, n]."""
        target_q, _ = self.target_agent.along(x, rows)
        if self.double_q and not self.target_mixer.reads_best:
            best = greedy
        else:
            best = best_available(target_q, rows["avail"])
        return team_value(self.target_mixer, target_q, best, greedy if self.double_q else best, rows["state"])

    def losses(self, batch: EpisodeBatch, fwd: Forward, target: Tensor) -> tuple[dict[str, Tensor], Metrics]:
        """Return the terms of the loss by name, and further metrics. ``target`` [M, T, m] holds the lambda-returns."""
        rows = fwd.rows
        filled, target = rows["filled"][:, None], rows.of(target)
        q_total = team_value(self.mixer, fwd.row_q, fwd.row_greedy, self.taken(rows), rows["state"])
        squared, count = masked_td_loss(q_total, target, filled)
        # under torchrun gradients are summed over ranks, so each rank divides by the number of errors on all ranks
        return {"td": squared / global_count(count)}, td_metrics(q_total, target, filled)

    def update(self, batch: EpisodeBatch) -> Metrics:
        """Make a gradient step on ``batch`` [M episodes] and return its metrics, detached 0-d tensors."""
        fwd = self.forward(batch)
        filled = batch.filled[:, :-1, None]  # [M, T, 1]
        ended, target_v = batch.terminated[:, :-1, None], fwd.target_v
        bonus = sum(hook_reward(hook, batch, fwd, target_v.shape[-1]) for hook in self.hooks)
        reward = batch.reward[:, :-1, None] + bonus
        target = lambda_returns(reward, ended, filled, target_v, self.gamma, self.td_lambda)
        terms, metrics = self.losses(batch, fwd, target)
        loss: Any = sum(terms.values()) + sum(hook.loss(batch, fwd) for hook in self.hooks)

        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        all_reduce_gradients(self.parameters)
        grad_norm = nn.utils.clip_grad_norm_(self.parameters, self.grad_clip, foreach=True)
        self.optimizer.step()
        self.updates += 1
        self._sync_targets()

        for hook in self.hooks:
            metrics |= hook.update(batch, fwd) or {}
        metrics |= {f"loss/{name}": term.detach() for name, term in terms.items()}
        return metrics | {"optim/grad_norm": grad_norm.detach()}

    def _sync_targets(self) -> None:
        pairs = self.targets().values()
        if self.tau is not None:
            with torch.no_grad():
                online, target = ([p for net in nets for p in net.parameters()] for nets in zip(*pairs, strict=True))
                torch._foreach_lerp_(target, online, self.tau)
            return
        each = self.episodes_per_update
        if crossed((self.updates - 1) * each, self.updates * each, self.target_every):
            for net, copied in pairs:
                copied.load_state_dict(net.state_dict())

    def networks(self) -> dict[str, nn.Module]:
        """Return every network by the name that messages and checkpoints use."""
        return self.online() | {name: target for name, (_, target) in self.targets().items()}
