"""Coordination methods on actors: who learns from which seats, what they are told, and every method as a run."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from algos.sbc import (
    ActorDiverse,
    ActorSBC,
    ActorWishing,
    Against,
    HiddenReward,
    RoleActorLearner,
)
from algos.sbc.policies import ReadingPolicy
from algos.sbc.roles import PARTNER, with_blocked_set
from marl.core.types import Clock, EnvSpec, EpisodeBatch, Obs
from marl.learn import ppo
from marl.learn.actor import Actor, Critic, log_policy
from marl.learn.agents import FeedForwardAgent, RecurrentAgent
from marl.learn.learner import gather_actions
from marl.learn.lineup import Lineup
from marl.learn.minibatch import whole
from marl.learn.policy import LinearSchedule
from marl.learn.ppo import PPOLearner
from marl.run.build import build
from marl.run.stretch import Stretches
from tests.marl.learn.test_ppo import CRITIC, LEARNER
from tests.support.helpers import AGENT, compose_train, differences
from tests.support.sbc_parts import GOALS, MINI, blocking_spec, changed, role_batch

SPEC = blocking_spec()
GIVEN = (0.01, 1.0)  # weight of the entropy, share of the step size
NETS = {"gru": RecurrentAgent, "mlp": FeedForwardAgent}

pytestmark = pytest.mark.usefixtures("no_drawing", "one_thread")


def make(spec: EnvSpec, net: str = "mlp", role: type[PPOLearner] = RoleActorLearner, **agent: Any) -> Any:
    torch.manual_seed(0)
    return role(spec, NETS[net](spec, **{**AGENT, **agent}), Critic(spec, **CRITIC), **{**LEARNER, "epochs": 3})


def update(learner: PPOLearner, batch: EpisodeBatch) -> Any:
    return learner.update(batch, *GIVEN, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("net", NETS)
def test_a_team_of_egos_is_plain_ppo_bit_for_bit(net: str) -> None:
    ours, plain = make(SPEC, net), make(SPEC, net, PPOLearner)
    for k in range(3):
        batch = role_batch(SPEC, 6, seed=k)
        batch = changed(batch, assign=torch.zeros_like(batch.assign))
        update(ours, batch), update(plain, batch)
    assert differences(ours.state_dict(), plain.state_dict()) == []
    update(ours, role_batch(SPEC, 6)), update(plain, role_batch(SPEC, 6))
    assert differences(ours.state_dict()["agent"], plain.state_dict()["agent"]), "with partners it is not"


@pytest.mark.parametrize("net", NETS)
def test_what_the_other_role_saw_and_did_changes_nothing(net: str) -> None:
    """Seat 1 is another's: with networks of its own its weights stay, and what stands in its fields reaches nobody."""
    batch = role_batch(SPEC, 6)
    batch = changed(batch, assign=torch.tensor([[0, 1, 0]]).expand(6, 3).clone())
    junk = {name: batch[name].clone() for name in ("obs", "intended", "actions")}
    junk["obs"][:, :, 1] += 1.0
    for name in ("intended", "actions"):
        junk[name][:, :, 1] = batch.avail[:, :, 1].long().argmax(-1)
    learnt = []
    for given in (batch, changed(batch, **junk)):
        learner = make(SPEC, net, share_parameters=True)
        update(learner, given)
        learnt.append({name: learner.state_dict()[name] for name in ("agent", "critic", "scale")})
    assert differences(*learnt) == []
    alone = make(SPEC, net, share_parameters=False)
    before = [layer.detach().clone() for layer in alone.agent.fc_in.weight]
    update(alone, batch)
    moved = [bool((now != then).any()) for now, then in zip(alone.agent.fc_in.weight, before, strict=True)]
    assert moved == [True, False, True]


