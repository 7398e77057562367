"""Fitting of IBAL's two models to stored episodes, and of the score tensor. Neither model sees rewards: nothing here is
adversarial.

Axis letters: ``R`` rows (transitions, or transitions with an observer and an actor), ``C`` context features of an
agent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from attacks.ibal.models import DimensionModel, GroupModel, dimension_losses, dimension_scores, group_loss
from attacks.ibal.scores import Scores
from marl.core.checks import require_at_least, require_choice, require_within
from marl.core.distributed import world
from marl.core.optimizers import Adam
from marl.core.protocols import Policy, Replay, View
from marl.core.seeding import restore
from marl.core.types import Carry, ConfigError, EnvSpec, EpisodeBatch, Metrics

Context = Literal["hidden", "obs", "state", "joint"]
Estimator = Literal["club", "ce"]


@runtime_checkable
class Followed(Policy, Protocol):
    """A policy whose hidden states can be followed through play and through stored episodes."""

    def advance(self, obs: Tensor, carry: Carry) -> tuple[Tensor, Carry]: ...  # scores [B, n, A], carry after ``obs``

    def unroll(self, batch: EpisodeBatch) -> tuple[Tensor, Carry]: ...  # [M, T+1, n, A], carry before every slot


@dataclass
class Transitions:
    """Single steps drawn from episodes."""

    context: Tensor  # f32 [R, n, C] what each agent knows before it acts
    actions: Tensor  # long [R, n] executed
    next_obs: Tensor  # f32 [R, n, O] as the environment gave them, unmasked
    alive: Tensor  # bool [R, n]
    alive_next: Tensor  # bool [R, n]


def draw_groups(u: Tensor, k: Tensor) -> Tensor:
    """Draw uniformly random groups of sizes k long [R], given uniform numbers u [R, n]; bool [R, n]."""
    return u.argsort(-1).argsort(-1) < k[:, None]


class Estimators:
    """The two models and the scores. ``context`` is what the models condition on: hidden (the policy's own GRU state,
    of ``hidden_dim``), obs, state or joint (all agents' hidden states). A round of fitting draws ``samples``
    transitions from ``episodes`` episodes and is due every ``every`` learner updates; on a frozen victim, there are
    ``per_episode`` rounds per collected episode, and ``fit_rounds`` in total. After ``freeze_after`` rounds (null:
    never) the scores stay fixed. ``k_max``: size of the largest group that the group model learns about.
    """

    def __init__(
        self,
        spec: EnvSpec,
        device: torch.device,
        k_max: int,
        *,
        context: Context,
        hidden_dim: int,
        estimator: Estimator,
        width: int,
        group_width: int,
        lr: float,
        every: int,
        per_episode: int,
        fit_rounds: int,
        episodes: int,
        samples: int,
        ema: float,
        freeze_after: int | None,
    ) -> None:
        if world()[1] > 1:
            raise ConfigError("attack=ibal does not run under torchrun: its estimators are trained by one process")
        require_choice("attack.estimators", get_args(Context), context=context)
        require_choice("attack.estimators", get_args(Estimator), estimator=estimator)
        require_at_least(
            "attack.estimators", 1, hidden_dim=hidden_dim, width=width, group_width=group_width, every=every,
            per_episode=per_episode, fit_rounds=fit_rounds, episodes=episodes, samples=samples,
        )  # fmt: skip
        require_within("attack.estimators", 0, 1, ends="(]", lr=lr, ema=ema)
        n, A = spec.n_agents, spec.n_actions
        self.spec, self.device, self.k_max = spec, device, k_max
        self.kind, self.estimator, self.hidden_dim = context, estimator, hidden_dim
        self.every, self.per_episode, self.episodes, self.samples = every, per_episode, episodes, samples
        self.freeze_after, self.fit_rounds = freeze_after, fit_rounds
        widths = {"hidden": hidden_dim, "obs": spec.obs_dim, "state": spec.state_dim, "joint": n * hidden_dim}
        C = widths[context]
        self.dimensions = DimensionModel(C + A + 2 * n, spec.obs_dim, A, width).to(device)
        self.groups = GroupModel(n, C, A, group_width).to(device)
        self.optimizers = [Adam(model.parameters(), lr=lr, fused=True) for model in (self.dimensions, self.groups)]
        self.scores = Scores(n, spec.obs_dim, ema, device)
        self.rounds = 0
        self.gen = Generator().manual_seed(torch.initial_seed() % 2**63)  # on the CPU, where the replay is indexed

    # contexts

    def now(self, view: View, shown: Tensor, lanes: Tensor) -> Tensor:
        """Return contexts [R, n, C] of the lanes long [R] once their agents have read ``shown`` [B, n, O]."""
        h = shown[lanes][..., :0]
        if self.needs_memory:
            carry = {name: value[lanes] for name, value in view.carry.items()}
            h = self.memory(self._followed(view.victim).advance(shown[lanes], carry)[1])
        return self._contexts(h, view.obs.obs[lanes], view.obs.state[lanes])

    def stored(self, batch: EpisodeBatch, victim: Policy) -> Tensor:
        """Return contexts [M, T, n, C] of stored episodes, with hidden states from the victim's current weights."""
        h = batch.obs[:, 1:, ..., :0]
        if self.needs_memory:
            h = self.memory(self._followed(victim).unroll(batch)[1])[:, 1:]  # before t + 1: after reading t
        return self._contexts(h, batch.obs[:, :-1], batch.state[:, :-1])

    @property
    def needs_memory(self) -> bool:
        return self.kind in ("hidden", "joint")

    def _followed(self, victim: Policy) -> Followed:
        if not isinstance(victim, Followed):
            raise ConfigError(
                f"attack.estimators.context={self.kind}: {type(victim).__name__} shows no hidden states; choose obs"
            )
        return victim

    def memory(self, carry: Carry) -> Tensor:
        """Return the hidden states ``h`` of a carry; raise ConfigError if their width differs."""
        h = carry["h"]
        if h.shape[-1] != self.hidden_dim:
            raise ConfigError(
                f"attack.estimators.hidden_dim={self.hidden_dim} differs from the policy's hidden states, "
                f"which have {h.shape[-1]} units"
            )
        return h

    def _contexts(self, h: Tensor, obs: Tensor, state: Tensor) -> Tensor:
        if self.kind == "hidden":
            return h
        if self.kind == "obs":
            return obs
        shared = state if self.kind == "state" else h.flatten(-2)
        return shared.unsqueeze(-2).expand(*shared.shape[:-1], self.spec.n_agents, -1)

    # fitting

    def draw(self, batch: EpisodeBatch, victim: Policy) -> Transitions:
        """Draw ``samples`` of the batch's transitions, with replacement."""
        steps = batch.filled[:, :-1].nonzero()
        lot = torch.rand(self.samples, generator=self.gen).to(steps.device)
        m, t = steps[(lot * len(steps)).long().clamp(max=len(steps) - 1)].unbind(1)
        return Transitions(
            self.stored(batch, victim)[m, t], batch.actions[m, t].long(), batch.obs[m, t + 1],
            batch.alive[m, t], batch.alive[m, t + 1],
        )  # fmt: skip

    def step(self, data: Transitions) -> Metrics:
        """Run one round: scores from the current models, then a gradient step on each model."""
        facts = self._fit_dimensions(data) | self._fit_groups(data)
        self.rounds += 1
        return facts

    def _fit_dimensions(self, data: Transitions) -> Metrics:
        z, x, action, i, j = self.rows(data)
        if not len(z):
            return {}
        given, marginal = self.dimensions(z, x)
        with_x, without = dimension_losses(given, marginal, action)
        if self.freeze_after is None or self.rounds < self.freeze_after:
            self.scores.add(dimension_scores(given.detach(), marginal.detach(), action, self.estimator), i, j)
        self._descend(0, with_x + without)
        return {"ibal/est_ce": with_x.detach(), "ibal/marg_ce": without.detach()}

    def rows(self, data: Transitions) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Pair every observer of every transition with one random other agent: z [R, Z], its next observation x [R, O],
        the other's action, observer and actor long [R]. Only where both are alive and the observer survives
        the step."""
        n, A = self.spec.n_agents, self.spec.n_actions
        R = len(data.actions)
        shift = 1 + (torch.rand(R, n, generator=self.gen).to(data.actions.device) * (n - 1)).long()
        observer = torch.arange(n, device=shift.device).expand(R, n)
        actor = (observer + shift) % n
        counts = data.alive & data.alive.gather(1, actor) & data.alive_next
        own = torch.cat([data.context, F.one_hot(data.actions, A)], -1)
        z = torch.cat([own, F.one_hot(observer, n), F.one_hot(actor, n)], -1)
        return z[counts], data.next_obs[counts], data.actions.gather(1, actor)[counts], observer[counts], actor[counts]

    def _fit_groups(self, data: Transitions) -> Metrics:
        R, n = data.actions.shape
        u = torch.rand(R, n + 1, generator=self.gen).to(data.actions.device)
        group = draw_groups(u[:, 1:], 1 + (u[:, 0] * self.k_max).long())
        loss = group_loss(self.groups, data.context, data.actions, group, data.alive)
        self._descend(1, loss)
        return {"ibal/group_ce": loss.detach()}

    def _descend(self, which: int, loss: Tensor) -> None:
        optimizer = self.optimizers[which]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def fit(self, replay: Replay, victim: Policy, rounds: int) -> Metrics:
        """Run ``rounds`` rounds on episodes from the replay; return the metrics of the last one."""
        facts: Metrics = {}
        for _ in range(rounds):
            batch = replay.sample(min(self.episodes, len(replay)), self.gen, self.device)
            facts = self.step(self.draw(batch, victim))
        return facts

    def state_dict(self) -> dict[str, Any]:
        return {
            "dimensions": self.dimensions.state_dict(),
            "groups": self.groups.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scores": self.scores.state_dict(),
            "rounds": self.rounds,
            "gen": self.gen.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.dimensions.load_state_dict(state["dimensions"])
        self.groups.load_state_dict(state["groups"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.scores.load_state_dict(state["scores"])
        self.rounds = int(state["rounds"])
        restore(self.gen, state["gen"], "ibal")
