"""How close a simulator is to the game that a team was trained in: the results of its episodes, next to what the logs
of its training say, and whether its values add up.

A team's Q_tot(s_0) is the return that it expects, and along an episode r + gamma Q_tot(s') - Q_tot(s) scatters around
zero, if observations, state and dynamics are those that it was trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from marl.core.config import plain
from marl.core.intervals import Interval, mean_interval, rate_interval
from marl.core.types import ConfigError, EpisodeBatch, Field
from marl.learn.learner import best_available, gather_actions, previous_actions
from marl.learn.policy import EpsilonGreedy
from marl.measure.importers import mixer_beside
from marl.measure.orders import Order, anneal
from marl.run.teams import Team, evaluate_team, open_imported

GAMMA = 0.99  # of the published agents
MEANS = ("return", "length", "deaths", "expected", "real", "residual")  # over episodes
MEASURES = ("win_rate", *MEANS, "residual_rms")
OF_RANDOM_PLAY = ("return", "length")
SEARCH_EPISODES = 24  # that each order is tried on in a search
RANDOM_PLAY = {"_target_": "marl.learn.scripted.RandomPlay", "_partial_": True}
Row = dict[str, Any]


@dataclass(frozen=True)
class Logs:
    """What the logs of the game that teams were trained in say, by measure (``MEASURES``, ``OF_RANDOM_PLAY``)."""

    teams: dict[str, dict[str, float]]  # by the stem of a team's file
    random: dict[str, dict[str, float]]  # near-random play, by map


def read_logs(section: Any) -> Logs:
    """Return the logs that the section ``logs`` of a configuration gives; raise ConfigError naming what is wrong."""
    given, allowed = plain(section), {"teams": MEASURES, "random": OF_RANDOM_PLAY}
    if not isinstance(given, dict):
        raise ConfigError(f"logs={given} must be a section with the keys teams and random")
    for part in given:
        if part not in allowed:
            raise ConfigError(f"logs.{part} is not known; there are {', '.join(allowed)}")
    return Logs(**{part: _read_facts(f"logs.{part}", given.get(part) or {}, names) for part, names in allowed.items()})


def _read_facts(key: str, given: Any, measures: tuple[str, ...]) -> dict[str, dict[str, float]]:
    if not isinstance(given, dict) or not all(isinstance(facts, dict) for facts in given.values()):
        raise ConfigError(f"{key}={given} must map names to what their logs say, such as {{length: 50.9}}")
    for name, facts in given.items():
        for measure, value in facts.items():
            if measure not in measures:
                raise ConfigError(f"{key}.{name}.{measure} is not measured; there are {', '.join(measures)}")
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ConfigError(f"{key}.{name}.{measure}={value} must be a number")
    return {str(name): {m: float(value) for m, value in facts.items()} for name, facts in given.items()}


def find_teams(folder: Path, only: Sequence[str] | None = None) -> list[tuple[str, Path]]:
    """Return (map, agent file) for every ``<algorithm>_<map>.th`` in ``folder``, or for those of the maps ``only``."""
    if not folder.is_dir():
        raise ConfigError(f"dir={folder} {'is a file, not a folder' if folder.is_file() else 'does not exist'}")
    files = [p for p in sorted(folder.glob("*.th")) if not p.stem.endswith("_mixer") and "_" in p.stem]
    if not files:
        raise ConfigError(f"dir={folder} holds no agents; expected files like qmix_3m.th")
    teams = [(p.stem.partition("_")[2], p) for p in files]
    maps = {name for name, _ in teams}
    if only is not None and not only:
        raise ConfigError(f"only=[] leaves no team; there are {', '.join(sorted(maps))}")
    for name in only or ():
        if name not in maps:
            raise ConfigError(f"only={name} is the map of no team in {folder}; there are {', '.join(sorted(maps))}")
    return [team for team in teams if only is None or team[0] in only]


def imported(agent: Path) -> dict[str, Any]:
    """Return the policy of an agent's file, with its mixer if there is one."""
    return {
        "_target_": "marl.measure.importers.load_pymarl",
        "_partial_": True,
        "path": str(agent),
        "mixer": mixer_beside(agent),
    }


def open_policy(cfg: DictConfig, env: DictConfig, policy: dict[str, Any], seed: int) -> Team:
    """Open a policy on ``env``, without attack, with as many lanes as ``cfg`` asks for."""
    attack = {"_target_": "marl.core.protocols.NoAttack", "_partial_": True}
    base = {"seed": seed, "threads": cfg.threads, "device": "cpu", "run": None}
    opens = OmegaConf.create({**base, "policy": policy, "attack": attack, "env": env})
    return open_imported(opens, min(cfg.n_envs, cfg.episodes))


@torch.no_grad()
def joint_values(policy: EpsilonGreedy, batch: EpisodeBatch) -> Tensor:
    """Return Q_tot [M, T+1] of the greedy joint action at every slot."""
    x = policy.agent.inputs(batch.obs, previous_actions(batch.intended))
    q, _ = policy.agent.unroll(x)
    greedy = best_available(q, batch.avail)
    return policy.q_total(gather_actions(q, greedy), batch.state)[..., 0]


