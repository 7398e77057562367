"""TD(lambda) against numbers worked out by hand and against the recursion written as a loop."""

import pytest
import torch
from torch import Tensor

from marl.learn.returns import td_lambda


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


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("m", [1, 3])
def test_equals_the_recursion_on_ragged_episodes(lam: float, m: int) -> None:
    gen = torch.Generator().manual_seed(0)
    M, T = 16, 23
    length = torch.randint(1, T + 1, (M,), generator=gen)
    steps = torch.arange(T)
    filled = (steps < length[:, None])[..., None]
    ends = torch.rand(M, generator=gen) < 0.5
    terminated = ((steps == length[:, None] - 1) & ends[:, None])[..., None]
    reward = torch.randn(M, T, 1, generator=gen, dtype=torch.float64)
    v = torch.randn(M, T + 1, m, generator=gen, dtype=torch.float64)
    fast = td_lambda(reward, terminated, filled, v, 0.97, lam)
    assert torch.allclose(fast, loop_td_lambda(reward, terminated, filled, v, 0.97, lam), atol=1e-12)


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
