"""Weighted QMIX: weights by hand, losses written out, which networks exist and learn, refused options."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from algos.shared.central import CentralValue, wqmix_weight
from envs.toys.games import PAYOFFS, MatrixGame
from marl.core.types import ConfigError, core_fields
from marl.learn.mixers import VDN, NoMixer, QMix
from marl.run.build import call, factory
from marl.run.collect import empty_batch
from tests.support.helpers import compose_train, make_agent, make_spec, random_batch
from tests.support.wqmix_parts import ByHand, make_wqmix, terms_of

SPEC = make_spec()


def column(*values: Any) -> torch.Tensor:
    return torch.tensor(values)[:, None]


def test_weights_by_hand() -> None:
    """Four steps: underestimated, overestimated, exact, overestimated but the greedy joint action."""
    delta, target = column(-0.5, 0.5, 0.0, 1.0), column(2.0, 3.0, 1.0, 0.0)
    best, greedy = column(1.0, 3.0, 2.0, 5.0), column(False, False, False, True)
    weights = {rule: wqmix_weight(rule, 0.25, delta, target, best, greedy).flatten().tolist() for rule in ("cw", "ow")}
    assert weights["ow"] == [1.0, 0.25, 0.25, 0.25]
    assert weights["cw"] == [1.0, 0.25, 0.25, 1.0]  # a target equal to the best value does not exceed it
    assert wqmix_weight("none", 0.25, delta, target, best, greedy).flatten().tolist() == [1.0] * 4


@pytest.mark.parametrize("rule", ["cw", "ow"])
def test_losses_equal_those_written_out(rule: str) -> None:
    algo = make_wqmix(SPEC, rule, 0.25)
    learner, batch = algo.learner, random_batch(SPEC, 6)
    for seed in (1, 2, 3):
        learner.update(random_batch(SPEC, 6, seed))  # online and target differ
    td = central = steps = 0.0
    kinds = set()
    for m in range(len(batch)):
        e = ByHand(learner, batch, m)
        q, _ = e.play(learner.agent)
        joint = e.greedy(q)
        v, q_star = e.central(True, joint), e.central(False, e.actions[: e.length].tolist())
        for t, y in enumerate(e.returns(v)):
            error = float(e.mixed(learner.mixer, q, t)) - y
            full = error < 0 if rule == "ow" else e.actions[t].tolist() == joint[t] or y > float(v[t])
            td += (1.0 if full else 0.25) * error**2
            central += (float(q_star[t]) - y) ** 2
            steps += 1
            kinds.add(full)
    terms = terms_of(learner, batch)
    assert kinds == {True, False}
    assert terms["td"].item() == pytest.approx(td / steps, rel=1e-4)
    assert terms["central"].item() == pytest.approx(central / steps, rel=1e-4)


def test_each_loss_moves_its_own_networks() -> None:
    learner = make_wqmix(SPEC, "cw", 0.5).learner
    terms = terms_of(learner, random_batch(SPEC, 6))
    nets = learner.online()
    for term, owners in {"td": {"agent", "mixer"}, "central": {"central"}}.items():
        for name, net in nets.items():
            grads = torch.autograd.grad(terms[term], list(net.parameters()), retain_graph=True, allow_unused=True)
            assert any(g is not None and bool(g.any()) for g in grads) == (name in owners), (term, name)


def test_only_the_targets_that_are_needed_exist_and_follow_the_schedule() -> None:
    qstar, qtot = (make_wqmix(SPEC, "cw", 0.5, target_source=s, target_every=2).learner for s in ("qstar", "qtot"))
    assert set(qstar.targets()) == {"target_central"}
    assert set(qtot.targets()) == {"target_central", "target_agent", "target_mixer"}
    start = [p.clone() for p in qstar.target_central.parameters()]
    qstar.update(random_batch(SPEC, 4, 1))
    assert all(map(torch.equal, start, qstar.target_central.parameters()))
    qstar.update(random_batch(SPEC, 4, 2))
    assert all(map(torch.equal, qstar.central.parameters(), qstar.target_central.parameters()))


def test_bootstrap_is_target_q_star_at_the_online_choice() -> None:
    learner, batch = make_wqmix(SPEC, "ow", 0.5).learner, random_batch(SPEC, 2)
    learner.update(random_batch(SPEC, 4, 1))
    fwd = learner.forward(batch)
    e = ByHand(learner, batch, 0)
    values = e.central(True, e.greedy(e.play(learner.agent)[0]))
    assert fwd.target_v[0, : e.length + 1, 0].tolist() == pytest.approx([float(v) for v in values], abs=1e-5)


def test_the_monotonic_value_has_no_negative_slope_and_the_unrestricted_one_has() -> None:
    torch.manual_seed(0)
    central, mixer = CentralValue(SPEC, make_agent(SPEC), embed_dim=16), QMix(SPEC, embed_dim=8, hypernet_dim=8)
    state = torch.randn(500, SPEC.state_dim)
    slopes = []
    for value in (mixer, central):
        q = torch.randn(500, SPEC.n_agents, requires_grad=True)
        slopes.append(torch.autograd.grad(value(q, state).sum(), q)[0])
    assert (slopes[0] >= 0).all() and (slopes[1] < 0).any() and (slopes[1] > 0).any()


def test_candidates_share_a_state() -> None:
    central = CentralValue(SPEC, make_agent(SPEC), embed_dim=8)
    u, state = torch.randn(4, 3, SPEC.n_agents), torch.randn(4, SPEC.state_dim)  # three candidates per row
    values = central(u, state[:, None])
    assert values.shape == (4, 3, 1) and torch.allclose(values[1, 2], central(u[1, 2], state[1]), atol=1e-6)


def argmax_after(algo: Any, updates: int) -> tuple[list[int], torch.Tensor]:
    """Fit the non-monotonic game from batches with every joint action once; return (greedy joint action, Q* [9])."""
    env, joint = MatrixGame("nonmonotonic", n_envs=9), torch.cartesian_prod(torch.arange(3), torch.arange(3))
    now, spec = env.reset(), env.spec
    batch = empty_batch(core_fields(spec), 9, 1, torch.device("cpu"))
    batch.obs[:], batch.state[:], batch.avail[:] = now.obs[:, None], now.state[:, None], True
    batch.actions[:, 0] = batch.intended[:, 0] = joint.short()
    batch.reward[:, 0] = env.step(joint).reward
    batch.filled[:, 0], batch.terminated[:, 0], batch.length[:] = True, True, 1
    for _ in range(updates):
        algo.learner.update(batch)
    fwd = algo.learner.forward(batch)
    q_star = algo.learner.central_taken(fwd)[fwd.rows["filled"]] if hasattr(fwd, "u") else torch.zeros(9, 1, 1)
    return fwd.greedy[0, 0].tolist(), q_star.detach().flatten()


@pytest.mark.parametrize("rule", ["cw", "ow"])
def test_the_nonmonotonic_optimum_is_found_with_a_small_weight_and_not_without(rule: str) -> None:
    """Rashid et al. 2020, section 6: the unrestricted value fits the table, the monotonic one finds its optimum."""
    spec = MatrixGame("nonmonotonic", n_envs=1).spec
    found, q_star = argmax_after(make_wqmix(spec, rule, 0.01), 400)
    assert found == [0, 0]
    assert (q_star - torch.tensor(PAYOFFS["nonmonotonic"]).flatten()).abs().max() < 0.5
    assert argmax_after(make_wqmix(spec, rule, 1.0), 400)[0] != [0, 0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_wqmix(SPEC, "uw", 0.5), "learner.rule=uw is not known; choose one of cw, ow"),
        (lambda: make_wqmix(SPEC, "cw", 1.5), r"learner.w=1.5 must be within \[0, 1\]"),
        (lambda: make_wqmix(SPEC, "cw", 0.5, mixer=NoMixer), "algo.mixer=none knows no value of joint actions"),
        (lambda: make_wqmix(SPEC, "cw", 0.5, target_source="q"), "target_source=q is not known; choose one of qstar"),
        (lambda: make_wqmix(SPEC, "cw", 0.5, double_q=False), "learner.double_q=false needs target_source=qtot"),
        (lambda: CentralValue(SPEC, make_agent(SPEC), embed_dim=0), "algo.central_dim=0 must be at least 1"),
    ],
)
def test_bad_options_are_one_clear_line(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


# options that a class hands on to its base


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+algo.learner.rate=1", "algo.learner.rate is not an option of WQMixLearner, which takes .*rule, .*lr"),
        ("+algo.size=1", "algo.size is not an option of CentralAlgorithm, which takes .*central_dim, .*batch_size"),
        ("algo.learner.gamma=high", "algo.learner.gamma=high has the wrong type; it must be float"),
        ("algo.learner.w=high", "algo.learner.w=high has the wrong type; it must be float"),
        ("~algo.batch_size", "algo: missing a required .*argument: 'batch_size'"),
        ("~algo.central_dim", "algo: missing a required .*argument: 'central_dim'"),
    ],
)
def test_options_behind_rest_are_checked_like_others(override: str, message: str, tmp_path: Path) -> None:
    cfg = compose_train(tmp_path, "algo=wqmix", override)
    with pytest.raises(ConfigError, match=message):
        call(factory(cfg.algo, "algo"), "algo", SPEC, "cpu", torch.Generator())


def test_one_more_network_pair_than_the_base_and_vdn_works_too() -> None:
    algo = make_wqmix(SPEC, "ow", 0.5, mixer=VDN)
    metrics = algo.learner.update(random_batch(SPEC, 4))
    assert set(algo.networks()) == {"agent", "mixer", "central", "target_central"}
    assert all(math.isfinite(float(value)) for value in metrics.values())
    assert 0 < float(metrics["wqmix/full_weight_frac"]) < 1
