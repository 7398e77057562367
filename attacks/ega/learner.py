"""A population of attackers and how it learns: soft TD towards a reference policy (SPRQ), plus a diversity term.

Yuan et al. 2023 (ROMANCE), arXiv 2305.05909, eq. 3 to 5 (docs/romance.md). Axis letters: ``P`` attackers,
``D`` weights of one, ``C`` choices, ``I`` inputs, ``M`` episodes per attacker.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor, nn

from attacks.ega.population import Networks, choice_policy, jensen_shannon, reference, soft_value
from marl.core.checks import require_at_least, require_positive, require_share, require_within
from marl.core.types import ConfigError, EnvSpec, EpisodeBatch, Field, Metrics, core_fields
from marl.learn.learner import gather_actions, make_optimizer
from marl.learn.replay import EpisodeReplay


def attacker_inputs(batch: EpisodeBatch) -> Tensor:
    """Return inputs [M, T+1, I]: the state and the share of the budget that is left."""
    return torch.cat([batch.state, batch.ega_budget[..., None]], -1)


class SoftLearner:
    """``population`` attackers with two hidden layers of ``hidden_dim`` units, each trained on ``batch_size`` episodes
    from their shared replay of the newest ``replay_capacity``. Their reward is -r, minus ``penalty`` per attempted hit.

    Their policy is ``choice_policy`` with ``temperature`` and ``floor`` around ``reference`` (``delta``); ``tau`` moves
    the targets. ``diversity`` times their Jensen-Shannon divergence at ``rows`` states, preferably ones where they
    attacked, is subtracted from the loss.
    """

    def __init__(
        self,
        spec: EnvSpec,
        device: torch.device | str,
        gen: Generator,
        *,
        population: int,
        hidden_dim: int,
        delta: float,
        temperature: float,
        floor: float,
        penalty: float,
        gamma: float,
        lr: float,
        optimizer: str,
        optimizer_eps: float,
        grad_clip: float,
        tau: float,
        batch_size: int,
        replay_capacity: int,
        diversity: float,
        rows: int,
    ) -> None:
        require_at_least("attack.learner", 1, population=population, hidden_dim=hidden_dim)
        require_at_least("attack.learner", 1, batch_size=batch_size, rows=rows)
        n = spec.n_agents
        require_within("attack.learner", 0, 1 / (n + 1), floor=floor, note="1 / (agents + 1)")
        require_share("attack.learner", gamma=gamma, tau=tau)
        require_within("attack.learner", 0, 1, ends="()", delta=delta)
        require_positive("attack.learner", temperature=temperature, grad_clip=grad_clip)
        self.need = population * batch_size
        if replay_capacity < self.need:
            raise ConfigError(
                f"attack.learner.replay_capacity={replay_capacity} is too small; a step takes {self.need} episodes"
            )
        self.spec, self.device, self.gen = spec, torch.device(device), gen
        self.population, self.penalty, self.gamma, self.tau = population, penalty, gamma, tau
        self.temperature, self.floor, self.p_ref = temperature, floor, reference(n, delta).to(device)
        self.batch_size, self.replay_capacity = batch_size, replay_capacity
        self.diversity, self.rows, self.grad_clip = diversity, rows, grad_clip
        self.optimizer_options = (optimizer, lr, optimizer_eps)
        self.nets = Networks([spec.state_dim + 1, hidden_dim, hidden_dim, n + 1])
        self.replay: EpisodeReplay | None = None
        self.install(self.nets.fresh(population, gen))

    def install(self, weights: Tensor) -> None:
        """Replace the attackers with others [P, D]: the targets become copies, and the optimizer is reset."""
        self.weights = nn.Parameter(weights.to(self.device))
        self.targets = self.weights.detach().clone()
        name, lr, eps = self.optimizer_options
        self.optimizer = make_optimizer(name, [self.weights], lr, eps)

    def policy(self, weights: Tensor, x: Tensor) -> Tensor:
        """Return choice probabilities of attackers [k, D] at inputs [k, R, I] -> [k, R, C], without gradient."""
        with torch.no_grad():
            q = self.nets.values(self.nets.split(weights.to(self.device)), x.to(self.device))
            return choice_policy(q, self.p_ref, self.temperature, self.floor).to(weights.device)

    def remember(self, episodes: EpisodeBatch) -> None:
        """Store episodes that have the fields of ``memory``."""
        if self.replay is None:
            self.replay = self.memory()
        self.replay.add(episodes)

    def memory(self) -> EpisodeReplay:
        """Build an empty replay. ``ega_choice``: the agent that the attacker chose, n for nobody; ``ega_budget``: the
        share of the budget that was left before the step."""
        core = core_fields(self.spec)
        fields = {name: core[name] for name in ("state", "reward", "terminated", "filled")}
        fields |= {"ega_choice": Field((), torch.int16), "ega_budget": Field(())}
        return EpisodeReplay(self.replay_capacity, self.spec.episode_limit, fields)

    def forget(self) -> None:
        """Drop the stored episodes, without which nothing is learnt."""
        self.replay = None

    def update(self) -> Metrics:
        """Take a gradient step for all attackers, each on its own episodes; do nothing while there are too few."""
        if self.replay is None or len(self.replay) < self.need:
            return {}
        batch = self.replay.sample(self.need, self.gen, self.device)
        layers = self.nets.split(self.weights)
        td = self.td_loss(batch, layers)
        jsd = self.spread(batch, layers) if self.population > 1 else td.new_zeros(())
        self.optimizer.zero_grad(set_to_none=True)
        (td - self.diversity * jsd if self.diversity else td).backward()
        nn.utils.clip_grad_norm_([self.weights], self.grad_clip)
        self.optimizer.step()
        with torch.no_grad():
            self.targets.lerp_(self.weights, self.tau)
        return {"loss/attackers": td.detach(), "attack/jsd": jsd.detach()}

    def td_loss(self, batch: EpisodeBatch, layers: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Return the mean over attackers of the mean squared error over the steps of their episodes; ``batch`` [P *
        M]."""
        P, lead = self.population, batch.filled.shape[1]
        x = attacker_inputs(batch).reshape(P, -1, self.nets.shapes[0][0])  # [P, M (T+1), I]
        q = self.nets.values(layers, x).unflatten(1, (-1, lead))  # [P, M, T+1, C]
        with torch.no_grad():
            ahead = self.nets.values(self.nets.split(self.targets), x).unflatten(1, (-1, lead))
            v = soft_value(ahead[:, :, 1:], self.p_ref, self.temperature)  # [P, M, T]
            step = {name: batch[name][:, :-1].unflatten(0, (P, -1)) for name in ("reward", "terminated", "filled")}
            choice = batch.ega_choice[:, :-1].long().unflatten(0, (P, -1))
            reward = -step["reward"] - self.penalty * (choice < self.spec.n_agents)
            target = reward + self.gamma * torch.where(step["terminated"], 0.0, v)
        error = torch.where(step["filled"], gather_actions(q[:, :, :-1], choice) - target, 0.0)
        return (error.square().sum((1, 2)) / step["filled"].sum((1, 2)).clamp(min=1)).mean()

    def spread(self, batch: EpisodeBatch, layers: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Return the attackers' divergence at up to ``rows`` steps of the batch, preferring those with a chosen
        victim."""
        x, attacked = attacker_inputs(batch)[batch.filled], (batch.ega_choice < self.spec.n_agents)[batch.filled]
        rank = torch.rand(len(x), generator=self.gen).to(self.device) + attacked.float()
        x = x[rank.topk(min(self.rows, len(x))).indices]  # [R, I]
        q = self.nets.values(layers, x.expand(self.population, -1, -1))
        return jensen_shannon(choice_policy(q, self.p_ref, self.temperature, self.floor))

    def state_dict(self) -> dict[str, Any]:
        return {
            "weights": self.weights.detach(),
            "targets": self.targets,
            "optimizer": self.optimizer.state_dict(),
            "replay": None if self.replay is None else self.replay.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.install(state["weights"].clone())
        self.targets = state["targets"].to(self.device).clone()
        self.optimizer.load_state_dict(state["optimizer"])
        self.forget()
        if state["replay"] is not None:
            self.replay = self.memory()
            self.replay.load_state_dict(state["replay"])
