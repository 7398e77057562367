"""Cross-play: seats divided between two trained teams, or between a team and partners that nobody was trained with.

A *pair* is a player in one seat and another in all the others, for every choice of that seat; a *seating* is one such
assignment, and is what is measured and kept. With two agents the pairs (A, B) and (B, A) share their seatings.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Generator, Tensor

from marl.core.checks import require_share
from marl.core.config import plain
from marl.core.protocols import NoAttack, Policy
from marl.core.rolling import Acting, changed, declared
from marl.core.seeding import Streams, derive
from marl.core.types import Carry, ConfigError, Obs, core_fields
from marl.learn.lineup import Lineup
from marl.learn.policy import mix_random
from marl.measure import matrix
from marl.measure.beforehand import Games, check_partners, check_players, game_spec
from marl.measure.crossplay_scores import Cell, CrossMatrix, Sheet, find_limits, methods, score_pair
from marl.measure.entrants import Entrant, Tree, acting, from_runs, same_game
from marl.measure.matrix import Episodes, Tell, content_key, digest, physics_of
from marl.measure.networks import refuse_twins, same_team
from marl.measure.partners import Partner, read_populations
from marl.run.build import make_env, use_threads
from marl.run.evaluate import evaluate
from marl.run.teams import load_policy


@dataclass(frozen=True)
class Setting(matrix.Setting):
    """``epsilon``: the probability with which any agent plays a random action instead of its own."""

    epsilon: float


@dataclass(frozen=True)
class Seating:
    """Different players, which of them has each seat, and the file that keeps their episodes."""

    title: str
    key: str
    path: Path
    opens: tuple[Tree, ...]  # in an order that does not depend on which is the row and which the column
    assign: tuple[int, ...]
    env: Tree
    setting: Setting
    needs: None = None
    why: None = None

    def about(self) -> Tree:
        return {"seed": self.setting.seed, "n": self.setting.episodes, "seats": self.assign, "players": self.opens}

    def play(self, tell: Tell) -> Episodes:
        """Return per-episode values; episode k has the same start in every seating. Raise ConfigError where a player
        does not fit the game."""
        setting, episodes = self.setting, self.setting.episodes
        use_threads(setting.threads)
        device, n_envs = torch.device(setting.device), setting.lanes
        streams = Streams(setting.seed, device)
        env = make_env(OmegaConf.create({"env": self.env}), n_envs, streams.env_seed("eval"))
        with closing(env):
            players = [load_policy(opens, env.spec, device, streams) for opens in self.opens]
            assign = torch.tensor(self.assign, device=device).expand(n_envs, -1)  # [B, n]
            team: Policy = Lineup(players, assign)
            team = Slipping(team, setting.epsilon) if setting.epsilon else team
            results = evaluate(
                env, team, NoAttack(env.spec, device), core_fields(env.spec), episodes=episodes,
                policy_gen=streams["eval"], attack_gen=streams["eval_attack"], device=device,
                on_round=lambda done: tell(done / episodes), seed=derive(setting.seed, "crossplay"),
            )  # fmt: skip
        return {name: results[name].tolist() for name in ("return", "won", "length")}


class Slipping:
    """A policy whose agents each play a random available action with probability ``epsilon``."""

    def __init__(self, policy: Policy, epsilon: float) -> None:
        self.policy, self.epsilon = policy, epsilon
        self.begin, self.after = policy.begin, policy.after

    def compiled(self, explore: bool) -> Acting | None:
        form = declared(self.policy, "compiled", explore)
        return changed(form, lambda seats, carry: seats.noisier(self.epsilon))

    def act(self, obs: Obs, carry: Carry, *, explore: bool, gen: Generator) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        actions, carry, extras = self.policy.act(obs, carry, explore=explore, gen=gen)
        return mix_random(actions, obs.avail, self.epsilon, gen), carry, extras


def seat(players: Sequence[Entrant], setting: Setting) -> Seating:
    """Return the seating in which ``players[i]`` has seat i; all must play the same game."""
    by_content = {digest(player.content): player for player in players}
    keys, env = sorted(by_content), players[0].env
    assign = tuple(keys.index(digest(player.content)) for player in players)
    document = {
        "players": keys, "assign": assign, "env": env, "episodes": setting.episodes,
        "n_envs": setting.lanes, "seed": setting.seed, "epsilon": setting.epsilon,
    }  # fmt: skip
    key = content_key(document)
    names = " | ".join(player.who for player in players)
    opens = tuple(by_content[one].opens for one in keys)
    return Seating(names, key, setting.out / "cells" / f"{key}.json", opens, assign, env, setting)


def pair_up(one: Entrant, others: Entrant, n_agents: int, setting: Setting) -> list[Seating]:
    """Return the seatings of a pair, by the seat of ``one``; a player paired with itself needs only one."""
    if same_team(one, others):
        return [seat([one] * n_agents, setting)]
    return [seat([one if i == own else others for i in range(n_agents)], setting) for own in range(n_agents)]


@dataclass(frozen=True)
class Plan:
    """The seatings of every pair (None: not asked for), and of every partner with its best responses."""

    pairs: list[list[list[Seating] | None]]  # [rows, rows + partners]
    answers: list[list[list[Seating]]]  # [partners, responses]

    def every(self) -> list[Seating]:
        return [
            *(seating for row in self.pairs for pair in row if pair for seating in pair),
            *(seating for found in self.answers for pair in found for seating in pair),
        ]


def find_rows(cfg: DictConfig, env_name: str | None) -> list[Entrant]:
    """Return the runs that ``cfg.runs`` names, all in one game: that of ``cfg.env`` (``env_name``), where given."""
    env = plain(cfg.env)
    rows = acting(
        from_runs(plain(cfg.runs), env, str(env_name).replace("/", "-") if env is not None else None), cfg.act
    )
    for entrant in rows:
        if not same_game(entrant.env, rows[0].env):
            raise ConfigError(f"runs play different games, {rows[0].task} and {entrant.task}; give env=NAME")
    refuse_twins(rows, "runs")
    return rows


def plan_seatings(rows: list[Entrant], partners: list[Partner], across: bool, setting: Setting) -> Plan:
    """Pair every row with itself, with every other team among the rows (``across``: also of other methods) and with
    every partner that is not itself."""
    n = game_spec(rows[0].env).n_agents

    def pairs(one: Entrant, others: list[Entrant], wanted: list[bool]) -> list[list[Seating] | None]:
        return [pair_up(one, o, n, setting) if want else None for o, want in zip(others, wanted, strict=True)]

    def asked(row: Entrant, other: Entrant) -> bool:
        return across or row.label == other.label

    strangers = [partner.entrant for partner in partners]
    plan = [
        pairs(row, rows, [row is other or (asked(row, other) and not same_team(row, other)) for other in rows])
        + pairs(row, strangers, [not same_team(row, partner) for partner in strangers])
        for row in rows
    ]
    return Plan(plan, [[pair_up(response, p.entrant, n, setting) for response in p.responses] for p in partners])


def run(cfg: DictConfig, env_name: str | None) -> CrossMatrix:
    """Measure what is still missing of the matrix that ``cfg`` (conf/crossplay.yaml) describes, and score it.

    ``env_name`` is the name of the configuration ``cfg.env``. Raise ConfigError for bad options, before anything is
    measured.
    """
    options = matrix.read_options(cfg)
    require_share("", epsilon=cfg.epsilon)
    setting = Setting(**options, epsilon=cfg.epsilon)
    rows, games = find_rows(cfg, env_name), Games()
    partners = read_populations(plain(cfg.partners), rows[0].env, rows[0].task)
    if cfg.env is not None:
        check_players(rows, games, "env")
    check_partners(partners, games)
    plan = plan_seatings(rows, partners, cfg.across, setting)
    every = plan.every()
    outcome = matrix.measure(every, cfg.jobs)

    def score(pair: list[Seating] | None) -> Cell:
        if pair is None:
            return None
        return score_pair([matrix.read_cell(seating, outcome) for seating in pair], cfg.metric)

    cells = [[score(pair) for pair in row] for row in plan.pairs]
    reached = [[score(pair) for pair in found] for found in plan.answers]
    sheet = Sheet(cfg.metric, rows, partners, cells, find_limits(rows, partners, cells, reached))
    about = matrix.provenance(every, setting) | {
        "epsilon": setting.epsilon, "env": every[0].env, "physics": physics_of(every[0].env)
    }  # fmt: skip
    return CrossMatrix(sheet, methods(sheet), rows[0].task, cfg.episodes, outcome.complete, about)
