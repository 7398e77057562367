"""Agents and mixers: the two GRU paths agree; QMIX is monotonic; QPLEX keeps greedy actions consistent."""

import itertools

import numba
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import grad, vmap

from marl.core.networks import StackedLinear
from marl.core.types import Obs
from marl.learn.agents import FeedForwardAgent, RecurrentAgent
from marl.learn.gru import gru
from marl.learn.mixers import VDN, Mixer, NoMixer, QMix, QPlex
from marl.learn.policy import EpsilonGreedy
from tests.support.helpers import AGENT, make_agent, make_spec

TWO = pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="needs two threads")

SPEC = make_spec()
QMIX = {"embed_dim": 8, "hypernet_dim": 16}
QPLEX = {"hypernet_dim": 16, "n_kernels": 3, "kernel_dim": 16, "stop_advantage": True, "transform": True}


@pytest.mark.parametrize("kind", [RecurrentAgent, FeedForwardAgent])
@pytest.mark.parametrize("share", [True, False])
def test_unroll_equals_steps_in_values_and_gradients(share: bool, kind: type[RecurrentAgent]) -> None:
    torch.manual_seed(0)
    agent = kind(SPEC, **{**AGENT, "share_parameters": share})
    x = torch.randn(4, 6, SPEC.n_agents, agent.input_dim)
    weights = torch.randn(4, 6, SPEC.n_agents, SPEC.n_actions)

    q, h = agent.unroll(x)
    (q * weights).sum().backward()
    unrolled = {name: p.grad.clone() for name, p in agent.named_parameters() if p.grad is not None}
    agent.zero_grad()
    hidden, qs, hs = agent.initial(4), [], []
    for t in range(6):
        out, hidden = agent.step(x[:, t], hidden)
        qs.append(out)
        hs.append(hidden)
    (torch.stack(qs, 1) * weights).sum().backward()

    assert torch.allclose(q, torch.stack(qs, 1), atol=1e-6) and torch.allclose(h, torch.stack(hs, 1), atol=1e-6)
    stepped = {name: p.grad for name, p in agent.named_parameters() if p.grad is not None}
    assert unrolled.keys() == stepped.keys() == dict(agent.named_parameters()).keys()
    for name, value in unrolled.items():
        assert torch.allclose(value, stepped[name], atol=2e-5), name


@pytest.mark.parametrize(("hidden", "threads"), [(6, 1), (8, 1), (64, 1), pytest.param(64, 2, marks=TWO)])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("midway", [False, True])
def test_the_compiled_gru_equals_torchs_in_values_and_gradients(
    midway: bool, groups: int, hidden: int, threads: int, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    numba.set_num_threads(threads)
    monkeypatch.setattr("marl.learn.gru.CHUNK", 16)  # several pieces
    torch.manual_seed(0)
    n, lengths = 3, torch.tensor([7, 2, 0, 5, 5, 1, 6, 0])
    start, theirs = F.pad(lengths.cumsum(0), (1, 0)), [nn.GRU(5, hidden) for _ in range(groups)]
    x, weights = torch.randn(int(start[-1]), n, 5, requires_grad=True), torch.randn(int(start[-1]), n, hidden)

    def gradients(h: torch.Tensor) -> list[torch.Tensor]:
        parameters = [p for net in theirs for p in net.parameters()]
        return list(torch.autograd.grad((h * weights).sum(), [x, *parameters]))

    begin = torch.randn(len(lengths), n, hidden) if midway else torch.zeros(len(lengths), n, hidden)
    expected = torch.cat(
        [torch.stack([theirs[i % groups](part[:, i], begin[None, m, i])[0] for i in range(n)], 1)
         for m, part in enumerate(x.split(lengths.tolist())) if len(part)]
    )  # fmt: skip
    given = begin if midway else None
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    ours = gru(x, *(torch.stack([net.get_parameter(name) for net in theirs]) for name in names), start, given)
    with torch.no_grad():
        stacked = [torch.stack([net.get_parameter(name) for net in theirs]) for name in names]
        assert torch.equal(gru(x, *stacked, start, given), ours)
    assert torch.allclose(ours, expected, atol=1e-6)
    for mine, other in zip(gradients(ours), gradients(expected), strict=True):
        assert torch.allclose(mine, other, atol=1e-5)


@pytest.mark.parametrize("kind", [RecurrentAgent, FeedForwardAgent])
@pytest.mark.parametrize("share", [True, False])
def test_ragged_sequences_do_not_see_each_other_or_their_padding(share: bool, kind: type[RecurrentAgent]) -> None:
    torch.manual_seed(0)
    agent = kind(SPEC, **{**AGENT, "share_parameters": share})
    x, lengths = torch.randn(5, 6, SPEC.n_agents, agent.input_dim), torch.tensor([6, 1, 3, 0, 5])
    rows = torch.arange(6) < lengths[:, None]
    dense, ragged = agent.unroll(x)[0], agent.unroll(x, lengths)[0]
    assert torch.allclose(ragged[rows], dense[rows], atol=1e-6) and not ragged[~rows].any()
    agent.zero_grad()
    ragged[rows].sum().backward()
    first = [p.grad.clone() for p in agent.parameters() if p.grad is not None]
    agent.zero_grad()
    agent.unroll(torch.where(rows[..., None, None], x, torch.nan), lengths)[0][rows].sum().backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(first, agent.parameters(), strict=True))


