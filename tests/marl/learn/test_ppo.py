"""Policy gradients: advantages and losses by hand, one step by hand, and what the running scale and masks leave out."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from marl.core.networks import StackedLinear
from marl.core.protocols import NoAttack
from marl.core.types import Clock, ConfigError, EnvSpec, EpisodeBatch, core_fields
from marl.learn.actor import Actor, Critic, RunningScale, draw, initialise, log_policy
from marl.learn.agents import FeedForwardAgent, RecurrentAgent
from marl.learn.algorithm import Hooked
from marl.learn.policy import LinearSchedule
from marl.learn.ppo import PPO, PPOLearner, clipped_policy_loss, entropy, gae, value_loss
from marl.run.build import build
from marl.run.collect import empty_batch
from marl.run.stretch import require_pieces
from tests.support.fim_parts import button_batch, make_fim
from tests.support.helpers import AGENT, compose_train, make_spec, random_batch

LEARNER: dict[str, Any] = {
    "lr": 0.01, "optimizer": "adam", "optimizer_eps": 1e-5, "gamma": 0.9, "gae_lambda": 0.8, "epochs": 2,
    "minibatches": 1, "clip": 0.2, "value_clip": None, "value_weight": 0.5, "grad_clip": 10.0,
    "normalise_advantage": False, "normalise_value": False, "value_beta": 0.9, "orthogonal": False,
    "act_on": "intended", "last_action": "intended",
}  # fmt: skip
CRITIC: dict[str, Any] = {"sees": "obs", "hidden_dim": 8, "share_parameters": True, "agent_id": True}
STEADY = LinearSchedule(1.0, 1.0, 1)


def make_learner(spec: EnvSpec, agent: RecurrentAgent | None = None, **changes: Any) -> PPOLearner:
    torch.manual_seed(0)
    made = FeedForwardAgent(spec, **AGENT) if agent is None else agent
    return PPOLearner(spec, made, Critic(spec, **CRITIC), **{**LEARNER, **changes})


def test_advantages_by_hand_with_all_three_ends_side_by_side() -> None:
    reward = torch.tensor([1.0, 2.0, 3.0]).expand(3, 3)[..., None]
    v = torch.tensor([1.0, 2.0, 4.0, 8.0]).expand(3, 4)[..., None]
    filled = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 1, 1]]).bool()[..., None]  # two ended after two steps, one was cut
    terminated = torch.tensor([[0, 1, 0], [0, 0, 0], [0, 0, 0]]).bool()[..., None]
    # gamma 0.5: delta = (1, 2 - 2, .), (1, 2 + 2 - 2, .), (1, 2, 3 + 4 - 4); then times 0.25 of what follows
    expected = torch.tensor([[1.0, 0.0, 0.0], [1.5, 2.0, 0.0], [1.0 + 2.75 / 4, 2.75, 3.0]])
    assert torch.equal(gae(reward, terminated, filled, v, 0.5, 0.5)[..., 0], expected)


def test_what_lies_behind_an_end_changes_no_advantage() -> None:
    spec = make_spec()
    batch = random_batch(spec, 6)
    v = torch.randn(6, spec.episode_limit + 1, spec.n_agents)
    args = (batch.terminated[:, :-1, None], batch.filled[:, :-1, None])
    clean = gae(batch.reward[:, :-1, None], *args, v, 0.9, 0.8)
    behind = torch.arange(spec.episode_limit + 1) > batch.length[:, None]
    junk = torch.where(behind[..., None], 1e6, v)
    assert torch.equal(gae(torch.where(batch.filled, batch.reward, 1e6)[:, :-1, None], *args, junk, 0.9, 0.8), clean)


def test_the_clipped_loss_by_hand() -> None:
    ratio, advantage = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1]), torch.tensor([1.0, -1.0, 1.0, -1.0, 2.0])
    loss = clipped_policy_loss(ratio.log(), advantage, 0.2)
    assert torch.allclose(loss, torch.tensor([-1.2, 1.5, -0.5, 0.8, -2.2]))


@pytest.mark.parametrize(("clip", "expected"), [(None, 0.5), (0.2, 0.5 * 1.8**2), (5.0, 0.5)])
def test_the_value_loss_by_hand(clip: float | None, expected: float) -> None:
    found = value_loss(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(2.0), clip)
    assert math.isclose(found.item(), expected, rel_tol=1e-6)


def test_the_entropy_counts_only_available_actions_and_has_a_gradient_there() -> None:
    logits = torch.tensor([[1.0, 1.0, 7.0], [0.0, 0.0, 0.0]], requires_grad=True)
    avail = torch.tensor([[True, True, False], [False, False, True]])
    found = entropy(log_policy(logits, avail))
    assert torch.allclose(found, torch.tensor([math.log(2.0), 0.0]), atol=1e-6)
    (slope,) = torch.autograd.grad(found.sum(), logits)
    assert torch.isfinite(slope).all() and not slope[~avail].any()


def test_draws_follow_the_policy_and_never_leave_what_is_available() -> None:
    logits = torch.tensor([0.0, math.log(3.0), 9.0]).expand(40_000, 3)
    drawn = draw(logits, torch.tensor([True, True, False]).expand(40_000, 3), torch.Generator().manual_seed(0))
    assert not (drawn == 2).any()
    assert abs((drawn == 1).float().mean().item() - 0.75) < 0.01  # five deviations of 0.0022


def bias_of(layer: torch.nn.Module) -> Tensor:
    assert isinstance(layer.bias, Tensor)
    return layer.bias


def one_step(spec: EnvSpec, reward: float, terminated: bool) -> EpisodeBatch:
    """Return one episode of one step, in which the agent takes action 0 and sees zeros."""
    batch = empty_batch(core_fields(spec), 1, 1, torch.device("cpu"))
    batch.avail[:], batch.alive[:], batch.filled[0, 0], batch["length"][0] = True, True, True, 1
    batch.reward[0, 0], batch.terminated[0, 0] = reward, terminated
    return batch


def test_one_step_by_hand() -> None:
    spec = make_spec(n=1, A=2, O=3)
    agent = FeedForwardAgent(spec, hidden_dim=4, share_parameters=True, last_action=False, agent_id=False)
    critic = Critic(spec, sees="obs", hidden_dim=4, share_parameters=True, agent_id=False)
    for net in (agent, critic):
        for name, value in net.named_parameters():
            if "bias" in name:
                torch.nn.init.zeros_(value)  # zeros in: logits (0, 0), value 0
    learner = PPOLearner(spec, agent, critic, **{**LEARNER, "epochs": 1, "optimizer": "rmsprop", "grad_clip": 100.0})
    metrics = learner.update(one_step(spec, 1.0, True), 0.0, 0.5, torch.Generator())
    # the advantage is 1: gradients of the logits -(1 - 0.5), 0.5; of the value 0.5 (0 - 1). RMSprop's first step is
    # lr g / (sqrt(0.01 g^2) + eps), with half of lr
    step = 0.005 * 0.5 / (0.05 + 1e-5)
    assert torch.allclose(bias_of(agent.fc_out), torch.tensor([step, -step]), rtol=1e-5)
    assert torch.allclose(bias_of(critic.net[4]), torch.tensor([step]), rtol=1e-5)
    assert metrics["loss/policy"].item() == -1.0 and metrics["loss/value"].item() == 0.5
    assert math.isclose(metrics["ppo/entropy"].item(), math.log(2.0), rel_tol=1e-6)


def test_a_bonus_for_entropy_alone_makes_the_policy_flat() -> None:
    spec = make_spec(n=1, A=2, O=3)
    agent = FeedForwardAgent(spec, hidden_dim=4, share_parameters=True, last_action=False, agent_id=False)
    learner = make_learner(spec, agent)
    with torch.no_grad():
        bias_of(agent.fc_out).copy_(torch.tensor([1.0, -1.0]))
    before = bias_of(agent.fc_out).diff().abs().item()
    learner.update(one_step(spec, 0.0, True), 1.0, 1.0, torch.Generator())
    assert bias_of(agent.fc_out).diff().abs().item() < before


@pytest.mark.parametrize("minibatches", [1, 3])
@pytest.mark.parametrize("kind", [FeedForwardAgent, RecurrentAgent])
def test_padding_and_the_order_of_pieces_change_nothing(kind: type[RecurrentAgent], minibatches: int) -> None:
    spec = make_spec()
    batch = random_batch(spec, 6)
    junk = batch.to("cpu")
    behind = torch.arange(spec.episode_limit + 1) > batch.length[:, None]
    for name in ("obs", "state"):
        junk.data[name] = torch.where(behind.view(*behind.shape, *[1] * (batch[name].dim() - 2)), 50.0, batch[name])
    weights = []
    for given in (batch, junk):
        torch.manual_seed(1)
        learner = make_learner(spec, kind(spec, **AGENT), minibatches=minibatches)
        learner.update(given, 0.01, 1.0, torch.Generator().manual_seed(0))
        weights.append(
            torch.cat([p.detach().flatten() for net in learner.networks().values() for p in net.parameters()])
        )
    assert torch.equal(*weights)


def test_minibatches_are_all_pieces_once_with_their_own_rows() -> None:
    spec = make_spec()
    learner = make_learner(spec)
    batch = random_batch(spec, 7)
    rows, data, _ = learner.prepare(batch)
    assert rows.start is not None
    data["piece"] = rows.episodes.repeat_interleave(rows.start.diff())
    seen: list[int] = []
    for places in torch.tensor([5, 0, 3, 6, 1, 2, 4]).chunk(3):
        some, own = learner.part(rows, data, places)
        assert some.start is not None and torch.equal(own["piece"], some.episodes.repeat_interleave(some.start.diff()))
        assert torch.equal(some.start.diff(), batch.length.long()[some.episodes])
        seen += some.episodes.tolist()
    assert sorted(seen) == list(range(7))


def test_the_dead_teach_the_critic_but_not_the_actor() -> None:
    spec = make_spec(n=2)
    batch = random_batch(spec, 4)
    batch.alive[..., 1] = False
    _, data, _ = make_learner(spec).prepare(batch)
    assert data["filled"].all(1).any() and not data["played"][:, 1].any()
    assert torch.equal(data["played"][:, 0], data["filled"][:, 0])


def test_values_are_learnt_in_deviations_and_read_in_units_of_the_return() -> None:
    scale = RunningScale(True, 0.5)
    assert [v.item() for v in scale.scale()] == [0.0, 1.0]
    scale.update(torch.tensor([1.0, 3.0, 99.0]), torch.tensor([True, True, False]))
    assert [round(v.item(), 5) for v in scale.scale()] == [2.0, 1.0]  # no bias towards zero after one update
    scale.update(torch.tensor([6.0]), torch.tensor([True]))
    mean, deviation = scale.scale()  # weights 1/3 and 2/3
    assert math.isclose(mean.item(), (2 + 2 * 6) / 3, rel_tol=1e-6)
    assert math.isclose(deviation.item() ** 2, (5 + 2 * 36) / 3 - mean.item() ** 2, rel_tol=1e-5)
    assert [v.item() for v in RunningScale(False, 0.5).scale()] == [0.0, 1.0]


@pytest.mark.parametrize("sees", ["obs", "state", "both"])
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("agent_id", [True, False])
def test_a_critic_reads_what_it_says(sees: str, share: bool, agent_id: bool) -> None:
    spec = make_spec(n=3)
    torch.manual_seed(0)
    critic = Critic(spec, sees=sees, hidden_dim=8, share_parameters=share, agent_id=agent_id)  # type: ignore[arg-type]
    obs, state = torch.randn(5, 3, spec.obs_dim), torch.randn(5, spec.state_dim)
    v = critic(critic.inputs(obs, state))
    assert v.shape == (5, 3)

    def moved(obs: Tensor, state: Tensor) -> bool:
        return not torch.equal(critic(critic.inputs(obs, state)), v)

    assert moved(obs + 1, state) == (sees != "state") and moved(obs, state + 1) == (sees != "obs")
    same = torch.randn(1, 1, spec.obs_dim).expand(5, 3, -1)
    alike = critic(critic.inputs(same, state))
    assert torch.allclose(alike[:, 0], alike[:, 1]) == (share and not agent_id)


def test_actor_and_critic_read_what_an_attack_has_shown() -> None:
    """Only the state, which a critic may see besides, stays true."""
    spec = make_spec()
    learner, batch = make_learner(spec), random_batch(spec, 4)
    shown = dict(batch.data, obs_seen=torch.full_like(batch.obs, 3.0))
    attacked = EpisodeBatch(shown, batch.fields | {"obs_seen": core_fields(spec)["obs"]})
    for data, seen in ((learner.prepare(batch)[1], False), (learner.prepare(attacked)[1], True)):
        for name in ("x", "seen"):
            assert bool((data[name][..., : spec.obs_dim] == 3.0).all()) == seen, name


def test_the_first_step_is_never_clipped_whatever_the_scale_of_values_has_become() -> None:
    """Before a gradient step the critic puts out what it did when the episodes were played: nothing is to be clipped,
    although the unit of values moves from 1 to that of returns around 50."""
    spec = make_spec()
    batch = random_batch(spec, 8)
    batch.reward[:] = 50.0 * batch.filled
    once = {"normalise_value": True, "epochs": 1}
    clipped, free = (make_learner(spec, value_clip=clip, **once) for clip in (0.2, None))
    before = [p.detach().clone() for p in clipped.critic.parameters()]
    for learner in (clipped, free):
        learner.update(batch, 0.0, 1.0, torch.Generator())
    assert clipped.scale.scale()[0] > 10.0
    moved = list(zip(clipped.critic.parameters(), before, strict=True))
    assert not any(torch.equal(p, q) for p, q in moved)
    assert all(map(torch.equal, clipped.critic.parameters(), free.critic.parameters()))


def test_initial_policies_are_nearly_uniform_and_hidden_layers_orthogonal() -> None:
    spec = make_spec()
    agent, critic = FeedForwardAgent(spec, **{**AGENT, "share_parameters": False}), Critic(spec, **CRITIC)
    initialise(agent, critic)
    assert isinstance(agent.fc_mid, StackedLinear)
    for weight in agent.fc_mid.weight:
        assert torch.allclose(weight @ weight.T, 2.0 * torch.eye(16), atol=1e-5)
    logits, _ = agent.step(torch.randn(4, 3, agent.input_dim), agent.initial(4))
    assert logits.abs().max() < 0.1 and logits.abs().max() > 0


def make_ppo(spec: EnvSpec, **changes: Any) -> PPO:
    given: dict[str, Any] = {
        "agent": lambda spec: FeedForwardAgent(spec, **AGENT), "critic": lambda spec: Critic(spec, **CRITIC),
        "learner": lambda *args, **kwargs: PPOLearner(*args, **{**LEARNER, **kwargs}), "hooks": {}, "entropy": STEADY,
        "lr_share": STEADY, "act": "greedy",
    }  # fmt: skip
    return PPO(spec, "cpu", torch.Generator(), **{**given, **changes})


def test_tests_are_greedy_or_sampled_as_act_says_and_training_always_draws() -> None:
    spec = make_spec()
    obs = type("Seen", (), {"obs": torch.randn(64, 3, 7), "avail": torch.ones(64, 3, 5, dtype=torch.bool)})()

    def play(act: str, explore: bool) -> Tensor:
        torch.manual_seed(0)
        policy, gen = make_ppo(spec, act=act).policy(Clock()), torch.Generator().manual_seed(3)
        assert isinstance(policy, Actor)
        return policy.act(obs, policy.begin(64, gen), explore=explore, gen=gen)[0]

    assert torch.equal(play("sample", False), play("greedy", True))
    assert not torch.equal(play("greedy", False), play("greedy", True))


def test_a_hook_trains_a_model_of_its_own_and_is_told_whole_episodes() -> None:
    """FIM finds features, and trains its model on them, while PPO asks for rewards without gradient."""
    names = ("button", "clock", "wall", "x", "y")
    spec = replace(make_spec(n=2, A=3, O=4, S=5, limit=8), state_names=names)
    ppo = make_ppo(spec, hooks={"fim": lambda spec: make_fim(spec, cog={"delta": 0.7}, id_steps=10, pretrain=3)})
    batch, gen = button_batch(spec, 8), torch.Generator()
    ppo.annotate(batch)
    metrics = ppo.learner.update(batch, 0.01, 1.0, gen)
    assert metrics["fim/n_cog"] == 1 and metrics["fim/r_int"] > 0
    require_pieces(None, ppo, NoAttack(spec, "cpu"))
    with pytest.raises(ConfigError, match=r"train.rollout=5 .* FIM learns from whole ones, since its traces"):
        require_pieces(5, ppo, NoAttack(spec, "cpu"))


@pytest.mark.parametrize("kind", ["gru", "mlp"])
def test_laies_needs_whole_episodes_if_its_model_remembers(kind: str, tmp_path: Path) -> None:
    parts = build(compose_train(tmp_path, "env=skirmish/3m", "algo=laies", f"algo.hooks.laies.model.kind={kind}"), 2)
    assert isinstance(parts.algo, Hooked)
    ppo = make_ppo(parts.spec, hooks={"laies": lambda spec: parts.algo.hooks[0]})
    require_pieces(None, ppo, parts.attack)
    with nullcontext() if kind == "mlp" else pytest.raises(ConfigError, match="LAIES learns from whole ones, since"):
        require_pieces(5, ppo, parts.attack)


def test_ranks_make_as_many_gradient_steps_as_the_one_with_the_fewest_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    spec, steps = make_spec(), list[int]()
    learner = make_learner(spec, minibatches=4, epochs=1)
    plain = PPOLearner.step
    monkeypatch.setattr(PPOLearner, "step", lambda *args, **how: steps.append(1) or plain(*args, **how))  # type: ignore[func-returns-value]
    for fewest, made in ((6, 4), (2, 2)):
        monkeypatch.setattr("marl.learn.ppo.fewest", lambda here, fewest=fewest: min(here, fewest))
        steps.clear()
        learner.update(random_batch(spec, 6), 0.01, 1.0, torch.Generator())
        assert len(steps) == made


def test_a_hook_that_adds_a_loss_to_values_is_refused() -> None:
    class Lossy:
        def loss(self, batch: EpisodeBatch, fwd: Any) -> float:
            return 1.0

        def parameters(self) -> tuple[()]:
            return ()

    with pytest.raises(ConfigError, match=r"algo.hooks.lossy: Lossy adds a loss to values; this algorithm has none"):
        make_ppo(make_spec(), hooks={"lossy": lambda spec: Lossy()})


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"clip": 0.0}, "clip=0.0"), ({"epochs": 0}, "epochs=0"), ({"minibatches": 0}, "minibatches=0"),
     ({"gae_lambda": 1.5}, "gae_lambda=1.5"), ({"value_clip": -1.0}, "value_clip=-1.0"), ({"lr": 0.0}, "lr=0.0"),
     ({"value_beta": 2.0}, "value_beta=2.0"), ({"act_on": "both"}, "act_on=both"),
     ({"optimizer": "sgd"}, "optimizer=sgd")],
)  # fmt: skip
def test_bad_options_are_one_clear_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_learner(make_spec(), **changes)
