"""S2Q's behaviour: while exploring, the whole team plays the greedy joint action of one head, sampled by its value.

Tests, attacks and other players see head 0 alone: greedy, decentralised, and without messages except in S2Q-Comm.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor

from algos.s2q.learner import S2QLearner, append_message
from marl.core.types import Carry, EpisodeBatch, Obs
from marl.learn.learner import best_available, gather_actions, previous_actions
from marl.learn.policy import EpsilonGreedy

Execute = Literal["softmax", "head0", "uniform", "independent", "oracle"]


def own_stream(gen: Generator) -> Generator:
    """Return another generator, seeded with the next number ``gen`` would produce. ``gen`` is left unchanged, so that
    exploration noise does not depend on the number of heads."""
    state = gen.get_state()
    seed = int(torch.randint(2**62, (), generator=gen, device=gen.device))
    gen.set_state(state)
    return Generator(gen.device).manual_seed(seed)


class S2QPolicy(EpsilonGreedy):
    """An epsilon-greedy policy around the joint action of one head per lane and step.

    With probability ``p_mixed`` an episode is mixed: each step samples a head k from P. ``execute`` chooses P:
    softmax, as the decoder predicts it; oracle, from target Q*; uniform; independent, softmax with each agent sampling
    its own k. In other episodes, with head0, and before the first gradient step, k is 0.

    The carry adds to the base policy's: ``others`` [B, K, n, H], hidden states of heads 1..K; ``mixed`` bool [B];
    ``dice`` [B, T, n], uniform numbers for the whole episode; ``t`` long [B]; ``central`` [B, n, H] for the oracle.
    """

    def __init__(self, learner: S2QLearner, epsilon: float, execute: Execute, p_mixed: float) -> None:
        super().__init__(learner.agent, learner.mixer, epsilon, learner.last_action)
        self.learner, self.execute, self.p_mixed = learner, execute, p_mixed

    def begin(self, n_envs: int, gen: Generator) -> Carry:
        carry = super().begin(n_envs, gen)
        if not self.learner.K:
            return carry
        h, own, spec = carry["h"], own_stream(gen), self.learner.spec
        carry["others"] = h.new_zeros(n_envs, self.learner.K, *h.shape[1:])
        carry["mixed"] = torch.rand(n_envs, generator=own, device=h.device) < self.p_mixed
        carry["dice"] = torch.rand(n_envs, spec.episode_limit, spec.n_agents, generator=own, device=h.device)
        carry["t"] = torch.zeros(n_envs, dtype=torch.long, device=h.device)
        if self.execute == "oracle" and self.learner.target_central is not None:
            carry["central"] = self.learner.target_central.agent.initial(n_envs)
        return carry

    @torch.no_grad()
    def act(self, obs: Obs, carry: Carry, *, explore: bool, gen: Generator) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        x = self.agent.inputs(self._with_message(obs.obs, carry), carry["last"])
        q, h = self.agent.step(x, carry["h"])
        actions = first = best_available(q, obs.avail)
        carry, extras = {**carry, "h": h}, {}
        if explore and self.learner.K:
            candidates, carry = self._candidates(x, first, obs, carry)
            index, carry = self._draw(candidates, obs, carry)
            actions = candidates.gather(1, index.unsqueeze(1)).squeeze(1)
            extras = {"s2q_head": index, "s2q_greedy": first, "s2q_mixed": carry["mixed"]}
        if explore:
            actions = self.noisy(actions, obs.avail, gen)
        return actions, carry, extras

    def after(self, carry: Carry, intended: Tensor, executed: Tensor) -> Carry:
        return {**carry, **super().after(carry, intended, executed)}

    def _with_message(self, obs: Tensor, carry: Carry) -> Tensor:
        """Append the message of the previous step to obs [*, n, O] in S2Q-Comm; otherwise return obs."""
        decoder = self.learner.decoder
        return append_message(obs, decoder.encode(carry["h"])) if self.learner.comm and decoder is not None else obs

    def _candidates(self, x: Tensor, first: Tensor, obs: Obs, carry: Carry) -> tuple[Tensor, Carry]:
        """Return the greedy joint actions of all heads, long [B, K+1, n], and the next carry."""
        joint, hidden = [first], []
        for k, head in enumerate(self.learner.heads):
            q, h = head.step(x, carry["others"][:, k])
            joint.append(best_available(q, obs.avail))
            hidden.append(h)
        return torch.stack(joint, 1), {**carry, "others": torch.stack(hidden, 1)}

    def _draw(self, candidates: Tensor, obs: Obs, carry: Carry) -> tuple[Tensor, Carry]:
        """Sample the head of every agent, long [B, n], the same within a lane except with ``independent``."""
        lanes = torch.arange(len(candidates), device=candidates.device)
        dice = carry["dice"][lanes, carry["t"]]  # [B, n]
        if self.execute != "independent":
            dice = dice[:, :1].expand_as(dice)
        p, carry = self.distribution(candidates, obs, {**carry, "t": carry["t"] + 1})
        index = (dice.unsqueeze(-1) >= p.cumsum(-1).unsqueeze(1)).sum(-1).clamp(max=self.learner.K)
        plays = carry["mixed"] & (self.learner.decoder_ready and self.execute != "head0")
        return index * plays.unsqueeze(-1), carry

    def distribution(self, candidates: Tensor, obs: Obs, carry: Carry) -> tuple[Tensor, Carry]:
        """Return the probabilities [B, K+1] of the candidates long [B, K+1, n], and the next carry. ``carry["h"]`` must
        hold this step's hidden states."""
        learner = self.learner
        if self.execute == "uniform":
            return torch.full(candidates.shape[:2], 1.0 / (learner.K + 1), device=candidates.device), carry
        if self.execute == "oracle":
            central = learner.target_central
            assert central is not None
            u, h = central.agent.step(central.agent.inputs(obs.obs, carry["last"]), carry["central"])
            taken = gather_actions(u.unsqueeze(1).expand(-1, candidates.shape[1], -1, -1), candidates)  # [B, C, n]
            values = central(taken, obs.state.unsqueeze(1)).squeeze(-1)
            return learner.softmax(values, candidates), {**carry, "central": h}
        assert learner.decoder is not None
        return learner.decoder(carry["h"])[1].exp(), carry

    # the white-box view shows head 0; only in S2Q-Comm does it see more than observations

    def q_values(self, obs: Tensor, carry: Carry) -> Tensor:
        return super().q_values(self._with_message(obs, carry), carry)

    def q_with(self, params: dict[str, Tensor], obs: Tensor, carry: Carry) -> Tensor:
        return super().q_with(params, self._with_message(obs, carry), carry)

    def advance(self, obs: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        return super().advance(self._with_message(obs, carry), carry)

    @torch.no_grad()
    def unroll(self, batch: EpisodeBatch) -> tuple[Tensor, Carry]:
        rows = self.learner.rows(batch)
        q, h = map(rows.spread, self.agent.along(self.learner.inputs(batch, rows), rows))  # with the messages
        last = previous_actions(batch.acted(self.last_action))
        return q, {"h": torch.cat([self.agent.initial(len(batch), 1), h[:, :-1]], 1), "last": last}
