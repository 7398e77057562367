"""S2Q's behaviour: the distribution over candidates, which lanes play which head, and that tests see head 0 alone."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from scipy import stats
from torch import Tensor

from algos.s2q.nets import CandidateSoftmax, repeated
from algos.s2q.policy import Execute, S2QPolicy
from marl.core.types import Clock, EnvSpec, Obs
from marl.learn.learner import best_available
from tests.support.helpers import make_spec, random_batch
from tests.support.s2q_parts import make_s2q
from tests.support.wqmix_parts import make_base

SPEC = make_spec(n=2, A=3, limit=4)
C01, C02 = [0, 1], [0, 2]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def look(lanes: int, seed: int = 0, spec: EnvSpec = SPEC) -> Obs:
    """Make random observations in which every third action is unavailable."""
    gen = generator(seed)
    n, A = spec.n_agents, spec.n_actions
    avail = torch.rand(lanes, n, A, generator=gen) < 0.67
    avail[..., 0] = True
    obs, state = torch.randn(lanes, n, spec.obs_dim, generator=gen), torch.randn(lanes, spec.state_dim, generator=gen)
    return Obs(obs, state, avail, torch.ones(lanes, n, dtype=torch.bool))


def policy(updates: int = 3, epsilon: float = 0.0, spec: EnvSpec = SPEC, **changes: Any) -> S2QPolicy:
    algo = make_s2q(spec, epsilon=epsilon, **changes)
    for seed in range(updates):
        algo.learner.update(random_batch(spec, 6, seed))
    return algo.policy(Clock())


def play(
    team: Any, steps: int, lanes: int, explore: bool = True, seed: int = 0
) -> list[tuple[Tensor, dict[str, Tensor], Any]]:
    """Play and return (actions, extras, carry) of every step."""
    gen, told = generator(seed), []
    carry = team.begin(lanes, gen)
    for t in range(steps):
        actions, carry, extras = team.act(look(lanes, t), carry, explore=explore, gen=gen)
        told.append((actions, extras, carry))
        carry = team.after(carry, actions, actions)
    return told


# the distribution


def softmax(temperature: float = 1.0, mode: Any = "absolute", dedup: bool = False) -> CandidateSoftmax:
    return CandidateSoftmax(temperature, mode, dedup)


DISTINCT = torch.tensor([[[0, 1], [0, 2], [1, 1]]])


def test_probabilities_by_hand() -> None:
    p = softmax(0.5)(torch.tensor([[0.0, 0.5 * math.log(3), 0.5 * math.log(4)]]), DISTINCT)
    assert p[0].tolist() == pytest.approx([1 / 8, 3 / 8, 4 / 8])


def test_probabilities_at_the_limits() -> None:
    values = torch.tensor([[1.0, 3.0, 2.0]])
    assert softmax(1e-4)(values, DISTINCT)[0].tolist() == [0.0, 1.0, 0.0]
    assert softmax(1e6)(values, DISTINCT)[0].tolist() == pytest.approx([1 / 3] * 3, abs=1e-5)
    assert softmax(0.1)(torch.full((1, 3), 7.0), DISTINCT)[0].tolist() == pytest.approx([1 / 3] * 3)
    order = torch.tensor([2, 0, 1])
    assert torch.equal(softmax(0.7)(values[:, order], DISTINCT[:, order]), softmax(0.7)(values, DISTINCT)[:, order])


def test_a_repeated_candidate_counts_once_with_dedup() -> None:
    candidates, values = torch.tensor([[C01, C02, C01]]), torch.zeros(1, 3)
    assert repeated(candidates).tolist() == [[False, False, True]]
    assert softmax(dedup=True)(values, candidates)[0].tolist() == pytest.approx([0.5, 0.5, 0.0])
    assert softmax()(values, candidates)[0].tolist() == pytest.approx([1 / 3] * 3)


def test_a_relative_temperature_follows_the_deviation_of_values() -> None:
    """Two filled steps with values 0 and 10 have deviation 5; the padded step does not count."""
    relative = softmax(0.5, "relative")
    values = torch.tensor([[[0.0, 10.0], [10.0, 0.0], [900.0, 0.0]]])
    for _ in range(200):
        relative.observe(values, torch.tensor([[True, True, False]]))
    assert relative.scale.item() == pytest.approx(5.0, rel=1e-3)
    ratio = 10.0 / (0.5 * 5.0)
    assert relative(values[:, 0], DISTINCT[:, :2])[0, 1].item() == pytest.approx(1 / (1 + math.exp(-ratio)), rel=1e-3)


# which head is played


def test_unsullied_exploration_plays_one_candidate_for_the_whole_team() -> None:
    team = policy(p_mixed=1.0, temperature=10.0)
    for t, (actions, extras, carry) in enumerate(play(team, 4, 300)):
        index = extras["s2q_head"]
        assert (index[:, 0] == index[:, 1]).all() and index.unique().tolist() == [0, 1, 2], "same k in a lane only"
        candidates = recompute(team, look(300, t), carry)
        assert torch.equal(actions, candidates[torch.arange(300), index[:, 0]])


def recompute(team: S2QPolicy, obs: Obs, carry: Any) -> Tensor:
    """Compute the candidates [B, K+1, n] from the carry after the step."""
    heads = [(team.agent, carry["h"]), *((head, carry["others"][:, k]) for k, head in enumerate(team.learner.heads))]
    return torch.stack([best_available(agent.fc_out(h), obs.avail) for agent, h in heads], 1)


@pytest.mark.parametrize("execute", ["softmax", "uniform", "oracle"])
def test_heads_are_drawn_as_often_as_their_probability(execute: Any) -> None:
    """Among 10,000 lanes that see the same, the counts of the heads pass a chi-square test."""
    team, lanes = policy(execute=execute, p_mixed=1.0, temperature=2.0), 10_000
    one = look(1)
    same = Obs(*(x.expand(lanes, *x.shape[1:]) for x in (one.obs, one.state, one.avail, one.alive)))
    gen = generator()
    _, carry, extras = team.act(same, team.begin(lanes, gen), explore=True, gen=gen)
    counts = extras["s2q_head"][:, 0].bincount(minlength=3).double()
    p = torch.full((3,), 1 / 3)
    if execute == "softmax":
        p = team.learner.decoder(carry["h"][0])[1].exp()
    if execute == "oracle":
        net, candidates = team.learner.target_central, recompute(team, one, carry)[0]
        u, _ = net.agent.step(net.agent.inputs(one.obs, torch.full((1, 2), -1)), net.agent.initial(1))
        values = torch.stack([net(u[0].gather(1, joint[:, None]).T, one.state) for joint in candidates]).flatten()
        p = (values / 2.0).softmax(0)
    expected = lanes * p.detach().double() / p.sum().item()
    assert expected.min() > 0.02 * lanes, "every head must have a chance here"
    assert stats.chi2.sf(((counts - expected).square() / expected).sum().item(), df=2) > 0.01


def test_agents_draw_for_themselves_when_independent() -> None:
    team = policy(execute="independent", p_mixed=1.0, temperature=10.0)
    actions, extras, carry = play(team, 1, 2000)[0]
    index = extras["s2q_head"]
    p = team.learner.decoder(carry["h"])[1].exp()  # [B, 3]
    assert (index[:, 0] == index[:, 1]).float().mean().item() == pytest.approx(
        p.square().sum(1).mean().item(), abs=0.04
    )
    candidates = recompute(team, look(2000), carry)
    assert torch.equal(actions, candidates.gather(1, index[:, None])[:, 0])


def test_a_share_of_the_lanes_is_mixed_and_stays_so_for_the_episode() -> None:
    told = play(policy(p_mixed=0.3, temperature=1e6), 4, 4000)
    mixed = told[0][1]["s2q_mixed"]
    assert mixed.float().mean().item() == pytest.approx(0.3, abs=0.025)
    for _, extras, _ in told:
        assert torch.equal(extras["s2q_mixed"], mixed) and not extras["s2q_head"][~mixed].any()
    drawn = torch.stack([extras["s2q_head"][mixed, 0] for _, extras, _ in told], 1)
    assert (drawn != drawn[:, :1]).any(1).float().mean() > 0.8, "a new draw at every step"


@pytest.mark.parametrize("execute", get_args(Execute))
def test_before_the_first_update_and_with_head0_the_team_plays_head_0(execute: Any) -> None:
    plays = {
        updates: play(policy(updates, execute=execute, p_mixed=1.0, temperature=10.0), 3, 200) for updates in (0, 1)
    }
    for updates, told in plays.items():
        for actions, extras, _ in told:
            alone = not extras["s2q_head"].any()
            assert alone == (updates == 0 or execute == "head0")
            assert torch.equal(actions, extras["s2q_greedy"]) or not alone


def test_noise_comes_on_top_agent_by_agent() -> None:
    """Seven of ten actions are replaced by a random available one, which may be the same action."""
    team, lanes = policy(epsilon=0.7, p_mixed=1.0, temperature=10.0), 4000
    actions, extras, carry = play(team, 1, lanes)[0]
    candidates = recompute(team, look(lanes), carry)
    proposed = candidates.gather(1, extras["s2q_head"][:, None])[:, 0]
    avail = look(lanes).avail
    expected = 0.7 * (1 - 1 / avail.sum(-1).float()).mean().item()
    assert (actions != proposed).float().mean().item() == pytest.approx(expected, abs=0.02)
    assert avail.gather(-1, actions[..., None]).all()


# tests, the base learner, messages


@pytest.mark.parametrize("execute", get_args(Execute))
def test_tests_see_head_0_alone(execute: Any) -> None:
    """This holds whatever the other heads, the decoder, the draw and the seed are."""
    team = policy(execute=execute, p_mixed=1.0, temperature=10.0)
    before = [actions for actions, _, _ in play(team, 4, 50, explore=False)]
    for net in (team.learner.decoder, *team.learner.heads, *team.learner.mixers, team.learner.target_central):
        for p in net.parameters():
            p.data.normal_()
    after = [actions for actions, _, _ in play(team, 4, 50, explore=False, seed=9)]
    h, last = team.agent.initial(50), torch.full((50, 2), -1)
    for t, (a, b) in enumerate(zip(before, after, strict=True)):
        q, h = team.agent.step(team.agent.inputs(look(50, t).obs, last), h)
        last = best_available(q, look(50, t).avail)
        assert torch.equal(a, last) and torch.equal(b, last)


def test_tested_agents_do_not_hear_each_other_without_comm() -> None:
    alone, loud = policy(), policy(comm=True)
    for team, hears in ((alone, False), (loud, True)):
        first = look(400)
        other = Obs(first.obs.clone(), first.state, first.avail, first.alive)
        other.obs[:, 1] += 5.0  # agent 1 sees something else
        chosen = []
        for obs in (first, other):
            carry = team.begin(400, generator())
            for _ in range(2):  # messages arrive one step later
                _, carry, _ = team.act(obs, carry, explore=False, gen=generator())
            chosen.append(carry["h"][:, 0])
        assert torch.equal(*chosen) != hears


@pytest.mark.parametrize("epsilon", [0.0, 0.4])
def test_without_sub_values_actions_are_the_base_learners(epsilon: float) -> None:
    base = play(make_base(SPEC, epsilon=epsilon).policy(Clock()), 4, 60)
    s2q = play(make_s2q(SPEC, epsilon=epsilon, K=0).policy(Clock()), 4, 60)
    assert all(torch.equal(a[0], b[0]) and b[1] == {} for a, b in zip(base, s2q, strict=True))


def test_the_number_of_heads_does_not_move_the_exploration_noise() -> None:
    plays = [play(make_s2q(SPEC, epsilon=0.4, K=k, execute="head0").policy(Clock()), 4, 60) for k in (0, 1, 3)]
    for other in plays[1:]:
        assert all(torch.equal(a[0], b[0]) for a, b in zip(plays[0], other, strict=True))


def test_messages_while_acting_are_those_that_the_learner_recomputes() -> None:
    """Act, store, learn: head 0's hidden states agree step by step."""
    team, batch = policy(comm=True), random_batch(SPEC, 6)
    batch.data["length"][:] = SPEC.episode_limit
    fwd = team.learner.forward(batch)
    carry = team.begin(6, generator())
    for t in range(SPEC.episode_limit):
        obs = Obs(batch.obs[:, t], batch.state[:, t], batch.avail[:, t], batch.alive[:, t])
        _, carry, _ = team.act(obs, carry, explore=True, gen=generator())
        assert (carry["h"] - fwd.h[:, t]).abs().max() < 1e-5
        carry = team.after(carry, batch.actions[:, t].long(), batch.actions[:, t].long())


def test_attacks_see_head_0() -> None:
    team, obs = policy(), look(5)
    carry = team.begin(5, generator())
    q, _ = team.agent.step(team.agent.inputs(obs.obs, carry["last"]), carry["h"])
    assert torch.equal(team.q_values(obs.obs, carry), q)
    assert torch.allclose(team.q_with(team.params(), obs.obs, carry), q, atol=1e-6)
