"""Fitting an attack that has networks of its own to a fixed victim.

The victim plays greedily under the attack; after every round of episodes the attack updates itself. What it has learnt
is kept in a file, so that it can be used against any team that plays the same game.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from omegaconf import OmegaConf

from marl.core.protocols import Attack, Fitting, attacks_within
from marl.core.seeding import derive
from marl.core.types import Clock, ConfigError, Metrics
from marl.learn.replay import EpisodeReplay
from marl.run import checkpoint
from marl.run.collect import collect_whole
from marl.run.evaluate import evaluate
from marl.run.teams import Team, open_team

Tell = Callable[[float], None]  # receives the share of the work that is done, 0 to 1


@runtime_checkable
class Hasty(Protocol):
    """An attack that can also act without what it has learnt: with ``at_once``, it attacks whenever it can. A fit has
    to be stronger than that."""

    at_once: bool


def fit_attack(
    team_config: dict[str, Any], n_envs: int, capacity: int, tell: Tell, restarts: int = 1, trials: int = 0
) -> dict[str, Any]:
    """Fit the attack of ``team_config`` (as for ``open_team``) to its team, until the attack needs no more fitting.

    It updates itself after every round of ``n_envs`` episodes, from a replay of ``capacity`` episodes. The parts of a
    mixture are fitted one after another, each as if it were alone. With ``trials``, it is fitted ``restarts`` times,
    and the fit under which the team wins least in that many episodes, all from one seed, is accepted; an attack that
    can also attack ``at_once`` does so where no fit is stronger than that. Return what ``load_fit`` reads: the attack's
    state, the last metrics, the count of steps and episodes; and which fit was accepted and what each left to the team.
    Raise ConfigError where there is nothing to fit, or where the attack cannot handle the team.
    """
    seeds = [
        team_config["seed"],
        *(derive(team_config["seed"], f"restart {r}") & 0x7FFFFFFF for r in range(1, restarts)),
    ]
    fits = [
        _fit({**team_config, "seed": seed}, n_envs, capacity, partial(_tell_part, tell, r, restarts))
        for r, seed in enumerate(seeds)
    ]
    if not trials:
        return fits[0]
    names = [f"fit {r + 1}" for r in range(restarts)]
    left = [_trial(team_config, fit["attack"], trials, n_envs)[0] for fit in fits]
    haste, state = _trial(team_config, fits[0]["attack"], trials, n_envs, at_once=True)
    if state is not None:
        names, left = ["at once", *names], [haste, *left]
        fits = [{**fits[0], "attack": state}, *fits]
    best = min(range(len(left)), key=lambda k: (left[k], k))  # the first of equals: a fit has to be stronger
    tried = {name: {"won": won, "return": gained} for name, (won, gained) in zip(names, left, strict=True)}
    return {**fits[best], "accepted": names[best], "tried": tried}


def _trial(
    team_config: dict[str, Any], state: dict[str, Any], episodes: int, n_envs: int, *, at_once: bool = False
) -> tuple[tuple[float, float], dict[str, Any] | None]:
    """Return the win rate and mean return that an attack in this state leaves the team, and its state. With
    ``at_once``, the parts that can attack at once do so; the state is None where no part can."""
    team = open_team(OmegaConf.create(team_config), min(n_envs, episodes))
    with closing(team.env):
        team.attack.load_state_dict(state)
        hasty = [one for _, one in attacks_within(team.attack) if isinstance(one, Hasty)] if at_once else []
        if at_once and not hasty:
            return (1.0, 0.0), None
        for one in hasty:
            one.at_once = True
        found = evaluate(
            team.env, team.policy, team.attack, team.fields, episodes=episodes, policy_gen=team.streams["eval"],
            attack_gen=team.streams["eval_attack"], device=team.device, seed=derive(team_config["seed"], "trial"),
        )  # fmt: skip
        return (float(found["won"].mean()), float(found["return"].mean())), team.attack.state_dict()


def _fit(team_config: dict[str, Any], n_envs: int, capacity: int, tell: Tell) -> dict[str, Any]:
    """Fit the attack once."""
    team = open_team(OmegaConf.create(team_config), n_envs)
    with closing(team.env):
        to_fit = [(name, one) for name, one in attacks_within(team.attack) if isinstance(one, Fitting)]
        if not to_fit:
            raise ConfigError(f"{type(team.attack).__name__} has nothing to fit: its column must not have fit")
        total, metrics = Clock(), Metrics()
        # dropout, and networks that are built late, sample from torch's global generator
        with team.streams.initializing():
            for k, (name, attack) in enumerate(to_fit):
                part = partial(_tell_part, tell, k, len(to_fit))
                clock, found = fit_alone(team, attack, n_envs, capacity, part)
                total.count(clock.episodes, clock.env_steps)
                metrics |= {f"{key}_{name}" if name else key: value for key, value in found.items()}
        scalars = {name: value.item() for name, value in metrics.items()}
        return {"attack": team.attack.state_dict(), "metrics": scalars, "clock": total.state_dict()}


def _tell_part(tell: Tell, k: int, count: int, done: float) -> None:
    tell((k + done) / count)


def fit_alone(team: Team, attack: Attack, n_envs: int, capacity: int, tell: Tell) -> tuple[Clock, Metrics]:
    """Let ``attack``, which is ``Fitting``, play alone against the team and learn; return the clock and the last
    metrics."""
    assert isinstance(attack, Fitting)
    clock, metrics = Clock(), Metrics()
    with attack.fitting():
        fields = team.fields | attack.fields()
        replay = EpisodeReplay(capacity, team.env.spec.episode_limit, fields)
        everyone = torch.ones(n_envs, dtype=torch.bool)
        while attack.needs_fit:
            fresh = collect_whole(
                team.env, team.policy, attack, fields, explore=False, attacked=everyone,
                policy_gen=team.streams["eval"], attack_gen=team.streams["attack"], device=team.device,
            )  # fmt: skip
            clock.count(len(fresh), int(fresh.length.sum()))
            replay.add(fresh)
            metrics |= attack.update(replay, fresh, team.policy, clock)
            tell(attack.fitted)
    return clock, metrics


def load_fit(path: Path, attack: Attack) -> None:
    """Load what was learnt into ``attack``."""
    attack.load_state_dict(checkpoint.load_tensors(path)["attack"])
