"""Checks before anything is measured: players that do not fit their game, attacks that fit no game."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing

import torch
from omegaconf import DictConfig, OmegaConf

from marl.core.protocols import Attack
from marl.core.seeding import Streams
from marl.core.types import ConfigError, EnvSpec
from marl.measure.entrants import Entrant, Tree, same_game
from marl.measure.partners import Partner
from marl.run.build import call, factory, make_env
from marl.run.renames import NEUTRAL
from marl.run.teams import load_policy, with_options

CPU = torch.device("cpu")
ANY_GAME = EnvSpec(  # a game that has whatever an attack may need
    8, 8, 16, 16, 20, torch.full((16,), -1.0), torch.full((16,), 1.0), noop_action=0, idle_action=1,
    about=torch.ones(8, 8, 16, dtype=torch.bool),
)  # fmt: skip


def game_spec(env: Tree) -> EnvSpec:
    """Return the sizes of the game, which is built just for that."""
    with closing(make_env(OmegaConf.create({"env": env}), 1, 0)) as made:
        return made.spec


class Games:
    """The sizes of games, each built once."""

    def __init__(self) -> None:
        self._known: list[tuple[Tree, EnvSpec]] = []

    def spec(self, env: Tree) -> EnvSpec:
        """Return the sizes of the game ``env``. Raise ConfigError where it cannot be made."""
        for known, spec in self._known:
            if same_game(known, env):
                return spec
        self._known.append((env, game_spec(env)))
        return self._known[-1][1]


def why_not(player: Entrant, games: Games) -> str | None:
    """Return why a player cannot play its game; None where it can."""
    try:
        load_policy(player.opens, games.spec(player.env), CPU, Streams(0, CPU))
    except ConfigError as error:
        return f"{player.who} cannot play {player.task}: {error}"
    return None


def check_players(players: Iterable[Entrant], games: Games, key: str) -> None:
    """Raise ConfigError for players that do not fit the game that they are to play; ``key`` is the option that names
    them."""
    for player in players:
        if (reason := why_not(player, games)) is not None:
            raise ConfigError(f"{key}: {reason}")


def check_partners(partners: Iterable[Partner], games: Games) -> None:
    """Raise ConfigError for a population in which nobody can play the game. Where some can, the others' cells say why
    they cannot: ``partners=simple`` is for any game, and some games have no action that does nothing."""
    reasons: dict[str, list[str | None]] = {}
    for partner in partners:
        reasons.setdefault(partner.population, []).append(why_not(partner.entrant, games))
        check_players(partner.responses, games, f"partners.{partner.population}.responses")
    for population, found in reasons.items():
        if found[0] is not None and None not in found:
            raise ConfigError(f"partners.{population}: {found[0]}")


def make_attack(attack: Tree, spec: EnvSpec) -> Attack:
    """Make an attack. Raise ConfigError where its options are out of range, or the game lacks what it needs."""
    made: Attack = call(factory(DictConfig(attack), "attack"), "attack", spec, CPU)
    return made


def why_impossible(attack: Tree, changes: Tree, env: Tree, games: Games) -> str | None:
    """Return why nobody can be measured in the game ``env`` with its options ``changes`` under ``attack``; None where
    it is possible, or where only this game lacks what the column is about."""
    try:
        make_attack(attack, ANY_GAME)
    except ConfigError as error:
        try:
            make_attack(attack, games.spec(env))
        except ConfigError:
            return str(error)
    if changes and changes.keys() <= env.keys() | NEUTRAL.get(env.get("_target_", ""), {}).keys():
        try:
            game_spec(OmegaConf.to_container(with_options(DictConfig(env), changes)))  # type: ignore[arg-type]
        except ConfigError as error:
            return str(error)
    return None
