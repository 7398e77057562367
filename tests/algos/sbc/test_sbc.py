"""SBC by hand: which values are fitted to which reward, who sees blocked sets, who acts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from algos.sbc.algorithm import Penalty
from algos.sbc.policies import NoisyPolicy, PartnerPolicy, ValueEgoLineup
from algos.sbc.roles import PARTNER, draw_partners, with_blocked_set
from marl.core.types import Obs
from marl.learn.learner import ValueLearner, gather_actions
from marl.learn.mixers import VDN, NoMixer
from marl.learn.policy import EpsilonGreedy
from tests.support.helpers import LEARNER, differences, make_agent
from tests.support.sbc_parts import MASK, blocking_spec, changed, make_sets, role_batch, role_learner

SPEC = blocking_spec()


# roles


@pytest.mark.parametrize(("name", "mixer"), [("vdn", VDN), ("iql", NoMixer)])
def test_a_team_of_egos_is_the_plain_learner_bit_for_bit(name: str, mixer: Any) -> None:
    ours = role_learner(SPEC, name)
    torch.manual_seed(3)
    plain = ValueLearner(SPEC, make_agent(SPEC), mixer(SPEC), [], **LEARNER)
    for k in range(3):
        batch = role_batch(SPEC, 6, seed=k)
        batch = changed(batch, assign=torch.zeros_like(batch.assign))
        ours.update(batch), plain.update(batch)
    assert differences(ours.state_dict(), plain.state_dict()) == []
    ours.update(role_batch(SPEC, 6))  # with partners it is not
    plain.update(role_batch(SPEC, 6))
    assert differences(ours.state_dict()["agent"], plain.state_dict()["agent"])


@pytest.mark.parametrize("name", ["vdn", "iql"])
def test_the_loss_is_that_of_the_roles_own_agents(name: str) -> None:
    learner, batch = role_learner(SPEC, name), role_batch(SPEC, 6)
    fwd = learner.forward(batch)
    target = torch.randn(6, batch.horizon, learner.mixer.outputs, generator=torch.Generator().manual_seed(1))
    loss = learner.losses(batch, fwd, target)[0]["td"]
    q = gather_actions(fwd.q[:, :-1], batch.actions.long()[:, :-1])
    squares, count = 0.0, 0
    for b in range(6):
        egos = [i for i in range(3) if batch.assign[b, i] == 0]
        for t in range(int(batch.length[b])):
            if name == "vdn" and egos:
                squares, count = squares + float(q[b, t, egos].detach().sum() - target[b, t, 0]) ** 2, count + 1
            if name == "iql":
                squares += sum(float(q[b, t, i].detach() - target[b, t, i]) ** 2 for i in egos)
                count += len(egos)
    assert float(loss.detach()) == pytest.approx(squares / count, rel=1e-5)


@pytest.mark.parametrize("name", ["vdn", "iql", "qmix"])
def test_agents_of_the_other_role_get_no_gradient(name: str) -> None:
    learner, batch = role_learner(SPEC, name, share_parameters=False), role_batch(SPEC, 6)
    batch = changed(batch, assign=torch.tensor([[0, 1, 0]]).expand(6, 3).clone())
    fwd = learner.forward(batch)
    learner.losses(batch, fwd, torch.zeros(6, batch.horizon, 1))[0]["td"].backward()
    moved = [sum(float(p.grad.abs().sum()) for p in gru.parameters()) for gru in learner.agent.gru]
    assert moved[0] > 0 and moved[1] == 0 and moved[2] > 0
    # nor do its values reach the target
    other = batch.obs.clone()
    other[:, :, 1] += 1.0
    again = learner.forward(changed(batch, obs=other)).target_v
    assert torch.equal(again if name != "iql" else again[..., [0, 2]],
                       fwd.target_v if name != "iql" else fwd.target_v[..., [0, 2]])  # fmt: skip


def test_agents_within_a_role_may_change_places() -> None:
    learner, batch = role_learner(SPEC, agent_id=False), role_batch(SPEC, 6)
    batch = changed(batch, assign=torch.tensor([[0, 1, 0]]).expand(6, 3).clone())
    swap = [2, 1, 0]
    swapped = changed(batch, **{k: batch[k][:, :, swap] for k in ("obs", "avail", "actions", "intended")})
    zero = torch.zeros(6, batch.horizon, 1)
    one, two = (learner.losses(b, learner.forward(b), zero)[0]["td"].detach() for b in (batch, swapped))
    assert float(one) == pytest.approx(float(two), rel=1e-5)
    mixed = changed(batch, **{k: batch[k][:, :, [1, 0, 2]] for k in ("obs", "avail", "actions", "intended")})
    other = learner.losses(mixed, learner.forward(mixed), zero)[0]["td"].detach()
    assert abs(float(one) - float(other)) > 1e-4, "between roles they may not"


def test_without_partners_nothing_is_learnt_from_them() -> None:
    learner, batch = role_learner(SPEC), role_batch(SPEC, 6)
    learner.plays = PARTNER
    learner.update(batch)  # Adam has momentum now
    before = {name: p.clone() for name, p in learner.agent.state_dict().items()}
    assert learner.update(changed(batch, assign=torch.zeros_like(batch.assign))) == {}
    assert differences(before, learner.agent.state_dict()) == []


def test_episodes_without_the_role_do_not_count() -> None:
    batch = role_batch(SPEC, 8)
    there = (batch.assign == PARTNER).any(1)
    assert not there.all()
    states = []
    for given in (batch, batch.lanes(there)):
        learner = role_learner(SPEC)
        learner.plays = PARTNER
        learner.update(given)
        states.append(learner.state_dict())
    assert differences(*states) == []


# the penalty


def test_the_penalty_is_the_share_of_partners_on_their_own_blocked_features() -> None:
    batch, sets = role_batch(SPEC, 3), make_sets(SPEC)
    blocked = torch.zeros(3, 3, 4, dtype=torch.bool)
    blocked[:, 0, 1] = blocked[:, 1, 2] = blocked[:, 2, 1] = blocked[:, 2, 3] = True
    cell = torch.full((3, batch.horizon + 1, 3), 1)
    cell[:, 1] = torch.tensor([1, 2, 3])
    cell[:, 2] = torch.tensor([-1, -1, 1])
    batch = changed(batch, blocked=blocked, cell=cell)  # partners: nobody; agent 1; agents 0 and 2
    assert sets.penalty(batch)[:, :3].tolist() == [[0, 0, 0], [0, 1, 0], [1, 1, 0.5]]
    taken = Penalty(sets, 10.0).reward(batch, None)  # type: ignore[arg-type]
    assert taken.shape == (3, batch.horizon, 1)
    assert taken[2, :3, 0].tolist() == [-10, -10, -5]


def test_a_penalty_of_zero_is_no_penalty_bit_for_bit_and_an_equal_ego() -> None:
    spec = with_blocked_set(SPEC, 4)
    states = []
    for hooks in ([], [Penalty(make_sets(SPEC), 0.0)], [Penalty(make_sets(SPEC), 1.0)]):
        learner = role_learner(spec, hooks=hooks)
        learner.plays, learner.sees_blocked_set = PARTNER, True
        for k in range(3):
            learner.update(role_batch(SPEC, 6, seed=k))
        states.append(learner.state_dict())
    assert differences(states[0]["agent"], states[1]["agent"]) == []
    assert differences(states[0]["agent"], states[2]["agent"]), "a real penalty is learnt from"
    # without reading sets, the partner's loss is the ego's on the same seats
    batch = role_batch(SPEC, 6)
    partner, ego = role_learner(SPEC, hooks=[Penalty(make_sets(SPEC), 0.0)]), role_learner(SPEC)
    partner.plays = PARTNER
    one, two = partner.update(batch), ego.update(changed(batch, assign=1 - batch.assign))
    assert torch.equal(one["loss/td"], two["loss/td"]) and float(one["loss/td"]) > 0


def test_only_partners_see_blocked_sets() -> None:
    batch = role_batch(SPEC, 4)
    other = changed(batch, blocked=~batch.blocked)
    ego, partner = role_learner(SPEC), role_learner(with_blocked_set(SPEC, 4))
    partner.sees_blocked_set = True
    assert torch.equal(*(ego.inputs(b, ego.rows(b)) for b in (batch, other)))
    seen, again = (partner.inputs(b, partner.rows(b)) for b in (batch, other))
    O, A, n = SPEC.obs_dim, SPEC.n_actions, SPEC.n_agents  # noqa: E741
    assert ego.inputs(batch, ego.rows(batch)).shape[-1] == O + A + n and seen.shape[-1] == O + 4 + A + n
    assert (seen != again).nonzero()[:, -1].unique().tolist() == [O, O + 1, O + 2, O + 3]


# acting


def play(policy: Any, explore: bool, steps: int = 4) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the actions [steps, B, n] of eight lanes in a made-up game, and the fields of the last step."""
    gen, noise = torch.Generator().manual_seed(5), torch.Generator().manual_seed(6)
    carry, found = policy.begin(8, gen), []
    for _ in range(steps):
        avail = torch.rand(8, 3, 5, generator=noise) < 0.7
        avail[..., 0] = True
        obs = Obs(torch.randn(8, 3, 7, generator=noise), torch.zeros(8, 6), avail, torch.ones(8, 3, dtype=torch.bool))
        actions, carry, fields = policy.act(obs, carry, explore=explore, gen=gen)
        assert avail.gather(2, actions.unsqueeze(2)).all()
        carry = policy.after(carry, actions, actions)
        found.append(actions)
    return torch.stack(found), fields


