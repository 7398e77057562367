"""FoX's rewards, losses and agent: by hand, which parts each may train, padding, mixers, stop and resume."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from algos.fox.nets import FoXAgent
from marl.core.types import EpisodeBatch
from marl.learn.mixers import VDN, NoMixer, QMix, QPlex
from tests.support.fox_parts import AWARE, collected, gradients, make_fox
from tests.support.helpers import AGENT, differences, make_spec, newest_state, random_batch, rows, train
from tests.support.wqmix_parts import make_base

SPEC = make_spec()
OFF: dict[str, Any] = {"beta1": 0.0, "beta2": 0.0}


# without rewards and heads it is the base learner


def difference_from_base(**changes: Any) -> list[str]:
    base, fox = make_base(SPEC), make_fox(SPEC, heads=False, **changes)
    for seed in range(5):
        base.learner.update(random_batch(SPEC, 4, seed))
        before = torch.get_rng_state()
        fox.learner.update(collected(fox, 4, seed))
        assert torch.equal(before, torch.get_rng_state()), "FoX draws from a stream of its own"
    return [
        name
        for name, net in base.networks().items()
        if not all(map(torch.equal, net.parameters(), fox.networks()[name].parameters()))
    ]


def test_at_scale_zero_it_is_the_base_learner_bit_for_bit() -> None:
    assert difference_from_base(**OFF) == []


@pytest.mark.parametrize("broken", [{"beta1": 0.1, "beta2": 0.0}, {"beta1": 0.0, "beta2": 0.1}])
def test_and_with_either_reward_it_is_not(broken: dict[str, Any]) -> None:
    assert "agent" in difference_from_base(**broken)


def test_at_scale_zero_the_agents_heads_still_earn_no_reward() -> None:
    algo = make_fox(SPEC, **OFF)
    batch = collected(algo, 4)
    assert algo.fox.reward(batch, algo.learner.forward(batch)) == 0.0


# the reward for rare formations


def counted_batch(**changes: Any) -> tuple[Any, EpisodeBatch]:
    """Two episodes of 2 and 3 steps through formations a a b | a c c a: counts are a 4, b 1, c 2."""
    spec = make_spec(n=2, O=1, limit=3)
    algo = make_fox(spec, beta1=1.0, beta2=0.0, bits=1, **changes)
    batch = collected(algo, 2)
    algo.fox.table.load_state_dict(type(algo.fox.table)(10, "cpu").state_dict())
    distance = torch.tensor([[1.0, 1, 2, 9], [1, 3, 3, 1]])
    batch.data["obs"] = torch.stack([distance, torch.zeros_like(distance)], -1)[..., None]
    batch.data["length"] = torch.tensor([2, 3], dtype=torch.int16)
    batch.data["filled"] = torch.arange(4) < batch.length[:, None]
    algo.annotate(batch)
    return algo, batch


R2 = 2**-0.5


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"shift": "none"}, [[0.5, 1.0, 0.0], [R2, R2, 0.5]]),
        ({"shift": "nonpositive"}, [[-0.5, 0.0, 0.0], [R2 - 1, R2 - 1, -0.5]]),
        # counts at collection: a1 a2 b1 | a3 c1 c2 a4
        ({"shift": "none", "count_mode": "stored"}, [[R2, 1.0, 0.0], [1.0, R2, 0.5]]),
        # the code does not count an episode's last formation, but shifts its bonus all the same: a1 a2 | a3 c1 c2
        ({"shift": "none", "variant": "code"}, [[R2, 0.0, 0.0], [1.0, R2, 0.0]]),
        ({"shift": "nonpositive", "variant": "code"}, [[R2 - 1, -1.0, 0.0], [0.0, R2 - 1, -1.0]]),
    ],
)
def test_the_count_bonus_by_hand(changes: dict[str, Any], expected: list[list[float]]) -> None:
    algo, batch = counted_batch(**changes)
    assert torch.allclose(algo.fox.count_bonus(batch), torch.tensor(expected), atol=1e-7)


def test_fresh_counts_wear_the_bonus_of_old_episodes_down() -> None:
    algo, batch = counted_batch(shift="none")
    for _ in range(3):
        algo.annotate(batch)
    assert torch.allclose(algo.fox.count_bonus(batch)[0, :2], torch.tensor([16**-0.5, 4**-0.5]))


# padding


@pytest.mark.parametrize("variant", ["fixed", "code"])
@pytest.mark.parametrize("shift", ["nonpositive", "none"])
def test_padding_changes_nothing(variant: str, shift: str) -> None:
    """Return the batch with more padding, filled with noise."""
    found = []
    for noisy in (False, True):
        algo = make_fox(SPEC, variant=variant, shift=shift)
        batch = random_batch(SPEC, 6)
        short = batch.lanes(batch.length < SPEC.episode_limit)
        short = short if noisy else short.trim(int(short.length.max()))
        padded = torch.arange(short.horizon + 1) > short.length[:, None]
        if noisy:
            short.data["obs"] = torch.where(padded[..., None, None], 5.0 * torch.randn(short.obs.shape), short.obs)
        short.fields |= algo.fields()
        for name, field in algo.fields().items():
            short.data[name] = torch.zeros(*short.filled.shape, *field.shape, dtype=field.dtype)
        algo.annotate(short)
        fwd = algo.learner.forward(short)
        reward, filled = algo.fox.reward(short, fwd), short.filled[:, :-1]
        assert isinstance(reward, Tensor) and not reward[..., 0][~filled].any()
        found.append((reward[..., 0][filled], algo.fox.aware.latent_loss(short, fwd.h)[0]))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*found, strict=True)) and found[0][0].any()


# encoder and decoders


def test_the_flip_turns_the_encoders_gradient_and_not_the_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the formation's part, the encoder's gradient is -0.1 times that of a plain reconstruction, k's the
    same."""
    algo = make_fox(SPEC, kl_weight=0.0)
    aware = algo.fox.aware
    monkeypatch.setattr(type(aware), "noise", lambda self, like: torch.ones_like(like))
    monkeypatch.setattr(type(aware.decoder), "loss", lambda self, logits, target: torch.zeros(()))
    h, target = torch.randn(8, 3, 16), torch.zeros(8, aware.decoder.size)
    loss, _ = aware.loss_of(h, target)
    mu, logvar = aware.encoder(h[:, 0])
    plain = F.mse_loss(torch.tanh(aware.history(mu + (0.5 * logvar).exp())), h[:, 0])
    assert loss.item() == pytest.approx(plain.item())
    for net, factor in ((aware.encoder, -0.1), (aware.history, 1.0)):
        for g, p in zip(gradients(net, loss), gradients(net, plain), strict=True):
            assert torch.allclose(g, factor * p, atol=1e-7) and (p.any() or net is aware.encoder)
    aware.code = True  # the broken twin: the reversal cancels out
    backwards = gradients(aware.encoder, aware.loss_of(h, target)[0])
    assert sum(float((a * b).sum()) for a, b in zip(backwards, gradients(aware.encoder, plain), strict=True)) > 0


