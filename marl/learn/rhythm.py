"""How often a team learns, counted in collected episodes, so that it is the same for any number of lanes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from marl.core.checks import require_at_least, require_positive
from marl.core.types import Clock

ROUNDING = 1e-12  # relative: counts of episodes are products of floats, such as 0.1 * 30


@dataclass(frozen=True)
class Rhythm:
    """Update k = 1, 2, ... is due after ``warmup_episodes + (k - 1) * episodes_per_update`` episodes of the whole run,
    and is made as soon as there are also ``batch_size`` episodes for each of ``ranks`` (of torchrun).

    Fractions need no state: what is due depends on the clock alone, so a resumed run continues exactly. The target is
    copied every ``target_every`` episodes, or moves by the fraction ``tau`` after each update (both null: neither).
    """

    batch_size: int
    episodes_per_update: float
    warmup_episodes: float = 0.0
    target_every: float | None = None
    tau: float | None = None
    ranks: int = 1

    def __post_init__(self) -> None:
        require_at_least("algo", 1, batch_size=self.batch_size)
        require_positive("algo", episodes_per_update=self.episodes_per_update)
        require_at_least("algo", 0, warmup_episodes=self.warmup_episodes)

    @classmethod
    def steady(cls, episodes_per_update: float) -> Rhythm:
        """Return the rhythm of something that learns from the first episodes on."""
        return cls(1, episodes_per_update, episodes_per_update)

    @property
    def start(self) -> float:
        """Return the number of episodes before which nothing is learnt."""
        return max(self.warmup_episodes, self.batch_size * self.ranks)

    def made(self, episodes: int) -> int:
        """Return the number of updates of a run that has collected ``episodes``."""
        if episodes < self.start:
            return 0
        return 1 + multiples(episodes - self.warmup_episodes, self.episodes_per_update)

    def due(self, clock: Clock) -> int:
        """Return the number of updates to make after the newest collection."""
        return self.made(clock.episodes) - self.made(clock.episodes - clock.fresh)

    @property
    def target_episodes(self) -> float | None:
        """Return the age of the target in episodes: ``target_every``, or the time constant of ``tau``."""
        return self.target_every if self.tau is None else self.episodes_per_update / self.tau

    def __str__(self) -> str:
        """Describe the rhythm as in a run's header."""
        size, every = self.batch_size, self.episodes_per_update
        batch = "1 episode" if size == 1 else f"{size} episodes"
        one = f"1 update of {batch} per {every:g} new ones" if every > 1 else f"1 update of {batch} per new one"
        text = one if every >= 1 else f"{1 / every:g} updates of {batch} per new one"
        if self.target_every is not None:
            return f"{text}, target copied every {self.target_every:g}"
        return text if self.tau is None else f"{text}, target moved by {self.tau:g} at each"

    def differs(self, published: Rhythm) -> bool:
        """Return whether updates or targets are more than twice as frequent, or as rare, as published."""
        return _far(self.episodes_per_update, published.episodes_per_update) or _far(
            self.target_episodes, published.target_episodes
        )


def multiples(count: float, every: float) -> int:
    """Return how many multiples of ``every`` lie in (0, count]."""
    return math.floor(count / every * (1 + ROUNDING))


def crossed(before: float, after: float, every: float | None) -> bool:
    """Return whether a multiple of ``every`` (None: never) lies in (before, after]; stateless, so a resume keeps the
    schedule."""
    return every is not None and multiples(before, every) != multiples(after, every)


def _far(a: float | None, b: float | None) -> bool:
    return a is not None and b is not None and max(a, b) > 2 * min(a, b) * (1 + ROUNDING)