def training(epsilon: float = 0.0, draw: Any = None) -> tuple[ValueEgoLineup, EpsilonGreedy]:
    ego, partner = role_learner(SPEC), role_learner(with_blocked_set(SPEC, 4))
    with torch.no_grad():  # untrained weights hardly react to blocked sets
        partner.agent.fc_in.weight[:, SPEC.obs_dim : SPEC.obs_dim + 4] *= 20
    policy = EpsilonGreedy(ego.agent, ego.mixer, epsilon, "executed")
    other = PartnerPolicy(partner, draw or make_sets(SPEC, p_empty=0.0).draw, 0.0, [0.0])
    return ValueEgoLineup(policy, [other], lambda B, gen: draw_partners(B, 3, 0.25, gen) * PARTNER), policy


def test_tests_are_played_by_the_ego_alone() -> None:
    team, ego = training()
    alone, with_partners = play(team, False), play(team, True)
    assert torch.equal(alone[0], play(ego, False)[0]) and not alone[1]["assign"].any()
    egos = with_partners[1]["assign"] == 0
    assert torch.equal(with_partners[0][0][egos], alone[0][0][egos]), "at the first step the ego has seen the same"
    assert not torch.equal(with_partners[0], alone[0])
    assert with_partners[1]["blocked"][~egos].any(1).all() and not with_partners[1]["blocked"][egos.all(1)].any()


