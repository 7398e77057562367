"""Evaluation over a fixed number of whole episodes, with 95% intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Generator, Tensor

from marl.collect import Watcher, collect
from marl.protocols import Attack, Policy, VectorEnv
from marl.types import ConfigError, EpisodeBatch, Field


@dataclass(frozen=True)
class Interval:
    """A mean with its 95% confidence interval over ``n`` values."""

    mean: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, float | None]:
        """For JSON, which knows no infinity: an unbounded end is None."""
        low, high = (end if math.isfinite(end) else None for end in (self.low, self.high))
        return {"mean": self.mean, "low": low, "high": high, "n": self.n}


def mean_interval(values: np.ndarray) -> Interval:
    """Student's t interval of the mean; a single value has an unbounded one."""
    values = np.asarray(values, dtype=np.float64)
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Interval(mean, -math.inf, math.inf, n)
    half = float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def rate_interval(successes: np.ndarray) -> Interval:
    """Wilson's interval of a rate."""
    n, k = len(successes), int(np.sum(successes))
    ci = stats.binomtest(k, n).proportion_ci(confidence_level=0.95, method="wilson")
    return Interval(k / n, float(ci.low), float(ci.high), n)


def evaluate(
    env: VectorEnv,
    policy: Policy,
    attack: Attack,
    fields: dict[str, Field],
    *,
    episodes: int,
    policy_gen: Generator,
    attack_gen: Generator,
    device: torch.device | str,
    on_round: Callable[[int], None] | None = None,
    watch: Watcher | None = None,
) -> dict[str, np.ndarray]:
    """Greedy play; per-episode arrays ``return``, ``length``, ``won``, ``hits`` (attacked steps) and ``hit_actions``
    (attacked agents, summed over steps), each [episodes].

    Lanes play in lockstep rounds of one whole episode each, and the last round is cut by lane number: no lane's
    episodes count more for being short. ``on_round`` is told how many episodes are done.
    """
    if episodes < 1:
        raise ConfigError(f"episodes is {episodes}; it must be at least 1")
    rounds: list[dict[str, Tensor]] = []
    everyone = torch.ones(env.n_envs, dtype=torch.bool)
    for i in range(math.ceil(episodes / env.n_envs)):
        batch = collect(
            env,
            policy,
            attack,
            fields,
            explore=False,
            attacked=everyone,
            policy_gen=policy_gen,
            attack_gen=attack_gen,
            device=device,
            watch=watch,
        )
        rounds.append(episode_results(batch))
        if on_round is not None:
            on_round(min(episodes, (i + 1) * env.n_envs))
    return {key: torch.cat([r[key] for r in rounds])[:episodes].cpu().numpy() for key in rounds[0]}


def episode_results(batch: EpisodeBatch) -> dict[str, Tensor]:
    """Per-episode results of a collected batch, each [M]."""
    return {"return": batch.reward.sum(1), "length": batch.length.long(), "won": batch.won, **attack_facts(batch)}


def attack_facts(batch: EpisodeBatch) -> dict[str, Tensor]:
    """``hits`` attacked steps and ``hit_actions`` attacked agents summed over steps, long [M]; 0 without an attack."""
    none = torch.zeros_like(batch.alive)  # [M, T+1, n]
    hit = batch.data.get("hit", none) & batch.filled[..., None]
    return {"hits": hit.any(-1).sum(1), "hit_actions": hit.sum((1, 2))}


def summarise(results: dict[str, np.ndarray]) -> dict[str, Interval]:
    """``win_rate`` (Wilson), ``return`` and ``length`` (Student's t) with 95% intervals."""
    return {
        "win_rate": rate_interval(results["won"]),
        "return": mean_interval(results["return"]),
        "length": mean_interval(results["length"]),
    }
