"""The learner: one update by hand, hooks, switches, and which mixer can represent which matrix game."""

import math

import pytest
import torch
from torch import nn

from envs.toys.games import MatrixGame
from marl.core.protocols import NoAttack, NoHook
from marl.core.rows import Rows
from marl.core.types import ConfigError, EpisodeBatch, core_fields
from marl.learn.agents import RecurrentAgent
from marl.learn.learner import ValueLearner, best_available, masked_td_loss, previous_actions
from marl.learn.mixers import VDN, NoMixer, QMix, QPlex
from marl.learn.policy import EpsilonGreedy
from marl.run.collect import collect
from tests.support.helpers import LEARNER, make_learner, make_spec, random_batch

SPEC = make_spec()
MIXERS = {
    "iql": lambda spec: NoMixer(spec),
    "vdn": lambda spec: VDN(spec),
    "qmix": lambda spec: QMix(spec, embed_dim=16, hypernet_dim=32),
    "qplex": lambda spec: QPlex(
        spec, hypernet_dim=32, n_kernels=10, kernel_dim=64, stop_advantage=True, transform=False
    ),
}


def test_best_available_and_previous_actions() -> None:
    q = torch.tensor([[3.0, 9.0, 1.0], [5.0, 2.0, 7.0]])
    avail = torch.tensor([[True, False, True], [False, False, False]])
    assert best_available(q, avail).tolist() == [0, 0]
    actions = torch.tensor([[[1, 2], [3, 4], [0, 0]]])
    assert previous_actions(actions).tolist() == [[[-1, -1], [1, 2], [3, 4]]]


def test_masked_loss_by_hand() -> None:
    chosen = torch.tensor([[[1.0], [2.0], [50.0]]])
    target = torch.tensor([[[3.0], [1.0], [0.0]]])
    squared, count = masked_td_loss(chosen, target, torch.tensor([[[True], [True], [False]]]))
    assert squared.item() == 5.0 and count.item() == 2


