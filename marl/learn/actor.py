"""Actors and critics of policy-gradient teams: the categorical policy, the value network, and its running scale."""

from __future__ import annotations

import itertools
from typing import Literal, get_args

import torch
from torch import Generator, Tensor, nn

from marl.core.checks import require_at_least, require_choice, require_share
from marl.core.distributed import summed
from marl.core.networks import StackedLinear, rectified
from marl.core.rolling import Acting
from marl.core.types import ActedOn, Carry, EnvSpec, Obs
from marl.learn.acting import act
from marl.learn.agents import RecurrentAgent
from marl.learn.learner import best_available
from marl.learn.policy import AgentPolicy

Act = Literal["greedy", "sample"]
Sees = Literal["obs", "state", "both"]
WIDE = 16  # number of actions from which torch's log-softmax needs no help on the CPU
FIRST_GAIN, ACTOR_GAIN, CRITIC_GAIN = 2**0.5, 0.01, 1.0  # of orthogonal weights: hidden layers, last layers


def log_policy(logits: Tensor, avail: Tensor) -> Tensor:
    """Return log probabilities of actions, -inf where unavailable: logits [*, A], avail bool [*, A]."""
    scores = logits.masked_fill(~avail, -torch.inf)
    if scores.shape[-1] >= WIDE or scores.device.type != "cpu" or scores.dim() < 2:
        return scores.log_softmax(-1)
    turned = scores.flatten(0, -2).t().contiguous()  # torch computes many short rows one by one, long columns at once
    return turned.log_softmax(0).t().unflatten(0, scores.shape[:-1])


def draw(logits: Tensor, avail: Tensor, gen: Generator) -> Tensor:
    """Sample actions long [*] by their logits [*, A] among the available ones, bool [*, A] (Gumbel-max trick)."""
    noise = torch.rand(logits.shape, generator=gen, device=logits.device).clamp_min(torch.finfo(logits.dtype).tiny)
    return best_available(logits - (-noise.log()).log(), avail)


class Actor(AgentPolicy):
    """Samples each agent's action from its own policy when exploring; otherwise as ``act`` says: greedy, the most
    likely one, or sampled as well.

    Its scores are logits, so attacks on observations may follow their gradient; it has no value of joint actions, and
    attacks that read one refuse it.
    """

    def __init__(self, agent: RecurrentAgent, act: Act, last_action: ActedOn) -> None:
        super().__init__(agent, last_action)
        self.how = act

    def sampled(self, explore: bool) -> bool:
        """Return whether actions are sampled."""
        return explore or self.how == "sample"

    def compiled(self, explore: bool) -> Acting | None:
        """Return how this policy acts, for ``marl.run.rollout``."""
        return self.form(sampled=self.sampled(explore))

    @torch.no_grad()
    def act(self, obs: Obs, carry: Carry, *, explore: bool, gen: Generator) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        sampled = self.sampled(explore)
        if not sampled and (network := self.network()) is not None:
            actions, h = act(network, obs.obs, obs.avail, carry["last"], carry["h"])
        else:
            logits, h = self.agent.step(self.agent.inputs(obs.obs, carry["last"]), carry["h"])
            actions = draw(logits, obs.avail, gen) if sampled else best_available(logits, obs.avail)
        return actions, {"h": h, "last": carry["last"]}, {}