def test_what_describes_a_formation_to_the_decoder_by_hand() -> None:
    blocks = torch.tensor([[[5.0, 1.0, 6.0, 0.0], [4.0, 2.0, 1.0, 7.0]]])
    bits = make_fox(make_spec(n=2)).fox.aware.decoder
    expected = [0.5, 0.1, 0.4, 0.2, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1]
    target = bits.encode(blocks, torch.tensor(10.0))
    assert target[0].tolist() == pytest.approx(expected)
    squares = sum((0.5 - x) ** 2 for x in expected[:4])  # logits of 0 mean one half
    loss = bits.loss(torch.zeros(1, 16), target).item()
    assert loss == pytest.approx((squares + 12 * math.log(2)) / 16)
    raw = make_fox(make_spec(n=2), form_target="raw").fox.aware.decoder
    assert raw.encode(blocks, torch.tensor(10.0))[0].tolist() == pytest.approx(
        [x / 1000 for x in blocks.flatten().tolist()]
    )


@pytest.mark.parametrize("informed", [True, False])
def test_the_decoder_learns_bits_that_histories_carry_and_no_others(informed: bool) -> None:
    gen = torch.Generator().manual_seed(1)
    aware = make_fox(make_spec(n=2), latent_dim=16, encoder_dim=64, bits=3, lr=0.003).fox.aware
    mapping = 0.5 * torch.randn(12, 16, generator=gen)
    accuracy = []
    for step in range(500):
        code = torch.randint(2, (128, 12), generator=gen).float()
        carried = code if informed else torch.randint(2, (128, 12), generator=gen).float()
        h = torch.tanh((2 * carried - 1) @ mapping + 0.05 * torch.randn(128, 16, generator=gen))
        target = torch.cat([torch.full((128, 4), 0.5), code], -1)
        loss, facts = aware.loss_of(h[:, None].expand(-1, 3, -1), target)
        aware.optimizer.zero_grad()
        loss.backward()
        aware.optimizer.step()
        if step >= 480:
            accuracy.append(float(facts["fox/bit_acc"]))
    mean = sum(accuracy) / len(accuracy)
    assert mean > 0.95 if informed else mean == pytest.approx(0.5, abs=0.03)


# the agent and the learner


@pytest.mark.parametrize("shared", [True, False])
def test_the_agents_paths_agree_and_its_value_is_three_heads(shared: bool) -> None:
    agent = FoXAgent(SPEC, **AGENT | {"share_parameters": shared}, latent_dim=4, encoder_dim=8)
    x = torch.randn(5, 6, 3, agent.input_dim)
    q, h = agent.unroll(x)
    state = agent.initial(5)
    for t in range(6):
        q_t, state = agent.step(x[:, t], state)
        assert torch.allclose(q_t, q[:, t], atol=1e-5)
    heads = agent.fc_out
    i = 2
    alone = h[:, :, i] @ heads.local.weight[i] + heads.local.bias[i, 0] + heads.formation(heads.encoder(h[:, :, i])[0])
    assert torch.allclose(q[:, :, i], heads.shared(h)[:, :, i] + alone, atol=1e-5)