def test_other_blocked_sets_change_partners_only() -> None:
    everything = play(training(draw=lambda B, gen: MASK.expand(B, 3, 4))[0], True)
    nothing = play(training(draw=lambda B, gen: torch.zeros(B, 3, 4, dtype=torch.bool))[0], True)
    partners = everything[1]["assign"] == PARTNER
    assert torch.equal(partners, nothing[1]["assign"] == PARTNER)
    different = (everything[0] != nothing[0]).any(0)
    assert not different[~partners].any(), "here nobody sees what others did"
    assert different[partners].any()


def test_attacks_see_the_ego() -> None:
    team, ego = training()
    gen = torch.Generator().manual_seed(0)
    carry, obs = team.begin(8, gen), torch.randn(8, 3, 7, generator=gen)
    own = ego.begin(8, gen)
    assert torch.equal(team.q_values(obs, carry), ego.q_values(obs, own))
    assert torch.equal(team.q_with(team.params(), obs, carry), ego.q_values(obs, own))
    assert torch.equal(team.advance(obs, carry)[1]["h"], ego.advance(obs, own)[1]["h"])
    assert torch.equal(team.q_total(torch.ones(8, 3), torch.zeros(8, 6)), torch.full((8, 1), 3.0))
    q, before = team.unroll(role_batch(SPEC, 4))
    assert torch.equal(q, ego.unroll(role_batch(SPEC, 4))[0]) and before["h"].shape[:2] == (4, 10)


def test_a_noisy_partner_is_the_policy_or_pure_chance() -> None:
    _, ego = training(epsilon=1.0)
    assert torch.equal(play(NoisyPolicy(ego, [0.0]), True)[0], play(ego, False)[0]), "it does not explore"
    random = play(NoisyPolicy(ego, [1.0]), True, steps=200)[0]
    greedy = play(ego, False, steps=200)[0]
    assert 0.1 < float((random == greedy).float().mean()) < 0.45  # 1 of 1..5 available: about 0.3
