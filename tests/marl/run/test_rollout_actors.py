"""Compiled rollouts of actors, and of stretches: sampled actions follow the policy, pieces are the general loop's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from attacks.missing import Missing
from marl.core.protocols import NoAttack
from marl.core.types import Clock, EpisodeBatch, Obs, core_fields
from marl.learn.actor import Actor
from marl.learn.policy import EpsilonGreedy
from marl.run import collect as whole
from marl.run import stretch
from marl.run.build import build
from marl.run.rollout import compiled_form
from marl.run.stretch import Stretches
from tests.marl.run.test_rollout import GAMES, B, agent_of, fields_of, play, require_same
from tests.marl.run.test_stretch import GAMES as STRETCHED
from tests.marl.run.test_stretch import NOBODY, TINY
from tests.support.builders import make_victim
from tests.support.grid_games import spread
from tests.support.helpers import compose_train, differences


def actor(spec: Any, act: Any = "sample", **options: Any) -> Actor:
    return Actor(make_victim(spec, **options).agent, act, "intended")


@pytest.mark.parametrize("game", ["spread", "skirmish"])
def test_greedy_actors_play_as_in_the_general_loop_bit_for_bit(game: str) -> None:
    here, there = (GAMES[game](n_envs=B, seed=4) for _ in range(2))
    team = actor(here.spec, "greedy", scale=3.0)
    assert compiled_form(here, team, NoAttack(here.spec, "cpu"), fields_of(here), False) is not None
    require_same(play(there, team, compiled=False), play(here, team))


@pytest.mark.parametrize(("act", "explore"), [("sample", False), ("greedy", True)])
def test_actions_are_drawn_by_the_softmax_of_what_is_available(act: str, explore: bool) -> None:
    """All weights are zero, the biases are logarithms: of 5 actions, that of weight 0 never, the others in the ratio
    1 : 2 : 4 : 8 of 15 (9,600 choices: four standard deviations are at most 0.021)."""
    env = spread(n_envs=80, seed=4)
    bias = torch.tensor([1.0, 2.0, 4.0, 8.0, 1e-30]).log().tolist()
    chosen = play(env, actor(env.spec, act, bias=bias, scale=0.0), explore=explore).intended[:, :-1].flatten().long()
    share = chosen.bincount(minlength=5) / len(chosen)
    assert len(chosen) == 80 * 30 * 4 and share[4] == 0
    assert share[:4].tolist() == pytest.approx([1 / 15, 2 / 15, 4 / 15, 8 / 15], abs=0.021)


def test_what_is_not_available_is_never_drawn() -> None:
    """In a battle most actions are not, among them this team's likeliest: doing nothing, which only the dead may."""
    env = GAMES["skirmish"](n_envs=B, seed=4)
    likeliest = [50.0] + [0.0] * (env.spec.n_actions - 1)
    batch = play(env, actor(env.spec, bias=likeliest, scale=0.0), explore=True)
    taken = batch.avail.gather(-1, batch.intended.long()[..., None])[..., 0]
    assert taken[batch.filled].all() and len(batch.intended[batch.filled].unique()) > 4


def test_draws_go_on_and_depend_on_the_generator_alone() -> None:
    def drawn(gen: Generator) -> Tensor:
        env = spread(n_envs=B, seed=4)
        return play(env, actor(env.spec), explore=True, policy_gen=gen).intended

    gen = Generator().manual_seed(1)
    one, two = drawn(gen), drawn(gen)
    assert torch.equal(one, drawn(Generator().manual_seed(1))) and not torch.equal(one, two)


class Shy(Actor):
    """Acts otherwise than its parent, of which it inherits everything else."""

    def act(self, obs: Obs, carry: Any, *, explore: bool, gen: Any) -> tuple[Tensor, Any, dict[str, Tensor]]:
        return torch.zeros_like(carry["last"]), carry, {}


def test_an_actor_of_another_class_plays_in_the_general_loop() -> None:
    env = spread(n_envs=B, seed=4)
    shy = Shy(agent_of(env.spec), "sample", "intended")
    assert compiled_form(env, shy, NoAttack(env.spec, "cpu"), fields_of(env), True) is None
    assert not play(env, shy, explore=True).intended.any()


# ------------------------------------------------------------------------------------------------ stretches


