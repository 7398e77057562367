"""S2Q's losses: written out step by step, claims and suppression by hand, which parts each term trains, padding."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from algos.s2q.nets import claimed_before, suppress_amount
from marl.core.types import ConfigError, EpisodeBatch
from marl.learn.mixers import VDN, NoMixer, QMix, QPlex
from tests.support.helpers import make_spec, random_batch
from tests.support.s2q_parts import PLAIN, make_s2q
from tests.support.wqmix_parts import ByHand, make_base, make_wqmix, terms_of

SPEC = make_spec()


def trained(updates: int = 3, **changes: Any) -> Any:
    """Make a learner whose online and target networks differ."""
    learner = make_s2q(changes.pop("spec", SPEC), **changes).learner
    for seed in range(1, updates + 1):
        learner.update(random_batch(learner.spec, 6, seed))
    return learner


# one head is the base learner, or weighted QMIX


def test_without_sub_values_and_q_star_it_is_the_base_learner_bit_for_bit() -> None:
    base, s2q = make_base(SPEC).learner, make_s2q(SPEC, K=0, **PLAIN).learner
    assert set(s2q.networks()) == set(base.networks())
    for seed in range(10):
        logged = [learner.update(random_batch(SPEC, 4, seed)) for learner in (base, s2q)]
        assert logged[0].keys() == logged[1].keys() and all(torch.equal(logged[0][k], logged[1][k]) for k in logged[0])
        assert all(torch.equal(p.grad, q.grad) for p, q in zip(base.parameters, s2q.parameters, strict=True))
    for name, net in base.networks().items():
        assert all(map(torch.equal, net.parameters(), s2q.networks()[name].parameters())), name


def test_among_others_head_0_still_has_the_base_learners_loss_and_gradient() -> None:
    base, s2q, batch = make_base(SPEC).learner, make_s2q(SPEC, K=2, **PLAIN).learner, random_batch(SPEC, 6)
    losses = [terms_of(learner, batch)["td"] for learner in (base, s2q)]
    assert torch.equal(*losses)
    grads = [torch.autograd.grad(x, list(y.agent.parameters())) for x, y in zip(losses, (base, s2q), strict=True)]
    assert all(map(torch.equal, *grads))


@pytest.mark.parametrize("rule", ["cw", "ow"])
def test_one_head_on_q_star_is_weighted_qmix(rule: str) -> None:
    s2q, wqmix = make_s2q(SPEC, K=0, weight0=rule, w_c=0.25).learner, make_wqmix(SPEC, rule, 0.25).learner
    for seed in range(3):
        batch = random_batch(SPEC, 6, seed)
        mine, theirs = terms_of(s2q, batch), terms_of(wqmix, batch)
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)
        s2q.update(batch), wqmix.update(batch)


# all of it, written out


def by_hand(learner: Any, batch: EpisodeBatch) -> dict[str, float]:
    """Compute the losses step by step: K+1 heads, claims, suppression, weights, distribution and decoder."""
    heads = [(learner.agent, learner.mixer), *zip(learner.heads, learner.mixers, strict=True)]
    names = ["td", *(f"sub_{m}" for m in range(1, len(heads)))]
    total = dict.fromkeys([*names, "central", "decoder_kl", "decoder_state"], 0.0)
    for b in range(len(batch)):
        e = ByHand(learner, batch, b)
        played = [e.play(agent) for agent, _ in heads]
        joint = [e.greedy(q) for q, _ in played]
        values = [[float(v) for v in e.central(True, g)] for g in joint]
        taken = e.actions[: e.length].tolist()
        q_star, q_target = ([float(v) for v in e.central(target, taken)] for target in (False, True))
        for t, y in enumerate(e.returns(values[0])):
            amount = q_star[t] if learner.suppress_source == "online" else q_target[t]
            amount = learner.alpha * (amount if learner.floor is None else max(amount, learner.floor))
            total["central"] += (q_star[t] - y) ** 2
            claimed = False
            for m, (_, mixer) in enumerate(heads):
                delta = float(e.mixed(mixer, played[m][0], t)) - (y - amount if claimed else y)
                full = delta < 0 if m else all(q_star[t] >= v[t] for v in values)
                total[names[m]] += (1.0 if full else learner.w_c) * delta**2
                claimed = claimed or taken[t] == joint[m][t]
            logits = [v[t] / learner.softmax.temperature for v in values]
            p = [math.exp(x - max(logits)) for x in logits]
            p = [x / sum(p) for x in p]
            state, log_p = learner.decoder(played[0][1][t])
            total["decoder_kl"] += sum(a * (math.log(a) - float(b)) for a, b in zip(p, log_p, strict=True) if a > 0)
            total["decoder_state"] += float((state - e.state[t]).square().mean())
    steps = int(batch.length.sum())
    return {name: value / steps for name, value in total.items()}


@pytest.mark.parametrize("changes", [{}, {"K": 3, "alpha": 3.0, "floor": 0.5, "suppress_source": "target", "w_c": 0.1}])
@torch.no_grad()
def test_losses_equal_those_written_out(changes: dict[str, Any]) -> None:
    with torch.enable_grad():
        learner = trained(temperature=0.5, **changes)
    batch = random_batch(SPEC, 6)
    claim_some(learner, batch)
    expected, found = by_hand(learner, batch), terms_of(learner, batch)
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected, rel=1e-3, abs=1e-6)
    without = by_hand(learner, random_batch(SPEC, 6))
    assert any(abs(without[f"sub_{m}"] - expected[f"sub_{m}"]) > 1e-3 for m in (1, 2)), "claims must matter here"


def claim_some(learner: Any, batch: EpisodeBatch) -> None:
    """Let the team play head 0's candidate at even steps and head 1's at every third (inputs then change a little)."""
    fwd = learner.forward(batch)
    candidates = fwd.rows.spread(fwd.candidates)
    for head, every in ((0, 2), (1, 3)):
        batch.data["actions"][:, ::every] = candidates[:, ::every, head].short()
    batch.data["actions"] *= batch.filled[..., None]
    batch.data["intended"] = batch.actions.clone()


def test_claims_by_hand() -> None:
    candidates = torch.tensor([[[0, 1], [2, 2], [0, 1]]] * 4)  # heads 0 and 2 propose the same
    actions = torch.tensor([[0, 1], [2, 2], [0, 2], [1, 1]])
    T, F = True, False
    expected = [[F, T, T], [F, F, T], [F, F, F], [F, F, F]]  # one agent differs: nobody claims it
    assert claimed_before(actions, candidates[0].expand(4, -1, -1)).tolist() == expected


def test_suppression_by_hand() -> None:
    q = torch.tensor([2.0, 0.25, -1.0])
    assert suppress_amount(q, 1.0, None).tolist() == [2.0, 0.25, -1.0]  # the published code raises a negative value
    assert suppress_amount(q, 3.0, 0.5).tolist() == [6.0, 1.5, 1.5]


def test_without_suppression_and_weights_equal_heads_stay_equal() -> None:
    learner = make_s2q(SPEC, alpha=0.0, weight0="none", w_c=1.0).learner
    for head, mixer in zip(learner.heads, learner.mixers, strict=True):
        head.load_state_dict(learner.agent.state_dict())
        mixer.load_state_dict(learner.mixer.state_dict())
    for seed in range(5):
        learner.update(random_batch(SPEC, 4, seed))
    for head in learner.heads:
        assert all(map(torch.equal, learner.agent.parameters(), head.parameters()))
    suppressed = make_s2q(SPEC, alpha=1.0, weight0="none", w_c=1.0).learner
    assert not torch.equal(next(learner.agent.parameters()), next(suppressed.heads[0].parameters()))


@pytest.mark.parametrize("head", [1, 2])
def test_a_sub_value_changes_only_the_suppression_of_later_ones(head: int) -> None:
    learner, batch = trained(weight0="none", K=3), random_batch(SPEC, 40)
    claim_some(learner, batch)
    before = terms_of(learner, batch)
    with torch.no_grad():  # its candidates change, its own values hardly do
        learner.heads[head - 1].fc_out.bias += 100 * torch.randn(SPEC.n_actions)
    after = terms_of(learner, batch)
    changed = {name for name in before if not torch.equal(before[name], after[name])} - {"decoder_kl"}
    assert changed == {f"sub_{m}" for m in range(head, 4)}


# which parts each term trains


@pytest.mark.parametrize("comm", [False, True])
def test_each_term_moves_its_own_networks(comm: bool) -> None:
    learner, batch = trained(comm=comm), random_batch(SPEC, 12)
    claim_some(learner, batch)
    terms, nets = terms_of(learner, batch), learner.online()
    nets |= {"encoder": learner.decoder.encoder, "trunk": learner.decoder.trunk}
    del nets["decoder"]
    hears = {"encoder"} if comm else set()  # messages carry the heads' gradients into the encoder
    owners = {
        "td": {"agent", "mixer"} | hears,
        "sub_1": {"agent_1", "mixer_1"} | hears,
        "sub_2": {"agent_2", "mixer_2"} | hears,
        "central": {"central"},
        "decoder_kl": {"encoder", "trunk"},
        "decoder_state": {"encoder", "trunk"},
    }
    assert terms.keys() == owners.keys()
    for term, expected in owners.items():
        moved = set()
        for name, net in nets.items():
            grads = torch.autograd.grad(terms[term], list(net.parameters()), retain_graph=True, allow_unused=True)
            moved |= {name} if any(g is not None and bool(g.any()) for g in grads) else set()
        assert moved == expected, term


@pytest.mark.parametrize("comm", [False, True])
def test_padding_does_not_matter(comm: bool) -> None:
    learner, batch = trained(comm=comm, temperature_mode="absolute"), random_batch(SPEC, 8)
    noisy, gen = copy.deepcopy(batch), torch.Generator().manual_seed(3)
    padded = torch.arange(batch.horizon + 1) > batch.length[:, None]  # the slot to bootstrap from is none
    unplayed = ~batch.filled
    assert padded.any()
    noisy.data["obs"][padded] = torch.randn(noisy.obs[padded].shape, generator=gen)
    noisy.data["state"][padded] = torch.randn(noisy.state[padded].shape, generator=gen)
    noisy.data["avail"][padded] = True
    for name, high in (("actions", SPEC.n_actions), ("intended", SPEC.n_actions)):
        drawn = torch.randint(high, noisy.actions.shape, generator=gen, dtype=torch.int16)
        noisy.data[name] = torch.where(unplayed[..., None], drawn, batch[name])
    noisy.data["reward"] = torch.where(unplayed, 7.0, batch.reward)
    before, after = terms_of(learner, batch), terms_of(learner, noisy)
    for name in before:
        assert after[name].item() == pytest.approx(before[name].item(), rel=1e-5), name


# the idealised theorem: full tables, exact values, full coverage


def ranks_found(low: float, high: float, alpha: float, floor: float | None) -> list[float]:
    """Return the share of 3x3 tables, uniform in [low, high], for which head k's greedy joint action is exactly the
    (k+1)-th best when every head equals its own target."""
    tables = low + (high - low) * torch.rand(4000, 9, generator=torch.Generator().manual_seed(0))
    every = torch.arange(9)[:, None]  # one "agent" that picks the joint action
    found: list[Tensor] = []
    for _ in range(3):
        so_far = torch.stack([*found, torch.zeros_like(tables[:, 0], dtype=torch.long)], 1)[:, None, :, None]
        claimed = claimed_before(every[None], so_far.expand(-1, 9, -1, -1))[..., -1]
        found.append((tables - claimed * suppress_amount(tables, alpha, floor)).argmax(1))
    best = tables.argsort(1, descending=True)
    return [(k == best[:, i]).float().mean().item() for i, k in enumerate(found)]


def test_successive_heads_rank_joint_actions_in_the_idealised_setting() -> None:
    assert ranks_found(0, 20, 1.0, None) == [1.0, 1.0, 1.0]
    assert ranks_found(-15, 5, 3.0, 10.0) == [1.0, 1.0, 1.0]


def test_and_do_not_where_suppression_to_zero_is_not_the_worst() -> None:
    """A quarter of the values is positive. Head k then needs at least k+1 positive ones among nine: head 1 fails with
    0.75^9 + 9 0.25 0.75^8 = 0.300, head 2 with 36 0.25^2 0.75^7 = 0.300 more."""
    first, second, third = ranks_found(-15, 5, 1.0, None)
    assert first == 1.0 and second == pytest.approx(0.700, abs=0.03) and third == pytest.approx(0.399, abs=0.03)


# shapes, mixers, refusals


@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize("K", [0, 1, 2, 3])
def test_any_number_of_heads_and_agents(K: int, n: int) -> None:
    spec = make_spec(n=n)
    learner, batch = make_s2q(spec, K=K).learner, random_batch(spec, 5)
    batch.data["avail"][:, 2:, 0] = False  # agent 0 is dead from step 2 on: it can only do nothing
    batch.data["avail"][:, 2:, 0, 0] = True
    batch.data["actions"][:, 2:, 0] = 0
    metrics = learner.update(batch)
    assert all(math.isfinite(float(value)) for value in metrics.values())
    assert all(bool(torch.isfinite(p).all()) for p in learner.parameters)
    fwd = learner.forward(batch)
    candidates = fwd.rows.spread(fwd.candidates)  # [M, T+1, C, n]
    assert candidates.shape[2:] == (K + 1, n) and not candidates[:, 2:, :, 0].any()
    legal = batch.avail[:, :, None].expand(-1, -1, K + 1, -1, -1).gather(-1, candidates[..., None])[..., 0]
    assert legal[batch.filled].all()


QPLEX: Callable[..., Any] = lambda spec: QPlex(  # noqa: E731
    spec, hypernet_dim=8, n_kernels=2, kernel_dim=8, stop_advantage=True, transform=True
)


@pytest.mark.parametrize("mixer", [VDN, QPLEX, lambda spec: QMix(spec, embed_dim=4, hypernet_dim=4)])
def test_any_mixer(mixer: Any) -> None:
    learner = make_s2q(SPEC, mixer=mixer).learner
    start = [p.clone() for p in learner.parameters]
    for seed in range(3):
        metrics = learner.update(random_batch(SPEC, 6, seed))
    assert all(math.isfinite(float(value)) for value in metrics.values())
    assert all(not torch.equal(p, q) for p, q in zip(start, learner.parameters, strict=True) if q.grad.any())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixer": NoMixer}, "algo.mixer=none knows no value of joint actions; choose vdn, qmix or qplex"),
        ({"K": -1}, r"algo.K=-1 must be within \[0, 100\]"),
        ({"execute": "best"}, "algo.execute=best is not known; choose one of softmax, head0, uniform, independent"),
        ({"p_mixed": 1.5}, r"algo.p_mixed=1.5 must be within \[0, 1\]"),
        ({"latent_dim": 0}, "algo.latent_dim=0 must be at least 1"),
        ({"w_c": -0.1}, r"learner.w_c=-0.1 must be within \[0, 1\]"),
        ({"weight0": "all"}, "learner.weight0=all is not known; choose one of s2q, none, cw, ow"),
        ({"alpha": -1.0}, "learner.alpha=-1.0 must be at least 0"),
        ({"floor": 0.0}, "learner.floor=0.0 must be above 0, or null"),
        ({"suppress_source": "both"}, "learner.suppress_source=both is not known; choose one of online, target"),
        ({"temperature": 0.0}, "learner.temperature=0.0 must be above 0"),
        ({"temperature_mode": "auto"}, "learner.temperature_mode=auto is not known; choose one of absolute, relative"),
    ],
)
def test_bad_options_are_one_clear_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_s2q(SPEC, **changes)