def test_each_agent_has_its_own_network_when_not_shared() -> None:
    torch.manual_seed(0)
    agent = make_agent(SPEC, share_parameters=False, agent_id=False)
    same = torch.randn(1, 1, 1, agent.input_dim).expand(2, 3, SPEC.n_agents, -1)
    q, _ = agent.unroll(same)
    assert not torch.allclose(q[:, :, 0], q[:, :, 1])
    before = q.detach().clone()
    with torch.no_grad():
        agent.fc_out.weight[1].add_(1.0)
        agent.gru[1].bias_ih_l0.add_(1.0)
    after, _ = agent.unroll(same)
    assert torch.equal(before[:, :, [0, 2]], after[:, :, [0, 2]]) and not torch.equal(before[:, :, 1], after[:, :, 1])


def test_without_memory_by_hand() -> None:
    """x = (2, -1): fc_in (2, -1) + (0, 1) -> relu (2, 0); fc_mid (2 - 1, -2) -> relu (1, 0); fc_out 3 * 1 + 0.5. The
    carried state has no effect."""
    agent = FeedForwardAgent(
        make_spec(n=1, A=1, O=2), hidden_dim=2, share_parameters=True, last_action=False, agent_id=False
    )
    values = {"fc_in.weight": [[1, 0], [0, 1]], "fc_in.bias": [0, 1], "fc_mid.weight": [[1, 0], [-1, 0]],
              "fc_mid.bias": [-1, 0], "fc_out.weight": [[3, 7]], "fc_out.bias": [0.5]}  # fmt: skip
    agent.load_state_dict({name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()})
    for carried in (0.0, 9.0):
        q, h = agent.step(torch.tensor([[2.0, -1.0]]), torch.full((1, 2), carried))
        assert q.tolist() == [[3.5]] and h.tolist() == [[1, 0]]


def test_inputs_are_observation_last_action_and_id() -> None:
    agent = make_agent(SPEC)
    obs = torch.arange(2 * 3 * 7, dtype=torch.float32).view(2, 3, 7)
    x = agent.inputs(obs, torch.tensor([[-1, 0, 4], [2, 2, 2]]))
    assert torch.equal(x[..., :7], obs)
    assert torch.equal(x[0, :, 7:12], torch.tensor([[0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1.0]]))
    assert torch.equal(x[1, :, 12:], torch.eye(3))


