"""S2Q as a whole: stop and resume, checkpoints, a decoder that learns, logged metrics, published settings."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from algos.s2q.algorithm import behaviour_metrics
from marl.core.types import Clock, EpisodeBatch
from marl.run.build import factory
from tests.algos.s2q.test_s2q_policy import play
from tests.support.helpers import compose_train, differences, make_spec, newest_state, random_batch, rows, train
from tests.support.s2q_parts import make_s2q

SPEC = make_spec(n=2, A=3, limit=4)
SHORT = ("algo=s2q", "algo.central_dim=16", "env=toy/shift", "env.after=8", "eval.every=80", "eval.episodes=1")


@pytest.mark.parametrize("more", [(), ("algo.comm=true", "algo.learner.temperature_mode=relative", "algo.K=1")])
def test_a_run_that_goes_on_later_equals_one_that_did_not_stop(more: tuple[str, ...], tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(whole, *SHORT, *more, "train.total_steps=240")
    train(broken, *SHORT, *more, "train.total_steps=160")
    torch.manual_seed(99)
    train(broken, *SHORT, *more, "train.total_steps=240")
    (a, replay_a), (b, replay_b) = newest_state(whole), newest_state(broken)
    assert a["algo"]["learner"]["updates"] > 20
    assert differences(a, b) == [] and differences(replay_a, replay_b) == []
    assert rows(whole, "metrics")[-1] == rows(broken, "metrics")[-1]


def test_a_checkpoint_restores_every_network_the_optimiser_and_what_comes_next() -> None:
    options: dict[str, Any] = {"K": 3, "comm": True, "temperature_mode": "relative", "p_mixed": 1.0, "epsilon": 0.1}
    old, new = make_s2q(SPEC, **options), make_s2q(SPEC, **options)
    for seed in range(4):
        old.learner.update(random_batch(SPEC, 6, seed))
    assert not new.learner.decoder_ready
    new.load_state_dict(copy.deepcopy(old.state_dict()))
    assert new.learner.decoder_ready and new.learner.softmax.scale != 1.0
    pairs = {f"{net}_{k}" for net in ("agent", "mixer") for k in (1, 2, 3)}
    assert set(old.networks()) == {"agent", "mixer", "central", "decoder", "target_central"} | pairs
    for name, net in old.networks().items():
        assert differences(dict(net.state_dict()), dict(new.networks()[name].state_dict())) == [], name
    for a, b in zip(*(play(algo.policy(Clock()), 4, 30) for algo in (old, new)), strict=True):
        assert torch.equal(a[0], b[0]) and torch.equal(a[1]["s2q_head"], b[1]["s2q_head"])
    for seed in range(5):
        logged = [algo.learner.update(random_batch(SPEC, 6, seed)) for algo in (old, new)]
        assert differences(*logged) == []


def test_the_decoder_learns_which_head_is_best_in_which_state() -> None:
    """With two states that have different distributions the divergence falls below 0.001."""
    learner = make_s2q(SPEC, lr=0.01, decoder_dim=32).learner
    h = torch.randn(2, SPEC.n_agents, learner.agent.hidden_dim)
    p, state = torch.tensor([[0.7, 0.2, 0.1], [0.05, 0.15, 0.8]]), torch.randn(2, SPEC.state_dim)
    optimizer = torch.optim.Adam(learner.decoder.parameters(), lr=0.01)
    for _ in range(300):
        found, log_p = learner.decoder(h)
        kl, error = (torch.xlogy(p, p) - p * log_p).sum(-1).mean(), (found - state).square().mean()
        optimizer.zero_grad()
        (kl + error).backward()
        optimizer.step()
    assert kl < 1e-3 and error < 1e-3


def test_training_lowers_the_decoders_divergence() -> None:
    """The decoder learns within the learner when everything else is fixed, from the same batch again and again."""
    learner, batch = make_s2q(SPEC, temperature=0.002, decoder_dim=32).learner, random_batch(SPEC, 6)
    decoder = {id(p) for p in learner.decoder.parameters()}
    for p in learner.parameters:
        p.requires_grad_(id(p) in decoder)
    first = learner.update(batch)["loss/decoder_kl"]
    for _ in range(300):
        last = learner.update(batch)["loss/decoder_kl"]
    assert first > 0.05 and last < 0.1 * first


def test_behaviour_is_logged_by_hand() -> None:
    """Two episodes of two steps and two agents; the first is mixed; both are cut after their first step or not at
    all."""
    data = {
        "filled": torch.tensor([[True, True, False], [True, False, False]]),
        "s2q_head": torch.tensor([[[0, 0], [2, 2], [1, 1]], [[0, 0], [1, 1], [1, 1]]], dtype=torch.int8),
        "s2q_mixed": torch.tensor([True, False]),
        "reward": torch.tensor([[1.0, 2.0, 0.0], [5.0, 0.0, 0.0]]),
    }
    found = {key: value.item() for key, value in behaviour_metrics(EpisodeBatch(data, {}), 2).items()}
    assert found == pytest.approx({
        "behaviour/head_0": 2 / 3, "behaviour/head_1": 0.0, "behaviour/head_2": 1 / 3,
        "behaviour/return_mixed": 3.0, "behaviour/return_plain": 5.0,
    })  # fmt: skip


def test_what_is_logged(tmp_path: Path) -> None:
    train(tmp_path / "run", *SHORT, "train.total_steps=160", "algo.p_mixed=1.0", "log.every=40")
    row = rows(tmp_path / "run", "metrics")[-1]
    assert {
        "loss/td",
        "loss/sub_1",
        "loss/sub_2",
        "loss/central",
        "loss/decoder_kl",
        "loss/decoder_state",
    } <= row.keys()
    assert 0 <= row["candidates/distinct_frac"] <= 1 and 0 <= row["candidates/head0_switch_rate"] <= 1
    assert 0 <= row["suppress/frac_1"] <= row["suppress/frac_2"] <= 1, "head 2 is kept from what head 1 is kept from"
    assert 0 <= row["P/entropy"] <= math.log(3) + 1e-6
    assert sum(row[f"P/head_{k}"] for k in range(3)) == pytest.approx(1.0, abs=1e-5)
    assert sum(row[f"behaviour/head_{k}"] for k in range(3)) == pytest.approx(1.0, abs=1e-5)
    assert row["behaviour/head_1"] + row["behaviour/head_2"] > 0


def test_published_settings(tmp_path: Path) -> None:
    """The parameters of the published SMAC networks on a task of 3m's sizes are counted by hand."""
    spec = make_spec(n=3, A=9, O=30, S=48)
    algo = factory(compose_train(tmp_path, "algo=s2q").algo, "algo")(spec, "cpu", torch.Generator())
    count = {name: sum(p.numel() for p in net.parameters()) for name, net in algo.networks().items()}
    agent = (39 * 64 + 64) + 2 * (64 * 192 + 192) + (64 * 9 + 9)
    mixer = (48 * 64 + 64 + 64 * 96 + 96) + (48 * 32 + 32) + (48 * 64 + 64 + 64 * 32 + 32) + (48 * 32 + 32 + 32 + 1)
    central = agent + (51 * 256 + 256) + 2 * (256 * 256 + 256) + 257 + (48 * 256 + 256) + 257
    decoder = (192 * 64 + 64) + (64 * 64 + 64) + (64 * 32 + 32)
    decoder += (32 * 64 + 64) + (64 * 64 + 64) + (64 * 48 + 48) + (64 * 3 + 3)
    heads = {f"agent_{k}": agent for k in (1, 2)} | {f"mixer_{k}": mixer for k in (1, 2)}
    base = {"agent": agent, "mixer": mixer, "central": central, "target_central": central, "decoder": decoder}
    assert count == base | heads
