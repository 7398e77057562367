"""FIM's eligibility traces: by hand, against their recursion, and their memory."""

import pytest
import torch

from algos.fim.trace import traces
from marl.learn.returns import BLOCK
from tests.support.memory import Allocated


def test_traces_by_hand() -> None:
    influence = torch.tensor([1.0, 0.0, 0.5, 0.0])[None, :, None, None]
    assert traces(influence, 0.5).flatten().tolist() == [0.0, 1.0, 0.5, 0.75]
    assert traces(influence, 0.0).flatten().tolist() == [0.0, 1.0, 0.0, 0.5]


def test_traces_follow_the_recursion_and_rows_do_not_mix() -> None:
    influence = torch.rand(3, 12, 1, 4, generator=torch.Generator().manual_seed(0))
    e, found = torch.zeros(3, 1, 4), traces(influence, 0.9)
    for t in range(12):
        assert torch.allclose(found[:, t], e, atol=1e-6)
        e = 0.9 * e + influence[:, t]
    assert torch.equal(traces(influence[1:2], 0.9), found[1:2])


@pytest.mark.parametrize("T", [BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 77])
def test_traces_follow_the_recursion_across_the_borders_of_blocks(T: int) -> None:
    influence = torch.rand(2, T, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    e, found = torch.zeros(2, 2, 3, dtype=torch.float64), traces(influence, 0.97)
    for t in range(T):
        assert torch.allclose(found[:, t], e, atol=1e-12), t
        e = 0.97 * e + influence[:, t]


def test_memory_of_traces_is_linear_in_the_length() -> None:
    def allocated(T: int) -> int:
        influence = torch.ones(1, T, 1, 2)
        with Allocated() as count:
            traces(influence, 0.9)
        return count.bytes

    assert allocated(20_000) < 200 * 2**20
    assert allocated(20_000) < 2.2 * allocated(10_000)


@pytest.mark.parametrize("eta", [0.5, 0.9])
def test_traces_of_constant_influence_are_a_geometric_sum_and_vanish_after_it(eta: float) -> None:
    influence = torch.zeros(1, 20, 1, 1)
    influence[:, :10] = 0.3
    e = traces(influence, eta).flatten()
    expected = [0.3 * (1 - eta**t) / (1 - eta) for t in range(11)]
    expected += [expected[10] * eta**k for k in range(1, 10)]
    assert e.tolist() == pytest.approx(expected, rel=1e-5)
