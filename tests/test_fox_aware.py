"""FoX's awareness: what the reward pays, what decoders are told, what each loss moves, and what they can learn."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from algos.fox_aware import take
from tests.fox_parts import collected, make_fox, moved
from tests.helpers import make_spec

SPEC = make_spec()


# the reward


class Known:
    """A decoder whose log g is the product of the three latents' first numbers: they matter together alone."""

    def __call__(self, z: Tensor) -> Tensor:
        size = z.shape[-1] // 3
        return z[..., 0] * z[..., size] * z[..., 2 * size]

    def encode(self, blocks: Tensor, reach: Tensor) -> Tensor:
        return blocks.flatten(-2)

    def room(self, rows: int) -> None:
        return None

    def likelihoods(self, latents: Sequence[Tensor], target: Tensor, room: None) -> Tensor:
        return torch.stack([self(torch.cat(trio, -1)) for trio in trios_of(*latents)])


def trios_of(z: Tensor, far: Tensor, near: Tensor, one: Tensor, two: Tensor) -> list[tuple[Tensor, ...]]:
    return [(z, far, near), (z, one, two), (one, far, two), (one, two, near)]


def test_the_awareness_reward_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latents are 10 t + j and noise is 0: a gain is z_i z_far z_near, at the partners of the same step."""
    aware = make_fox(SPEC, samples=1).fox.aware
    monkeypatch.setattr(type(aware), "noise", lambda self, like: torch.zeros_like(like))
    aware.decoder, aware.encoder = Known(), lambda h: (h[..., :4], torch.zeros_like(h[..., :4]))  # type: ignore[assignment]
    h = (10.0 * torch.arange(2)[:, None, None] + torch.arange(3)[:, None]).expand(2, 3, 16)
    partners = torch.tensor([[[1, 2], [0, 2], [0, 1]], [[2, 1], [2, 0], [0, 0]]])
    # row 0: latents 0 1 2, products 0 0 0; row 1: latents 10 11 12: 10 12 11, 11 12 10, 12 10 10
    reward, c = aware.reward(h, partners, torch.zeros(2, 3, 4), False)
    assert c == 1.0 and aware.largest == pytest.approx((1320 + 1320 + 1200) / 6)
    assert reward.tolist() == pytest.approx([0.0, 3.0])
    reward, c = aware.reward(0.5 * h, partners, torch.zeros(2, 3, 4), True)
    assert c == pytest.approx(1 / 8), "half the latents, an eighth of |mean log g|"
    assert reward.tolist() == pytest.approx([-3 / 8, 0.0])


@pytest.mark.parametrize("form_target", ["bits", "raw"])
def test_likelihoods_equal_those_of_whole_trios(form_target: str) -> None:
    decoder, blocks = make_fox(SPEC, form_target=form_target).fox.aware.decoder, 8.0 * torch.rand(5, 3, 4)
    latents, target = torch.randn(5, 5, 3, 4), decoder.encode(blocks, torch.tensor(8.0))[:, None]
    plain = torch.stack([decoder.log_likelihood(decoder(torch.cat(t, -1)), target) for t in trios_of(*latents)])
    found = decoder.likelihoods(list(latents), target, decoder.room(20))
    assert torch.allclose(found, plain, atol=1e-6) and plain.std() > 1e-3
    swapped = decoder.likelihoods(list(latents[[0, 1, 2, 4, 3]]), target, decoder.room(20))
    assert not torch.allclose(swapped[1:], plain[1:], atol=1e-4), "noise in another place is another trio"


def test_decoding_in_parts_rewards_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rewards = []
    for trios in (1024, 7):
        monkeypatch.setattr("algos.fox_aware.CACHED", trios)
        algo = make_fox(SPEC)
        batch = collected(algo, 5)
        rewards.append(algo.fox.aware_bonus(batch, algo.learner.forward(batch)))
    assert torch.allclose(*rewards, atol=1e-6) and rewards[0].any()


def test_a_decoder_that_ignores_latents_earns_nothing() -> None:
    algo = make_fox(SPEC)
    for p in algo.fox.aware.decoder.parameters():
        p.data.zero_()
    batch = collected(algo, 5)
    assert not algo.fox.aware_bonus(batch, algo.learner.forward(batch)).any()


def test_partners_are_gathered_on_the_axis_of_agents() -> None:
    h = torch.arange(4.0)[None, :, None].expand(2, 4, 3)
    assert take(h, torch.tensor([[3, 0], [1, 2]]))[..., 0].tolist() == [[3, 0], [1, 2]]


# encoder and decoders


def test_the_flip_turns_the_encoders_gradient_and_not_the_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the formation's part silenced: -0.1 times what a plain reconstruction gives the encoder, the same for k."""
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
        for g, p in zip(moved(net, loss), moved(net, plain), strict=True):
            assert torch.allclose(g, factor * p, atol=1e-7) and (p.any() or net is aware.encoder)
    aware.code = True  # the broken twin: the reversal is cancelled
    backwards = moved(aware.encoder, aware.loss_of(h, target)[0])
    assert sum(float((a * b).sum()) for a, b in zip(backwards, moved(aware.encoder, plain), strict=True)) > 0


def test_what_describes_a_formation_to_the_decoder_by_hand() -> None:
    blocks = torch.tensor([[[5.0, 1.0, 6.0, 0.0], [4.0, 2.0, 1.0, 7.0]]])
    bits = make_fox(make_spec(n=2)).fox.aware.decoder
    expected = [0.5, 0.1, 0.4, 0.2, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1]
    target = bits.encode(blocks, torch.tensor(10.0))
    assert target[0].tolist() == pytest.approx(expected)
    squares = sum((0.5 - x) ** 2 for x in expected[:4])  # logits of 0 say one half
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