class Critic(nn.Module):
    """Each agent's value of its observation, the state, or both; two hidden layers of ``hidden_dim`` units.

    ``share_parameters``: one network for all agents, told apart by ``agent_id``, or one each. From the state, shared
    and without ids, there is one value for the whole team.
    """

    def __init__(self, spec: EnvSpec, *, sees: Sees, hidden_dim: int, share_parameters: bool, agent_id: bool) -> None:
        super().__init__()
        require_choice("critic", get_args(Sees), sees=sees)
        require_at_least("critic", 1, hidden_dim=hidden_dim)
        self.n_agents, self.sees, self.agent_id = spec.n_agents, sees, agent_id
        self.for_team = sees == "state" and share_parameters and not agent_id
        self.for_each = share_parameters and not self.for_team  # one network, applied to each agent
        I = {"obs": spec.obs_dim, "state": spec.state_dim, "both": spec.obs_dim + spec.state_dim}[sees]  # noqa: E741
        sizes = [I + agent_id * spec.n_agents, hidden_dim, hidden_dim, 1]
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(sizes):
            layers += [
                nn.Linear(a, b) if share_parameters else StackedLinear(spec.n_agents, a, b),
                nn.ReLU(),
            ]
        self.net = nn.Sequential(*layers[:-1])

    def inputs(self, obs: Tensor, state: Tensor) -> Tensor:
        """Build the network's inputs [*, n, I], or [*, I] for the team, from obs [*, n, O] and state [*, S]."""
        if self.for_team:
            return state
        parts, n = [] if self.sees == "state" else [obs], self.n_agents
        if self.sees != "obs":
            parts.append(state.unsqueeze(-2).expand(*state.shape[:-1], n, -1))
        if self.agent_id:
            parts.append(torch.eye(n, device=state.device).expand(*state.shape[:-1], n, n))
        return torch.cat(parts, -1) if len(parts) > 1 else parts[0]

    def forward(self, x: Tensor) -> Tensor:
        """Map ``inputs`` to values [*, n]."""
        *hidden, last = list(self.net)[::2]  # the ReLUs in between are part of ``rectified``
        for layer in hidden:
            x = rectified(layer, x)
        v = last(x)
        return v.expand(*v.shape[:-1], self.n_agents) if self.for_team else v.squeeze(-1)


class RunningScale(nn.Module):
    """Mean and deviation of returns as exponential moving averages with rate 1 - ``beta``, free of initial bias
    (Yu et al. 2022, "The Surprising Effectiveness of PPO", app. C: value normalisation). ``on`` false: 0 and 1."""

    sums: Tensor

    def __init__(self, on: bool, beta: float) -> None:
        super().__init__()
        require_share("learner", value_beta=beta)
        self.on, self.beta = on, beta
        self.register_buffer("sums", torch.zeros(3, dtype=torch.float64))  # of returns, their squares, and weights

    def update(self, returns: Tensor, weight: Tensor) -> None:
        """Include returns [*] where ``weight`` bool [*] is true."""
        if self.on:
            x = returns.double() * weight
            new = summed(torch.stack([x.sum(), x.square().sum(), weight.sum().double()]))
            self.sums.lerp_(new / new[2].clamp_min(1), 1.0 - self.beta)

    def scale(self) -> tuple[Tensor, Tensor]:
        """Return the mean and the deviation (at least 0.01), float32."""
        if not self.on:
            return self.sums.new_zeros((), dtype=torch.float32), self.sums.new_ones((), dtype=torch.float32)
        weight = self.sums[2].clamp_min(1e-12)
        mean, square = self.sums[0] / weight, self.sums[1] / weight
        deviation = (square - mean.square()).clamp_min(1e-4).sqrt()
        deviation = torch.where(self.sums[2] > 0, deviation, 1.0)
        return mean.float(), deviation.float()


def initialise(agent: nn.Module, critic: Critic) -> None:
    """Make the weights of an agent and a critic orthogonal, those of recurrent layers included, small before the logits
    (Andrychowicz et al. 2021, "What Matters in On-Policy RL"), and all biases 0."""
    nets: tuple[tuple[nn.Module, str, float], ...]
    nets = ((agent, "fc_out", ACTOR_GAIN), (critic, f"net.{len(critic.net) - 1}", CRITIC_GAIN))
    for net, last, gain in nets:
        for name, layer in net.named_modules():
            if isinstance(layer, nn.Linear | StackedLinear):
                nn.init.zeros_(layer.bias)
                matrices = [layer.weight] if isinstance(layer, nn.Linear) else list(layer.weight)
                for matrix in matrices:
                    orthogonal(matrix, gain if name == last else FIRST_GAIN)
            elif isinstance(layer, nn.GRU):
                for key, value in layer.named_parameters():
                    nn.init.zeros_(value) if "bias" in key else nn.init.orthogonal_(value)


@torch.no_grad()
def orthogonal(matrix: Tensor, gain: float) -> None:
    """Make a matrix, or a view of one, orthogonal in place."""
    matrix.copy_(nn.init.orthogonal_(torch.empty_like(matrix), gain))
