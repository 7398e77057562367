"""Specs, batches and learners that the tests of SBC and its baselines share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from algos.sbc.roles import RoleLearner, with_roles
from algos.sbc.sets import BlockedSets
from marl.core.types import Blockable, EnvSpec, EpisodeBatch, Field
from marl.learn.mixers import VDN, Mixer, NoMixer, QMix
from tests.support.helpers import LEARNER, make_agent, make_spec, random_batch

C = 4
MASK = torch.tensor([[True, True, True, False], [True, True, True, True], [False, True, True, True]])
SETS: dict[str, Any] = {
    "family": "cells", "m_min": 1, "m_max": 2, "p_empty": 0.25, "kappa": 0.5, "pool": None, "feasible": 0.1,
    "doubt": 0.25, "refresh_steps": 1000,
}  # fmt: skip
MINI = (  # a training of actors within seconds
    "env=mds_mini", "env.episode_limit=5", "train.total_steps=240", "train.n_envs=8", "eval.every=120",
    "eval.episodes=4", "eval.final_episodes=4", "eval.n_envs=4", "checkpoint.every=40", "checkpoint.milestone=40",
    "checkpoint.at_start=true", "log.every=40", "log.to=[]", "algo.agent.hidden_dim=8",
    "algo.critic.hidden_dim=8", "algo.learner.epochs=2",
)  # fmt: skip
GOALS = ("algo.sets.family=goals", "algo.sets.m_max=1", "algo.sets.refresh_steps=80")
MIXERS = {"iql": NoMixer, "vdn": VDN, "qmix": lambda spec: QMix(spec, embed_dim=8, hypernet_dim=8)}


def blocking_spec(**sizes: int) -> EnvSpec:
    """Return a spec with three agents and four cells, not all of which each agent can reach."""
    spec = make_spec(**sizes)
    return replace(spec, info_names=("cell",), blockable={"cells": Blockable("cell", MASK[: spec.n_agents])})


def make_sets(spec: EnvSpec, **changes: Any) -> BlockedSets:
    return BlockedSets(spec, **{**SETS, **changes})


def role_learner(spec: EnvSpec, mixer: str = "vdn", hooks: list[Any] | None = None, **agent: Any) -> RoleLearner:
    """Make a role learner whose networks depend on the arguments alone."""
    torch.manual_seed(3)
    made: Mixer = MIXERS[mixer](with_roles(spec))
    return RoleLearner(spec, make_agent(spec, **agent), made, hooks or [], **LEARNER)


def role_batch(spec: EnvSpec, episodes: int, seed: int = 0) -> EpisodeBatch:
    """Make a ``random_batch`` with random roles, cells and blocked sets; the first three episodes have 0, 1, 2
    partners."""
    batch, gen = random_batch(spec, episodes, seed), torch.Generator().manual_seed(seed)
    n, T = spec.n_agents, batch.horizon
    assign = torch.randint(2, (episodes, n), generator=gen)
    assign[:3] = torch.tensor([[0, 0, 0], [0, 1, 0], [1, 0, 1]])[:episodes, :n]
    data = {
        "assign": assign,
        "cell": torch.randint(-1, C, (episodes, T + 1, n), generator=gen) * batch.filled[..., None],
        "blocked": (torch.rand(episodes, n, C, generator=gen) < 0.4) & MASK[:n],
    }
    fields = {
        "assign": Field((n,), torch.int64, "episode"), "cell": Field((n,), torch.int64),
        "blocked": Field((n, C), torch.bool, "episode"),
    }  # fmt: skip
    return EpisodeBatch(batch.data | data, batch.fields | fields)


def changed(batch: EpisodeBatch, **values: Tensor) -> EpisodeBatch:
    return EpisodeBatch(batch.data | values, batch.fields)
