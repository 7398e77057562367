"""TD(lambda) against numbers worked out by hand and against the recursion written as a loop."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from marl.learn import returns
from marl.learn.returns import BLOCK, discounted_sums, sums_by_products, td_lambda
from tests.support.memory import Allocated


def loop_td_lambda(reward: Tensor, terminated: Tensor, filled: Tensor, v: Tensor, gamma: float, lam: float) -> Tensor:
    """Compute the lambda-returns by their definition, one episode and one step at a time."""
    M, T, m = v.shape[0], v.shape[1] - 1, v.shape[2]
    out = torch.zeros(M, T, m, dtype=v.dtype)
    for k in range(M):
        length = int(filled[k].sum())
        later = v[k, length]  # at the end the lambda-return continues as the value
        for t in reversed(range(length)):
            running = 1.0 - float(terminated[k, t])
            later = reward[k, t] + gamma * running * ((1 - lam) * v[k, t + 1] + lam * later)
            out[k, t] = later
    return out


def ragged() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return two episodes side by side: the first terminates after 2 steps, the second is truncated after 3."""
    reward = torch.tensor([[1.0, 2.0, 9.0], [1.0, 1.0, 1.0]])[..., None]
    terminated = torch.tensor([[False, True, False], [False, False, False]])[..., None]
    filled = torch.tensor([[True, True, False], [True, True, True]])[..., None]
    v = torch.tensor([[5.0, 10.0, 20.0, 30.0], [5.0, 10.0, 20.0, 40.0]])[..., None]
    return reward, terminated, filled, v


def test_one_step_targets_by_hand() -> None:
    y = td_lambda(*ragged(), gamma=0.5, lam=0.0)[..., 0]
    # terminated: 1 + 0.5*10 = 6; 2 (v[2] = 20 is not used). truncated: 6, 1 + 0.5*20 = 11, 1 + 0.5*40 = 21
    assert torch.equal(y, torch.tensor([[6.0, 2.0, 0.0], [6.0, 11.0, 21.0]]))


def test_monte_carlo_targets_by_hand() -> None:
    y = td_lambda(*ragged(), gamma=0.5, lam=1.0)[..., 0]
    # terminated: 1 + 0.5*2 = 2. truncated: 21, 1 + 0.5*21 = 11.5, 1 + 0.5*11.5 = 6.75
    assert torch.allclose(y, torch.tensor([[2.0, 2.0, 0.0], [6.75, 11.5, 21.0]]))


def test_mixed_targets_by_hand() -> None:
    y = td_lambda(*ragged(), gamma=0.5, lam=0.5)[..., 0]
    # terminated, t=0: 1 + 0.5*(0.5*10 + 0.5*2) = 4. truncated: 21; 1 + 0.5*(10 + 10.5) = 11.25; 1 + 0.5*(5 + 5.625)
    assert torch.allclose(y, torch.tensor([[4.0, 2.0, 0.0], [6.3125, 11.25, 21.0]]))


def random_episodes(length: Tensor, T: int, m: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return episodes of ``length`` long [M] among ``T`` steps; about half terminate."""
    gen, steps = torch.Generator().manual_seed(0), torch.arange(T)
    filled = (steps < length[:, None])[..., None]
    ends = torch.rand(len(length), generator=gen) < 0.5
    terminated = ((steps == length[:, None] - 1) & ends[:, None])[..., None]
    reward = torch.randn(len(length), T, 1, generator=gen, dtype=torch.float64)
    return reward, terminated, filled, torch.randn(len(length), T + 1, m, generator=gen, dtype=torch.float64)


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("m", [1, 3])
def test_equals_the_recursion_on_ragged_episodes(lam: float, m: int) -> None:
    T = 23
    episodes = random_episodes(torch.randint(1, T + 1, (16,), generator=torch.Generator().manual_seed(1)), T, m)
    assert torch.allclose(td_lambda(*episodes, 0.97, lam), loop_td_lambda(*episodes, 0.97, lam), atol=1e-12)


@pytest.mark.parametrize("sums", [discounted_sums, sums_by_products])
@pytest.mark.parametrize("lam", [0.0, 0.8, 1.0])
@pytest.mark.parametrize("T", [BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 77])
def test_equals_the_recursion_across_the_borders_of_blocks(
    lam: float, T: int, sums: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(returns, "discounted_sums", sums)
    ends = [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 1, 2 * BLOCK, 2 * BLOCK + 1, T - 1, T]
    episodes = random_episodes(torch.tensor([end for end in ends if end <= T] * 2), T, 2)
    assert torch.allclose(td_lambda(*episodes, 0.99, lam), loop_td_lambda(*episodes, 0.99, lam), atol=1e-12)


@pytest.mark.parametrize("sums", [discounted_sums, sums_by_products])
def test_discounted_sums_by_hand(sums: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(returns, "BLOCK", 2)  # of products; several are chained
    x = torch.tensor([1.0, 0.0, 4.0, 8.0, 16.0])[None, :, None]
    # from the end: 16; 8 + 8 = 16; 4 + 8 = 12; 0 + 6 = 6; 1 + 3 = 4
    assert sums(x, 0.5).flatten().tolist() == [4.0, 6.0, 12.0, 16.0, 16.0]


@pytest.mark.parametrize("T", [1, 60, BLOCK, BLOCK + 1, 2 * BLOCK + 77])
def test_the_loop_equals_the_products_and_leaves_its_input(T: int) -> None:
    x = torch.randn(4, T, 3, generator=torch.Generator().manual_seed(T))
    for given in (x, x.transpose(0, 2).contiguous().transpose(0, 2)):
        before = given.clone()
        assert torch.allclose(discounted_sums(given, 0.594), sums_by_products(given, 0.594), atol=1e-5)
        assert torch.equal(given, before)


def test_gradients_pass_through_the_products() -> None:
    x = torch.ones(1, 3, 1, requires_grad=True)
    discounted_sums(x, 0.5)[0, 0].backward()
    assert x.grad is not None and x.grad.flatten().tolist() == [1.0, 0.5, 0.25]


@pytest.mark.parametrize("sums", [discounted_sums, sums_by_products])
def test_memory_is_linear_in_the_length(sums: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(returns, "discounted_sums", sums)

    def allocated(T: int) -> int:
        episodes = random_episodes(torch.tensor([T, T // 2]), T, 1)
        with Allocated() as count:
            td_lambda(*episodes, 0.99, 0.8)
        return count.bytes

    assert allocated(20_000) < 200 * 2**20  # a matrix over all steps alone has 3 GiB
    assert allocated(20_000) < 2.2 * allocated(10_000)


def test_padding_cannot_leak() -> None:
    reward, terminated, filled, v = ragged()
    expected = td_lambda(reward, terminated, filled, v, 0.9, 0.6)
    reward[0, 2], v[0, 3] = torch.nan, torch.inf
    assert torch.equal(td_lambda(reward, terminated, filled, v, 0.9, 0.6), expected)


def test_the_time_limit_twin_is_told_apart() -> None:
    """An implementation that treats a time limit as a terminal state gives other targets: the data reveal it."""
    reward, terminated, filled, v = ragged()
    wrong = terminated.clone()
    wrong[1, 2] = True
    assert not torch.equal(
        td_lambda(reward, terminated, filled, v, 0.5, 0.5), td_lambda(reward, wrong, filled, v, 0.5, 0.5)
    )