@pytest.mark.parametrize("net", NETS)
def test_steps_that_do_not_count_are_left_out_of_the_products_only(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks are given the steps of the role's seats alone: the same step, up to the order of sums."""
    learnt = []
    for every in (False, True):
        learner, batch = make(SPEC, net), role_batch(SPEC, 8)
        rows, data, _ = learner.prepare(batch)
        seats = (batch.assign == 0)[:, None] & batch.filled[..., None]
        minibatch = learner.minibatch(batch, rows, data)
        assert len(minibatch.critic["raw"]) == int(seats.sum()) < data["filled"].numel()
        assert len(minibatch.actor["x"]) < data["filled"].numel()
        if every:
            monkeypatch.setattr(ppo, "condensed", lambda rows, data, begin, *nets: whole(rows, data, begin))
        update(learner, batch)
        learnt.append(learner.state_dict()["agent"] | learner.state_dict()["critic"])
    for name, value in learnt[0].items():
        assert torch.allclose(value, learnt[1][name], atol=1e-6), name


def test_without_its_seats_a_role_learns_nothing() -> None:
    learner, batch = make(SPEC), role_batch(SPEC, 6)
    learner.take(PARTNER, sees_blocked_set=False)
    assert update(learner, changed(batch, assign=torch.zeros_like(batch.assign))) == {} and learner.updates == 0
    there = (batch.assign == PARTNER).any(1)
    states = []
    for given in (batch, batch.lanes(there)):
        learner = make(SPEC)
        learner.take(PARTNER, sees_blocked_set=False)
        update(learner, given)
        states.append(learner.state_dict())
    assert differences(*states) == [] and not there.all()


def test_a_partner_and_its_critic_are_told_the_blocked_set() -> None:
    features = SPEC.blockable["cells"].mask.shape[1]
    learner, batch = make(with_blocked_set(SPEC, features)), role_batch(SPEC, 4)
    learner.take(PARTNER, sees_blocked_set=True)
    rows, data, _ = learner.prepare(batch)
    told = rows.of(batch.blocked[:, None].expand(-1, batch.horizon + 1, -1, -1)).float()
    for name in ("x", "seen"):
        assert torch.equal(data[name][..., SPEC.obs_dim : SPEC.obs_dim + features], told), name


@pytest.mark.parametrize("net", NETS)
def test_roles_are_unrolled_as_they_were_played(net: str, tmp_path: Path) -> None:
    """In stretches, each role from what it remembered itself: its probabilities are those that it acted with."""
    options = ("algo=ippo/sbc", *MINI, *GOALS, f"agent@algo.agent={net}", "train.rollout=4", "algo.p_self=0.2")
    cfg = compose_train(tmp_path, *options)
    parts = build(cfg, 8)
    algo = parts.algo
    assert isinstance(algo, ActorSBC)
    stretches = Stretches(parts.env, parts.attack, parts.fields, 4, parts.device)
    said: list[torch.Tensor] = []

    class Noted(Lineup):
        def act(self, obs: Obs, carry: Any, **how: Any) -> Any:
            actions, after, fields = super().act(obs, carry, **how)
            scores = []
            for k, role in enumerate((algo.learner, algo.partner)):
                own, seen = self.of(carry, k), obs.obs
                if k == PARTNER:
                    seen = torch.cat([seen, carry["1.blocked"].float()], -1)
                logits, _ = role.agent.step(role.agent.inputs(seen, own["last"]), own["h"])
                scores.append(gather_actions(log_policy(logits, obs.avail), actions))
            said.append(torch.where(carry["assign"] == PARTNER, scores[1], scores[0]).detach())
            return actions, after, fields

    lineup = algo.policy(Clock())
    policy = Noted(lineup.policies, lineup.assign)
    gen = torch.Generator().manual_seed(0)
    for _ in range(3):
        said.clear()
        batch = stretches.collect(policy, torch.zeros(8, dtype=torch.bool), gen, torch.Generator())
        assert batch.filled.sum() == 32 and batch.assign.unique().tolist() == [0, 1]
        found = {}
        for role in (algo.learner, algo.partner):
            rows, data, _ = role.prepare(batch)
            found[role.plays] = rows.spread(data["log_p"])
        mine = torch.where((batch.assign == PARTNER)[:, None], found[1], found[0])[batch.filled]
        assert torch.allclose(mine.sort(0).values, torch.cat(said).sort(0).values, atol=1e-5)
    parts.env.close()


def test_a_policy_that_reads_sets_is_itself_with_more_to_see() -> None:
    torch.manual_seed(0)
    seen = with_blocked_set(SPEC, 4)
    actor = Actor(FeedForwardAgent(seen, **AGENT), "greedy", "intended")
    sets = torch.rand(5, 3, 4) < 0.5
    policy = ReadingPolicy(actor, lambda n_envs, gen: sets)
    gen = torch.Generator().manual_seed(0)
    obs = Obs(torch.randn(5, 3, SPEC.obs_dim), torch.zeros(5, SPEC.state_dim), torch.ones(5, 3, SPEC.n_actions).bool(),
              torch.ones(5, 3).bool())  # fmt: skip
    carry = policy.begin(5, gen)
    actions, after, fields = policy.act(obs, carry, explore=False, gen=gen)
    told = Obs(torch.cat([obs.obs, sets.float()], -1), obs.state, obs.avail, obs.alive)
    assert torch.equal(actions, actor.act(told, actor.begin(5, gen), explore=False, gen=gen)[0])
    after = policy.after(after, actions, actions)
    assert torch.equal(fields["blocked"], sets) and torch.equal(after["blocked"], sets) and after["last"].equal(actions)


def diverse(alpha: float) -> ActorDiverse:
    torch.manual_seed(0)
    steady = LinearSchedule(1.0, 1.0, 1)
    algo = ActorDiverse(
        SPEC, "cpu", torch.Generator(), members=2, alpha=alpha, agent=lambda spec: FeedForwardAgent(spec, **AGENT),
        critic=lambda spec: Critic(spec, **CRITIC), learner=lambda *a, device: RoleActorLearner(*a, **LEARNER),
        hooks={}, entropy=steady, lr_share=steady, act="greedy",
    )  # fmt: skip
    for k, team in enumerate(algo.teams):  # logits of the actions, whatever is seen
        torch.nn.init.zeros_(team.agent.fc_out.weight)
        team.agent.fc_out.bias.data = torch.tensor([[1.0, 0, 0, 0, 0], [0.0, 2.0, 0, 0, 0]][k])
    return algo


def test_the_bonus_of_a_population_of_actors_by_hand() -> None:
    """p(a) is the mean of the members' own probabilities: odds e and e^-2 for the first of two actions."""
    batch = role_batch(SPEC, 4)
    batch.data["avail"] = torch.zeros_like(batch.avail)
    batch.data["avail"][..., :2] = True
    batch.data["intended"] = torch.zeros_like(batch.intended)
    batch.data["intended"][:, :, 2] = 1
    p = (1 / (1 + math.exp(-1.0)) + 1 / (1 + math.exp(2.0))) / 2
    bonus = diverse(2.0).bonus(batch)
    assert torch.allclose(bonus[batch.filled], torch.tensor(-2.0 * (2 * math.log(p) + math.log(1 - p)) / 3))
    assert (bonus[~batch.filled] == 0).all() and (diverse(0.0).bonus(batch) == 0).all()


def test_wishes_are_the_wishing_actors_alone() -> None:
    """Whatever is wished for, the helper learns the same, from the true reward."""
    batch = role_batch(SPEC, 6)
    batch.data["cell"][:] = 1
    learnt = []
    for wish in (0.0, 5.0):
        torch.manual_seed(0)
        steady = LinearSchedule(1.0, 1.0, 1)
        hidden = partial(HiddenReward, info="cell", size=4, numbered=True, wishes={1: [wish]}, team_weight=[0.1],
                         paid_for="own")  # fmt: skip
        algo = ActorWishing(
            SPEC, "cpu", torch.Generator().manual_seed(0), agent=lambda spec: FeedForwardAgent(spec, **AGENT),
            critic=lambda spec: Critic(spec, **CRITIC), learner=lambda *a, device: RoleActorLearner(*a, **LEARNER),
            hooks={"hidden": hidden}, entropy=steady, lr_share=steady, act="greedy",
        )  # fmt: skip
        batch.data["assign"] = algo.assign(6, torch.Generator().manual_seed(0))
        algo.learn(batch, Clock())
        learnt.append((algo.learner.state_dict()["critic"], algo.wisher.state_dict()["critic"]))
    (helper, wisher), (same, other) = learnt
    assert differences(helper, same) == [] and differences(wisher, other)


def test_the_noisy_partner_draws_as_the_ego_does_in_training(tmp_path: Path) -> None:
    """Also where tests are greedy: without any noise, equal lanes of an untrained partner act differently."""
    parts = build(compose_train(tmp_path, "algo=ippo/e3t", *MINI, "algo.noise=[0.0]", "algo.act=greedy"), 64)
    ego, partner = parts.algo.policy(Clock()).policies  # type: ignore[attr-defined]
    now = parts.env.reset()
    same = Obs(*(value[:1].expand(64, *value.shape[1:]) for value in (now.obs, now.state, now.avail, now.alive)))
    gen = torch.Generator().manual_seed(0)
    kinds = [len(one.act(same, one.begin(64, gen), explore=False, gen=gen)[0][:, 0].unique()) for one in (ego, partner)]
    assert kinds[0] == 1 < kinds[1]
    parts.env.close()


def test_who_learns_against_a_team_is_paid_what_it_loses() -> None:
    batch = role_batch(SPEC, 3)
    paid = batch.reward[:, :-1, None] + Against(SPEC).reward(batch, None)  # type: ignore[arg-type]
    assert torch.equal(paid, -batch.reward[:, :-1, None]) and bool(paid.any())