def test_td_moves_everything_but_the_encoder_and_the_hook_the_rest() -> None:
    algo = make_fox(SPEC, interval=2, target_every=3)
    encoder, heads = algo.fox.aware.encoder, algo.learner.agent.fc_out
    assert heads.encoder is encoder and encoder is not algo.learner.target_agent.fc_out.encoder
    start = {name: copy.deepcopy(net.state_dict()) for name, net in algo.networks().items()}
    algo.learner.update(collected(algo, 4, 1))
    assert differences(start["fox_encoder"], dict(encoder.state_dict())) == []
    assert not torch.equal(start["agent"]["fc_out.formation.weight"], heads.formation.weight)
    assert not torch.equal(start["agent"]["fc_out.local.weight"], heads.local.weight)
    algo.learner.update(collected(algo, 4, 2))
    for name in ("fox_encoder", "fox_decoder", "fox_history"):
        assert differences(start[name], dict(algo.networks()[name].state_dict())) != [], name
    target = algo.learner.target_agent.fc_out.encoder
    assert differences(start["fox_encoder"], dict(target.state_dict())) == []
    algo.learner.update(collected(algo, 4, 3))
    assert differences(dict(target.state_dict()), start["fox_encoder"]) != [], "a target update refreshes its copy"


def test_the_local_heads_penalty_by_hand_reaches_the_recurrent_network() -> None:
    learner, batch = make_fox(SPEC, local_weight=0.5).learner, random_batch(SPEC, 5)
    fwd = learner.forward(batch)
    term = learner.losses(batch, fwd, torch.zeros(5, SPEC.episode_limit, 1))[0]["local"]
    local = learner.agent.fc_out.local(fwd.h)[batch.filled]
    assert term.item() == pytest.approx(0.5 * local.abs().mean().item(), rel=1e-5)
    assert any(g.any() for g in gradients(learner.agent.gru, term))


def qplex(spec: Any) -> QPlex:
    return QPlex(spec, hypernet_dim=8, n_kernels=2, kernel_dim=8, stop_advantage=True, transform=True)


@pytest.mark.parametrize("variant", ["fixed", "code"])
@pytest.mark.parametrize("mixer", [NoMixer, VDN, qplex, lambda spec: QMix(spec, embed_dim=4, hypernet_dim=4)])
def test_any_mixer(mixer: Any, variant: str) -> None:
    algo = make_fox(SPEC, mixer=mixer, variant=variant)
    for seed in range(3):
        metrics = algo.learner.update(collected(algo, 6, seed))
    assert all(math.isfinite(float(value)) for value in metrics.values())
    logged = {"n_formations", "count_bonus", "aware_bonus", "normalizer", "recon", "kl", "tau_recon"}
    assert logged <= {name.removeprefix("fox/") for name in metrics}


def test_a_latent_of_another_size_than_the_agents_is_refused() -> None:
    with pytest.raises(ValueError, match=r"algo.agent.latent_dim=4 and fox.aware.latent_dim=5 must be equal"):
        agent = FoXAgent(SPEC, **AGENT, latent_dim=4, encoder_dim=8)
        fox = make_fox(SPEC)
        aware = fox.fox.aware
        type(aware)(agent, aware.gen, 3, False, **AWARE | {"latent_dim": 5})


# stop and resume


def test_a_checkpoint_restores_counts_projections_and_the_next_rewards() -> None:
    old = make_fox(SPEC)
    for seed in range(3):
        old.learner.update(collected(old, 6, seed))
    new = make_fox(SPEC)
    new.fox.formations.matrix = torch.zeros_like(new.fox.formations.matrix)
    new.load_state_dict(copy.deepcopy(old.state_dict()))
    batches = [collected(algo, 6, 9) for algo in (old, new)]
    assert differences(batches[0].data, batches[1].data) == []
    rewards = [a.fox.reward(b, a.learner.forward(b)) for a, b in zip((old, new), batches, strict=True)]
    assert torch.equal(*rewards) and rewards[0].any()
    logged = [algo.learner.update(batch) for algo, batch in zip((old, new), batches, strict=True)]
    assert differences(*logged) == []


@pytest.mark.parametrize("more", [(), ("algo.fox.variant=code",)])
def test_a_run_that_goes_on_later_equals_one_that_did_not_stop(more: tuple[str, ...], tmp_path: Path) -> None:
    short = ("algo=fox", "agent@algo.agent=fox", "algo.fox.aware.samples=2", "eval.every=80", "train.total_steps=240")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(whole, *short, *more)
    train(broken, *short, *more, "train.total_steps=120")
    torch.manual_seed(99)
    train(broken, *short, *more)
    (a, replay_a), (b, replay_b) = newest_state(whole), newest_state(broken)
    assert a["algo"]["learner"]["updates"] > 3
    assert differences(a, b) == [] and differences(replay_a, replay_b) == []
    last = rows(whole, "metrics")[-1]
    assert last == rows(broken, "metrics")[-1] and last["fox/n_formations"] > 2
