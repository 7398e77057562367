"""Whom the pack hits, and with what: against brute force, numbers by hand, and the published copy-and-step loop."""

from __future__ import annotations

import copy
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from attacks.wolfpack.followup import (
    Moment,
    copy_and_step,
    divergence,
    nearness,
    pack,
    plain_value,
    reactions,
    worst_actions,
)
from marl.learn.learner import gather_actions
from marl.learn.mixers import VDN, NoMixer, QMix, QPlex
from marl.learn.policy import EpsilonGreedy
from tests.support.helpers import make_spec
from tests.support.wolfpack_parts import Table, decided_victim

SPEC = make_spec(n=5, A=6, O=7, S=6)
R = 40  # more than are computed at once
LR = 0.0005
MIXERS = {
    "none": NoMixer,
    "vdn": VDN,
    "qmix": partial(QMix, embed_dim=8, hypernet_dim=16),
    "qplex": partial(QPlex, hypernet_dim=16, n_kernels=2, kernel_dim=8, stop_advantage=True, transform=True),
    "qplex with gradients": partial(
        QPlex, hypernet_dim=16, n_kernels=2, kernel_dim=8, stop_advantage=False, transform=True
    ),
}


def victim_with(mixer: str, **agent: Any) -> EpsilonGreedy:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return decided_victim(SPEC, MIXERS[mixer](SPEC), **agent)


def moment(victim: EpsilonGreedy, rows: int = R, change: bool = True) -> Moment:
    """Random steps within an episode: greedy actions, the worst one of a random first agent."""
    gen = torch.Generator().manual_seed(0)
    obs = torch.randn(rows, SPEC.n_agents, SPEC.obs_dim, generator=gen)
    carry = victim.begin(rows, gen)
    carry["h"] = torch.randn(carry["h"].shape, generator=gen).tanh()
    carry["last"] = torch.randint(SPEC.n_actions, carry["last"].shape, generator=gen)
    with torch.no_grad():
        q = victim.q_values(obs, carry)
    first = torch.randint(SPEC.n_agents, (rows,), generator=gen)
    is_first = torch.arange(SPEC.n_agents) == first[:, None]
    executed = torch.where(is_first, q.argmin(-1), q.argmax(-1)) if change else q.argmax(-1)
    state = torch.randn(rows, SPEC.state_dim, generator=gen)
    return Moment(obs, state, carry, q.argmax(-1), executed, first, torch.ones(rows, SPEC.n_agents, dtype=torch.bool))


# which actions


@pytest.mark.parametrize("mixer", MIXERS)
def test_the_worst_action_is_that_of_brute_force(mixer: str) -> None:
    victim, gen = victim_with(mixer), torch.Generator().manual_seed(1)
    q = torch.randn(6, 5, 6, generator=gen)
    state = torch.randn(6, SPEC.state_dim, generator=gen)
    avail = torch.rand(6, 5, 6, generator=gen) < 0.6
    avail[..., 2] = True
    intended = q.masked_fill(~avail, -torch.inf).argmax(-1)
    best = q.masked_fill(~avail, -torch.inf).amax(-1)
    brute = torch.zeros_like(intended)
    for r, i in product(range(6), range(5)):
        values = {}
        for a in avail[r, i].nonzero().flatten().tolist():
            joint = intended[r].clone()
            joint[i] = a
            taken = gather_actions(q[r], joint)
            values[a] = victim.q_total(taken, state[r], actions=joint, q_max=best[r]).sum().item()
        brute[r, i] = min(values, key=values.__getitem__)
    with torch.no_grad():
        exact = worst_actions(victim, q, state, avail, intended, "exact")
        local = worst_actions(victim, q, state, avail, intended, "local")
    assert torch.equal(exact, brute)
    assert mixer.startswith("qplex") or torch.equal(local, brute), (
        "one is the other where the team's value is monotonic"
    )
    assert avail.gather(-1, local.unsqueeze(-1)).all()


def test_local_is_only_a_heuristic_for_qplex() -> None:
    victim, gen = victim_with("qplex"), torch.Generator().manual_seed(1)
    with torch.no_grad():
        victim.mixer.joint[-1].weight.mul_(30.0)  # the importance of an advantage depends on the action
    q, state = torch.randn(64, 5, 6, generator=gen), torch.randn(64, SPEC.state_dim, generator=gen)
    avail = torch.ones(64, 5, 6, dtype=torch.bool)
    with torch.no_grad():
        exact, local = (worst_actions(victim, q, state, avail, q.argmax(-1), how) for how in ("exact", "local"))
    assert 0.0 < float((exact != local).float().mean()) < 0.9


def test_the_plain_value_of_qplex_is_its_part_without_advantages() -> None:
    victim, gen = victim_with("qplex"), torch.Generator().manual_seed(2)
    q, state = torch.randn(9, 5, generator=gen), torch.randn(9, SPEC.state_dim, generator=gen)
    mixer = victim.mixer
    assert isinstance(mixer, QPlex)
    by_hand = ((mixer.hyper_w(state).abs() + 1e-10) * q + mixer.hyper_b(state)).sum(-1)
    assert torch.allclose(plain_value(victim, q, state, torch.zeros(9, 5, dtype=torch.long)), by_hand, atol=1e-6)


# whose policy reacts


