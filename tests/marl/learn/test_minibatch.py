"""What gradient steps of PPO read: sequences by hand, and the same step from fewer rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from marl.core.rows import Rows
from marl.core.types import EpisodeBatch
from marl.learn import ppo
from marl.learn.actor import Critic, log_policy
from marl.learn.agents import FeedForwardAgent, RecurrentAgent
from marl.learn.minibatch import condensed, distinct, sequences, whole
from marl.learn.ppo import PPOLearner
from tests.marl.learn.test_ppo import CRITIC, LEARNER
from tests.support.helpers import AGENT, make_spec, random_batch


def test_sequences_by_hand() -> None:
    rows = Rows(2, 4, torch.tensor([3, 4]))  # as rows: the second piece, 0 to 3, then the first, 4 to 6
    played = torch.tensor([[1, 0], [1, 1], [0, 0], [0, 0], [1, 0], [1, 0], [0, 0]]).bool()
    found, index, agents = sequences(rows, played)
    # agent 0 plays two steps of either piece, agent 1 one, the second, of the longer: three sequences of two steps
    assert found.start is not None and found.start.tolist() == [0, 2, 4, 6]
    assert agents.tolist() == [0, 1, 2]
    assert index.tolist() == [0, 2, 1, 3, 8, 10]


def test_sequences_are_longest_first_and_keep_what_lies_between_played_steps() -> None:
    rows = Rows(1, 4, torch.tensor([4]))
    played = torch.tensor([[1, 1, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0]]).bool()  # agent 1 comes back
    found, index, agents = sequences(rows, played)
    assert found.start is not None and found.start.tolist() == [0, 3, 4]
    assert agents.tolist() == [1, 0] and index.tolist() == [1, 4, 7, 0]


def test_what_the_dead_see_alike_is_kept_once_for_each_agent() -> None:
    seen = torch.tensor([[1.0], [0.0], [2.0], [0.0], [0.0], [5.0], [0.0], [0.0]])
    dead = torch.tensor([0, 1, 0, 1, 1, 1, 0, 1]).bool()  # the row before the last sees zeros alive
    agent = torch.tensor([0, 1, 0, 1, 0, 1, 0, 0])
    rest, place = distinct(seen, dead, agent)
    assert rest[:, 0].tolist() == [1.0, 0.0, 2.0, 0.0, 5.0, 0.0]
    assert place.tolist() == [0, 1, 2, 1, 3, 4, 5, 3]
    assert torch.equal(rest[place], seen)


def test_where_nobody_dies_the_critic_reads_its_rows_as_they_are() -> None:
    learner, batch = make(RecurrentAgent, True, {}), mortal(3)
    for lives in (True, False):
        batch.alive[:] = lives
        rows, data, _ = learner.prepare(batch)
        assert ("place" in learner.minibatch(batch, rows, data).critic) is not lives


def mortal(seed: int) -> EpisodeBatch:
    """Return pieces in the middle of episodes, whose agents die, some at once, and some come back."""
    spec = make_spec()
    batch, gen = random_batch(spec, 8), torch.Generator().manual_seed(seed)
    batch.data["alive"] = torch.rand(batch.alive.shape, generator=gen) < 0.6
    batch.alive[0], batch.alive[1, :, 0] = False, False
    batch.data["obs"] = torch.where(batch.alive[..., None], batch.obs, 0.0)
    batch.data["begin_h"] = torch.randn(8, spec.n_agents, AGENT["hidden_dim"], generator=gen)
    batch.data["begin_last"] = torch.randint(0, spec.n_actions, (8, spec.n_agents), generator=gen)
    return batch


def make(kind: type[RecurrentAgent], share: bool, critic: dict[str, Any], **changes: Any) -> PPOLearner:
    spec = make_spec()
    torch.manual_seed(0)
    agent = kind(spec, **{**AGENT, "share_parameters": share})
    options = {**LEARNER, "normalise_advantage": True, "normalise_value": True, "value_clip": 0.2, "optimizer_eps": 0.1}
    return PPOLearner(spec, agent, Critic(spec, **{**CRITIC, **critic}), **{**options, **changes})


def learnt(learner: PPOLearner, batch: EpisodeBatch) -> Tensor:
    learner.update(batch, 0.01, 1.0, torch.Generator().manual_seed(0))
    return torch.cat([p.detach().flatten() for net in (learner.agent, learner.critic) for p in net.parameters()])


CRITICS: dict[str, dict[str, Any]] = {
    "each": {}, "team": {"sees": "state", "agent_id": False}, "own": {"share_parameters": False},
}  # fmt: skip


@pytest.mark.parametrize("minibatches", [1, 3])
@pytest.mark.parametrize("critic", CRITICS)
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("kind", [FeedForwardAgent, RecurrentAgent])
def test_rows_that_teach_nothing_are_left_out_of_the_products_only(
    kind: type[RecurrentAgent], share: bool, critic: str, minibatches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = learnt(make(kind, share, CRITICS[critic], minibatches=minibatches), mortal(1))
    monkeypatch.setattr(ppo, "condensed", lambda rows, data, begin, *nets: whole(rows, data, begin))
    assert torch.allclose(
        few, learnt(make(kind, share, CRITICS[critic], minibatches=minibatches), mortal(1)), atol=1e-6
    )


def test_a_sequence_that_ends_at_the_first_death_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(rows: Rows, data: dict[str, Tensor], *args: Any) -> Any:
        alive = rows.spread(data["played"]).cumprod(1).bool()
        return condensed(rows, {**data, "played": rows.of(alive)}, *args)

    right = learnt(make(RecurrentAgent, True, {}), mortal(1))
    monkeypatch.setattr(ppo, "condensed", short)
    assert not torch.allclose(right, learnt(make(RecurrentAgent, True, {}), mortal(1)), atol=1e-4)


def test_the_first_step_reads_how_likely_actions_were_from_itself() -> None:
    """Without minibatches nobody unrolls the actor before the first step; what that finds is what there was."""
    learner, batch = make(RecurrentAgent, True, {}), mortal(2)
    rows, data, fwd = learner.prepare(batch, unrolled=False)
    assert fwd is None and "log_p" not in data
    minibatch = learner.minibatch(batch, rows, data)
    metrics = learner.step(minibatch, 0.0)
    _, known, _ = make(RecurrentAgent, True, {}).prepare(batch)
    _, index, _ = sequences(rows, data["played"])
    assert torch.allclose(minibatch.actor["log_p"][:, 0], known["log_p"].flatten()[index], atol=1e-6)
    assert metrics["ppo/kl"] == 0.0
    then = minibatch.actor["log_p"].clone()
    assert learner.step(minibatch, 0.0)["ppo/kl"] > 0.0 and torch.equal(minibatch.actor["log_p"], then)


class Foreign(FeedForwardAgent):
    """A network of another kind, that keeps no word of how agents share it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        del self.shared