@pytest.mark.parametrize("name", ["obs", "avail"])
@pytest.mark.parametrize("cut", [(slice(2),), (slice(None), slice(1)), (slice(None), slice(None), slice(1))])
def test_a_team_is_shown_only_what_has_its_own_shape(name: str, cut: tuple[slice, ...]) -> None:
    """Compiled loops look at no bounds: lanes, agents and features are compared before."""
    policy, gen = EpsilonGreedy(make_agent(SPEC), VDN(SPEC), 0.0, "intended"), torch.Generator()
    assert policy.network() is not None
    given = {
        "obs": torch.zeros(4, SPEC.n_agents, SPEC.obs_dim),
        "avail": torch.ones(4, SPEC.n_agents, SPEC.n_actions) > 0,
    }
    given[name] = given[name][cut]
    obs = Obs(given["obs"], torch.zeros(4, SPEC.state_dim), given["avail"], torch.ones(4, SPEC.n_agents) > 0)
    with pytest.raises(ValueError, match=rf"{name} is \[.*\]; this team sees \[4, {SPEC.n_agents}, "):
        policy.act(obs, policy.begin(4, gen), explore=False, gen=gen)


def test_stacked_linear_equals_separate_layers() -> None:
    torch.manual_seed(0)
    layer = StackedLinear(3, 4, 2)
    x = torch.randn(5, 6, 3, 4)
    for g in range(3):
        assert torch.allclose(layer(x)[:, :, g], x[:, :, g] @ layer.weight[g] + layer.bias[g], atol=1e-6)
    assert layer(x[:0]).shape == (0, 6, 3, 2), "no rows in, none out"


def test_per_lane_gradients_by_vmap() -> None:
    """Wolfpack's planner needs gradients with respect to parameters, separately for each lane, in one call."""
    torch.manual_seed(0)
    policy = EpsilonGreedy(make_agent(SPEC), VDN(SPEC), 0.0, "intended")
    obs, carry = torch.randn(4, 3, 7), policy.begin(4, torch.Generator())
    carry["last"] = torch.randint(-1, 5, (4, 3))

    def objective(params, obs, h, last):  # type: ignore[no-untyped-def]
        return policy.q_with(params, obs, {"h": h, "last": last}).square().sum()

    batched = vmap(grad(objective), in_dims=(None, 0, 0, 0))(policy.params(), obs, carry["h"], carry["last"])
    for b in range(4):
        single = grad(objective)(policy.params(), obs[b], carry["h"][b], carry["last"][b])
        for name, value in single.items():
            assert torch.allclose(batched[name][b], value, atol=1e-5), name


@pytest.mark.parametrize("source", ["executed", "intended"])
def test_the_policy_remembers_the_action_of_the_chosen_source(source: str) -> None:
    policy = EpsilonGreedy(make_agent(SPEC), VDN(SPEC), 0.0, source)  # type: ignore[arg-type]
    actions = {"intended": torch.tensor([[1, 2, 3]]), "executed": torch.tensor([[4, 2, 0]])}
    carry = policy.after(policy.begin(1, torch.Generator()), actions["intended"], actions["executed"])
    assert torch.equal(carry["last"], actions[source])


def test_no_mixer_and_vdn_by_hand() -> None:
    q, state = torch.tensor([[1.0, 2.0, 4.0]]), torch.zeros(1, 6)
    assert torch.equal(NoMixer(SPEC)(q, state), q)
    assert torch.equal(VDN(SPEC)(q, state), torch.tensor([[7.0]]))


@pytest.mark.parametrize("seed", range(5))
def test_qmix_is_monotonic_in_every_agent(seed: int) -> None:
    torch.manual_seed(seed)
    mixer = QMix(SPEC, **QMIX)
    q = (torch.randn(64, 3) * 5).requires_grad_()
    (slope,) = torch.autograd.grad(mixer(q, torch.randn(64, 6)).sum(), q)
    assert (slope >= 0).all() and (slope > 0).any()


