"""What Wolfpack learns: a model of the next step, and a network that predicts the cost of attacks imagined with it.

Lee, Hwang, Jo, Han 2025 (Wolfpack, arXiv 2502.02844), planner-based selection of the step. Axis letters: ``W`` steps of
a window, ``C`` = 2W - 1 steps up to its end, ``R`` steps of it that get a label, ``D`` follow-up steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Generator, Tensor, nn

from attacks.base import pick
from attacks.wolfpack.followup import AttackAction, Moment, plain_value, worst_actions
from attacks.wolfpack.nets import Heads, Keys, Planner, QDifference, gaps
from marl.core.checks import require_at_least, require_choice, require_positive, require_within
from marl.core.distributed import all_reduce_gradients, global_count
from marl.core.protocols import Replay, Traceable
from marl.core.seeding import globals_kept, restore
from marl.core.types import Carry, ConfigError, EnvSpec, EpisodeBatch, Metrics
from marl.learn.learner import best_available, gather_actions, make_optimizer
from marl.learn.rhythm import Rhythm


@dataclass(frozen=True)
class Rules:
    """The parts of the attack that its labels depend on."""

    duration: int  # D
    pack: Callable[[Traceable, Moment, Tensor], Tensor]  # victim, moment, uniform draws [N, n] -> bool [N, n]
    action: AttackAction
    exclude_dead: bool


@dataclass
class Window:
    """One window of each episode, with the W - 1 steps before it."""

    place: Tensor  # long [M, C] steps of the episode; below 0 or after its end: padding
    slot: Tensor  # long [M, C] the same, clamped to the stored range
    real: Tensor  # bool [M, C]

    def of(self, values: Tensor) -> Tensor:
        """Gather values [M, T+1, *] -> [M, C, *]."""
        return _at(values, self.slot)


def draw_window(filled: Tensor, window: int, u: Tensor) -> Window:
    """Draw windows: filled bool [M, T+1], uniform numbers u [M]. A window starts anywhere such that it lies within
    its episode, or at the beginning of an episode that is too short."""
    length = filled.sum(-1)
    start = (u * (length - window + 1).clamp(min=1)).long().clamp(max=filled.shape[1] - 1)
    place = start[:, None] + torch.arange(1 - window, window, device=filled.device)
    return Window(place, place.clamp(0, filled.shape[1] - 1), (place >= 0) & (place < length[:, None]))


def masked_squares(error: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum of squares of error [M, W, *] over real bool [M, W], and the count of its terms."""
    squares = error.flatten(2).square()
    return (squares * real.unsqueeze(-1)).sum(), real.sum() * squares.shape[-1]


