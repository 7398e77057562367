"""FoX's awareness reward: by hand, against whole trios, and which agents' latents it reads."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from algos.fox.aware import take
from tests.support.fox_parts import collected, make_fox
from tests.support.helpers import make_spec

SPEC = make_spec()


class Known:
    """A decoder whose log g is the product of the three latents' first numbers, which therefore matter only
    together."""

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
    """With latents 10 t + j and no noise a gain is z_i z_far z_near, with the partners of the same step."""
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
        monkeypatch.setattr("algos.fox.aware.CACHED", trios)
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
