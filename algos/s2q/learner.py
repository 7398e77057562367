"""S2Q's losses: K+1 monotonic values on one target, each suppressed on the joint actions that earlier ones claim.

Jo, Lee, Han 2026, "Retaining Suboptimal Actions to Follow Shifting Optima in Multi-Agent Reinforcement Learning".
Equations as implemented: docs/s2q.md. Axis letter: ``C`` = K+1 candidates, one per head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from algos.s2q.nets import CandidateSoftmax, EncoderDecoder, TemperatureMode, claimed_before, repeated, suppress_amount
from algos.shared.central import CentralForward, CentralLearner, CentralValue, TargetSource, is_joint, wqmix_weight
from marl.core.checks import require_at_least, require_choice, require_positive, require_share
from marl.core.protocols import LearnerHook
from marl.core.types import EnvSpec, EpisodeBatch, Forward, Metrics
from marl.learn.agents import RecurrentAgent
from marl.learn.learner import best_available, gather_actions, masked_mean, td_metrics, team_value
from marl.learn.mixers import Mixer

WeightRule = Literal["s2q", "none", "cw", "ow"]
SuppressSource = Literal["online", "target"]


@dataclass(frozen=True)
class Structure:
    """The networks that S2Q adds to the base learner's, and how to make them."""

    K: int  # heads in addition to head 0
    comm: bool  # agents see the latent of the previous step
    head: Callable[[], tuple[RecurrentAgent, Mixer]]
    central: Callable[[], CentralValue]
    decoder: Callable[[], EncoderDecoder]


@dataclass
class S2QForward(CentralForward):
    """A forward pass with all heads."""

    heads_q: list[Tensor]  # K+1 of [N, n, A], with gradient
    candidates: Tensor  # long [N, C, n], greedy joint action of each head
    values: Tensor  # [N, C] their target Q*