def foresight_loss(u: Tensor, target: Tensor, real: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum over real steps i of the mean over known steps i + j of (u_ij - target_{i+j})^2, and the count of
    steps i with known ones. u [M, W, W]: forecasts of each step of a window for itself and later ones; target [M, W];
    real and known bool [M, W]."""
    W = u.shape[-1]
    steps = torch.arange(W, device=u.device)
    later = steps[:, None] + steps  # [i, j] -> i + j
    usable = (later < W) & known[:, later.clamp(max=W - 1)] & real.unsqueeze(-1)  # [M, W, W]
    error = torch.where(usable, u - target[:, later.clamp(max=W - 1)], 0.0)
    count = usable.sum(-1)
    return (error.square().sum(-1) / count.clamp(min=1)).sum(), (count > 0).sum()


class Foresight:
    """The two networks and their training: an ``update`` is one gradient step on each, on ``batch_size`` episodes;
    alongside a team that learns, there is one per ``episodes_per_update`` collected episodes.

    ``window``: steps to look back, and ahead. ``dim``, ``ff_dim``, ``dropout``, ``heads``: of the networks.
    ``label_steps``: steps of each window at which an attack is imagined (published: all of them); the follow-up group
    and the imagined steps are most of the cost.
    """

    def __init__(
        self,
        spec: EnvSpec,
        device: torch.device,
        rules: Rules,
        hidden: int,
        seed: int,
        *,
        window: int,
        dim: int,
        ff_dim: int,
        dropout: float,
        heads: Heads,
        planner_lr: float,
        qdiff_lr: float,
        batch_size: int,
        label_steps: int,
        episodes_per_update: float,
    ) -> None:
        require_at_least(
            "attack.foresight", 1, window=window, dim=dim, ff_dim=ff_dim, batch_size=batch_size,
            label_steps=label_steps,
        )  # fmt: skip
        require_within("attack.foresight", 0, 1, ends="[)", dropout=dropout)
        require_choice("attack.foresight", get_args(Heads), heads=heads)
        if rules.duration > window:
            raise ConfigError(f"attack.duration={rules.duration} must be at most attack.foresight.window={window}")
        self.spec, self.rules, self.window, self.batch_size = spec, rules, window, batch_size
        require_positive("attack.foresight", episodes_per_update=episodes_per_update)
        self.label_steps = min(label_steps, window)
        self.rhythm = Rhythm.steady(episodes_per_update)
        with globals_kept(seed):
            shape: dict[str, Any] = {"window": window, "dim": dim, "dropout": dropout, "heads": heads}
            self.planner = Planner(spec, hidden, ff_dim=ff_dim, **shape).to(device)
            self.qdiff = QDifference(spec, **shape).to(device)
        self.planner_optimizer = make_optimizer("adam", list(self.planner.parameters()), planner_lr, 1e-8)
        self.qdiff_optimizer = make_optimizer("adam", list(self.qdiff.parameters()), qdiff_lr, 1e-8)
        self.host_gen, self.gen = Generator().manual_seed(seed), Generator(device).manual_seed(seed + 1)
        self.device, self.hidden, self.updates = device, hidden, 0

    def learn(self, replay: Replay, victim: Traceable, updates: int) -> Metrics:
        """Make ``updates`` updates; return the metrics of the last one."""
        metrics: Metrics = {}
        for _ in range(updates):
            size = min(self.batch_size, len(replay))
            metrics = self.update(replay.sample(size, self.host_gen, self.device), victim)
        return metrics

    def update(self, batch: EpisodeBatch, victim: Traceable) -> Metrics:
        """Fit the planner, compute labels with it, then fit the forecasts to them."""
        window = draw_window(batch.filled, self.window, self.rand(len(batch)))
        q, carry = victim.unroll(batch)
        after = torch.cat([carry["h"][:, 1:], carry["h"][:, -1:]], 1)  # hidden states after each slot is read
        metrics = self.fit_planner(batch, window, window.of(after))
        first, known, target = self.labels(batch, window, victim, q, carry, window.of(after))
        metrics |= self.fit_qdiff(batch, window, first, known, target)
        self.updates += 1
        return metrics

    def rand(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.gen, device=self.device)

    # the planner

    def fit_planner(self, batch: EpisodeBatch, window: Window, hidden: Tensor) -> Metrics:
        """Take a gradient step on the squared error of the next state, plus that of the next observations, over the
        window's real steps; each of them sees the window up to itself."""
        last = slice(-self.window, None)
        place, slot, real = window.place[:, last], window.slot[:, last], window.real[:, last]
        now, seen = _at(batch.state, slot), _at(batch.policy_obs, slot)
        tokens = self.planner.tokens(now, hidden[:, last], _at(batch.actions, slot).long())  # [M, W, d]
        gap = gaps(place, place, real, self.window)
        state, obs = self.planner(tokens, self.planner.keys(tokens), gap, gen=self.gen)
        following = (slot + 1).clamp(max=batch.horizon)
        next_state, next_obs = _at(batch.state, following), _at(batch.policy_obs, following)
        terms = [masked_squares(state - next_state, real), masked_squares(obs - next_obs, real)]
        loss = torch.stack([total / global_count(count) for total, count in terms]).sum()
        step(self.planner_optimizer, self.planner, loss)
        with torch.no_grad():  # the loss of a planner that copies the present
            still = [masked_squares(now - next_state, real), masked_squares(seen - next_obs, real)]
            copying = torch.stack([total / count.clamp(min=1) for total, count in still]).sum()
        return {"loss/planner": loss.detach(), "attack/planner_copy_loss": copying}

    # labels

    @torch.no_grad()
    def labels(
        self, batch: EpisodeBatch, window: Window, victim: Traceable, q: Tensor, carry: Carry, hidden: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return first agents long [M, W], drawn again; which steps have a label, bool [M, W]; labels [M, W].

        Label: team value of the next D + 1 steps as they were, minus that of the same steps under an attack. Steps
        after the end of the episode count for neither.
        """
        W = self.window
        real, alive = window.real[:, -W:], window.of(batch.alive)[:, -W:]
        first = pick(self.rand(*real.shape), alive if self.rules.exclude_dead else torch.ones_like(alive))
        chosen = self.rand(*real.shape).masked_fill(~real, -1.0).topk(self.label_steps, -1).indices  # [M, R]
        t = window.slot[:, -W:].gather(1, chosen)
        steps = t.unsqueeze(-1) + torch.arange(self.rules.duration + 1, device=t.device)
        steps = steps.clamp(max=batch.horizon)  # [M, R, D+1]; the last slot is never filled
        intended = batch.intended.long()
        natural = plain_value(victim, gather_actions(q, intended), batch.state, intended) * batch.filled
        attacked = self.imagine(batch, window, victim, q, carry, hidden, first.gather(1, chosen), steps)
        label = _at(natural, steps).sum(-1) - attacked
        known = torch.zeros_like(real).scatter(1, chosen, real.gather(1, chosen))
        return first, known, torch.zeros(real.shape, device=t.device).scatter(1, chosen, label)

    def imagine(
        self, batch: EpisodeBatch, window: Window, victim: Traceable, q: Tensor, carry: Carry, hidden: Tensor,
        first: Tensor, steps: Tensor,
    ) -> Tensor:  # fmt: skip
        """Return the team value [M, R] of ``steps`` long [M, R, D+1] under an attack on ``first`` long [M, R] at the
        first of them: the pack follows in states and observations that the planner imagines from earlier steps."""
        rules, t, n, lead = self.rules, steps[..., 0], self.spec.n_agents, first.shape
        obs, state, avail, alive, intended, q = (
            _rows(x, t) for x in (batch.policy_obs, batch.state, batch.avail, batch.alive, batch.intended.long(), q)
        )
        carry = {name: _rows(value, t) for name, value in carry.items()}
        agents, is_first = torch.arange(n, device=t.device), first.flatten().unsqueeze(-1)  # N = M R rows
        worst = worst_actions(victim, q, state, avail, intended, rules.action)
        executed = torch.where(agents == is_first, worst, intended)
        candidates = alive if rules.exclude_dead else torch.ones_like(alive)
        moment = Moment(obs, state, carry, intended, executed, first.flatten(), candidates)
        group = rules.pack(victim, moment, self.rand(len(obs), n))
        value = plain_value(victim, gather_actions(q, executed), state, executed) * _rows(batch.filled, t)

        past = self.planner.keys(self.planner.tokens(window.of(batch.state), hidden, window.of(batch.actions.long())))
        earlier = window.place.unsqueeze(1) < t.unsqueeze(-1)  # [M, R, C]
        own: list[Keys] | None = None
        _, carry = victim.advance(obs, carry)
        for k in range(1, rules.duration + 1):
            token = self.planner.tokens(state, carry["h"], executed).unflatten(0, lead)  # [M, R, d]
            own = _append(own, self.planner.keys(token.unsqueeze(-2)))
            gap = gaps(t + k - 1, window.place, window.real, self.window)
            state, obs = (x.flatten(0, 1) for x in self.planner(token, past, gap.where(earlier, self.window), own))
            q, carry = victim.advance(obs, victim.after(carry, intended, executed))
            avail = _rows(batch.avail, steps[..., k])
            intended = best_available(q, avail)
            worst = worst_actions(victim, q, state, avail, intended, rules.action)
            executed = torch.where(group, worst, intended)
            later = plain_value(victim, gather_actions(q, executed), state, executed)
            value = value + later * _rows(batch.filled, steps[..., k])
        return value.view(lead)

    # foresight

    def fit_qdiff(self, batch: EpisodeBatch, window: Window, first: Tensor, known: Tensor, target: Tensor) -> Metrics:
        """Take a gradient step on ``foresight_loss``: forecasts of each step of the window for its own first agent."""
        W = self.window
        tokens = self.qdiff.tokens(window.of(batch.state), window.slot.clamp(max=self.spec.episode_limit - 1))
        gap = gaps(window.place[:, -W:], window.place, window.real, W)
        u = self.qdiff(tokens[:, -W:], self.qdiff.keys(tokens), gap, self.gen)  # [M, W, n, W]
        u = u.gather(2, first[..., None, None].expand(-1, -1, 1, W)).squeeze(2)
        total, count = foresight_loss(u, target, window.real[:, -W:], known)
        loss = total / global_count(count)
        step(self.qdiff_optimizer, self.qdiff, loss)
        label = (target * known).sum() / known.sum().clamp(min=1)
        return {"loss/foresight": loss.detach(), "attack/label": label}

    def state_dict(self) -> dict[str, Any]:
        return {
            "hidden": self.hidden,
            "planner": self.planner.state_dict(),
            "qdiff": self.qdiff.state_dict(),
            "planner_optimizer": self.planner_optimizer.state_dict(),
            "qdiff_optimizer": self.qdiff_optimizer.state_dict(),
            "gen": self.gen.get_state(),
            "host_gen": self.host_gen.get_state(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("planner", "qdiff", "planner_optimizer", "qdiff_optimizer"):
            getattr(self, name).load_state_dict(state[name])
        restore(self.gen, state["gen"], "wolfpack")
        restore(self.host_gen, state["host_gen"], "wolfpack/host")
        self.updates = int(state["updates"])


def step(optimizer: torch.optim.Optimizer, net: nn.Module, loss: Tensor) -> None:
    """Take one gradient step, with gradients reduced over all ranks."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    all_reduce_gradients(list(net.parameters()))
    optimizer.step()


def _at(values: Tensor, steps: Tensor) -> Tensor:
    """Gather values [M, T+1, *] at steps long [M, ...] -> [M, ..., *]."""
    lead = torch.arange(len(values), device=values.device).view(-1, *[1] * (steps.dim() - 1))
    return values[lead, steps]


def _rows(values: Tensor, steps: Tensor) -> Tensor:
    """Gather values [M, T+1, *] at steps long [M, R] -> [M R, *]."""
    return _at(values, steps).flatten(0, 1)


def _append(own: list[Keys] | None, new: list[Keys]) -> list[Keys]:
    """Append one more step to keys [M, R, k, d]."""
    if own is None:
        return new
    return [(torch.cat([a, c], -2), torch.cat([b, d], -2)) for (a, b), (c, d) in zip(own, new, strict=True)]
