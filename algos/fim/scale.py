"""FIM's scale by rule: what a team is paid for influence in an episode of random play must exceed what failing costs.

Otherwise the team learns to keep away from everything that it could influence (docs/fim.md). The rule is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from marl.core.checks import require_at_least
from marl.core.types import ConfigError, EpisodeBatch

EPISODES = 256  # judged at most


@dataclass(frozen=True)
class ScaleRule:
    """scale = ``margin`` * penalty / bonus, but at most ``most`` * penalty, and at least ``least``.

    The penalty is the largest loss of an episode of random play, 0 if none lost; the bonus is what such an episode
    pays on average at scale 1. It is next to nothing if the model has learnt nothing, and no scale fixes that.
    """

    margin: float
    least: float
    most: float

    def __post_init__(self) -> None:
        require_at_least("fim", 0, margin=self.margin, least_scale=self.least, most_scale=self.most)

    def judge(self, paid: Tensor, returns: Tensor) -> Judged:
        """Return the scale from what episodes paid at scale 1, [E], and their returns [E]."""
        bonus, penalty = float(paid.mean()), max(0.0, -float(returns.amin()))
        enough = bonus > 0 and self.margin <= self.most * bonus
        by_rule = penalty * (self.margin / bonus if enough else self.most)
        return Judged(max(self.least, by_rule), bonus, penalty, len(paid), capped=penalty > 0 and not enough)


@dataclass(frozen=True)
class Judged:
    """The result of the rule; ``bonus`` is at scale 1."""

    scale: float
    bonus: float
    penalty: float
    episodes: int
    capped: bool

    def said(self) -> str:
        """Return one line for the log."""
        paid = self.scale * self.bonus
        why = f"an episode of random play is paid {paid:.3g} on average and loses {self.penalty:.3g} at most"
        if not self.penalty:
            why = "no episode of random play lost anything"
        elif self.capped:
            why += (
                "; this is the cap (fim.most_scale), because the model sees hardly any influence: see "
                "fim/event_recall, and give fim.pretrain a larger number or fim.cog fewer features"
            )
        return f"fim: scale {self.scale:.3g} by rule, from {self.episodes} episodes: {why}"


def read_scale(scale: float | str) -> float | None:
    """Return a given scale, None for ``rule``. Raise ConfigError for anything else."""
    if scale == "rule":
        return None
    if isinstance(scale, str):
        raise ConfigError(f"fim.scale={scale} must be rule or a number of at least 0")
    require_at_least("fim", 0, scale=scale)
    return float(scale)


def judged_episodes(data: EpisodeBatch) -> EpisodeBatch:
    """Return the first ``EPISODES`` episodes of ``data`` that have a step."""
    return data.lanes(data.filled.any(1).nonzero().flatten()[:EPISODES])


def episode_returns(data: EpisodeBatch) -> Tensor:
    """Return each episode's sum of the game's rewards, [M]."""
    return torch.where(data.filled, data.reward, 0.0).sum(1)