class Table(nn.Module):
    """An agent whose values are fixed numbers: [A] for every agent and step."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values))

    def inputs(self, obs: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        return obs

    def along(self, x: torch.Tensor, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        return self.values.expand(*x.shape[:-1], -1), x


def two_step_batch() -> tuple[object, EpisodeBatch]:
    """Return episodes of one agent with two actions: episode 0 terminates after step 0, episode 1 is truncated after
    step 1."""
    spec = make_spec(n=1, A=2, O=1, S=1, limit=2)
    batch = random_batch(spec, 2)
    batch.data["avail"] = torch.ones(2, 3, 1, 2, dtype=torch.bool)
    batch.data["filled"] = torch.tensor([[True, False, False], [True, True, False]])
    batch.data["terminated"] = torch.tensor([[True, False, False], [False, False, False]])
    batch.data["reward"] = torch.tensor([[1.0, 0.0, 0.0], [2.0, 3.0, 0.0]])
    batch.data["actions"] = torch.tensor([[[1], [0], [0]], [[0], [1], [0]]], dtype=torch.int16)
    batch.data["intended"] = batch.data["actions"].clone()
    batch.data["length"] = torch.tensor([1, 2], dtype=torch.int16)
    return spec, batch


def test_one_update_by_hand() -> None:
    spec, batch = two_step_batch()
    agent = Table([1.0, 4.0])
    learner = ValueLearner(
        spec, agent, VDN(spec), [],  # type: ignore[arg-type]
        **{**LEARNER, "gamma": 0.5, "td_lambda": 0.0, "optimizer": "rmsprop", "grad_clip": 1e9},
    )  # fmt: skip
    metrics = learner.update(batch)
    # values (1, 4), best 4. targets: 1 (terminated); 2 + 0.5*4 = 4; 3 + 0.5*4 = 5 (truncated: bootstraps)
    # errors: 4 - 1 = 3 at action 1; 1 - 4 = -3 at action 0; 4 - 5 = -1 at action 1. loss (9 + 9 + 1) / 3
    assert metrics["loss/td"].item() == pytest.approx(19 / 3)
    assert metrics["q/taken"].item() == pytest.approx((4 + 1 + 4) / 3)
    assert metrics["q/target"].item() == pytest.approx((1 + 4 + 5) / 3)
    assert metrics["q/td_abs"].item() == pytest.approx(7 / 3)
    # gradient: action 0: 2*(-3)/3 = -2; action 1: 2*(3 - 1)/3 = 4/3
    assert metrics["optim/grad_norm"].item() == pytest.approx(math.hypot(2, 4 / 3))
    assert agent.values[0].item() > 1.0 and agent.values[1].item() < 4.0


def test_executed_or_intended_actions_are_learnt_from() -> None:
    spec, batch = two_step_batch()
    batch.data["actions"] = torch.zeros(2, 3, 1, dtype=torch.int16)  # an attack forced action 0 everywhere
    taken = {}
    for which in ("executed", "intended"):
        agent = Table([1.0, 4.0])
        learner = ValueLearner(spec, agent, VDN(spec), [], **{**LEARNER, "act_on": which})  # type: ignore[arg-type]
        taken[which] = learner.update(batch)["q/taken"].item()
    assert taken == pytest.approx({"executed": 1.0, "intended": 3.0})


def test_double_q_takes_the_online_choice_and_the_target_value() -> None:
    spec, batch = two_step_batch()
    learner = ValueLearner(spec, Table([1.0, 4.0]), VDN(spec), [], **LEARNER)  # type: ignore[arg-type]
    with torch.no_grad():
        learner.target_agent.values.copy_(torch.tensor([10.0, 6.0]))
    assert learner.forward(batch).row_v.unique().tolist() == [6.0]
    learner.double_q = False
    assert learner.forward(batch).row_v.unique().tolist() == [10.0]


@pytest.mark.parametrize("changes", [{"target_every": 2, "tau": None}, {"target_every": None, "tau": 0.25}])
def test_hard_and_soft_targets(changes: dict) -> None:
    learner = make_learner(SPEC, VDN(SPEC), **changes)
    batch = random_batch(SPEC, 6)
    first = learner.target_agent.fc_out.bias.clone()
    learner.update(batch)
    after_one = learner.target_agent.fc_out.bias.clone()
    online = learner.agent.fc_out.bias.detach().clone()
    if changes["tau"] is None:
        assert torch.equal(after_one, first)
        learner.update(batch)
        assert torch.equal(learner.target_agent.fc_out.bias, learner.agent.fc_out.bias)
    else:
        assert torch.allclose(after_one, 0.75 * first + 0.25 * online)


@pytest.mark.parametrize("name", MIXERS)
def test_padding_and_unavailable_values_do_not_matter(name: str) -> None:
    torch.manual_seed(0)
    learner = make_learner(SPEC, MIXERS[name](SPEC))
    batch = random_batch(SPEC, 6)
    clean = learner.update(batch)
    torch.manual_seed(0)
    learner = make_learner(SPEC, MIXERS[name](SPEC))
    seen = torch.arange(SPEC.episode_limit + 1) <= batch.length[:, None]
    batch.data["obs"] = torch.where(seen[..., None, None], batch.obs, 77.0)
    batch.data["state"] = torch.where(seen[..., None], batch.state, 77.0)
    batch.data["reward"] = torch.where(batch.filled, batch.reward, 77.0)
    dirty = learner.update(batch)
    assert clean["loss/td"].item() == pytest.approx(dirty["loss/td"].item(), rel=1e-6)


class Zero(NoHook):
    """A hook that adds zeros everywhere."""

    def reward(self, batch, fwd):  # type: ignore[no-untyped-def]
        return torch.zeros_like(batch.reward[:, :-1, None])

    def loss(self, batch, fwd):  # type: ignore[no-untyped-def]
        return fwd.q.sum() * 0.0


class Bonus(NoHook):
    def reward(self, batch, fwd):  # type: ignore[no-untyped-def]
        return torch.ones_like(batch.reward[:, :-1, None])


class Odd(NoHook):
    def __init__(self, bonus: torch.Tensor) -> None:
        self.bonus = bonus

    def reward(self, batch: EpisodeBatch, fwd: object) -> torch.Tensor:
        return self.bonus


def weights_after(hooks: list[NoHook]) -> torch.Tensor:
    torch.manual_seed(0)
    learner = make_learner(SPEC, MIXERS["qmix"](SPEC), hooks)
    for seed in range(3):
        learner.update(random_batch(SPEC, 6, seed))
    return torch.cat([p.detach().flatten() for p in learner.parameters])


def test_a_hook_of_zeros_changes_no_bit_and_one_of_ones_does() -> None:
    base = weights_after([])
    assert torch.equal(weights_after([Zero()]), base)
    assert not torch.equal(weights_after([Bonus()]), base)


@pytest.mark.parametrize("shape", [(6,), (6, 9), (6, 9, 3), (1, 9, 1), (6, 10, 1)])
def test_a_bonus_of_another_shape_is_refused_and_never_paid_to_other_steps(shape: tuple[int, ...]) -> None:
    """Of each episode, of each agent with one team value, of one episode, of one slot too many."""
    assert SPEC.n_agents == 3 and random_batch(SPEC, 6, 0).horizon == 9
    with pytest.raises(ConfigError, match=r"Odd.reward returned .*; it must be a number or \[6, 9, 1\]"):
        weights_after([Odd(torch.ones(shape))])
    assert torch.equal(weights_after([Odd(torch.ones(6, 9, 1))]), weights_after([Odd(torch.tensor(1.0))]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": 0.0}, "lr=0.0 must be above 0"),
        ({"optimizer": "sgd"}, "optimizer=sgd is not known; choose one of adam, rmsprop"),
        ({"gamma": 1.5}, "gamma=1.5"),
        ({"tau": 0.1}, "exactly one"),
        ({"target_every": 0}, "target_every=0 must be above 0, or null"),
        ({"act_on": "both"}, "act_on=both is not known; choose one of executed, intended"),
        ({"grad_clip": -1.0}, "grad_clip"),
    ],
)
def test_bad_values_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_learner(SPEC, VDN(SPEC), **changes)


def solve(
    name: str, payoff: str, updates: int = 300, lr: float = 0.005, lanes: int = 128
) -> tuple[float, torch.Tensor]:
    """Train with epsilon 1; return (payoff of the greedy joint action, learnt Q_tot of every joint action)."""
    torch.manual_seed(0)
    env = MatrixGame(payoff, n_envs=lanes)
    spec = env.spec
    agent = RecurrentAgent(spec, hidden_dim=32, share_parameters=True, last_action=False, agent_id=True)
    learner = ValueLearner(spec, agent, MIXERS[name](spec), [], **{**LEARNER, "lr": lr, "target_every": 50})
    gens = {"policy_gen": torch.Generator().manual_seed(0), "attack_gen": torch.Generator()}
    policy = EpsilonGreedy(agent, learner.mixer, 1.0, "intended")
    nobody, attack = torch.zeros(lanes, dtype=torch.bool), NoAttack(spec, "cpu")
    for _ in range(updates // 10):
        batch = collect(env, policy, attack, core_fields(spec), explore=True, attacked=nobody, device="cpu", **gens)
        for _ in range(10):
            learner.update(batch)
    greedy = collect(env, policy, attack, core_fields(spec), explore=False, attacked=nobody, device="cpu", **gens)
    A = spec.n_actions
    with torch.no_grad():
        q = learner.forward(greedy).q[0, 0]  # [n, A]
        joint = torch.cartesian_prod(torch.arange(A), torch.arange(A))
        taken = q.expand(A * A, -1, -1).gather(-1, joint[..., None]).squeeze(-1)
        q_max = q.max(-1).values.expand(A * A, -1)
        state = greedy.state[:1, 0].expand(A * A, -1)
        table = learner.mixer(taken, state, actions=joint, q_max=q_max)
    return greedy.reward[0, 0].item(), table[..., 0].view(A, A)


@pytest.mark.parametrize("name", MIXERS)
def test_everyone_solves_the_additive_game(name: str) -> None:
    assert solve(name, "additive")[0] == 6.0


@pytest.mark.parametrize("name", ["iql", "vdn", "qmix"])
def test_additive_and_monotonic_values_miss_the_nonmonotonic_optimum(name: str) -> None:
    """Son et al. 2019, table 1: under uniform exploration these methods settle on 0 instead of 8."""
    assert solve(name, "nonmonotonic")[0] == 0.0


def test_qplex_learns_the_nonmonotonic_game_exactly() -> None:
    """Wang et al. 2021, section 4.1."""
    reached, table = solve("qplex", "nonmonotonic", 800, lr=0.002, lanes=32)
    payoff = torch.tensor([[8.0, -12, -12], [-12, 0, 0], [-12, 0, 0]])
    assert reached == 8.0 and (table - payoff).abs().max() < 1.0


def test_qmix_represents_the_monotonic_game_and_vdn_does_not() -> None:
    """Rashid et al. 2018, section 6.1: payoff (0, 1; 1, 8)."""
    payoff = torch.tensor([[0.0, 1.0], [1.0, 8.0]])
    assert (solve("qmix", "monotonic", 600)[1] - payoff).abs().max() < 0.5
    vdn = solve("vdn", "monotonic", 600)[1]
    # the best additive fit under uniform play: (-1.5, 2.5; 2.5, 6.5)
    assert (vdn - torch.tensor([[-1.5, 2.5], [2.5, 6.5]])).abs().max() < 0.5
