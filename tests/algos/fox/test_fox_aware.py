"""FoX's awareness reward: by hand, against whole trios, and which agents' latents it reads."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from algos.fox.aware import take
from algos.fox.gains import Gains
from tests.support.fox_parts import collected, make_fox
from tests.support.helpers import make_spec

SPEC = make_spec()


class Known:
    """A decoder whose log g is the product of the three latents' first numbers, which therefore matter only together.
    The first layer writes them, in halves, into three digits of base 100."""

    def encode(self, blocks: Tensor, reach: Tensor) -> Tensor:
        return blocks.flatten(-2)

    def wanted(self, target: Tensor) -> Tensor:
        return target

    def places(self) -> tuple[tuple[Tensor, ...], Tensor]:
        first = torch.eye(4)[:, :1]
        return (2.0 * first, 200.0 * first, 20000.0 * first), torch.zeros(1)

    def room(self, rows: int) -> tuple[Tensor]:
        return (torch.empty(rows, 1),)

    def finish(self, room: tuple[Tensor], wanted: Tensor) -> Tensor:
        x = room[0][:, 0]
        return (x % 100) * (x // 100 % 100) * (x // 10000) / 8


def test_the_awareness_reward_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """With latents 10 t + j and no noise a gain is z_i z_far z_near, with the partners of the same step."""
    aware = make_fox(SPEC, samples=1).fox.aware
    monkeypatch.setattr("algos.fox.gains.normal", lambda *shape: torch.zeros(*shape[:3]))
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
def test_gains_equal_those_of_whole_trios(form_target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of five steps of three agents, two draws: everybody's trio decoded whole, and each of its latents alone."""
    decoder = make_fox(SPEC, form_target=form_target).fox.aware.decoder
    noise, mu, std = torch.randn(3, 15, 4), torch.randn(5, 3, 4), torch.rand(5, 3, 4)
    monkeypatch.setattr("algos.fox.gains.normal", lambda *shape: noise)
    target = decoder.encode(8.0 * torch.rand(5, 3, 4), torch.tensor(8.0))
    partners = torch.tensor([[[2, 1], [2, 0], [0, 1]]]).expand(5, 3, 2)  # 2, 0 are far, 0, 1 are near
    drawn = Gains(decoder, mu, std, partners, target, 2, torch.Generator().manual_seed(0))
    for number, offset in enumerate(drawn.offsets):
        latent, one, two = noise.roll(-offset, 1)
        z = mu + std * latent.view(5, 3, 4)

        def log_g(step: int, *trio: Tensor) -> Tensor:
            return decoder.log_likelihood(decoder(torch.cat(trio)), target[step]).detach()

        for step, agent in itertools.product(range(5), range(3)):
            far, near = partners[step, agent].tolist()
            here, far_row, near_row = 3 * step + agent, 2 * step + (far == 2), 2 * step + near  # of those decoded once
            own, away, close = z[step, agent], z[step, far], z[step, near]
            alone = (log_g(step, own, one[here], two[here]), log_g(step, one[far_row], away, two[far_row]),
                     log_g(step, one[near_row], two[near_row], close))  # fmt: skip
            together = log_g(step, own, away, close)
            known, gain = (float(v[step, agent]) for v in drawn.draw(number))
            assert known == pytest.approx(float(together), abs=1e-5)
            assert gain == pytest.approx(float(together - sum(alone) / 3), abs=1e-5) and abs(gain) > 1e-6


@pytest.mark.parametrize("steps", [1, 40])
def test_a_row_gets_other_noise_in_every_draw(steps: int) -> None:
    """Also where there are fewer rows than draws. The mean over draws of a row has the variance of independent ones."""
    decoder, mu = make_fox(SPEC).fox.aware.decoder, torch.zeros(steps, 3, 4)
    partners, target = torch.zeros(steps, 3, 2, dtype=torch.long), torch.zeros(steps, decoder.size)
    drawn = Gains(decoder, mu, mu + 1, partners, target, 20, torch.Generator().manual_seed(0))
    assert len(set(drawn.offsets)) == 20
    latent = torch.stack([drawn.latent[offset:][: 3 * steps] for offset in drawn.offsets])
    assert len(latent[:, 0].unique(dim=0)) == 20
    assert latent.mean(0).var() == pytest.approx(1 / 20, rel=0.7 if steps == 1 else 0.3)


def test_decoding_in_parts_rewards_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the noise, which each part draws for itself."""
    monkeypatch.setattr("algos.fox.gains.normal", lambda *shape: torch.zeros(*shape[:3]))
    rewards = []
    for trios in (1024, 7):
        monkeypatch.setattr("algos.fox.aware.CACHED", trios)
        algo = make_fox(SPEC)
        batch = collected(algo, 5)
        rewards.append(algo.fox.aware_bonus(batch, algo.learner.forward(batch)))
    assert torch.allclose(*rewards, atol=1e-6) and rewards[0].any()


def test_units_are_those_of_the_rank_with_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks train one decoder: its targets and rewards need the same units on all of them."""
    monkeypatch.setattr("algos.fox.aware.greatest", lambda value: torch.maximum(value, torch.tensor(50.0)))
    algo = make_fox(SPEC)
    batch = collected(algo, 5)
    algo.fox.aware_bonus(batch, algo.learner.forward(batch))
    aware = algo.fox.aware
    assert (aware.reach.item(), aware.largest.item()) == (50.0, 50.0)


def test_a_decoder_that_ignores_latents_earns_nothing() -> None:
    algo = make_fox(SPEC)
    for p in algo.fox.aware.decoder.parameters():
        p.data.zero_()
    batch = collected(algo, 5)
    assert not algo.fox.aware_bonus(batch, algo.learner.forward(batch)).any()


def test_partners_are_gathered_on_the_axis_of_agents() -> None:
    h = torch.arange(4.0)[None, :, None].expand(2, 4, 3)
    assert take(h, torch.tensor([[3, 0], [1, 2]]))[..., 0].tolist() == [[3, 0], [1, 2]]