def test_the_monotonicity_test_sees_a_mixer_without_absolute_weights() -> None:
    class Signed(QMix):
        def forward(self, q, state, *, actions=None, q_max=None):  # type: ignore[no-untyped-def]
            w1 = self.hyper_w1(state).unflatten(-1, (self.n_agents, self.embed_dim))
            return (q.unsqueeze(-1) * w1).sum(-2).sum(-1, keepdim=True)

    torch.manual_seed(0)
    q = torch.randn(64, 3).requires_grad_()
    (slope,) = torch.autograd.grad(Signed(SPEC, **QMIX)(q, torch.randn(64, 6)).sum(), q)
    assert (slope < 0).any()


def qplex_joint_values(mixer: Mixer, q: torch.Tensor, state: torch.Tensor) -> dict[tuple[int, ...], float]:
    """Return Q_tot of every joint action; q [n, A]."""
    joints = list(itertools.product(range(q.shape[1]), repeat=q.shape[0]))
    actions = torch.tensor(joints)
    taken = q.expand(len(joints), -1, -1).gather(-1, actions[..., None]).squeeze(-1)
    q_max = q.max(-1).values.expand(len(joints), -1)
    total = mixer(taken, state.expand(len(joints), -1), actions=actions, q_max=q_max)
    return {joint: total[i].item() for i, joint in enumerate(joints)}


@pytest.mark.parametrize("seed", range(5))
def test_qplex_greedy_joint_action_is_the_agents_greedy_actions(seed: int) -> None:
    torch.manual_seed(seed)
    mixer, q, state = QPlex(SPEC, **QPLEX), torch.randn(3, 5), torch.randn(1, 6)
    values = qplex_joint_values(mixer, q, state)
    assert max(values, key=values.__getitem__) == tuple(q.argmax(-1).tolist())


@pytest.mark.parametrize("seed", range(3))
def test_qplex_one_call_equals_value_plus_weighted_advantage(seed: int) -> None:
    """Wang et al. 2021, eq. 6-11: Q_tot = sum_i V_i + sum_i lambda_i A_i."""
    torch.manual_seed(seed)
    mixer, state = QPlex(SPEC, **QPLEX), torch.randn(9, 6)
    q_max = torch.randn(9, 3)
    q, actions = q_max - torch.rand(9, 3), torch.randint(0, 5, (9, 3))
    w, b = mixer.hyper_w(state).abs() + 1e-10, mixer.hyper_b(state)
    value, advantage = w * q_max + b, w * (q - q_max)
    expected = (value + mixer.importance(state, actions) * advantage).sum(-1, keepdim=True)
    assert torch.allclose(mixer(q, state, actions=actions, q_max=q_max), expected, atol=1e-5)
    assert (mixer.importance(state, actions) > 0).all()
    at_greedy = mixer(q_max, state, actions=actions, q_max=q_max)
    assert torch.allclose(at_greedy, value.sum(-1, keepdim=True), atol=1e-5)


def test_qplex_says_what_it_needs() -> None:
    with pytest.raises(ValueError, match="q_max"):
        QPlex(SPEC, **QPLEX)(torch.zeros(1, 3), torch.zeros(1, 6))


@pytest.mark.parametrize("mixer", [NoMixer(SPEC), VDN(SPEC), QMix(SPEC, **QMIX), QPlex(SPEC, **QPLEX)])
def test_mixers_take_any_leading_axes(mixer: Mixer) -> None:
    q, state, actions = torch.randn(4, 5, 3), torch.randn(4, 5, 6), torch.randint(0, 5, (4, 5, 3))
    out = mixer(q, state, actions=actions, q_max=q + 1)
    assert out.shape == (4, 5, mixer.outputs)
    alone = mixer(q[2, 3], state[2, 3], actions=actions[2, 3], q_max=q[2, 3] + 1)
    assert torch.allclose(out[2, 3], alone, atol=1e-6)
