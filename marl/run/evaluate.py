"""Evaluation over a fixed number of whole episodes, with 95% intervals."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Generator, Tensor

from marl.core.checks import require_at_least
from marl.core.intervals import Interval, mean_interval, rate_interval
from marl.core.protocols import Attack, Policy, VectorEnv
from marl.core.seeding import derive
from marl.core.types import EpisodeBatch, Field
from marl.run.collect import Watcher, collect_whole

Results = Callable[[EpisodeBatch], dict[str, Tensor]]  # what is measured of a batch, each [M]


def episode_results(batch: EpisodeBatch) -> dict[str, Tensor]:
    """Return the per-episode results of a collected batch, each [M]."""
    return {"return": batch.reward.sum(1), "length": batch.length.long(), "won": batch.won, **attack_facts(batch)}


def attack_facts(batch: EpisodeBatch) -> dict[str, Tensor]:
    """Return ``hits``, the attacked steps, and ``hit_actions``, the attacked agents summed over steps, each long [M]; 0
    without an attack."""
    none = torch.zeros_like(batch.alive)  # [M, T+1, n]
    hit = batch.data.get("hit", none) & batch.filled[..., None]
    return {"hits": hit.any(-1).sum(1), "hit_actions": hit.sum((1, 2))}


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
    seed: int | None = None,
    replay: int = 0,
    results: Results = episode_results,
) -> dict[str, np.ndarray]:
    """Play without exploration; return what ``results`` measures of each episode, as arrays [episodes]: by default
    ``return``, ``length``, ``won``, ``hits`` (attacked steps) and ``hit_actions`` (attacked agents, summed over steps).

    Lanes play in lockstep rounds of one whole episode each, and the last round is cut by lane number, so that short
    episodes are not counted more often. ``on_round`` receives the number of finished episodes. With a ``seed`` every
    round starts from a seed of its own, so that episode k begins the same for every policy and attack. A ``replay``
    numbered from 1 keeps these beginnings, but the game draws other random numbers afterwards. Raises ConfigError.
    """
    require_at_least("", 1, episodes=episodes)
    rounds: list[dict[str, Tensor]] = []
    everyone = torch.ones(env.n_envs, dtype=torch.bool)
    for i in range(math.ceil(episodes / env.n_envs)):
        start = None if seed is None else derive(seed, f"round {i}") & 0x7FFFFFFF
        batch = collect_whole(
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
            seed=start,
            redraw=None if start is None or replay == 0 else derive(start, f"replay {replay}"),
        )
        rounds.append(results(batch))
        if on_round is not None:
            on_round(min(episodes, (i + 1) * env.n_envs))
    return {key: torch.cat([r[key] for r in rounds])[:episodes].cpu().numpy() for key in rounds[0]}


def summarise(results: dict[str, np.ndarray]) -> dict[str, Interval]:
    """Return ``win_rate`` (Wilson), ``return`` and ``length`` (Student's t) with 95% intervals."""
    return {
        "win_rate": rate_interval(results["won"]),
        "return": mean_interval(results["return"]),
        "length": mean_interval(results["length"]),
    }
