"""Cross-play: trained teams whose seats are shared out between two of them, and partners that nobody was trained with.

A *pair* is a player in one seat and another in all the others, seat by seat; a seating is one such table, and is what
is measured and kept. With two agents the pairs (A, B) and (B, A) share their seatings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Generator, Tensor

from marl.core.protocols import NoAttack, Policy
from marl.core.seeding import Streams, derive
from marl.core.types import Carry, EnvSpec, Obs, core_fields
from marl.learn.lineup import Lineup
from marl.learn.policy import random_available
from marl.measure.cells import Episodes, Outcome, Tell, commits, content_key, measure_cell, missing, one_pass
from marl.measure.entrants import Agent, Tree
from marl.run.build import make_env, use_threads
from marl.run.evaluate import evaluate
from marl.run.resume import command_line, git_commit
from marl.run.runs import load_policy


@dataclass(frozen=True)
class Setting:
    """What all seatings share. ``episodes`` are those of each seating; ``epsilon``: how often any agent plays a random
    action instead. ``device`` and ``threads`` say where they are computed, and change nothing."""

    episodes: int
    n_envs: int
    seed: int
    epsilon: float
    device: str
    threads: int | None
    out: Path


@dataclass(frozen=True)
class Seating:
    """Different players, and which of them has each seat; the file that keeps what came out."""

    title: str
    key: str
    path: Path
    opens: tuple[Tree, ...]  # in an order that does not depend on who is called row and who column
    assign: tuple[int, ...]
    env: Tree
    setting: Setting

    def done(self) -> bool:
        return self.path.exists()


class Slipping:
    """A policy whose agents each play a random available action with probability ``epsilon``."""

    def __init__(self, policy: Policy, epsilon: float) -> None:
        self.policy, self.epsilon = policy, epsilon
        self.begin, self.after = policy.begin, policy.after

    def act(self, obs: Obs, carry: Carry, *, explore: bool, gen: Generator) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        actions, carry, extras = self.policy.act(obs, carry, explore=explore, gen=gen)
        slips = torch.rand(actions.shape, generator=gen, device=actions.device) < self.epsilon
        return torch.where(slips, random_available(obs.avail, gen), actions), carry, extras


def game_spec(env: Tree) -> EnvSpec:
    """Sizes of the game; it is made once for that."""
    with closing(make_env(OmegaConf.create({"env": env}), 1, 0)) as made:
        return made.spec


def seat(players: Sequence[Agent], setting: Setting) -> Seating:
    """The table at which ``players[i]`` has seat i; all play one game."""
    by_content = {content_key(player.content): player for player in players}
    keys, env = sorted(by_content), players[0].env
    assign = tuple(keys.index(content_key(player.content)) for player in players)
    document = {
        "players": keys, "assign": assign, "env": env, "episodes": setting.episodes,
        "n_envs": min(setting.n_envs, setting.episodes), "seed": setting.seed, "epsilon": setting.epsilon,
    }  # fmt: skip
    key = content_key(document)
    names = " | ".join(player.who for player in players)
    opens = tuple(by_content[one].opens for one in keys)
    return Seating(names, key, setting.out / "cells" / f"{key}.json", opens, assign, env, setting)


def pair_up(one: Agent, others: Agent, n_agents: int, setting: Setting) -> list[Seating]:
    """The seatings of a pair, by the seat of ``one``; a player with itself needs one."""
    if one.content == others.content:
        return [seat([one] * n_agents, setting)]
    return [seat([one if i == own else others for i in range(n_agents)], setting) for own in range(n_agents)]


def run_seating(seating: Seating, tell: Tell) -> str | None:
    """Measure and keep it; the reason where that is not possible."""
    about = {"seed": seating.setting.seed, "n": seating.setting.episodes, "seats": seating.assign,
             "players": seating.opens}  # fmt: skip
    return measure_cell(seating, lambda: play(seating, tell), about)


def play(seating: Seating, tell: Tell) -> Episodes:
    """Per-episode values; ConfigError where a player does not fit the game. Episode k begins alike at every table."""
    setting, episodes = seating.setting, seating.setting.episodes
    use_threads(setting.threads)
    device, n_envs = torch.device(setting.device), min(setting.n_envs, episodes)
    streams = Streams(setting.seed, device)
    env = make_env(OmegaConf.create({"env": seating.env}), n_envs, streams.env_seed("eval"))
    with closing(env):
        players = [load_policy(opens, env.spec, device, streams) for opens in seating.opens]
        assign = torch.tensor(seating.assign, device=device).expand(n_envs, -1)  # [B, n]
        team: Policy = Lineup(players, assign)
        team = Slipping(team, setting.epsilon) if setting.epsilon else team
        results = evaluate(
            env, team, NoAttack(env.spec, device), core_fields(env.spec), episodes=episodes,
            policy_gen=streams["eval"], attack_gen=streams["eval_attack"], device=device,
            on_round=lambda done: tell(done / episodes), seed=derive(setting.seed, "crossplay"),
        )  # fmt: skip
    return {name: results[name].tolist() for name in ("return", "won", "length")}


def measure(seatings: Iterable[Seating], processes: int) -> Outcome:
    """Play whatever is not there yet. A signal stops after the round in hand; finished seatings stay."""
    pending = missing(seatings)
    with one_pass(len(pending), processes) as (outcome, do):
        do(run_seating, pending)
    return outcome


def provenance(seatings: Sequence[Seating], setting: Setting) -> dict[str, Any]:
    """How a matrix came about: commits of the seatings and of this pass, the command, the game, seeds."""
    return {
        "commit": git_commit(), "commits": commits(seatings), "command": command_line(), "seed": setting.seed,
        "n_envs": min(setting.n_envs, setting.episodes), "epsilon": setting.epsilon, "env": seatings[0].env,
    }  # fmt: skip