def test_nothing_is_left_out_for_networks_of_another_kind() -> None:
    learner, batch = make(Foreign, True, {}), mortal(3)
    rows, data, _ = learner.prepare(batch)
    assert learner.minibatch(batch, rows, data).actor["x"] is data["x"]


def test_where_nobody_plays_nothing_is_left_out() -> None:
    learner, batch = make(RecurrentAgent, True, {}), mortal(3)
    batch.alive[:] = False
    rows, data, _ = learner.prepare(batch)
    assert learner.minibatch(batch, rows, data).actor["x"] is data["x"]
    learner.update(batch, 0.01, 1.0, torch.Generator())


@pytest.mark.parametrize("actions", [5, 20])
@pytest.mark.parametrize("shape", [(), (7,), (4, 3), (2, 4, 3)])
def test_log_probabilities_are_torchs_own_however_they_are_computed(shape: tuple[int, ...], actions: int) -> None:
    torch.manual_seed(0)
    logits, avail = torch.randn(*shape, actions, requires_grad=True), torch.rand(*shape, actions) < 0.7
    avail[..., 0] = True
    expected = torch.log_softmax(torch.where(avail, logits, -torch.inf), -1)
    found = log_policy(logits, avail)
    assert torch.allclose(found, expected, atol=1e-6)
    weight = torch.where(avail, torch.randn_like(logits), 0.0)
    slopes = [torch.autograd.grad((torch.where(avail, v, 0.0) * weight).sum(), logits)[0] for v in (found, expected)]
    assert torch.allclose(*slopes, atol=1e-6)
