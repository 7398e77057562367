"""Acting on sampled latents, as FoX's published code does (docs/fox.md)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Generator, Tensor

from algos.fox.nets import FoXHeads
from marl.core.checks import require_choice
from marl.core.types import Carry, ConfigError, Obs
from marl.learn.agents import RecurrentAgent
from marl.learn.learner import best_available
from marl.learn.policy import EpsilonGreedy

Act = Literal["mean", "explore", "sample"]


class SampledLatent(EpsilonGreedy):
    """An epsilon-greedy policy whose agents read a latent sampled from q(z | h) at every step: while exploring, and
    with ``always`` in greedy play too. Attacks and targets use the values of the mean latent."""

    always: bool

    @torch.no_grad()
    def act(self, obs: Obs, carry: Carry, *, explore: bool, gen: Generator) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        if not (explore or self.always):
            return super().act(obs, carry, explore=explore, gen=gen)
        q, h = self.agent.step(self.agent.inputs(obs.obs, carry["last"]), carry["h"])
        actions = best_available(q + self.surplus(h, gen), obs.avail)
        if explore:
            actions = self.noisy(actions, obs.avail, gen)
        return actions, {"h": h, "last": carry["last"]}, {}

    def surplus(self, h: Tensor, gen: Generator) -> Tensor:
        """Return what a sampled latent adds to the values of the mean: h [B, n, H] -> [B, n, A]."""
        heads = self.agent.fc_out
        assert isinstance(heads, FoXHeads)
        _, logvar = heads.encoder(h)
        noise = torch.randn(logvar.shape, generator=gen, device=logvar.device)
        return ((0.5 * logvar).exp() * noise) @ heads.formation.weight.t()


def check_act(act: Act, agent: RecurrentAgent) -> None:
    """Refuse an unknown choice, and sampling latents with an agent that has none; raise ConfigError."""
    require_choice("algo", get_args(Act), act=act)
    if act != "mean" and not isinstance(agent.fc_out, FoXHeads):
        raise ConfigError(f"algo.act={act} needs an agent with latents: agent@algo.agent=fox")