def facts_of(batch: EpisodeBatch, values: Tensor) -> dict[str, Tensor]:
    """Return the results of each episode, each [M]: ``won``, ``MEANS``, and ``squares``, the sum of squared residuals.

    ``values`` [M, T+1] is Q_tot at every slot. ``deaths`` counts the agents that are dead at the end, ``expected`` is
    Q_tot(s_0), ``real`` the discounted return and ``residual`` the mean over steps.
    """
    filled, reward = batch.filled[:, :-1], batch.reward[:, :-1]
    ends = batch.terminated[:, :-1].float()
    residual = (reward + GAMMA * (1 - ends) * values[:, 1:] - values[:, :-1]) * filled
    discount = GAMMA ** torch.arange(batch.horizon)
    last = (batch.length.long() - 1)[:, None]
    return {
        "won": batch.won,
        "return": batch.reward.sum(1),
        "length": batch.length.long(),
        "deaths": batch["dead_allies"].gather(1, last)[:, 0],
        "expected": values[:, 0],
        "real": (reward * filled * discount).sum(1),
        "residual": residual.sum(1) / filled.sum(1),
        "squares": (residual.double() ** 2).sum(1),
    }


def row_of(facts: Mapping[str, np.ndarray], logs: Mapping[str, float]) -> Row:
    """Return the row of a team from the results of its episodes (``facts``, arrays [episodes]): by measure its mean,
    interval and what the logs say, None where they say nothing. The root mean square over all steps has no interval."""
    rms = float(np.sqrt(facts["squares"].sum() / facts["length"].sum()))
    intervals = {"win_rate": rate_interval(facts["won"]), **{name: mean_interval(facts[name]) for name in MEANS}}
    intervals["residual_rms"] = Interval(rms, -np.inf, np.inf, len(facts["won"]))
    return {name: {**intervals[name].as_dict(), "log": logs.get(name)} for name in MEASURES}


def score_team(cfg: DictConfig, env: DictConfig, agent: Path, seed: int, logs: Mapping[str, float]) -> Row:
    """Return the row of the agent in ``agent`` on ``env``. All measures are of the same ``cfg.episodes`` episodes."""
    team = open_policy(cfg, env, imported(agent), seed)
    policy = team.policy
    assert isinstance(policy, EpsilonGreedy)
    team.fields["dead_allies"] = Field((), torch.int32)
    with closing(team.env):
        facts = evaluate_team(team, cfg.episodes, results=lambda batch: facts_of(batch, joint_values(policy, batch)))
    return row_of(facts, logs)


def score_random_play(cfg: DictConfig, env: DictConfig, logs: Mapping[str, float]) -> Row:
    """Return length and return of uniformly random available actions on ``env``, next to what the logs say."""
    team = open_policy(cfg, env, RANDOM_PLAY, cfg.seed)
    with closing(team.env):
        results = evaluate_team(team, cfg.episodes)
    return {name: {**mean_interval(results[name]).as_dict(), "log": logs.get(name)} for name in OF_RANDOM_PLAY}


def best_of(cfg: DictConfig, envs: Mapping[str, DictConfig], agent: Path, logs: Mapping[str, float]) -> Row:
    """Return the row of the agent on the one of ``envs`` that suits it best, under "chosen" which that is, and under
    "tried" the win rate and return on each that the choice was based on.

    The highest of several measurements is too high on average. So the choice is made on separate episodes, those of
    the next seed, by win rate and then by return; the row is of the episodes of ``cfg.seed`` alone.
    """
    tried = {name: score_team(cfg, env, agent, cfg.seed + 1, logs) for name, env in envs.items()}
    means = {name: {key: row[key]["mean"] for key in ("win_rate", "return")} for name, row in tried.items()}
    chosen = max(means, key=lambda name: (means[name]["win_rate"], means[name]["return"]))
    return {"chosen": chosen, "tried": means, **score_team(cfg, envs[chosen], agent, cfg.seed, logs)}


def search_of(
    cfg: DictConfig, env_of: Callable[[Order], DictConfig], start: Order, agent: Path, logs: Mapping[str, float]
) -> Row:
    """Return the row of the agent in the order of enemies with the highest mean return among ``start`` and
    ``cfg.search`` others that annealing tries; under "order" which that is, and under "then" its return in the search.

    Orders are tried on ``SEARCH_EPISODES`` episodes of ``cfg.seed + 2``; the row is of those of ``cfg.seed`` alone.
    """
    short = cfg.copy()
    short.update(episodes=SEARCH_EPISODES, n_envs=SEARCH_EPISODES)

    def earned(order: Order) -> float:
        return float(score_team(short, env_of(order), agent, cfg.seed + 2, logs)["return"]["mean"])

    order, then = anneal(earned, start, cfg.search, np.random.default_rng(cfg.seed))
    return {"order": order, "then": then, **score_team(cfg, env_of(order), agent, cfg.seed, logs)}