def deep_copied(victim: EpsilonGreedy, m: Moment) -> Tensor:
    """Run the published loop on whole networks: a deep copy, an optimiser and a step for every row."""
    rows = []
    for r in range(len(m.obs)):
        one = slice(r, r + 1)
        net, carry = copy.deepcopy(victim.agent), {name: value[one] for name, value in m.carry.items()}
        other = EpsilonGreedy(net, victim.mixer, 0.0, victim.last_action)
        optimizer = torch.optim.Adam(net.parameters(), lr=LR)
        before = other.q_values(m.obs[one], carry)
        wanted = plain_value(other, gather_actions(before, m.intended[one]), m.state[one], m.intended[one]).detach()
        got = plain_value(other, gather_actions(before, m.executed[one]), m.state[one], m.executed[one])
        (got - wanted).square().sum().backward()
        optimizer.step()
        rows.append(divergence(before.detach(), other.q_values(m.obs[one], carry).detach()))
    victim.mixer.zero_grad()
    return torch.cat(rows)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("mixer", MIXERS)
def test_one_call_equals_the_copy_and_step_loop(mixer: str, shared: bool) -> None:
    victim = victim_with(mixer, share_parameters=shared)
    m = moment(victim)
    batched, loop, real = reactions(victim, m, LR), copy_and_step(victim, m, LR), deep_copied(victim, m)
    assert real.max() > 1e-4, "there is something to compare"
    assert (batched - real).abs().max() < 1e-5 and (loop - real).abs().max() < 1e-5
    ranked = real.scatter(1, m.first[:, None], -1.0).sort(descending=True).values
    clear = ranked[:, 1] - ranked[:, 2] > 1e-6  # rounding does not decide who is second and who third
    expected = torch.zeros(R, 5, dtype=torch.bool).scatter(
        1, real.scatter(1, m.first[:, None], -1.0).topk(2).indices, True
    )
    assert clear.float().mean() > 0.8
    assert torch.equal(pack(victim, m, 2, "kl", LR, torch.zeros(R, 5))[clear], expected[clear])
    assert all(p.grad is None for p in (*victim.agent.parameters(), *victim.mixer.parameters()))


def test_a_reaction_by_hand() -> None:
    """Values [2, 1, 0] of two agents that sum; the first is made to do its last action.

    The sum falls from 4 to 2; the gradient at the second agent's chosen value is -4, so Adam's first step of 0.5 makes
    its values [2.5, 1, 0]. Standardised: [1, 0, -1] and [1.05963, -0.13245, -0.92717]; softmax [0.66524, 0.24473,
    0.09003] and [0.69410, 0.21072, 0.09518]; KL = -0.02825 + 0.03661 - 0.00501.
    """
    victim = Table([[2.0, 1.0, 0.0]] * 2)
    obs, state = torch.zeros(1, 2, 1), torch.zeros(1, 1)
    m = Moment(obs, state, {"h": torch.zeros(1, 2, 1)}, torch.tensor([[0, 0]]), torch.tensor([[2, 0]]),
               torch.tensor([0]), torch.ones(1, 2, dtype=torch.bool))  # fmt: skip
    assert reactions(victim, m, 0.5)[0, 1] == pytest.approx(0.003356, abs=2e-6)


def test_an_agent_without_weight_does_not_react() -> None:
    m = moment(victim_with("vdn"), 1)
    victim = Table(torch.randn(5, 6, generator=torch.Generator().manual_seed(3)).tolist(), [1.0, 1.0, 0.0, 1.0, 1.0])
    m.first[:], m.executed[:, 0] = 0, (m.intended[:, 0] + 1) % 6
    kl = reactions(victim, m, 0.1)[0]
    assert kl[2] == 0.0 and kl[[0, 1, 3, 4]].min() > 1e-6


def test_nobody_reacts_to_a_hit_that_changes_nothing() -> None:
    victim = victim_with("qmix")
    assert reactions(victim, moment(victim, change=False), LR).abs().max() < 5e-7  # rounding


def test_agents_may_change_places() -> None:
    victim = victim_with("vdn", agent_id=False)
    m, order = moment(victim), torch.tensor([3, 0, 4, 1, 2])
    place = order.argsort()  # where each agent has gone
    carry = {name: value[:, order] for name, value in m.carry.items()}
    moved = Moment(m.obs[:, order], m.state, carry, m.intended[:, order], m.executed[:, order], place[m.first],
                   m.candidates)  # fmt: skip
    kl, other = reactions(victim, m, LR), reactions(victim, moved, LR)
    assert (kl[:, order] - other).abs().max() < 1e-6
    assert torch.equal(pack(victim, m, 2, "kl", LR, kl)[:, order], pack(victim, moved, 2, "kl", LR, kl))


def test_equal_values_have_a_uniform_policy() -> None:
    assert divergence(torch.zeros(3, 4), torch.zeros(3, 4)).tolist() == [0.0, 0.0, 0.0]
    assert divergence(torch.zeros(1, 4), torch.tensor([[1.0, 0.0, 0.0, 0.0]])).isfinite().all()


# the pack


def test_the_pack_is_the_nearest_the_drawn_or_whoever_is_left() -> None:
    victim = victim_with("vdn")
    m = moment(victim, 1)
    m.obs = torch.zeros(1, 5, SPEC.obs_dim)
    m.obs[..., :2] = torch.tensor([[0.0, 3.0, 1.0, 7.0, 2.0]])[..., None]
    m.first = torch.tensor([2])
    assert nearness(m)[0].tolist() == [-2.0, -8.0, 0.0, -72.0, -2.0]
    u = torch.tensor([[0.1, 0.9, 0.99, 0.5, 0.2]])

    def members(how: Any, size: int = 2) -> list[int]:
        return pack(victim, m, size, how, LR, u)[0].nonzero().flatten().tolist()

    assert members("l2") == [0, 4] and members("random") == [1, 3] and members("random", 4) == [0, 1, 3, 4]
    m.candidates = torch.tensor([[False, True, True, False, False]])
    assert members("kl") == members("l2") == members("random") == [1], "the first agent is never in it"
