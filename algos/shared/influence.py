"""What FIM and LAIES share: a trained forward model of the state, and the annealing of their rewards.

Axis letters: ``X`` inputs of the model, ``C`` chosen state features. The network is in ``influence_model``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Generator, Tensor, nn

from algos.shared.influence_model import ForwardModel, Kind, alternatives
from marl.core.checks import require_at_least, require_choice, require_positive, require_share
from marl.core.distributed import world
from marl.core.optimizers import Adam
from marl.core.seeding import globals_kept, restore
from marl.core.types import ConfigError, EnvSpec, EpisodeBatch

CHANGED = 1e-6  # smaller differences of a state feature are rounding
Inputs = Literal["state", "state+obs"]
Prediction = Literal["change", "state"]


def one_process(name: str) -> None:
    """Refuse torchrun: each rank would train its own model and pay a different reward."""
    if world()[1] > 1:
        raise ConfigError(f"{name} does not run under torchrun: its forward model is trained by one process")


@dataclass
class Transitions:
    """Whole episodes in the form that the forward model is trained on."""

    x: Tensor  # f32 [M, T, X]
    actions: Tensor  # long [M, T, n] executed
    state: Tensor  # f32 [M, T, S]
    change: Tensor  # f32 [M, T, S] to the next state; 0 where not filled
    filled: Tensor  # bool [M, T]


@dataclass
class Minibatch:
    """The data of one gradient step of the forward model."""

    read: Tensor  # f32 [N, X + n A], the first layer's inputs
    wanted: Tensor  # f32 [N, C], targets in the model's units
    weight: Tensor  # f32 [N]
    lengths: Tensor | None  # long [M], gru only: lengths of the episodes that the rows concatenate


def events(data: Transitions, chosen: Tensor) -> Tensor:
    """Return the steps, bool [M, T], on which a feature of ``chosen`` (bool [S]) changed."""
    return data.filled & (data.change[..., chosen].abs() > CHANGED).any(-1)


def balanced_steps(event: Tensor, filled: Tensor, size: int, share: float, gen: Generator) -> Tensor:
    """Sample indices long [size, 2] of filled steps with replacement, round(share * size) of them events (bool [M, T]).
    With share 0, or if only one of the two kinds occurs, sample uniformly from all filled steps."""
    yes, no = event.nonzero(), (filled & ~event).nonzero()
    if share == 0 or not len(yes) or not len(no):
        pool = filled.nonzero()
        return pool[torch.randint(len(pool), (size,), generator=gen).to(pool.device)]
    wanted = round(share * size)
    drawn_yes = torch.randint(len(yes), (wanted,), generator=gen).to(yes.device)
    drawn_no = torch.randint(len(no), (size - wanted,), generator=gen).to(yes.device)
    return torch.cat([yes[drawn_yes], no[drawn_no]])


def balanced_weights(event: Tensor, filled: Tensor, share: float) -> Tensor:
    """Return weights [M, T] that sum to 1, ``share`` of it on events: the expectation of ``balanced_steps``."""
    other = filled & ~event
    plain = filled / filled.sum().clamp(min=1)
    weight = share * event / event.sum().clamp(min=1) + (1 - share) * other / other.sum().clamp(min=1)
    return torch.where(event.any() & other.any() & (share > 0), weight, plain)


class Dynamics:
    """A ``ForwardModel`` with its optimiser and its random stream.

    ``inputs``: state, or state+obs (with all agents' observations). ``predict``: change (in units of ``scale`` [S]) or
    state (the next one). Each gradient step uses ``batch_size`` transitions (gru: whole episodes with about as many in
    total; null: all), a fraction ``event_frac`` of them events (0: no balancing). ``slow_every``: influence is computed
    by a copy that is refreshed every ``slow_every`` updates; null: by the model itself. Initial weights and samples
    depend on the run's seed but not on its global generator, so the base learner is unaffected.
    """

    def __init__(
        self,
        spec: EnvSpec,
        seed: int,
        *,
        kind: Kind,
        inputs: Inputs,
        predict: Prediction,
        hidden_dim: int,
        xavier: bool,
        lr: float,
        grad_clip: float,
        steps_per_update: int,
        batch_size: int | None,
        event_frac: float,
        slow_every: int | None,
    ) -> None:
        require_choice("model", get_args(Kind), kind=kind)
        require_choice("model", get_args(Inputs), inputs=inputs)
        require_choice("model", get_args(Prediction), predict=predict)
        require_at_least("model", 1, hidden_dim=hidden_dim, steps_per_update=steps_per_update)
        require_at_least("model", 1, batch_size=batch_size, slow_every=slow_every, or_null=True)
        require_positive("model", lr=lr, grad_clip=grad_clip)
        require_share("model", event_frac=event_frac)
        self.uses_obs, self.predict = inputs == "state+obs", predict
        self.grad_clip, self.steps, self.batch_size = grad_clip, steps_per_update, batch_size
        self.event_frac, self.slow_every = event_frac, slow_every
        width = spec.state_dim + spec.n_agents * spec.obs_dim * self.uses_obs
        sizes = (width, spec.n_agents, spec.n_actions, spec.state_dim, kind, hidden_dim)
        with globals_kept(seed):
            self.model, self.slow = ForwardModel(*sizes), ForwardModel(*sizes)
            for p in self.model.parameters():
                if xavier and p.dim() > 1:
                    nn.init.xavier_uniform_(p)
        self.slow.load_state_dict(self.model.state_dict())
        self.gen = Generator().manual_seed(seed)
        self.optimizer = Adam(self.model.parameters(), lr=lr, fused=True)
        self.updates = 0

    def to(self, device: torch.device) -> None:
        """Move the models and the optimiser to the device of the batches."""
        if next(self.model.parameters()).device != device:
            self.model.to(device)
            self.slow.to(device)
            self.optimizer.load_state_dict(self.optimizer.state_dict())  # moves its moments too

    def transitions(self, data: EpisodeBatch) -> Transitions:
        """Return the transitions of ``data``, with the executed actions."""
        filled = data.filled[:, :-1]
        change = torch.where(filled[..., None], data.state[:, 1:] - data.state[:, :-1], 0.0)
        return Transitions(self.read(data), data.actions[:, :-1].long(), data.state[:, :-1], change, filled)

    def read(self, data: EpisodeBatch) -> Tensor:
        """Return the model's input [M, T, X]."""
        return torch.cat([data.state, data.obs.flatten(2)], -1)[:, :-1] if self.uses_obs else data.state[:, :-1]

    @torch.enable_grad()
    def learn(self, data: Transitions, chosen: Tensor, scale: Tensor, steps: int | None = None) -> Tensor:
        """Take ``steps`` gradient steps on squared errors, summed over the features ``chosen`` bool [S], and return the
        last loss, detached. ``steps`` None: ``steps_per_update``; a number is for pretraining, after which the slow
        copy is refreshed at once."""
        event, dims = events(data, chosen), chosen.nonzero().flatten()
        same = self.minibatch(data, event, dims, scale) if self.batch_size is None else None
        for _ in range(self.steps if steps is None else steps):
            loss = self.loss(same or self.minibatch(data, event, dims, scale), dims)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self.grad_clip)
            self.optimizer.step()
        if self.slow_every is not None and (steps is not None or self.updates % self.slow_every == 0):
            self.slow.load_state_dict(self.model.state_dict())
        self.updates += 1
        return loss.detach()

    def minibatch(self, data: Transitions, event: Tensor, dims: Tensor, scale: Tensor) -> Minibatch:
        """Return the transitions of one gradient step, all of them if ``batch_size`` is None; the targets are the
        features ``dims`` long [C]."""
        lengths = None
        if self.batch_size is None:
            where = data.filled.nonzero(as_tuple=True)
            weight = balanced_weights(event, data.filled, self.event_frac)[where]
            lengths = data.filled.sum(1)
        elif self.model.kind == "gru":
            n = min(len(event), -(-self.batch_size // event.shape[1]))
            pick = torch.randperm(len(event), generator=self.gen)[:n].to(event.device)
            m, t = data.filled[pick].nonzero(as_tuple=True)
            where = pick[m], t
            weight = balanced_weights(event[pick], data.filled[pick], self.event_frac)[m, t]
            lengths = data.filled[pick].sum(1)
        else:
            steps = balanced_steps(event, data.filled, self.batch_size, self.event_frac, self.gen)
            where = steps[:, 0], steps[:, 1]
            weight = torch.full_like(scale[:1], 1.0 / len(steps))
        change = data.change[where][:, dims]
        wanted = change / scale[dims] if self.predict == "change" else data.state[where][:, dims] + change
        return Minibatch(self.model.joined(data.x[where], data.actions[where]), wanted, weight, lengths)

    def loss(self, rows: Minibatch, dims: Tensor) -> Tensor:
        """Return the balanced mean squared error of one minibatch."""
        error = (self.model.predict(rows.read, rows.lengths, dims) - rows.wanted).square().sum(-1)
        return (rows.weight * error).sum()

    def contrast(self, batch: EpisodeBatch, dims: Tensor, q: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return how much each agent's executed action changes the prediction relative to its ``alternatives``,
        [M, T, n, C] (0 for dead agents), and the prediction [M, T, C]. Both are 0 on padding."""
        actions, filled = batch.actions[:, :-1].long(), batch.filled[:, :-1]
        weight = alternatives(batch.avail[:, :-1], actions, batch.alive[:, :-1] & filled[..., None], q)
        model = self.model if self.slow_every is None else self.slow
        found = model.contrast(self.read(batch)[filled], actions[filled], weight[filled], dims, filled.sum(1))
        contrast, predicted = (v.new_zeros(*filled.shape, *v.shape[1:]).index_put((filled,), v) for v in found)
        return contrast, predicted

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(), "slow": self.slow.state_dict(),
            "optimizer": self.optimizer.state_dict(), "gen": self.gen.get_state(), "updates": self.updates,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.slow.load_state_dict(state["slow"])
        self.optimizer.load_state_dict(state["optimizer"])
        restore(self.gen, state["gen"], "influence")
        self.updates = int(state["updates"])


class Anneal:
    """The annealing factor of an intrinsic reward. It is 1 until an episode (in stretches, the collected part) has a
    positive return, then falls linearly to 0 over ``steps`` environment steps, counted from the end of the collection
    with that episode; with ``steps`` null it is always 1."""

    def __init__(self, steps: int | None) -> None:
        require_at_least("anneal", 1, steps=steps, or_null=True)
        self.steps, self.seen = steps, 0
        self.start: int | None = None

    def observe(self, fresh: EpisodeBatch) -> None:
        self.seen += int(fresh.filled.sum())
        if self.start is None and bool((fresh.reward.sum(1) > 0).any()):
            self.start = self.seen

    def factor(self) -> float:
        if self.steps is None or self.start is None:
            return 1.0
        return max(0.0, 1.0 - (self.seen - self.start) / self.steps)

    def state_dict(self) -> dict[str, int | None]:
        return {"seen": self.seen, "start": self.start}

    def load_state_dict(self, state: dict[str, int | None]) -> None:
        self.seen, self.start = int(state["seen"] or 0), state["start"]
