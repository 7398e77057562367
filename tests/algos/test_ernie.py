"""ERNIE: disturbance and loss by hand, which weights move, weight 0 is the base learner, values become smoother."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from algos.ernie import ErnieLearner
from marl.core.types import ConfigError, EnvSpec, EpisodeBatch
from marl.learn.learner import ValueLearner
from marl.learn.mixers import VDN, QMix
from tests.support.helpers import LEARNER, differences, make_agent, make_spec, random_batch

ERNIE: dict[str, Any] = {"weight": 0.1, "eta": 0.1, "steps": 1, "noise": 0.001, "clip": 1.0, "stackelberg": False}
SPEC = make_spec()


def make(spec: EnvSpec = SPEC, **changes: Any) -> ErnieLearner:
    torch.manual_seed(0)
    agent, mixer = make_agent(spec), QMix(spec, embed_dim=8, hypernet_dim=8)
    return ErnieLearner(spec, agent, mixer, **{**LEARNER, **ERNIE, **changes})


def measured(learner: ErnieLearner, batch: EpisodeBatch) -> Tensor:
    return learner.smoothness(batch, learner.forward(batch))


class Linear(torch.nn.Module):
    """An agent whose values are a matrix product with its input; it has no memory."""

    n_agents, n_actions, hidden_dim = 1, 2, 1

    def __init__(self, matrix: list[list[float]]) -> None:
        super().__init__()
        self.matrix = torch.nn.Parameter(torch.tensor(matrix))

    def inputs(self, obs: Tensor, last: Tensor) -> Tensor:
        return obs

    def step(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return x @ self.matrix, h

    def along(self, x: Tensor, rows: Any) -> tuple[Tensor, Tensor]:
        return x @ self.matrix, x.new_zeros(*x.shape[:-1], 1)


def by_hand(matrix: list[list[float]], obs: list[float], **changes: Any) -> tuple[float, Tensor]:
    """Return the loss of one step of one agent that sees ``obs``, and its gradient with respect to the matrix."""
    spec = make_spec(n=1, A=2, O=2, limit=1)
    batch = random_batch(spec, 1)
    batch.data["obs"] = torch.tensor([[[obs], [[9.0, 9.0]]]])
    agent: Any = Linear(matrix)
    learner = ErnieLearner(spec, agent, VDN(spec), **{**LEARNER, **ERNIE, **changes})
    loss = measured(learner, batch)
    (gradient,) = torch.autograd.grad(loss, agent.matrix)
    return float(loss.detach()), gradient


def test_one_feature_moves_by_eta_times_itself_times_the_slope() -> None:
    """With one feature that matters, q = o w and the slope of |d w| is |w|: the loss is eta |o| w^2, up to the noise.
    The other feature moves nothing, however large it is."""
    for obs, w, eta in ((2.0, 0.3, 0.1), (-4.0, 0.5, 0.2)):
        loss, _ = by_hand([[w, 0.0], [0.0, 0.0]], [obs, 7.0], noise=1e-4, eta=eta)
        assert loss == pytest.approx(eta * abs(obs) * w**2, rel=1e-2)
    two, _ = by_hand([[0.3, 0.0], [0.0, 0.0]], [2.0, 7.0], noise=1e-4, steps=2)
    assert two == pytest.approx(2 * 0.2 * 0.09, rel=1e-2)


def test_the_slope_is_cut_and_without_a_step_there_is_only_noise() -> None:
    matrix = [[0.3, 0.0], [0.0, 0.5]]
    clipped, _ = by_hand(matrix, [2.0, 0.0], noise=1e-4, clip=0.01)  # |o| keeps the second feature at its 0
    assert clipped == pytest.approx(0.2 * 0.01 * 0.3, abs=2e-4)
    still, _ = by_hand(matrix, [2.0, 0.0], noise=1e-4, eta=0.0)
    assert 0.0 < still < 5e-4


def test_stackelberg_gradients_pass_through_the_answer() -> None:
    """The loss eta |o| w^2 has the slope 2 eta |o| w in w; with the disturbance held fixed it is half of that."""
    matrix = [[0.3, 0.0], [0.0, 0.0]]
    full, half = (by_hand(matrix, [2.0, 7.0], noise=1e-4, stackelberg=s)[1][0, 0] for s in (True, False))
    assert float(full) == pytest.approx(2 * 0.2 * 0.3, rel=1e-2)
    assert float(half) == pytest.approx(0.2 * 0.3, rel=1e-2)


def test_padding_and_the_dead_do_not_count() -> None:
    batch, learner = random_batch(SPEC, 6), make(noise=0.1)
    state = learner.gen.get_state()
    before = measured(learner, batch)
    other = EpisodeBatch({k: v.clone() for k, v in batch.data.items()}, batch.fields)
    other.obs[~batch.filled] = 9.0
    learner.gen.set_state(state)
    assert torch.equal(before, measured(learner, other))
    other.alive[:, :, 1] = False
    learner.gen.set_state(state)
    assert not torch.equal(before, measured(learner, other))


def test_weight_zero_is_the_base_learner_bit_for_bit() -> None:
    torch.manual_seed(0)
    base = ValueLearner(SPEC, make_agent(SPEC), QMix(SPEC, embed_dim=8, hypernet_dim=8), **LEARNER)
    off, on = make(weight=0.0), make()
    for seed in range(3):
        batch = random_batch(SPEC, 8, seed)
        metrics = base.update(batch)
        assert differences(metrics, off.update(batch)) == []
        assert "loss/ernie" in on.update(batch)
    states = [{k: v for k, v in learner.state_dict().items() if k != "ernie"} for learner in (base, off, on)]
    assert differences(states[0], states[1]) == [] and differences(states[0], states[2]) != []


def test_only_the_agent_learns_from_it() -> None:
    learner, batch = make(), random_batch(SPEC, 6)
    learner.optimizer.zero_grad()
    measured(learner, batch).backward()
    assert all(p.grad is None for p in learner.mixer.parameters())
    assert all(p.grad is not None and bool(p.grad.any()) for p in learner.agent.parameters())


@pytest.mark.parametrize("stackelberg", [False, True])
def test_values_become_smoother(stackelberg: bool) -> None:
    """After the same updates on the same data, values change less under the same disturbance than without ERNIE."""
    smooth, plain = make(weight=3.0, stackelberg=stackelberg), make(weight=0.0)
    batch = random_batch(SPEC, 8)
    for _ in range(40):
        smooth.update(batch)
        plain.update(batch)
    judge = make(noise=0.1, eta=1.0)
    change = []
    for learner in (smooth, plain):
        judge.agent.load_state_dict(learner.agent.state_dict())
        judge.gen.manual_seed(0)
        change.append(float(measured(judge, batch).detach()))
    assert change[0] < 0.6 * change[1], change


def test_a_saved_learner_goes_on_alike() -> None:
    one, batch = make(noise=0.1), random_batch(SPEC, 6)
    one.update(batch)
    other = make(noise=0.1)
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    assert differences(one.update(batch), other.update(batch)) == []


@pytest.mark.parametrize("name", ["weight", "eta", "noise", "clip"])
def test_negative_settings_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"learner.{name}=-1.0 must be at least 0"):
        make(**{name: -1.0})
