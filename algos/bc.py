"""Behaviour cloning: a team of copies of a player whose decisions were recorded, which is how human proxies for
cross-play are made (Carroll et al. 2019, arXiv 1910.05789): a feed-forward network trained by cross-entropy, which
plays stochastically.

It learns from demonstrations alone. The episodes that training collects only drive the clock, so that the clone has a
run folder, tests and checkpoints like every other team.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from marl.core.checks import require_at_least, require_within
from marl.core.demonstrations import Demonstrations, Source
from marl.core.optimizers import Adam
from marl.core.protocols import Replay
from marl.core.types import Carry, Clock, ConfigError, EnvSpec, EpisodeBatch, Field, Metrics, Obs
from marl.learn.rhythm import Rhythm


class CloneNet(nn.Module):
    """A network from observations [*, O] to logits [*, A], with hidden layers of widths ``hidden`` and ReLUs."""

    def __init__(self, spec: EnvSpec, hidden: Sequence[int]) -> None:
        super().__init__()
        widths = [spec.obs_dim, *hidden]
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.Linear(a, b), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], spec.n_actions))

    def forward(self, obs: Tensor) -> Tensor:
        return self.layers(obs)


def masked_logits(logits: Tensor, avail: Tensor) -> Tensor:
    """Return logits [*, A] that are -inf for unavailable actions (avail bool [*, A])."""
    return logits.masked_fill(~avail, -torch.inf)


class ClonePolicy:
    """A policy that samples every agent's action from the network, in tests too, because humans are not deterministic.

    An agent whose observation has not changed for ``unstuck`` steps (0: never) chooses among the actions that it has
    not tried since it last changed, as human proxies of earlier work do. Carry: ``seen`` [B, n, O], the last
    observation; ``tried`` bool [B, n, A], the actions taken since it appeared; ``still`` long [B, n], the steps since
    then.
    """

    def __init__(self, net: CloneNet, spec: EnvSpec, unstuck: int) -> None:
        self.net, self.spec, self.unstuck = net, spec, unstuck

    def begin(self, n_envs: int, gen: Generator) -> Carry:
        spec, device = self.spec, gen.device
        lanes = (n_envs, spec.n_agents)
        return {
            "seen": torch.full((*lanes, spec.obs_dim), torch.nan, device=device),  # nan equals nothing
            "tried": torch.zeros(*lanes, spec.n_actions, dtype=torch.bool, device=device),
            "still": torch.zeros(lanes, dtype=torch.long, device=device),
        }

    @torch.no_grad()
    def act(self, obs: Obs, carry: Carry, *, explore: bool, gen: Generator) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        same = (obs.obs == carry["seen"]).all(-1)  # [B, n]
        still, tried = torch.where(same, carry["still"] + 1, 0), carry["tried"] & same[..., None]
        avail = obs.avail
        if self.unstuck:
            fresh = avail & ~tried  # [B, n, A]
            stuck = (still >= self.unstuck) & fresh.any(-1)
            avail = torch.where(stuck[..., None], fresh, avail)
        chances = masked_logits(self.net(obs.obs), avail).softmax(-1)
        actions = torch.multinomial(chances.flatten(0, 1), 1, generator=gen).view(still.shape)  # [B, n]
        return actions, {"seen": obs.obs.clone(), "tried": tried, "still": still}, {}

    def after(self, carry: Carry, intended: Tensor, executed: Tensor) -> Carry:
        tried = carry["tried"].scatter(-1, executed[..., None], True)
        return {**carry, "tried": tried}


class Clone:
    """A behaviour-cloned team. ``demos`` loads the demonstrations when learning starts; playing needs none. A share
    ``held_out`` of their games, at least one, is not used for training; ``bc/held_out_loss`` and
    ``bc/held_out_accuracy`` are measured on it. There is one gradient step on ``batch_size`` decisions per
    ``episodes_per_update`` collected episodes. Raises ConfigError if options are out of range or the demonstrations do
    not fit the game.
    """

    def __init__(
        self, spec: EnvSpec, device: torch.device | str, gen: Generator, *, demos: Callable[[], Source],
        hidden: Sequence[int], lr: float, batch_size: int, episodes_per_update: float, held_out: float, unstuck: int,
    ) -> None:  # fmt: skip
        require_at_least("algo", 1, batch_size=batch_size)
        require_at_least("algo", 0, unstuck=unstuck)
        require_within("algo", 0, 1, ends="()", held_out=held_out)
        self.spec, self.device, self.gen, self.source = spec, torch.device(device), gen, demos()
        self.held_out, self.unstuck = held_out, unstuck
        self.batch_size, self.pace = batch_size, Rhythm.steady(episodes_per_update)
        self.net = CloneNet(spec, hidden).to(self.device)
        self.optimizer = Adam(self.net.parameters(), lr=lr)
        self.data: tuple[Demonstrations, Demonstrations] | None = None  # to learn from, held out

    def fields(self) -> dict[str, Field]:
        return {}

    def policy(self, clock: Clock) -> ClonePolicy:
        return ClonePolicy(self.net, self.spec, self.unstuck)

    def annotate(self, fresh: EpisodeBatch) -> None:
        return None

    def update(self, replay: Replay, fresh: EpisodeBatch, clock: Clock) -> Metrics:
        if self.data is None:
            self.data = split_games(check_fit(self.source.load(self.spec), self.spec), self.held_out)
        train, held_out = self.data
        metrics: Metrics = {}
        for _ in range(self.pace.due(clock)):
            batch = train.take(torch.randint(len(train), (self.batch_size,), generator=self.gen))
            loss, accuracy = self.loss(batch)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            clock.updates += 1
            metrics = {"bc/loss": loss.detach(), "bc/accuracy": accuracy}
        if not metrics:
            return {}
        with torch.no_grad():
            other_loss, other_accuracy = self.loss(held_out)
        return metrics | {"bc/held_out_loss": other_loss, "bc/held_out_accuracy": other_accuracy}

    def loss(self, batch: Demonstrations) -> tuple[Tensor, Tensor]:
        """Return the mean cross-entropy, and the share of decisions that are the network's most likely action."""
        logits = masked_logits(self.net(batch.obs.to(self.device)), batch.avail.to(self.device))
        actions = batch.actions.to(self.device)
        return F.cross_entropy(logits, actions), (logits.argmax(-1) == actions).float().mean()

    def networks(self) -> dict[str, nn.Module]:
        return {"clone": self.net}

    def state_dict(self) -> dict[str, Any]:
        return {"clone": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["clone"])
        self.optimizer.load_state_dict(state["optimizer"])


def check_fit(demos: Demonstrations, spec: EnvSpec) -> Demonstrations:
    """Return the demonstrations; raise ConfigError where they do not fit ``spec`` or an action was not available."""
    if demos.obs.shape[1] != spec.obs_dim or demos.avail.shape[1] != spec.n_actions:
        raise ConfigError(
            f"the demonstrations have {demos.obs.shape[1]} features and {demos.avail.shape[1]} actions; the game has "
            f"{spec.obs_dim} and {spec.n_actions}"
        )
    wrong = ~demos.avail.gather(1, demos.actions[:, None])[:, 0]
    if wrong.any():
        raise ConfigError(f"decision {int(wrong.nonzero()[0])} of the demonstrations was not available")
    return demos


def split_games(demos: Demonstrations, share: float) -> tuple[Demonstrations, Demonstrations]:
    """Split off the last ``share`` of the games, at least one and never all; return (to learn from, held out)."""
    games = demos.game.unique()
    if len(games) < 2:
        raise ConfigError(
            f"there are demonstrations of {len(games)} game; one to learn from and one to hold out are needed"
        )
    last = games[-max(1, min(len(games) - 1, round(share * len(games)))) :]
    held = torch.isin(demos.game, last)
    return demos.take(~held), demos.take(held)
