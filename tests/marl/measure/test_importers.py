"""Teams trained by PyMARL: the imported network computes what the original one did, and misfits are named."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marl.core.types import ConfigError
from marl.measure.fidelity import find_teams, joint_values
from marl.measure.importers import load_agent, load_mixer, load_pymarl
from tests.support.helpers import make_spec, random_batch

SPEC = make_spec()  # 3 agents, 5 actions, 7 observation and 6 state features


def pymarl_agent(width: int, hidden: int = 8, actions: int = 5) -> dict[str, Tensor]:
    torch.manual_seed(0)
    fc1, rnn, fc2 = nn.Linear(width, hidden), nn.GRUCell(hidden, hidden), nn.Linear(hidden, actions)
    return {
        f"{name}.{key}": value for name, net in (("fc1", fc1), ("rnn", rnn), ("fc2", fc2))
        for key, value in net.state_dict().items()
    }  # fmt: skip


def pymarl_mixer(embed: int = 4, hyper: int = 9) -> dict[str, Tensor]:
    torch.manual_seed(1)
    nets = {
        "hyper_w_1": nn.Sequential(nn.Linear(6, hyper), nn.ReLU(), nn.Linear(hyper, embed * 3)),
        "hyper_w_final": nn.Sequential(nn.Linear(6, hyper), nn.ReLU(), nn.Linear(hyper, embed)),
        "hyper_b_1": nn.Linear(6, embed),
        "V": nn.Sequential(nn.Linear(6, embed), nn.ReLU(), nn.Linear(embed, 1)),
    }
    return {f"{name}.{key}": value for name, net in nets.items() for key, value in net.state_dict().items()}


def save(weights: object, path: Path) -> str:
    torch.save(weights, path)
    return str(path)


def test_two_steps_equal_the_original_equations(tmp_path: Path) -> None:
    weights = pymarl_agent(7 + 5 + 3)
    policy = load_pymarl(SPEC, "cpu", path=save(weights, tmp_path / "agent.th"), mixer=None)
    cell = nn.GRUCell(8, 8)
    cell.load_state_dict({key.removeprefix("rnn."): v for key, v in weights.items() if key.startswith("rnn")})
    obs, last = torch.randn(2, 4, 3, 7), torch.tensor([-1, 2])
    hidden, carry = torch.zeros(12, 8), policy.begin(4, torch.Generator())
    for t in range(2):
        carry["last"] = last[t].expand(4, 3)
        taken = torch.zeros(4, 3, 5) if t == 0 else F.one_hot(torch.full((4, 3), 2), 5).float()
        x = torch.cat([obs[t], taken, torch.eye(3).expand(4, 3, 3)], -1).reshape(12, 15)
        hidden = cell(F.relu(F.linear(x, weights["fc1.weight"], weights["fc1.bias"])), hidden)
        expected = F.linear(hidden, weights["fc2.weight"], weights["fc2.bias"]).view(4, 3, 5)
        q, carry["h"] = policy.agent.step(policy.agent.inputs(obs[t], carry["last"]), carry["h"])
        assert torch.allclose(q, expected, atol=1e-6)


def test_the_mixer_equals_the_original_equations(tmp_path: Path) -> None:
    weights = pymarl_mixer()
    mixer = load_mixer(Path(save(weights, tmp_path / "mixer.th")), SPEC)
    q, state = torch.randn(5, 3), torch.randn(5, 6)

    def hyper(name: str) -> Tensor:
        inner = F.relu(F.linear(state, weights[f"{name}.0.weight"], weights[f"{name}.0.bias"]))
        return F.linear(inner, weights[f"{name}.2.weight"], weights[f"{name}.2.bias"])

    w1 = hyper("hyper_w_1").abs().view(5, 3, 4)
    b1 = F.linear(state, weights["hyper_b_1.weight"], weights["hyper_b_1.bias"])
    hidden = F.elu(torch.bmm(q.unsqueeze(1), w1).squeeze(1) + b1)
    expected = (hidden * hyper("hyper_w_final").abs()).sum(-1, keepdim=True) + hyper("V")
    assert torch.allclose(mixer(q, state), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("extra", "options"), [(8, (True, True)), (5, (True, False)), (3, (False, True)), (0, (False, False))]
)
def test_inputs_follow_from_the_width(tmp_path: Path, extra: int, options: tuple[bool, bool]) -> None:
    agent = load_agent(Path(save(pymarl_agent(7 + extra), tmp_path / "a.th")), SPEC)
    assert (agent.last_action, agent.agent_id) == options


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (pymarl_agent(99), "99 features"),
        (pymarl_agent(15, actions=6), "6 actions; this environment has 5"),
        ({"fc1.weight": torch.zeros(2, 2)}, "expected fc1.bias"),
        ([1, 2], "not a state dict"),
    ],
)
def test_misfits_are_named(tmp_path: Path, weights: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_pymarl(SPEC, "cpu", path=save(weights, tmp_path / "agent.th"), mixer=None)


def test_files_that_are_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_pymarl(SPEC, "cpu", path=str(tmp_path / "none.th"), mixer=None)
    (tmp_path / "text.th").write_text("hello")
    with pytest.raises(ConfigError, match="not a state dict"):
        load_pymarl(SPEC, "cpu", path=str(tmp_path / "text.th"), mixer=None)
    with pytest.raises(ConfigError, match="empty does not exist"):
        find_teams(tmp_path / "empty")


def test_joint_values_are_those_of_the_greedy_joint_action(tmp_path: Path) -> None:
    agent, mixer = save(pymarl_agent(15), tmp_path / "qmix_x.th"), save(pymarl_mixer(), tmp_path / "qmix_x_mixer.th")
    policy = load_pymarl(SPEC, "cpu", path=agent, mixer=mixer)
    assert find_teams(tmp_path) == find_teams(tmp_path, ["x"]) == [("x", Path(agent))]
    with pytest.raises(ConfigError, match=r"only=y is the map of no team in .*; there are x$"):
        find_teams(tmp_path, ["x", "y"])
    with pytest.raises(ConfigError, match=r"only=\[\] leaves no team; there are x$"):
        find_teams(tmp_path, [])
    batch = random_batch(SPEC, 4)
    carry = policy.begin(4, torch.Generator())
    q = policy.q_values(batch.obs[:, 0], carry)
    best = q.masked_fill(~batch.avail[:, 0], -torch.inf).max(-1).values
    assert torch.allclose(joint_values(policy, batch)[:, 0], policy.q_total(best, batch.state[:, 0])[:, 0], atol=1e-5)