class S2QLearner(CentralLearner):
    """The learner of K+1 heads. ``w_c``: the weight of down-weighted errors. ``weight0``: the rule of head 0 (s2q, cw,
    ow, none); the other heads use ow. ``alpha``, ``floor``, ``suppress_source``: suppression (paper eq. 2).
    ``temperature``, ``temperature_mode``, ``dedup``: the softmax. ``coef_kl``, ``coef_state``: the decoder's losses.
    With K = 0, weight0=none and target_source=qtot it is the base learner, bit for bit.
    """

    def __init__(
        self,
        spec: EnvSpec,
        agent: RecurrentAgent,
        mixer: Mixer,
        hooks: Sequence[LearnerHook],
        structure: Structure,
        *,
        w_c: float,
        weight0: WeightRule,
        alpha: float,
        floor: float | None,
        suppress_source: SuppressSource,
        temperature: float,
        temperature_mode: TemperatureMode,
        dedup: bool,
        coef_kl: float,
        coef_state: float,
        target_source: TargetSource,
        device: torch.device | str = "cpu",
        **base: Any,
    ) -> None:
        require_choice("learner", get_args(WeightRule), weight0=weight0)
        require_choice("learner", get_args(SuppressSource), suppress_source=suppress_source)
        require_share("learner", w_c=w_c)
        require_at_least("learner", 0, alpha=alpha, coef_kl=coef_kl, coef_state=coef_state)
        require_positive("learner", floor=floor, or_null=True)
        self.w_c, self.weight0, self.K, self.comm = w_c, weight0, structure.K, structure.comm
        self.alpha, self.floor, self.suppress_source = alpha, floor, suppress_source
        self.coef_kl, self.coef_state = coef_kl, coef_state
        extra = [structure.head() for _ in range(structure.K)]
        self.heads, self.mixers = [head.to(device) for head, _ in extra], [mix.to(device) for _, mix in extra]
        self.softmax = CandidateSoftmax(temperature, temperature_mode, dedup).to(device)
        self.decoder = structure.decoder().to(device) if structure.K or structure.comm else None
        plain = self.decoder is None and target_source == "qtot" and weight0 == "none"
        central = None if plain else structure.central()
        super().__init__(spec, agent, mixer, hooks, central, target_source=target_source, device=device, **base)

    def online(self) -> dict[str, nn.Module]:
        nets = super().online()
        for k, (head, mixer) in enumerate(zip(self.heads, self.mixers, strict=True), 1):
            nets |= {f"agent_{k}": head, f"mixer_{k}": mixer}
        return nets | ({} if self.decoder is None else {"decoder": self.decoder})

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"softmax": self.softmax.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.softmax.load_state_dict(state["softmax"])

    @property
    def decoder_ready(self) -> bool:
        """Return whether the decoder has been trained at all."""
        return self.updates > 0

    def observed(self, batch: EpisodeBatch, last: Tensor) -> Tensor:
        """Return what the agents see; in S2Q-Comm with messages, through which gradients reach the encoder."""
        if not self.comm:
            return super().observed(batch, last)
        assert self.decoder is not None
        message = self.decoder.encode(self._states_before(batch.policy_obs, last))  # [M, T+1, L]
        return append_message(batch.policy_obs, message)

    @torch.no_grad()
    def _states_before(self, obs: Tensor, last: Tensor) -> Tensor:
        """Return head 0's hidden states before each slot [M, T+1, n, H], step by step: each message depends on them."""
        assert self.decoder is not None
        h, states = self.agent.initial(len(obs)), []
        for t in range(obs.shape[1]):
            states.append(h)
            _, h = self.agent.step(self.agent.inputs(append_message(obs[:, t], self.decoder.encode(h)), last[:, t]), h)
        return torch.stack(states, 1)

    def forward(self, batch: EpisodeBatch) -> Forward:
        fwd = super().forward(batch)
        if not isinstance(fwd, CentralForward) or self.target_central is None:
            return fwd
        rows = fwd.rows
        heads_q = [fwd.row_q, *(head.along(fwd.x, rows)[0] for head in self.heads)]
        others = [best_available(q.detach(), rows["avail"]) for q in heads_q[1:]]
        candidates = torch.stack([fwd.row_greedy, *others], 1)  # [N, C, n]
        values = [fwd.central_v]
        if others:
            with torch.no_grad():
                u = torch.stack([gather_actions(fwd.target_u, joint) for joint in others], 1)  # [N, K, n]
                values.append(self.target_central(u, rows["state"][:, None]).squeeze(-1))
        found = {field.name: getattr(fwd, field.name) for field in fields(fwd)}  # without cached slot tensors
        return S2QForward(**found, heads_q=heads_q, candidates=candidates, values=torch.cat(values, -1))

    def losses(self, batch: EpisodeBatch, fwd: Forward, target: Tensor) -> tuple[dict[str, Tensor], Metrics]:
        if not isinstance(fwd, S2QForward):
            return super().losses(batch, fwd, target)
        rows = fwd.rows
        filled, actions, target = rows["filled"][:, None], self.taken(rows), rows.of(target)
        q_star = self.central_taken(fwd)
        claimed = claimed_before(actions, fwd.candidates)  # bool [N, C]
        amount = self.suppression(fwd, q_star)
        terms = {"central": masked_mean((q_star - target).square(), filled)}
        metrics: Metrics = {}
        for m, mixer in enumerate((self.mixer, *self.mixers)):
            chosen = team_value(mixer, fwd.heads_q[m], fwd.candidates[:, m], actions, rows["state"])
            wanted = target - claimed[..., m, None] * amount
            delta = chosen - wanted
            weight = self.weight(m, delta.detach(), wanted, fwd, q_star.detach(), actions)
            terms["td" if m == 0 else f"sub_{m}"] = masked_mean(weight * delta.square(), filled)
            if m == 0:
                metrics |= td_metrics(chosen, wanted, filled)
            else:
                metrics[f"suppress/frac_{m}"] = masked_mean(claimed[..., m, None].float(), filled)
        if self.decoder is not None:
            metrics["suppress/amount"] = masked_mean(amount, filled)
            more, facts = self.decoder_losses(batch, fwd)
            terms, metrics = terms | more, metrics | facts
        return terms, metrics

    def suppression(self, fwd: S2QForward, q_star: Tensor) -> Tensor:
        """Return how far claimed joint actions are pushed below the target, D [N, 1], without gradient:
        alpha * max(Q* of the joint action taken, ``floor``) (paper eq. 2)."""
        q = q_star.detach()
        if self.suppress_source == "target" and self.target_central is not None:
            q = self.target_central(gather_actions(fwd.target_u, self.taken(fwd.rows)), fwd.rows["state"])
        return suppress_amount(q, self.alpha, self.floor)

    def weight(self, m: int, delta: Tensor, wanted: Tensor, fwd: S2QForward, q_star: Tensor, actions: Tensor) -> Tensor:
        """Return the weights [N, 1] of head m's squared errors, from tensors without gradient."""
        if m == 0 and self.weight0 == "s2q":
            best = fwd.values.amax(-1, keepdim=True)
            return torch.where(q_star >= best, 1.0, self.w_c)
        rule = self.weight0 if m == 0 else "ow"
        return wqmix_weight(rule, self.w_c, delta, wanted, fwd.central_v, is_joint(actions, fwd.row_greedy))

    def decoder_losses(self, batch: EpisodeBatch, fwd: S2QForward) -> tuple[dict[str, Tensor], Metrics]:
        """Return KL(P || P^) and the mean squared error of the decoded state features; hidden states are detached."""
        assert self.decoder is not None
        rows, values, candidates = fwd.rows, fwd.values, fwd.candidates
        step = rows["filled"][:, None]
        self.softmax.observe(values, rows["filled"])
        p = self.softmax(values, candidates)  # [N, C]
        state, log_p = self.decoder(fwd.row_h)
        kl = (torch.xlogy(p, p) - p * log_p).sum(-1, keepdim=True)
        error = (state - rows["state"]).square().mean(-1, keepdim=True)
        terms = {
            "decoder_kl": self.coef_kl * masked_mean(kl, step),
            "decoder_state": self.coef_state * masked_mean(error, step),
        }
        distinct = ~repeated(candidates).any(-1, keepdim=True)
        metrics = {
            "candidates/distinct_frac": masked_mean(distinct.float(), step),
            "P/entropy": masked_mean(-torch.xlogy(p, p).sum(-1, keepdim=True), step),
        }
        for k in range(self.K + 1):
            metrics[f"candidates/value_{k}"] = masked_mean(values[..., k, None], step)
            metrics[f"P/head_{k}"] = masked_mean(p[..., k, None], step)
        if "s2q_greedy" in batch:  # head 0's actions when the step was played
            switched = ~is_joint(rows["s2q_greedy"].long(), fwd.row_greedy)
            metrics["candidates/head0_switch_rate"] = masked_mean(switched.float(), step)
        return terms, metrics


def append_message(obs: Tensor, message: Tensor) -> Tensor:
    """Append the team's message [*, L] to every agent's observation [*, n, O]."""
    return torch.cat([obs, message.unsqueeze(-2).expand(*obs.shape[:-1], -1)], -1)
