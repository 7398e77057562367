"""Acting on learnt values: the epsilon-greedy policy and its exploration schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call

from marl.core.checks import require_at_least, require_share
from marl.core.rolling import Acting
from marl.core.types import ActedOn, Carry, EpisodeBatch, Obs
from marl.learn.acting import Network, act, network_of, seats_of
from marl.learn.agents import RecurrentAgent
from marl.learn.learner import best_available, previous_actions
from marl.learn.mixers import Mixer


@dataclass(frozen=True)
class LinearSchedule:
    """A value that moves linearly from ``start`` to ``end`` over the first ``steps`` environment steps, then stays."""

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        require_at_least("", 1, steps=self.steps)
        require_share("", start=self.start, end=self.end)

    def __call__(self, env_steps: int) -> float:
        return self.start + (self.end - self.start) * min(1.0, env_steps / self.steps)


def random_available(avail: Tensor, gen: Generator) -> Tensor:
    """Sample uniformly among available actions: avail bool [*, A] -> long [*]."""
    noise = torch.rand(avail.shape, generator=gen, device=avail.device)
    return best_available(noise, avail)


def mix_random(actions: Tensor, avail: Tensor, epsilon: float | Tensor, gen: Generator) -> Tensor:
    """Replace each of ``actions`` long [*, n], with probability ``epsilon``, by a random available one: avail bool
    [*, n, A]; ``epsilon`` broadcasts against the actions."""
    coin = torch.rand(actions.shape, generator=gen, device=actions.device)
    return torch.where(coin < epsilon, random_available(avail, gen), actions)


class AgentPolicy:
    """Chooses actions by the agents' scores, values or logits, and lets attacks read these.

    Carry: ``h`` [B, n, H] hidden state, ``last`` long [B, n] the last action (-1: none yet). ``last_action`` says
    whether the networks see the executed or the intended one.
    """

    def __init__(self, agent: RecurrentAgent, last_action: ActedOn) -> None:
        self.agent, self.last_action = agent, last_action
        self._packed: tuple[list[Any], Network | None] | None = None  # the weights' versions, and the weights

    def network(self) -> Network | None:
        """Return the agent's current weights for compiled code, None if there is none for this agent."""
        versions = [(p.data_ptr(), p._version) for p in self.agent.parameters()]
        if self._packed is None or self._packed[0] != versions:
            self._packed = versions, network_of(self.agent)
        return self._packed[1]

    def form(self, **how: Any) -> Acting | None:
        """Return the compiled form of a team that chooses as ``how`` says (``seats_of``), None if there is none."""
        network = network_of(self.agent)
        if network is None:
            return None
        return Acting(network, self.last_action == "executed", lambda carry: seats_of(network, carry, **how))

    def begin(self, n_envs: int, gen: Generator) -> Carry:
        self._packed = None  # weights are read again once per episode
        h = self.agent.initial(n_envs)
        return {"h": h, "last": torch.full(h.shape[:-1], -1, dtype=torch.long, device=h.device)}

    def after(self, carry: Carry, intended: Tensor, executed: Tensor) -> Carry:
        return {"h": carry["h"], "last": executed if self.last_action == "executed" else intended}

    def q_values(self, obs: Tensor, carry: Carry) -> Tensor:
        """Return the agents' scores: obs [B, n, O] -> [B, n, A], differentiable in ``obs``."""
        return self.agent.step(self.agent.inputs(obs, carry["last"]), carry["h"])[0]

    @torch.no_grad()
    def advance(self, obs: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """Make one step in an imagined episode: return q [B, n, A] and the carry after reading ``obs`` [B, n, O]."""
        q, h = self.agent.step(self.agent.inputs(obs, carry["last"]), carry["h"])
        return q, {**carry, "h": h}

    @torch.no_grad()
    def unroll(self, batch: EpisodeBatch) -> tuple[Tensor, Carry]:
        """Run over stored episodes with current weights: return q [M, T+1, n, A], on the CPU 0 after an episode, and
        the carry before every slot [M, T+1, n, *]."""
        last = previous_actions(batch.acted(self.last_action))
        lengths = batch.length.cpu() + 1 if last.device.type == "cpu" else None
        q, h = self.agent.unroll(self.agent.inputs(batch.policy_obs, last), lengths)
        before = torch.cat([self.agent.initial(len(batch), 1), h[:, :-1]], 1)
        return q, {"h": before, "last": last}


class EpsilonGreedy(AgentPolicy):
    """Plays each agent's best action; when exploring, each takes a random available one with probability ``epsilon``.

    The policy is a ``Victim``: attacks may read its values.
    """

    def __init__(self, agent: RecurrentAgent, mixer: Mixer, epsilon: float, last_action: ActedOn) -> None:
        super().__init__(agent, last_action)
        self.mixer, self.epsilon = mixer, epsilon

    def compiled(self, explore: bool) -> Acting | None:
        """Return how this policy acts, for ``marl.run.rollout``."""
        return self.form(epsilon=float(self.epsilon) if explore else 0.0)

    @torch.no_grad()
    def act(self, obs: Obs, carry: Carry, *, explore: bool, gen: Generator) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        if (network := self.network()) is not None:
            actions, h = act(network, obs.obs, obs.avail, carry["last"], carry["h"])
        else:
            q, h = self.agent.step(self.agent.inputs(obs.obs, carry["last"]), carry["h"])
            actions = best_available(q, obs.avail)
        if explore:
            actions = self.noisy(actions, obs.avail, gen)
        return actions, {"h": h, "last": carry["last"]}, {}

    def noisy(self, actions: Tensor, avail: Tensor, gen: Generator) -> Tensor:
        """Replace actions by random ones (``mix_random``) with the policy's own ``epsilon``."""
        return mix_random(actions, avail, self.epsilon, gen)

    # the white-box view

    def q_total(self, q: Tensor, state: Tensor, **kwargs: Tensor) -> Tensor:
        """Mix the agents' values: q [B, n], state [B, S] -> [B, m]."""
        return self.mixer(q, state, **kwargs)

    def params(self) -> dict[str, Tensor]:
        return dict(self.agent.named_parameters())

    def q_with(self, params: dict[str, Tensor], obs: Tensor, carry: Carry) -> Tensor:
        """Return ``q_values`` with other parameters; pure, hence fit for ``torch.func.vmap`` and ``grad``."""
        return functional_call(_StepQ(self.agent), {f"agent.{k}": v for k, v in params.items()}, (obs, carry))


class _StepQ(nn.Module):
    """A module whose ``forward`` is one step of the agent, since ``functional_call`` calls ``forward``."""

    def __init__(self, agent: RecurrentAgent) -> None:
        super().__init__()
        self.agent = agent

    def forward(self, obs: Tensor, carry: Carry) -> Tensor:
        return self.agent.step(self.agent.inputs(obs, carry["last"]), carry["h"])[0]