def parts_of(name: str, folder: Path, *more: str) -> tuple[Any, Stretches]:
    parts = build(compose_train(folder, "algo=ippo", *STRETCHED[name], *TINY, *more), 6)
    fields = parts.fields | {"obs_seen": core_fields(parts.spec)["obs"]}
    return parts, Stretches(parts.env, parts.attack, fields, 5, parts.device)


def rows_of(batch: EpisodeBatch) -> list[tuple[bytes, ...]]:
    """Return the pieces in an order that depends on what is in them; what comes behind a piece is zero."""
    slots = torch.arange(batch.horizon + 1)
    kept = {}
    for name, field in batch.fields.items():
        value = batch[name].clone()
        if field.per == "step":
            seen = name in ("obs", "state", "avail", "alive", "obs_seen")
            value[slots >= batch.length.long()[:, None] + seen] = 0
        kept[name] = value
    return sorted(tuple(value[k].numpy().tobytes() for value in kept.values()) for k in range(len(batch)))


@pytest.mark.parametrize("name", [name for name in STRETCHED if name not in ("corridor", "chain", "shifting")])
def test_stretches_equal_the_general_loop_bit_for_bit(name: str, tmp_path: Path) -> None:
    """With a team that does not explore. What is carried from one stretch to the next is the same as well."""
    (here, rolled), (there, stepped) = (parts_of(name, tmp_path) for _ in range(2))
    team = make_victim(here.spec, scale=3.0)
    compiled = compiled_form(here.env, team, here.attack, rolled.fields, True) is not None
    assert compiled == (name not in ("blocked", "posts")), "a wrapper, and a game in torch, have no compiled form"
    for _ in range(7):
        one = stepped.collect(team, NOBODY, Generator(), Generator(), compiled=False)
        two = rolled.collect(team, NOBODY, Generator(), Generator())
        assert rows_of(one) == rows_of(two) and int(two.filled.sum()) == 6 * 5
        for result in ("return", "length", "won"):
            assert stepped.ended[result].sort().values.tolist() == pytest.approx(
                rolled.ended[result].sort().values.tolist()
            )
        for value in ("h", "last"):
            assert torch.equal(stepped.carry[value], rolled.carry[value]), value
        assert torch.equal(stepped.seen, rolled.seen)
    assert differences(here.env.midway_state(), there.env.midway_state()) == []


def test_stretches_that_nobody_attacks_are_compiled_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, stretches = parts_of("spread", tmp_path)
    policy, calls = parts.algo.policy(Clock()), []
    monkeypatch.setattr(stretch, "roll_on", lambda *args, whole=stretch.roll_on: calls.append(1) or whole(*args))
    given = (NOBODY, Generator(), Generator())
    stretches.collect(policy, *given)
    assert len(calls) == 1, "in which no episode ends"
    stretches.collect(policy, *given, compiled=False)
    attacked = Missing(parts.spec, "cpu", agents=1, mode="idle", budget=5, budget_unit="agent_action")
    Stretches(parts.env, attacked, parts.fields, 5, parts.device).collect(policy, ~NOBODY, *given[1:])
    assert len(calls) == 1


def test_a_stretch_of_a_team_that_explores_is_another_each_time(tmp_path: Path) -> None:
    """Every lane has a stream of its own in every call, also after an episode has ended within the stretch."""
    parts, stretches = parts_of("spread", tmp_path, "env.episode_limit=3")
    team = EpsilonGreedy(agent_of(parts.spec), make_victim(parts.spec).mixer, 1.0, "intended")
    gen = Generator().manual_seed(0)
    found = []
    for _ in range(3):  # the next stretch is stored in the same memory
        batch = stretches.collect(team, NOBODY, gen, Generator())
        found.append(batch.intended[batch.length > 1, :2])
    moves = torch.cat(found)
    assert len(moves) > 3 * 6 and len({tuple(row.flatten().tolist()) for row in moves}) == len(moves)


def test_whoever_watches_a_collection_of_actors_gets_the_general_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    env, seen = spread(n_envs=B, seed=4), []
    monkeypatch.setattr(whole, "roll", lambda *_, **__: pytest.fail("was compiled"))
    batch = play(env, actor(env.spec), watch=lambda moment: seen.append(moment.t))
    assert seen == list(range(batch.horizon)) and batch.horizon == 30
