"""Compiled rollouts of lineups: every agent is played by its own policy, remembers what that policy would, and is as
random as it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from algos.sbc.policies import ActorEgoLineup, EgoLineup, NoisyPolicy, PartnerPolicy, ReadingPolicy
from algos.sbc.roles import with_blocked_set
from attacks.random import RandomActions
from attacks.single import SingleAgent
from marl.core.protocols import NoAttack, Policy
from marl.core.types import Clock, EpisodeBatch, Field
from marl.learn.actor import Actor
from marl.learn.lineup import Lineup
from marl.learn.policy import EpsilonGreedy
from marl.learn.scripted import Idle, RandomPlay
from marl.measure.crossplay import Slipping
from marl.run.build import build
from marl.run.rollout import compiled_form
from marl.run.stretch import Stretches
from tests.marl.run.test_rollout import BUDGET, GAMES, B, fields_of, play, require_same
from tests.marl.run.test_rollout_actors import parts_of, rows_of
from tests.marl.run.test_stretch import NOBODY, TINY
from tests.support.builders import make_victim
from tests.support.grid_games import spread
from tests.support.helpers import compose_train, differences, make_learner

Assign = Callable[[int, Generator], Tensor]


def drawn(policies: int, n: int) -> Assign:
    return lambda n_envs, gen: torch.randint(policies, (n_envs, n), generator=gen)


def with_assign(env: Any, **more: Field) -> dict[str, Field]:
    return fields_of(env) | {"assign": Field((env.spec.n_agents,), torch.int64, "episode"), **more}


def is_compiled(env: Any, team: Policy, explore: bool = False, attack: Any = None) -> bool:
    harm = NoAttack(env.spec, "cpu") if attack is None else attack
    return compiled_form(env, team, harm, with_assign(env), explore) is not None


def three_teams(spec: Any) -> list[EpsilonGreedy]:
    """Return teams whose networks differ in weights, in number and in their inputs."""
    options: list[dict[str, Any]] = [{}, {"share_parameters": False, "last_action": False}, {"agent_id": False}]
    return [make_victim(spec, seed=k, scale=3.0, **given) for k, given in enumerate(options)]


def blocks(n: int, C: int) -> Assign:
    return lambda n_envs, gen: torch.rand(n_envs, n, C, generator=gen) < 0.4


def require_both_ways(make: Callable[[], Any], team: Policy, explore: bool = False, **more: Field) -> EpisodeBatch:
    """Play ``team`` in the general loop and compiled, require the same episodes, and return them."""
    here, there = make(), make()
    assert is_compiled(here, team, explore)
    for _ in range(2):
        found = play(here, team, fields=with_assign(here, **more), explore=explore)
        require_same(play(there, team, fields=with_assign(here, **more), explore=explore, compiled=False), found)
    return found


@pytest.mark.parametrize("game", ["spread", "skirmish", "overcooked"])
def test_each_agent_is_played_by_its_own_policy_bit_for_bit(game: str) -> None:
    env = GAMES[game](n_envs=B, seed=4)
    batch = require_both_ways(
        lambda: GAMES[game](n_envs=B, seed=4), Lineup(three_teams(env.spec), drawn(3, env.spec.n_agents))
    )
    assert len(batch["assign"].unique()) == 3


def test_an_ego_plays_alone_in_tests_and_with_partners_otherwise() -> None:
    env = spread(n_envs=B, seed=4)
    teams = three_teams(env.spec)
    team = EgoLineup(teams, drawn(3, env.spec.n_agents))
    assert not require_both_ways(lambda: spread(n_envs=B, seed=4), team)["assign"].any()
    with_partners = require_both_ways(lambda: spread(n_envs=B, seed=4), team, explore=True)
    assert len(with_partners["assign"].unique()) == 3
    inside = Lineup([teams[2], team], drawn(2, env.spec.n_agents))
    assert len(require_both_ways(lambda: spread(n_envs=B, seed=4), inside)["assign"].unique()) == 2


def reader(env: Any, kind: str, C: int = 3) -> Any:
    """Return a greedy partner that reads blocked sets of ``C`` features."""
    n, told = env.spec.n_agents, with_blocked_set(env.spec, C)
    if kind == "values":
        return PartnerPolicy(make_learner(told, make_victim(told).mixer), blocks(n, C), 0.0, [0.0])
    return ReadingPolicy(Actor(make_victim(told, seed=9, scale=3.0).agent, "greedy", "intended"), blocks(n, C))


@pytest.mark.parametrize("kind", ["values", "actors"])
def test_a_partner_is_told_its_blocked_set(kind: str) -> None:
    """Greedy, beside an ego that is told nothing and in every seat; the first layer is summed in another order, and
    no choice here is so close that this would matter."""
    env = spread(n_envs=B, seed=4)
    n, partner = env.spec.n_agents, reader(env, kind)
    blocked = {"blocked": Field((n, 3), torch.bool, "episode")}
    beside = Lineup([make_victim(env.spec, scale=3.0), partner], drawn(2, n))
    batch = require_both_ways(lambda: spread(n_envs=B, seed=4), beside, **blocked)
    there = (batch["assign"] == 1).any(1)
    assert batch["blocked"][there].any() and not batch["blocked"][~there].any()
    require_both_ways(lambda: spread(n_envs=B, seed=4), partner, **blocked)
    silent = reader(env, kind)
    silent.draw = lambda n_envs, gen: torch.zeros(n_envs, n, 3, dtype=torch.bool)
    quiet, told = (play(spread(n_envs=B, seed=4), one) for one in (silent, partner))
    assert kind == "values" or not torch.equal(quiet.intended, told.intended), "and the set changes what it does"


# ------------------------------------------------------------------------------------------------ chance


def shares(team: Policy, seat: int, explore: bool = False) -> list[float]:
    """Return how often agent ``seat`` chose each of 5 actions in 80 games of 30 steps."""
    env = spread(n_envs=80, seed=4)
    assert is_compiled(env, team, explore)
    chosen = play(env, team, explore=explore).intended[:, :-1, seat].flatten().long()
    return (chosen.bincount(minlength=5) / len(chosen)).tolist()


def test_every_agent_is_as_random_as_its_own_policy() -> None:
    """Agent 0 plays its best action, the last; agent 1 that with 1 - 0.5 + 0.5 / 5 = 0.6, since its policy slips; agent
    2 plays at random; agent 3 samples from 1 : 2 : 4 : 8 : 0. Of 2,400 choices four standard deviations are 0.041."""
    spec, weights = spread(n_envs=1).spec, torch.tensor([1.0, 2.0, 4.0, 8.0, 1e-30])
    best = make_victim(spec, bias=[0.0, 0, 0, 0, 9.0], scale=0.0)
    sampling = Actor(make_victim(spec, bias=weights.log().tolist(), scale=0.0).agent, "sample", "intended")
    players = [best, NoisyPolicy(best, [0.5]), NoisyPolicy(RandomPlay(spec, "cpu"), [0.1]), sampling]
    team = Lineup(players, lambda n_envs, gen: torch.arange(4).expand(n_envs, 4))
    assert shares(team, 0) == [0.0, 0.0, 0.0, 0.0, 1.0]
    assert shares(team, 1) == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.6], abs=0.041)
    assert shares(team, 2) == pytest.approx([0.2] * 5, abs=0.041)
    assert shares(team, 3) == pytest.approx([1 / 15, 2 / 15, 4 / 15, 8 / 15, 0.0], abs=0.041)
    slips = Slipping(team, 0.5)
    assert shares(slips, 0) == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.6], abs=0.041)
    assert shares(slips, 1) == pytest.approx([0.15, 0.15, 0.15, 0.15, 0.4], abs=0.041), "1 - 0.5 x 0.5 = 0.75 random"


def test_a_partner_explores_as_its_episode_says() -> None:
    """Its floors are 0 and 1: half of the lanes play the best action in every step, the others at random."""
    env = spread(n_envs=80, seed=4)
    told = with_blocked_set(env.spec, 2)
    learner = make_learner(told, make_victim(told).mixer)
    with torch.no_grad():
        for p in learner.agent.parameters():
            p.zero_()
        learner.agent.fc_out.bias.copy_(torch.tensor([0.0, 0, 0, 0, 9.0]))
    partner = PartnerPolicy(learner, blocks(4, 2), 0.0, [0.0, 1.0])
    batch = play(env, partner, explore=True)
    best = (batch.intended[:, :-1] == 4).flatten(1).float().mean(1)  # of 120 choices a lane
    greedy = best == 1.0
    assert 25 < int(greedy.sum()) < 55 and best[~greedy].mean().item() == pytest.approx(0.2, abs=0.03)
    assert (play(env, partner).intended[:, :-1] == 4).all(), "and not in tests"


# ------------------------------------------------------------------------------------------------ stretches


def test_stretches_of_a_lineup_equal_the_general_loop_bit_for_bit(tmp_path: Path) -> None:
    """Seven stretches of 5 steps over episodes of 12: what every policy remembers of its own agents goes on."""
    (here, rolled), (there, stepped) = (parts_of("spread", tmp_path) for _ in range(2))
    n = here.spec.n_agents
    team = Lineup(three_teams(here.spec), lambda n_envs, gen: (torch.arange(n_envs * n) % 3).view(n_envs, n))
    for one in (rolled, stepped):
        one.fields = one.fields | {"assign": Field((n,), torch.int64, "episode")}
    for _ in range(7):
        one = stepped.collect(team, NOBODY, Generator(), Generator(), compiled=False)
        two = rolled.collect(team, NOBODY, Generator(), Generator())
        for batch in (one, two):  # memories of agents that a policy does not play are nobody's
            for k in range(3):
                batch[f"begin_{k}.h"][batch["assign"] != k] = 0
        assert rows_of(one) == rows_of(two) and int(two.filled.sum()) == 6 * 5
        for k in range(3):
            own = rolled.carry["assign"] == k
            assert torch.equal(stepped.carry[f"{k}.h"][own], rolled.carry[f"{k}.h"][own]) and own.any()
            assert torch.equal(stepped.carry[f"{k}.last"], rolled.carry[f"{k}.last"])
    assert rolled.carry["0.h"].any()
    assert differences(here.env.midway_state(), there.env.midway_state()) == []


METHODS = ["sbc", "e3t", "hsp_partners", "mep_partners"]


@pytest.mark.parametrize("base", ["", "ippo/"])
@pytest.mark.parametrize("method", METHODS)
def test_coordination_methods_roll(method: str, base: str, tmp_path: Path) -> None:
    """On values whole episodes; on actors stretches, whose pieces hold the same fields as those of the general loop."""
    game = ["env=overcooked/cramped_room", "env.episode_limit=13", "log.to=[]", "algo.agent.hidden_dim=8"]
    if method in ("sbc",):
        game += ["algo.sets.family=cells"]
    if base:
        game += [*TINY, "agent@algo.agent=mlp", "algo.agent.last_action=false"]
    parts = build(compose_train(tmp_path, f"algo={base}{method}", *game), 6)
    team = parts.algo.policy(Clock())
    for explore in (True, False):
        assert compiled_form(parts.env, team, parts.attack, parts.fields, explore) is not None
    if not base:
        return
    stretches = Stretches(parts.env, parts.attack, parts.fields, 5, parts.device)
    for compiled in (True, False, True):
        batch = stretches.collect(team, NOBODY, Generator(), Generator(), compiled=compiled)
        assert int(batch.filled.sum()) == 6 * 5 and ("blocked" in batch) == (method == "sbc")
        assert len(batch["assign"].unique()) > 1
        if method == "sbc":
            assert not batch["blocked"][(batch["assign"] == 0).all(1)].any()


# ------------------------------------------------------------------------------------------------ who can


class Shy(Lineup):
    """A lineup of another class, which may act otherwise."""


def test_only_lineups_of_compiled_policies_with_like_networks_roll() -> None:
    env = spread(n_envs=B, seed=4)
    spec, seats = env.spec, drawn(2, env.spec.n_agents)
    one, two = three_teams(spec)[:2]
    sees_executed = make_victim(spec, act_on="executed")
    assert is_compiled(env, Lineup([one, two], seats))
    assert is_compiled(env, Lineup([one, two], seats), attack=RandomActions(spec, "cpu", p=0.5, **BUDGET))
    assert is_compiled(env, ActorEgoLineup(one, [two], seats), explore=True)
    assert not is_compiled(env, Shy([one, two], seats))
    assert not is_compiled(env, Lineup([one, make_victim(spec, hidden_dim=5)], seats)), "layers differ"
    assert not is_compiled(env, Lineup([one, sees_executed], seats))
    assert not is_compiled(env, Lineup([one, Idle(spec, "cpu")], seats))
    assert not is_compiled(env, Lineup([RandomPlay(spec, "cpu")] * 2, seats)), "nobody has a network"
    assert not is_compiled(env, RandomPlay(spec, "cpu"))
    assert not is_compiled(env, Slipping(RandomPlay(spec, "cpu"), 0.1))
    single = SingleAgent(spec, "cpu", start_p=0.5, duration=2, **BUDGET)
    assert is_compiled(env, one, attack=single)
    assert not is_compiled(env, Lineup([one, two], seats), attack=single), "it reads the values of one policy"
