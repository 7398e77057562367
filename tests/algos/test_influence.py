"""The forward model and counterfactual influence: exact cases, event-balanced learning, recall of rare events."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from algos.shared.influence import Prediction, balanced_steps, balanced_weights, events
from algos.shared.influence_model import Kind, alternatives
from tests.support.fim_parts import additive, button_batch, make_dynamics
from tests.support.helpers import differences, make_spec, random_batch

SPEC = make_spec(n=3, A=4, O=2, S=3, limit=6)
DIMS = torch.arange(3)


def table() -> Tensor:
    return torch.rand(3, 4, 3, generator=torch.Generator().manual_seed(5)) - 0.5


def test_an_additive_model_gives_each_agent_its_own_share() -> None:
    """I_i = c_i[a_i] - mean of c_i over the other available actions, whatever the other agents do."""
    dynamics, batch, c = make_dynamics(SPEC), random_batch(SPEC, 10), table()
    additive(dynamics, c)
    found, predicted = dynamics.contrast(batch, DIMS)
    assert found.shape == (10, 6, 3, 3)
    for m, t, i in torch.cartesian_prod(torch.arange(10), torch.arange(6), torch.arange(3)).tolist():
        taken = int(batch.actions[m, t, i])
        others = [a for a in range(4) if batch.avail[m, t, i, a] and a != taken]
        counts = bool(others) and bool(batch.filled[m, t])
        expected = c[i, taken] - c[i, others].mean(0) if counts else torch.zeros(3)
        assert torch.allclose(found[m, t, i], expected, atol=1e-5), (m, t, i)
    total = 5 + sum(c[i, batch.actions[0, 0, i].long()] for i in range(3))
    assert torch.allclose(predicted[0, 0], total, atol=1e-5)


def test_only_the_features_asked_for_come_back() -> None:
    dynamics, batch = make_dynamics(SPEC), random_batch(SPEC, 4)
    whole, part = dynamics.contrast(batch, DIMS)[0], dynamics.contrast(batch, torch.tensor([2, 0]))[0]
    assert torch.allclose(part, whole[..., [2, 0]], atol=1e-6)


@pytest.mark.parametrize("kind", ["mlp", "gru"])
def test_contrast_equals_whole_predictions(kind: str) -> None:
    """Compute one alternative at a time by the ordinary forward pass, with earlier steps unchanged."""
    dynamics, batch = make_dynamics(SPEC, kind=kind), random_batch(SPEC, 3)
    found, _ = dynamics.contrast(batch, DIMS)
    x, taken = dynamics.read(batch), batch.actions[:, :-1].long()
    weight = alternatives(batch.avail[:, :-1], taken, batch.filled[:, :-1, None].expand(-1, -1, 3))
    expected, slots = torch.zeros_like(found), torch.full((3,), 6)

    def predict(actions: Tensor) -> Tensor:
        return dynamics.model(x.flatten(0, 1), actions.flatten(0, 1), slots).view(3, 6, -1)

    with torch.no_grad():
        fact = predict(taken)
        for t in range(6):
            for i in range(3):
                for a in range(4):
                    other = taken.clone()
                    other[:, t, i] = a
                    expected[:, t, i] += weight[:, t, i, a, None] * (fact - predict(other))[:, t]
    assert torch.allclose(found, expected, atol=1e-5) and found.abs().max() > 1e-3


def test_a_gru_over_ragged_rows_equals_torchs_over_padded_episodes() -> None:
    net, lengths = make_dynamics(SPEC, kind="gru").model, torch.tensor([3, 0, 6, 1])
    there = torch.arange(6) < lengths[:, None]
    x, actions = torch.randn(4, 6, net.inputs), torch.randint(4, (4, 6, 3))
    weights = torch.randn(10, 3)
    found = net(x[there], actions[there], lengths)
    whole = net.head(net.gru(torch.relu(net.enter(x, actions)))[0])[there]
    assert torch.allclose(found, whole, atol=1e-6)
    grads = [torch.autograd.grad((v * weights).sum(), list(net.parameters())) for v in (found, whole)]
    for a, b in zip(*grads, strict=True):
        assert torch.allclose(a, b, atol=1e-5) and b.any()
    before = net.before(net.hidden(net.enter(x[there], actions[there]), lengths), lengths)
    assert not before[[0, 3, 9]].any() and before[[1, 2, 4]].all(), "episodes begin from zeros"


def test_an_agent_that_the_model_ignores_has_no_influence() -> None:
    dynamics, batch = make_dynamics(SPEC), random_batch(SPEC, 6)
    with torch.no_grad():
        first = dynamics.model.inputs + 4  # agent 1's columns
        dynamics.model.first.weight[:, first : first + 4] = 0.0
    found, _ = dynamics.contrast(batch, DIMS)
    assert found[:, :, 1].abs().max() < 1e-6 < found[:, :, 0].abs().max()


def test_the_dead_and_those_without_a_choice_have_none() -> None:
    dynamics, batch = make_dynamics(SPEC), random_batch(SPEC, 6)
    batch.data["alive"][:, :, 0] = False
    batch.data["avail"][:, :, 1] = False
    batch.data["avail"][:, :, 1, 0], batch.data["actions"][:, :, 1] = True, 0
    found, _ = dynamics.contrast(batch, DIMS)
    assert not found[:, :, :2].any() and found[:, :, 2].any()


def test_alternatives_by_hand() -> None:
    avail = torch.tensor([[True, True, True, False], [True, False, False, False], [True, True, True, True]])
    taken, counted = torch.tensor([1, 0, 3]), torch.tensor([True, True, False])
    assert alternatives(avail, taken, counted).tolist() == [[0.5, 0, 0.5, 0], [0] * 4, [0] * 4]
    q = torch.tensor([0.0, 9.0, 1.0, 9.0]).expand(3, -1)
    e = torch.tensor([0.0, 1.0]).softmax(0)
    assert torch.allclose(alternatives(avail, taken, counted, q)[0], torch.tensor([e[0], 0, e[1], 0]))
    assert not alternatives(avail, taken, counted, q)[1:].any()


def test_the_executed_action_counts() -> None:
    dynamics, batch = make_dynamics(SPEC), random_batch(SPEC, 6)
    before = dynamics.contrast(batch, DIMS)[0]
    batch.data["intended"][:] = 1
    assert torch.equal(dynamics.contrast(batch, DIMS)[0], before)
    batch.data["actions"][:, :, 0] = 1
    assert not torch.equal(dynamics.contrast(batch, DIMS)[0], before)


# balanced learning


def test_the_sampler_draws_the_share_that_was_asked_for() -> None:
    event, filled = torch.zeros(5, 20, dtype=torch.bool), torch.ones(5, 20, dtype=torch.bool)
    filled[:, 15:] = False
    event[2, 3] = event[4, 14] = True
    gen = torch.Generator().manual_seed(0)
    for share, expected in ((0.5, 32), (0.25, 16), (1.0, 64)):
        m, t = balanced_steps(event, filled, 64, share, gen).unbind(1)
        assert event[m, t].sum() == expected and filled[m, t].all()
    m, t = balanced_steps(event, filled, 6000, 0.0, gen).unbind(1)
    assert 100 < event[m, t].sum() < 230 and filled[m, t].all()  # 2 of 75
    for none_or_all in (torch.zeros_like(event), filled):
        drawn = balanced_steps(none_or_all, filled, 64, 0.5, gen)
        assert len(drawn) == 64 and filled[drawn.unbind(1)].all()


def test_weights_by_hand() -> None:
    event = torch.tensor([[True, False, False], [False, False, False]])
    filled = torch.tensor([[True, True, False], [True, True, False]])
    third = 0.5 / 3
    expected = torch.tensor([[0.5, third, 0.0], [third, third, 0.0]])
    assert torch.allclose(balanced_weights(event, filled, 0.5), expected)
    assert torch.equal(balanced_weights(event, filled, 0.0), 0.25 * filled)
    assert torch.equal(balanced_weights(event & False, filled, 0.5), 0.25 * filled)


PUSH = make_spec(n=2, A=3, O=1, S=5, limit=40)


def pushes(episodes: int, seed: int) -> Any:
    """Make episodes whose button moves where agent 0 plays 1 while feature 4 is above 1.5: one step in 50."""
    batch = button_batch(PUSH, episodes, seed)
    pushed = (batch.actions[..., 0] == 1) & (batch.state[..., 4] > 1.5)
    batch.state[:, 1:, 0] = pushed[:, :-1].cumsum(1).float() * 0.1
    return batch


@pytest.mark.parametrize("kind", ["mlp", "gru"])
def test_the_model_recalls_rare_events_and_is_quiet_elsewhere(kind: str) -> None:
    recall, noise, share = recalled(kind, 0.5)
    assert share < 0.04 and recall > 0.9 and noise < 0.05


def test_without_balance_it_recalls_less() -> None:
    """The twin of the test above, without the balance."""
    assert recalled("mlp", 0.0, steps=300)[0] < recalled("mlp", 0.5, steps=300)[0]


def recalled(kind: str, share: float, steps: int = 1000) -> tuple[float, float, float]:
    """Return the share of events predicted above 0.3, agent 1's mean influence (it has none), and the share of
    events."""
    dynamics = make_dynamics(PUSH, kind=kind, inputs="state", hidden_dim=32, batch_size=128, lr=0.005, event_frac=share)
    chosen, scale = torch.tensor([True, False, False, False, False]), torch.full((5,), 0.1)
    dynamics.learn(dynamics.transitions(pushes(200, 0)), chosen, scale, steps)
    fresh = pushes(100, 1)
    data = dynamics.transitions(fresh)
    event = events(data, chosen)
    influence, predicted = dynamics.contrast(fresh, torch.tensor([0]))
    noise = influence[..., 1, 0].abs()[data.filled].mean()
    return float((predicted[..., 0][event] > 0.3).float().mean()), float(noise), float(event.sum() / data.filled.sum())


def test_learning_touches_only_what_was_chosen_and_ignores_padding() -> None:
    def after(noise: float) -> Any:
        dynamics, batch = make_dynamics(SPEC, batch_size=None, inputs="state"), random_batch(SPEC, 8)
        padded = torch.arange(7) > batch.length[:, None]
        batch.state[padded] = noise
        chosen = torch.tensor([True, False, False])
        before = dynamics.model.head.weight.detach().clone()
        dynamics.learn(dynamics.transitions(batch), chosen, torch.ones(3))
        head = dynamics.model.head.weight
        assert torch.equal(head[1:], before[1:]) and not torch.equal(head[0], before[0])
        return dynamics.model.state_dict()

    assert differences(after(0.0), after(50.0)) == []


def test_the_slow_copy_follows_a_new_beginning_at_once() -> None:
    dynamics, batch = make_dynamics(SPEC, slow_every=100), random_batch(SPEC, 6)
    data, chosen = dynamics.transitions(batch), torch.ones(3, dtype=torch.bool)
    dynamics.learn(data, chosen, torch.ones(3))
    first = copy.deepcopy(dynamics.slow.state_dict())
    dynamics.learn(data, chosen, torch.ones(3))
    assert differences(first, dynamics.slow.state_dict()) == [], "not yet due"
    dynamics.learn(data, chosen, torch.ones(3), steps=3)
    assert differences(dynamics.model.state_dict(), dynamics.slow.state_dict()) == []


@pytest.mark.parametrize("kind", ["mlp", "gru"])
@pytest.mark.parametrize("predict", ["state", "change"])
def test_the_loss_of_a_whole_sample_by_hand(kind: Kind, predict: Prediction) -> None:
    """The mean over steps that happened of the squared errors of what was chosen, from predictions of whole states."""
    dynamics, batch = (
        make_dynamics(SPEC, kind=kind, predict=predict, batch_size=None, event_frac=0.0),
        random_batch(SPEC, 6),
    )
    data, scale, dims = dynamics.transitions(batch), torch.arange(1.0, SPEC.state_dim + 1), torch.tensor([0, 2])
    chosen = torch.zeros(SPEC.state_dim, dtype=torch.bool).index_fill(0, dims, True)
    there, total = data.filled, 0.0
    predicted = dynamics.model(data.x[there], data.actions[there], there.sum(1)).detach()
    wanted = data.change[there] / scale if predict == "change" else data.state[there] + data.change[there]
    for d in dims.tolist():
        total += float((predicted - wanted)[:, d].square().sum()) / int(there.sum())
    rows = dynamics.minibatch(data, events(data, chosen), dims, scale)
    assert float(dynamics.loss(rows, dims).detach()) == pytest.approx(total, rel=1e-5) and total > 0.01


def test_the_slow_copy_follows_at_its_own_pace() -> None:
    dynamics, batch = make_dynamics(SPEC, slow_every=3), random_batch(SPEC, 8)
    chosen, copies = torch.tensor([True, True, True]), []
    for _ in range(4):
        dynamics.learn(dynamics.transitions(batch), chosen, torch.ones(3))
        copies.append(copy.deepcopy(dynamics.slow.state_dict()))
    assert differences(copies[0], copies[2]) == [] and differences(copies[2], copies[3])
    assert differences(copies[3], dict(dynamics.model.state_dict())) == [], "the first and every third update"


def test_seeds_make_the_weights() -> None:
    first, same, other = (make_dynamics(SPEC, seed).model.state_dict() for seed in (1, 1, 2))
    assert differences(dict(first), dict(same)) == [] and differences(dict(first), dict(other))
