"""QMIX's compiled mixing equals torch's operations in values and gradients, and is chosen where it may be."""

from __future__ import annotations

from typing import Any

import numba
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from marl.learn import mixers
from marl.learn.learner import team_value
from marl.learn.mixers import VDN, NoMixer, QMix, QPlex
from marl.learn.mixing import mix
from tests.marl.learn.test_networks import QMIX, QPLEX, TWO
from tests.support.helpers import make_spec

SPEC = make_spec()


def by_torch(q: Tensor, w1: Tensor, b1: Tensor, w2: Tensor) -> Tensor:
    hidden = F.elu((q.unsqueeze(-1) * w1.abs().unflatten(-1, (q.shape[1], -1))).sum(-2) + b1)
    return (hidden * w2.abs()).sum(-1)


def test_a_row_by_hand() -> None:
    """|-1| 2 + |0.5| (-4) + 1 = 1 and |1| 2 + |1| (-4) - 1 = -3: 2 ELU(1) + |-3| ELU(-3) = 2 + 3 (e^-3 - 1)."""
    total = mix(
        torch.tensor([[2.0, -4.0]]), torch.tensor([[-1.0, 1.0, 0.5, 1.0]]), torch.tensor([[1.0, -1.0]]),
        torch.tensor([[2.0, -3.0]]),
    )  # fmt: skip
    assert total.tolist() == pytest.approx([2 + 3 * (0.049787068 - 1)], abs=1e-6)


@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=TWO)])
@pytest.mark.parametrize(("n", "E"), [(1, 1), (3, 5), (5, 32)])
def test_values_and_gradients_equal_torchs(n: int, E: int, threads: int, one_thread: None) -> None:
    numba.set_num_threads(threads)
    gen = torch.Generator().manual_seed(0)
    shapes = ((40, n), (40, n * E), (40, E), (40, E))
    values = [torch.randn(*shape, generator=gen) * 3 for shape in shapes]
    values[2][0], values[1][1], values[3][2] = -40.0, 0.0, 0.0  # ELU's floor; where |w| has no slope
    values[0] = values[0].t().contiguous().t()  # of another layout
    weights = torch.randn(40, generator=gen)
    results = []
    for function in (mix, by_torch):
        given = [v.clone(memory_format=torch.preserve_format).requires_grad_() for v in values]
        total = function(*given)
        (total * weights).sum().backward()
        results.append([total.detach(), *(v.grad for v in given)])
    for one, two in zip(*results, strict=True):
        assert two is not None and two.abs().max() > 0
        assert torch.allclose(one, two, rtol=1e-5, atol=2e-5)
    assert torch.equal(mix(*values), results[0][0]), "without a gradient the values are the same"


def test_rows_in_float32_alone_are_mixed_so(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    mixer, called = QMix(SPEC, **QMIX), []
    monkeypatch.setattr(mixers, "mix", lambda *given: called.append(1) or mix(*given))
    q, state = torch.randn(6, SPEC.n_agents), torch.randn(6, SPEC.state_dim)
    rows = mixer(q, state)
    assert called == [1] and rows.shape == (6, 1)
    assert torch.allclose(mixer(q.unflatten(0, (2, 3)), state.unflatten(0, (2, 3))).flatten(0, 1), rows, atol=1e-5)
    assert torch.allclose(mixer.double()(q.double(), state.double()).float(), rows, atol=1e-5)
    assert called == [1]


@pytest.mark.parametrize(
    "make", [lambda: NoMixer(SPEC), lambda: VDN(SPEC), lambda: QMix(SPEC, **QMIX), lambda: QPlex(SPEC, **QPLEX)]
)
def test_best_values_matter_to_those_who_say_so(make: Any) -> None:
    """Changing the best actions changes exactly the team value of a mixer with ``reads_best``."""
    torch.manual_seed(0)
    mixer, q = make(), torch.randn(6, SPEC.n_agents, SPEC.n_actions)
    actions, state = q.argmin(-1), torch.randn(6, SPEC.state_dim)
    best, other = (team_value(mixer, q, greedy, actions, state) for greedy in (q.argmax(-1), actions))
    assert torch.equal(best, other) is not mixer.reads_best
