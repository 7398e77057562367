"""What FIM and LAIES share: naming state features, a forward model of them and how it is trained, annealing.

Axis letters: ``X`` numbers that the model reads, ``C`` chosen state features. The network: ``influence_model``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from algos.shared.influence_model import ForwardModel, alternatives
from marl.core.distributed import world
from marl.core.types import ConfigError, EnvSpec, EpisodeBatch, require_positive

CHANGED = 1e-6  # smaller differences of a state feature are rounding


def feature_names(spec: EnvSpec) -> tuple[str, ...]:
    """One name per state feature; "dim 7" where the environment has none."""
    return spec.state_names or tuple(f"dim {d}" for d in range(spec.state_dim))


def matching(spec: EnvSpec, patterns: list[str], key: str, must: bool = True) -> Tensor:
    """Bool [S]: state features that a pattern names: a regular expression found in the feature's name, or a slice such
    as "3:7". ConfigError, unless ``must`` is False, where a pattern names none."""
    names, chosen = feature_names(spec), torch.zeros(spec.state_dim, dtype=torch.bool)
    for pattern in patterns:
        if cut := re.fullmatch(r"(\d*):(\d*)", pattern):
            found = torch.zeros_like(chosen)
            found[slice(*(int(end) if end else None for end in cut.groups()))] = True
        else:
            try:
                found = torch.tensor([re.search(pattern, name) is not None for name in names])
            except re.error as error:
                raise ConfigError(f"{key}='{pattern}' is no regular expression: {error}") from error
        if must and not found.any():
            raise ConfigError(f"{key}='{pattern}' names no state feature; there are {', '.join(names[:40])}")
        chosen |= found
    return chosen


def one_process(name: str) -> None:
    """Refuse torchrun: each rank would train a model of its own and pay another reward."""
    if world()[1] > 1:
        raise ConfigError(f"{name} does not run under torchrun: its forward model is trained by one process")


@dataclass
class Transitions:
    """What the forward model learns from, as whole episodes."""

    x: Tensor  # f32 [M, T, X]
    actions: Tensor  # long [M, T, n] executed
    state: Tensor  # f32 [M, T, S]
    change: Tensor  # f32 [M, T, S] to the next state; 0 where not filled
    filled: Tensor  # bool [M, T]


def events(data: Transitions, chosen: Tensor) -> Tensor:
    """Bool [M, T]: steps on which a feature of ``chosen`` (bool [S]) changed."""
    return data.filled & (data.change[..., chosen].abs() > CHANGED).any(-1)


def balanced_steps(event: Tensor, filled: Tensor, size: int, share: float, gen: Generator) -> Tensor:
    """Indices long [size, 2] of filled steps, drawn with replacement, round(share * size) of them events (bool [M, T]).
    Share 0, or a batch with only one of the kinds, draws from all alike."""
    yes, no = event.nonzero(), (filled & ~event).nonzero()
    if share == 0 or not len(yes) or not len(no):
        pool = filled.nonzero()
        return pool[torch.randint(len(pool), (size,), generator=gen).to(pool.device)]
    wanted = round(share * size)
    drawn_yes = torch.randint(len(yes), (wanted,), generator=gen).to(yes.device)
    drawn_no = torch.randint(len(no), (size - wanted,), generator=gen).to(yes.device)
    return torch.cat([yes[drawn_yes], no[drawn_no]])


def balanced_weights(event: Tensor, filled: Tensor, share: float) -> Tensor:
    """Weights [M, T] that sum to 1, ``share`` of them on events; the expectation of ``balanced_steps``."""
    other = filled & ~event
    plain = filled / filled.sum().clamp(min=1)
    weight = share * event / event.sum().clamp(min=1) + (1 - share) * other / other.sum().clamp(min=1)
    return torch.where(event.any() & other.any() & (share > 0), weight, plain)


class Dynamics:
    """A ``ForwardModel`` with its optimiser and its random stream.

    ``inputs``: state, or state+obs (all agents' observations beside it). ``predict``: change (in units of ``scale``
    [S]) or state (the next one). ``batch_size`` transitions per step (gru: as many whole episodes), null: all;
    ``event_frac`` of them events, 0: as they come. ``slow_every``: influence is read from a copy, renewed so often;
    null: from the model itself. Weights and draws come from the run's seed but not from its global generator: the base
    learner stays as it is.
    """

    def __init__(
        self,
        spec: EnvSpec,
        seed: int,
        *,
        kind: Literal["mlp", "gru"],
        inputs: Literal["state", "state+obs"],
        predict: Literal["change", "state"],
        hidden_dim: int,
        xavier: bool,
        lr: float,
        grad_clip: float,
        steps_per_update: int,
        batch_size: int | None,
        event_frac: float,
        slow_every: int | None,
    ) -> None:
        for key, value, allowed in (
            ("kind", kind, ("mlp", "gru")),
            ("inputs", inputs, ("state", "state+obs")),
            ("predict", predict, ("change", "state")),
        ):
            if value not in allowed:
                raise ConfigError(f"model.{key}={value} is not known; choose one of {', '.join(allowed)}")
        sizes = {"batch_size": batch_size, "slow_every": slow_every}
        require_positive("model", hidden_dim=hidden_dim, steps_per_update=steps_per_update)
        require_positive("model", **{key: size for key, size in sizes.items() if size is not None})
        if lr <= 0 or grad_clip <= 0:
            raise ConfigError(f"model.lr={lr} and model.grad_clip={grad_clip} must be positive")
        if not 0.0 <= event_frac <= 1.0:
            raise ConfigError(f"model.event_frac={event_frac} must be within [0, 1]")
        self.uses_obs, self.predict = inputs == "state+obs", predict
        self.grad_clip, self.steps, self.batch_size = grad_clip, steps_per_update, batch_size
        self.event_frac, self.slow_every = event_frac, slow_every
        width = spec.state_dim + spec.n_agents * spec.obs_dim * self.uses_obs
        sizes_of = (width, spec.n_agents, spec.n_actions, spec.state_dim, kind, hidden_dim)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.model, self.slow = ForwardModel(*sizes_of), ForwardModel(*sizes_of)
            for p in self.model.parameters():
                if xavier and p.dim() > 1:
                    nn.init.xavier_uniform_(p)
        self.slow.load_state_dict(self.model.state_dict())
        self.gen = Generator().manual_seed(seed)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=lr)
        self.updates = 0

    def to(self, device: torch.device) -> None:
        """Move everything to where the batches are."""
        if next(self.model.parameters()).device != device:
            self.model.to(device)
            self.slow.to(device)
            self.optimizer.load_state_dict(self.optimizer.state_dict())  # moves its moments too

    def transitions(self, data: EpisodeBatch) -> Transitions:
        """What happened in ``data``, at the actions that were executed."""
        filled = data.filled[:, :-1]
        change = torch.where(filled[..., None], data.state[:, 1:] - data.state[:, :-1], 0.0)
        return Transitions(self.read(data), data.actions[:, :-1].long(), data.state[:, :-1], change, filled)

    def read(self, data: EpisodeBatch) -> Tensor:
        """The model's input [M, T, X]."""
        return torch.cat([data.state, data.obs.flatten(2)], -1)[:, :-1] if self.uses_obs else data.state[:, :-1]

    def learn(self, data: Transitions, chosen: Tensor, scale: Tensor, steps: int | None = None) -> Tensor:
        """Gradient steps on squared errors, summed over the features ``chosen`` bool [S]; the last loss, detached."""
        event = events(data, chosen)
        for _ in range(self.steps if steps is None else steps):
            loss = self.loss(data, event, chosen, scale)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self.grad_clip)
            self.optimizer.step()
        if self.slow_every is not None and self.updates % self.slow_every == 0:
            self.slow.load_state_dict(self.model.state_dict())
        self.updates += 1
        return loss.detach()

    def loss(self, data: Transitions, event: Tensor, chosen: Tensor, scale: Tensor) -> Tensor:
        """Balanced mean of the squared error of one minibatch."""
        lengths = None
        if self.model.kind == "gru":
            n = len(event)
            if self.batch_size is not None:
                n = min(n, -(-self.batch_size // event.shape[1]))
            pick = torch.randperm(len(event), generator=self.gen)[:n].to(event.device)
            m, t = data.filled[pick].nonzero(as_tuple=True)
            where: tuple[Tensor, ...] = (pick[m], t)
            weight = balanced_weights(event[pick], data.filled[pick], self.event_frac)[m, t]
            lengths = data.filled[pick].sum(1)
        elif self.batch_size is None:
            where = data.filled.nonzero(as_tuple=True)
            weight = balanced_weights(event, data.filled, self.event_frac)[where]
        else:
            steps = balanced_steps(event, data.filled, self.batch_size, self.event_frac, self.gen)
            where = steps.unbind(1)
            weight = torch.full_like(scale[:1], 1.0 / len(steps))
        change = data.change[where]
        wanted = change / scale if self.predict == "change" else data.state[where] + change
        predicted = self.model(data.x[where], data.actions[where], lengths)
        error = (predicted - wanted)[:, chosen].square().sum(-1)
        return (weight * error).sum()

    def contrast(self, batch: EpisodeBatch, dims: Tensor, q: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What each agent's executed action changes in the prediction, [M, T, n, C], against its alternatives
        (``alternatives``; 0 for the dead), and the prediction [M, T, C]; 0 on padding."""
        actions, filled = batch.actions[:, :-1].long(), batch.filled[:, :-1]
        weight = alternatives(batch.avail[:, :-1], actions, batch.alive[:, :-1] & filled[..., None], q)
        model = self.model if self.slow_every is None else self.slow
        found = model.contrast(self.read(batch)[filled], actions[filled], weight[filled], dims, filled.sum(1))
        contrast, predicted = (v.new_zeros(*filled.shape, *v.shape[1:]).index_put((filled,), v) for v in found)
        return contrast, predicted

    def state_dict(self) -> dict[str, object]:
        return {
            "model": self.model.state_dict(), "slow": self.slow.state_dict(),
            "optimizer": self.optimizer.state_dict(), "gen": self.gen.get_state(), "updates": self.updates,
        }  # fmt: skip

    def load_state_dict(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.slow.load_state_dict(state["slow"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.gen.set_state(state["gen"].cpu())
        self.updates = int(state["updates"])


class Anneal:
    """Factor of an intrinsic reward: 1 until a collected batch first returns more than 0, then linear to 0 over
    ``steps`` environment steps; ``steps`` null: always 1."""

    def __init__(self, steps: int | None) -> None:
        if steps is not None:
            require_positive("anneal", steps=steps)
        self.steps, self.seen = steps, 0
        self.start: int | None = None

    def observe(self, fresh: EpisodeBatch) -> None:
        self.seen += int(fresh.filled.sum())
        if self.start is None and bool(fresh.reward.sum() > 0):
            self.start = self.seen

    def factor(self) -> float:
        if self.steps is None or self.start is None:
            return 1.0
        return max(0.0, 1.0 - (self.seen - self.start) / self.steps)

    def state_dict(self) -> dict[str, int | None]:
        return {"seen": self.seen, "start": self.start}

    def load_state_dict(self, state: dict[str, int | None]) -> None:
        self.seen, self.start = int(state["seen"] or 0), state["start"]
