"""Rows: chosen and put back; an update on rows equals the same update written out over padding."""

import copy

import pytest
import torch
from torch import Tensor, nn

from marl.core.rows import Rows
from marl.core.types import EpisodeBatch
from marl.learn.learner import ValueLearner, best_available, gather_actions, previous_actions
from marl.learn.returns import td_lambda
from tests.marl.learn.test_learner import MIXERS
from tests.support.helpers import make_learner, make_spec, random_batch

SPEC = make_spec()


def test_rows_are_the_slots_that_matter_the_longest_episode_first() -> None:
    x = torch.arange(12).view(3, 4)
    rows = Rows(3, 4, torch.tensor([2, 4, 3]), {"x": x})
    assert rows["x"].tolist() == [4, 5, 6, 7, 8, 9, 10, 0, 1]
    assert rows.start is not None and rows.start.tolist() == [0, 4, 7, 9]
    assert rows.spread(rows["x"]).tolist() == [[0, 1, 0, 0], [4, 5, 6, 7], [8, 9, 10, 0]]
    assert rows.of(x[:, :3]).tolist() == [4, 5, 6, 0, 8, 9, 10, 0, 1]
    every = Rows(3, 4, None)
    assert every.of(x).tolist() == list(range(12)) and torch.equal(every.spread(every.of(x)), x)
    assert every.of(x[:, :3])[:4].tolist() == [0, 1, 2, 0]


def test_steps_are_the_rows_without_the_slot_behind_each_episode() -> None:
    x = torch.arange(12).view(3, 4)
    rows = Rows(3, 4, torch.tensor([2, 4, 1]), {"x": x})
    steps, index = rows.steps()
    assert rows["x"][index].tolist() == steps["x"].tolist() == [4, 5, 6, 0]
    assert steps.start is not None and steps.start.tolist() == [0, 3, 4, 4] and steps.episodes.tolist() == [1, 0, 2]
    assert steps.spread(steps["x"]).tolist() == [[0, 0, 0, 0], [4, 5, 6, 0], [0, 0, 0, 0]]


def padded_unroll(agent: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return q [M, T+1, n, A] and h [M, T+1, n, H] by steps over all slots."""
    h, found = agent.initial(len(x)), []
    for t in range(x.shape[1]):
        q, h = agent.step(x[:, t], h)
        found.append((q, h))
    q, h = (torch.stack(values, 1) for values in zip(*found, strict=True))
    return q, h


def padded_loss(learner: ValueLearner, batch: EpisodeBatch) -> Tensor:
    """Return the TD loss, 0-d, computed over every slot."""
    last = previous_actions(batch.intended)
    x, taken, filled = learner.agent.inputs(batch.obs, last), batch.intended.long()[:, :-1], batch.filled[:, :-1, None]
    q = padded_unroll(learner.agent, x)[0]
    greedy = best_available(q.detach(), batch.avail)
    with torch.no_grad():
        later = padded_unroll(learner.target_agent, x)[0]
        best = gather_actions(later, best_available(later, batch.avail))
        v = learner.target_mixer(gather_actions(later, greedy), batch.state, actions=greedy, q_max=best)
        reward, terminated = batch.reward[:, :-1, None], batch.terminated[:, :-1, None]
        target = td_lambda(reward, terminated, filled, v, learner.gamma, learner.td_lambda)
    chosen, best = gather_actions(q[:, :-1], taken), gather_actions(q[:, :-1], greedy[:, :-1])
    value = learner.mixer(chosen, batch.state[:, :-1], actions=taken, q_max=best)
    return ((value - target) * filled).square().sum() / (filled.sum() * value.shape[-1])


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("name", MIXERS)
def test_an_update_equals_the_one_over_padding(name: str, on_gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    learner, batch = make_learner(SPEC, MIXERS[name](SPEC), grad_clip=1e9), random_batch(SPEC, 6)
    learner.update(random_batch(SPEC, 6, seed=1))  # targets differ from the online networks
    if on_gpu:  # all slots are rows there
        every = Rows(6, SPEC.episode_limit + 1, None, batch.data)
        monkeypatch.setattr(learner, "rows", lambda batch: every)
        monkeypatch.setattr(learner.agent, "along", lambda x, rows: along_slots(learner.agent, x, rows))
        monkeypatch.setattr(learner.target_agent, "along", lambda x, rows: along_slots(learner.target_agent, x, rows))
    loss = padded_loss(learner, batch)
    expected = torch.autograd.grad(loss, learner.parameters, allow_unused=True)
    metrics = learner.update(copy.deepcopy(batch))
    assert metrics["loss/td"].item() == pytest.approx(loss.item(), rel=1e-5)
    for p, grad in zip(learner.parameters, expected, strict=True):
        assert (p.grad is None) == (grad is None)
        assert grad is None or torch.allclose(p.grad, grad, rtol=1e-4, atol=1e-6)


def along_slots(agent: nn.Module, x: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    """Do as ``RecurrentAgent.along`` does on a GPU."""
    q, h = padded_unroll(agent, rows.spread(x))
    return q.flatten(0, 1), h.flatten(0, 1)


def test_values_carry_gradients_whoever_asks_first() -> None:
    """Bonuses are computed without gradient, before losses that need one."""
    learner, batch = make_learner(SPEC, MIXERS["qmix"](SPEC)), random_batch(SPEC, 4)
    fwd = learner.forward(batch)
    with torch.no_grad():
        assert fwd.q.shape[:2] == batch.filled.shape
    assert fwd.q.requires_grad and not fwd.target_v.requires_grad
