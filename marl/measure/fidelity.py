"""How close a simulator is to the game that a team was trained in: its win rate, and whether its values add up.

A team's Q_tot(s_0) is the return that it expects, and along an episode r + gamma Q_tot(s') - Q_tot(s) scatters around
zero, if observations, state and dynamics are those that it was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from marl.core.intervals import mean_interval
from marl.core.types import ConfigError, EpisodeBatch
from marl.learn.learner import best_available, gather_actions, previous_actions
from marl.learn.policy import EpsilonGreedy
from marl.measure.importers import mixer_beside
from marl.run.collect import collect_whole
from marl.run.evaluate import summarise
from marl.run.teams import Team, evaluate_team, open_imported

GAMMA = 0.99  # of the published agents


def find_teams(folder: Path) -> list[tuple[str, Path]]:
    """Return (map, agent file) for every ``<algorithm>_<map>.th`` in ``folder``."""
    files = [p for p in sorted(folder.glob("*.th")) if not p.stem.endswith("_mixer") and "_" in p.stem]
    if not files:
        raise ConfigError(f"dir={folder} holds no agents; expected files like qmix_3m.th")
    return [(p.stem.partition("_")[2], p) for p in files]


def team_config(cfg: DictConfig, env: DictConfig, agent: Path, seed: int) -> DictConfig:
    """Return what ``open_imported`` reads for one agent and its mixer if there is one."""
    policy = {
        "_target_": "marl.measure.importers.load_pymarl",
        "_partial_": True,
        "path": str(agent),
        "mixer": mixer_beside(agent),
    }
    attack = {"_target_": "marl.core.protocols.NoAttack", "_partial_": True}
    base = {"seed": seed, "threads": cfg.threads, "device": "cpu", "run": None}
    return OmegaConf.create({**base, "policy": policy, "attack": attack, "env": env})


def win_row(team: Team, episodes: int) -> dict[str, Any]:
    """Return win rate, return and length with their intervals."""
    return {name: interval.as_dict() for name, interval in summarise(evaluate_team(team, episodes)).items()}


@torch.no_grad()
def joint_values(policy: EpsilonGreedy, batch: EpisodeBatch) -> Tensor:
    """Return Q_tot [M, T+1] of the greedy joint action at every slot."""
    x = policy.agent.inputs(batch.obs, previous_actions(batch.intended))
    q, _ = policy.agent.unroll(x)
    greedy = best_available(q, batch.avail)
    return policy.q_total(gather_actions(q, greedy), batch.state)[..., 0]


def value_row(team: Team) -> dict[str, Any]:
    """Return the expected and real discounted return, and the mean residual per step, over one episode per lane."""
    assert isinstance(team.policy, EpsilonGreedy)
    batch = collect_whole(
        team.env, team.policy, team.attack, team.fields, explore=False,
        attacked=torch.zeros(team.env.n_envs, dtype=torch.bool), policy_gen=team.streams["eval"],
        attack_gen=team.streams["eval_attack"], device=team.device,
    )  # fmt: skip
    values, filled = joint_values(team.policy, batch), batch.filled[:, :-1]
    ends = (batch.terminated[:, :-1]).float()
    residual = batch.reward[:, :-1] + GAMMA * (1 - ends) * values[:, 1:] - values[:, :-1]
    discount = GAMMA ** torch.arange(batch.horizon)
    real = (batch.reward[:, :-1] * filled * discount).sum(1)
    per_episode = (residual * filled).sum(1) / filled.sum(1)
    return {
        "expected": mean_interval(values[:, 0].numpy()).as_dict(),
        "real": mean_interval(real.numpy()).as_dict(),
        "residual": mean_interval(per_episode.numpy()).as_dict(),
        "residual_rms": float(np.sqrt((residual[filled] ** 2).mean())),
    }


def check_team(cfg: DictConfig, env: DictConfig, agent: Path, seed: int) -> dict[str, Any]:
    """Return one row: the win rate or the value check of the agent in ``agent`` on ``env``."""
    lanes = min(cfg.n_envs, cfg.episodes) if cfg.check == "win_rates" else cfg.episodes
    team = open_imported(team_config(cfg, env, agent, seed), lanes)
    with closing(team.env):
        return win_row(team, cfg.episodes) if cfg.check == "win_rates" else value_row(team)


def best_of(cfg: DictConfig, envs: Mapping[str, DictConfig], agent: Path) -> dict[str, Any]:
    """Return the row of the agent on that one of ``envs`` that suits it best, under "chosen" which that is, and under
    "tried" its win rate and return on each when the choice was made.

    The greatest of several measurements is too great on average. So the choice is made on episodes of their own, those
    of the next seed, by win rate and then by return; the row is of the episodes of ``cfg.seed`` alone.
    """
    tried = {name: check_team(cfg, env, agent, cfg.seed + 1) for name, env in envs.items()}
    means = {name: {key: row[key]["mean"] for key in ("win_rate", "return")} for name, row in tried.items()}
    chosen = max(means, key=lambda name: (means[name]["win_rate"], means[name]["return"]))
    return {"chosen": chosen, "tried": means, **check_team(cfg, envs[chosen], agent, cfg.seed)}
