"""Small IBAL attackers on the posts game, and their victims."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from attacks.ibal.attack import IBAL
from envs.toys.posts import Posts
from marl.core.protocols import VectorEnv
from marl.core.types import Clock, EnvSpec, EpisodeBatch, core_fields
from marl.learn.policy import EpsilonGreedy
from marl.learn.replay import EpisodeReplay
from marl.run.build import factory
from marl.run.collect import collect
from tests.support.builders import make_victim
from tests.support.helpers import compose_train

SMALL = ("attack.estimators.hidden_dim=16", "attack.estimators.width=16", "attack.estimators.group_width=16",
         "attack.estimators.samples=64", "attack.estimators.ema=0.2", "attack.warmup_episodes=0")  # fmt: skip


def posts(n_envs: int = 16, seed: int = 1, n_agents: int = 3) -> Posts:
    return Posts(n_agents=n_agents, noise=3, goal=0.8, absent_agents=0, episode_limit=6, n_envs=n_envs, seed=seed)


def make_attack(spec: EnvSpec, tmp_path: Path, *overrides: str, name: str = "ibal") -> IBAL:
    cfg = compose_train(tmp_path, "env=posts", f"attack={name}", *SMALL, *overrides)
    torch.manual_seed(0)
    return factory(cfg.attack, "attack")(spec, "cpu")


def posts_victim(spec: EnvSpec) -> EpsilonGreedy:
    return make_victim(spec, seed=3, epsilon=0.5)


def play(attack: Any, env: VectorEnv, victim: EpsilonGreedy, explore: bool = True, off: int = 0) -> EpisodeBatch:
    """Play an episode per lane; the first ``off`` lanes are not attacked."""
    fields = core_fields(env.spec) | attack.fields()
    gens = {name: torch.Generator().manual_seed(7) for name in ("policy_gen", "attack_gen")}
    attacked = torch.arange(env.n_envs) >= off
    return collect(env, victim, attack, fields, explore=explore, attacked=attacked, device="cpu", **gens)


def fitted(attack: IBAL, env: VectorEnv, victim: EpsilonGreedy) -> IBAL:
    """Fit the attack to a frozen victim as evaluations do it."""
    replay = EpisodeReplay(200, env.spec.episode_limit, core_fields(env.spec) | attack.fields())
    attack.estimators.fit_rounds = 20
    with attack.fitting():
        while attack.needs_fit:
            fresh = play(attack, env, victim)
            assert not fresh["hit"].any() and torch.equal(fresh["obs_seen"], fresh.obs)
            replay.add(fresh)
            attack.update(replay, fresh, victim, Clock())
    return attack
