"""Proximal policy optimisation for teams: ``algo=ippo`` (values from own observations) and ``algo=mappo`` (from the
state). Schulman et al. 2017 (arXiv 1707.06347); de Witt et al. 2020 (2011.09533); Yu et al. 2022 (2103.01955).

It learns from what was just collected, whole episodes or parts of them (``train.rollout``): every row of a batch is a
piece of one episode, with one more slot to bootstrap from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Generator, Tensor, nn

from marl.core.checks import require_at_least, require_choice, require_positive, require_share
from marl.core.distributed import all_reduce_gradients, fewest, summed
from marl.core.memory import keep_freed_memory
from marl.core.protocols import LearnerHook, NoHook, Policy, Replay
from marl.core.rows import Rows
from marl.core.types import ActedOn, Clock, ConfigError, EnvSpec, EpisodeBatch, Forward, Metrics
from marl.learn.actor import Act, Actor, Critic, RunningScale, initialise, log_policy
from marl.learn.agents import RecurrentAgent
from marl.learn.algorithm import Hooked
from marl.learn.learner import (
    Learner,
    best_available,
    gather_actions,
    hook_reward,
    make_optimizer,
    masked_mean,
    previous_actions,
)
from marl.learn.minibatch import Data, Minibatch, condensed, steps_of
from marl.learn.policy import LinearSchedule
from marl.learn.returns import discounted_sums


def gae(reward: Tensor, terminated: Tensor, filled: Tensor, v: Tensor, gamma: float, lam: float) -> Tensor:
    """Return generalised advantage estimates [M, T, n] (Schulman et al. 2016, eq. 16), 0 where nothing was played.

    ``reward`` [M, T, 1 or n], ``terminated`` and ``filled`` bool [M, T, 1], ``v`` [M, T+1, n]. A piece that was
    truncated, or cut at the edge of a rollout, bootstraps from its last slot; a terminated one does not.
    """
    delta = reward + gamma * v[:, 1:].masked_fill(terminated, 0.0) - v[:, :-1]
    return discounted_sums(torch.where(filled, delta, 0.0), gamma * lam)


def clipped_policy_loss(log_ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """Return -min(r A, clip(r, 1 - clip, 1 + clip) A) [*] (Schulman et al. 2017, eq. 7)."""
    ratio = log_ratio.exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1.0 - clip, 1.0 + clip) * advantage)


def value_loss(v: Tensor, before: Tensor, target: Tensor, clip: float | None) -> Tensor:
    """Return half the squared error [*]; with ``clip``, use the larger of that error and that of the value clipped to
    within ``clip`` of what it was ``before``."""
    error = (v - target).square()
    if clip is not None:
        near = before + (v - before).clamp(-clip, clip)
        error = torch.maximum(error, (near - target).square())
    return 0.5 * error


def entropy(log_p: Tensor) -> Tensor:
    """Return the entropy [*] of policies from their log probabilities [*, A] (-inf: unavailable)."""
    return -(log_p.exp() * log_p.masked_fill(log_p == -torch.inf, 0.0)).sum(-1)


def standardised(x: Tensor, mask: Tensor) -> Tensor:
    """Standardise x [*] by the mean and deviation of all ranks' values where ``mask`` bool [*]; elsewhere return 0."""
    sums = summed(torch.stack([mask.sum().to(x.dtype), torch.where(mask, x, 0.0).sum()]))
    count = sums[0].clamp_min(1)
    centred = torch.where(mask, x - sums[1] / count, 0.0)
    return centred / ((summed(centred.square().sum()) / count).sqrt() + 1e-8)


class PPOLearner(Learner):
    """Learns an actor and a critic; one ``update`` makes ``epochs`` passes over a batch, in ``minibatches`` steps each.

    Minibatches are whole pieces of episodes, so that recurrent actors are unrolled as they were played.
    ``act_on`` says whose probabilities are learnt from: those of the executed or of the intended actions. Networks
    shared by all agents receive only the steps that contribute to their loss (``marl.learn.minibatch``).
    """

    begins = "begin_"  # of the fields that hold the policy's memory before a piece

    def __init__(
        self,
        spec: EnvSpec,
        agent: RecurrentAgent,
        critic: Critic,
        hooks: Sequence[LearnerHook] = (),
        *,
        lr: float,
        optimizer: str,
        optimizer_eps: float,
        gamma: float,
        gae_lambda: float,
        epochs: int,
        minibatches: int,
        clip: float,
        value_clip: float | None,
        value_weight: float,
        grad_clip: float,
        normalise_advantage: bool,
        normalise_value: bool,
        value_beta: float,
        orthogonal: bool,
        act_on: ActedOn,
        last_action: ActedOn,
        device: torch.device | str = "cpu",
    ) -> None:
        require_positive("learner", lr=lr, optimizer_eps=optimizer_eps, clip=clip, grad_clip=grad_clip)
        require_positive("learner", or_null=True, value_clip=value_clip)
        require_share("learner", gamma=gamma, gae_lambda=gae_lambda)
        require_at_least("learner", 1, epochs=epochs, minibatches=minibatches)
        require_at_least("learner", 0, value_weight=value_weight)
        require_choice("learner", get_args(ActedOn), act_on=act_on, last_action=last_action)
        self.spec, self.hooks, self.device = spec, list(hooks), torch.device(device)
        if self.device.type == "cpu":
            keep_freed_memory()
        if orthogonal:
            initialise(agent, critic)
        self.agent, self.critic = agent.to(device), critic.to(device)
        self.scale = RunningScale(normalise_value, value_beta).to(device)
        self.lr, self.gamma, self.gae_lambda, self.epochs, self.minibatches = lr, gamma, gae_lambda, epochs, minibatches
        self.clip, self.value_clip, self.value_weight, self.grad_clip = clip, value_clip, value_weight, grad_clip
        self.normalise_advantage, self.act_on, self.last_action = normalise_advantage, act_on, last_action
        self.optimizer = make_optimizer(optimizer, [*agent.parameters(), *critic.parameters()], lr, optimizer_eps)
        self.updates = 0

    def inputs(self, batch: EpisodeBatch, rows: Rows) -> Tensor:
        """Return the actor's inputs [N, n, I]."""
        last = previous_actions(batch.acted(self.last_action))
        if f"{self.begins}last" in batch:
            last[:, 0] = batch[f"{self.begins}last"]
        return self.agent.inputs(self.known(rows, rows.of(batch.policy_obs)), rows.of(last))

    def start(self, batch: EpisodeBatch, rows: Rows) -> Tensor | None:
        """Return the hidden states [M, n, H] before the pieces of ``rows``; None if these begin their episodes."""
        return batch[f"{self.begins}h"][rows.episodes] if f"{self.begins}h" in batch else None

    # learners of some of the seats override the following two

    def known(self, rows: Rows, obs: Tensor) -> Tensor:
        """Return what the networks receive [N, n, O'] in addition to, or instead of, observations obs [N, n, O]."""
        return obs

    def counted(self, rows: Rows) -> Tensor:
        """Return which agents' steps are learnt from, bool [N, n]."""
        return rows["filled"][:, None].expand(-1, self.spec.n_agents)

    @torch.no_grad()
    def prepare(self, batch: EpisodeBatch, unrolled: bool = True) -> tuple[Rows, Data, Forward | None]:
        """Return what every epoch reads, as rows, on the CPU without the slots to bootstrap from, and what hooks read.

        The rows are: the inputs of actor and critic, ``x`` and ``seen``; the actions and their old ``log_p``;
        ``advantage`` and ``target``; the critic's old output ``raw`` and the value ``v`` that it stands for; ``filled``
        and ``played`` bool [N, n] (all counted steps, and those of the living). ``unrolled`` false leaves out
        ``log_p``, which the first gradient step computes itself, and, without hooks, what they would read.
        """
        rows = self.rows(batch)
        seen = self.critic.inputs(self.known(rows, rows.of(batch.policy_obs)), rows["state"])
        data = {"x": self.inputs(batch, rows), "seen": seen, "avail": rows["avail"]}
        data["action"] = rows["actions" if self.act_on == "executed" else "intended"].long()
        mean, deviation = self.scale.scale()
        data["raw"] = self.critic(data["seen"])
        data["v"] = data["raw"] * deviation + mean
        fwd = None
        if unrolled or self.hooks:
            logits, h = self.agent.along(data["x"], rows, self.start(batch, rows))
            if unrolled:  # otherwise having hooks would change what the first step reads, by rounding
                data["log_p"] = gather_actions(log_policy(logits, data["avail"]), data["action"])
            fwd = Forward(rows, logits, h, data["v"], best_available(logits, data["avail"]))
        reward = batch.reward[:, :-1, None]
        for hook in self.hooks:
            assert fwd is not None
            reward = reward + hook_reward(hook, batch, fwd, data["v"].shape[1])
        filled, ended, v = batch.filled[:, :-1, None], batch.terminated[:, :-1, None], rows.spread(data["v"])
        advantage = gae(reward, ended, filled, v, self.gamma, self.gae_lambda)
        data["advantage"] = rows.of(advantage)
        data["target"] = data["advantage"] + data["v"]
        data["filled"] = self.counted(rows)
        data["played"] = data["filled"] & rows["alive"]
        return *steps_of(rows, data), fwd

    def update(self, batch: EpisodeBatch, entropy_weight: float, lr_share: float, gen: Generator) -> Metrics:
        """Learn from ``batch`` [M pieces of episodes]; return the metrics of the last pass, detached 0-d tensors. The
        learning rate is ``lr_share`` times ``lr``."""
        steps = min(self.minibatches, fewest(len(batch)))  # the same number on every rank
        rows, data, fwd = self.prepare(batch, unrolled=steps > 1)
        self.scale.update(data["target"], data["filled"])
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * lr_share
        sums, whole = Metrics(), self.minibatch(batch, rows, data) if steps == 1 else None
        for epoch in range(self.epochs):
            last = epoch == self.epochs - 1
            for chosen in torch.randperm(len(batch), generator=gen).tensor_split(steps):
                minibatch = whole or self.minibatch(batch, *self.part(rows, data, chosen))
                metrics = self.step(minibatch, entropy_weight, report=last)
                if last:
                    sums = {name: sums.get(name, 0.0) + value / steps for name, value in metrics.items()}
        for hook in self.hooks:
            assert fwd is not None
            sums |= hook.update(batch, fwd) or {}
        return sums | {"ppo/entropy_weight": torch.tensor(entropy_weight), **self.explained(data)}

    @staticmethod
    def part(rows: Rows, data: Data, places: Tensor) -> tuple[Rows, Data]:
        """Return the pieces at ``places``, long [M'] in the order of the rows, with their rows of ``data``."""
        some, index = rows.part(places.sort().values)
        index = index.to(data["v"].device, non_blocking=True)
        return some, {name: value.index_select(0, index) for name, value in data.items()}

    def minibatch(self, batch: EpisodeBatch, rows: Rows, data: Data) -> Minibatch:
        """Return what a gradient step on ``data``, the ``rows`` of some pieces of ``batch``, reads."""
        return condensed(rows, data, self.start(batch, rows), self.agent, self.critic)

    def step(self, minibatch: Minibatch, entropy_weight: float, report: bool = True) -> Metrics:
        """Make a gradient step on ``minibatch``; return its metrics if ``report``. If it has no ``log_p`` of the
        actions, the policy has not changed since: use the present one, and store it there for later steps."""
        actor, critic = minibatch.actor, minibatch.critic
        log_p = log_policy(self.agent.along(actor["x"], minibatch.rows, minibatch.begin)[0], actor["avail"])
        chosen = gather_actions(log_p, actor["action"])
        then = actor.setdefault("log_p", chosen.detach())
        mean, deviation = self.scale.scale()
        v = self.critic(critic["seen"])
        if "place" in critic:
            v = v.index_select(0, critic["place"])
        target = (critic["target"] - mean) / deviation
        advantage, played = actor["advantage"], actor["played"]
        if self.normalise_advantage:
            advantage = standardised(advantage, played)
        log_ratio = torch.where(played, chosen - then, 0.0)
        policy = masked_mean(clipped_policy_loss(log_ratio, advantage, self.clip), played)
        bonus = masked_mean(entropy(log_p), played)
        value = masked_mean(value_loss(v, critic["raw"], target, self.value_clip), critic["filled"])
        loss = policy + self.value_weight * value - entropy_weight * bonus
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [list(self.agent.parameters()), list(self.critic.parameters())]
        all_reduce_gradients([*parameters[0], *parameters[1]])
        norms = [nn.utils.clip_grad_norm_(own_, self.grad_clip, foreach=True) for own_ in parameters]
        self.optimizer.step()
        self.updates += 1
        if not report:
            return {}
        with torch.no_grad():
            ratio = log_ratio.exp()
            return {
                "loss/policy": policy.detach(), "loss/value": value.detach(), "ppo/entropy": bonus.detach(),
                "ppo/kl": masked_mean(ratio - 1.0 - log_ratio, played),
                "ppo/clipped": masked_mean(((ratio - 1.0).abs() > self.clip).float(), played),
                "optim/grad_norm": norms[0].detach(), "optim/grad_norm_critic": norms[1].detach(),
            }  # fmt: skip

    @staticmethod
    def explained(data: Data) -> Metrics:
        """Return the share of the targets' variance that the values explained before the update."""
        filled, target, v = data["filled"], data["target"], data["v"]
        count = filled.sum().clamp_min(1)

        def mean(x: Tensor) -> Tensor:
            return torch.where(filled, x, 0.0).sum() / count

        spread = mean((target - mean(target)).square())
        error = mean((target - v - mean(target - v)).square())
        return {"ppo/explained_variance": 1.0 - error / spread.clamp_min(1e-8), "ppo/value": mean(v)}

    def networks(self) -> dict[str, nn.Module]:
        return {"agent": self.agent, "critic": self.critic, "scale": self.scale}


@dataclass(frozen=True)
class ActorFactories:
    """The factories of a team of actors: networks, called with a spec, and the learner, called with
    (spec, agent, critic, hooks, device=)."""

    agent: Callable[[EnvSpec], RecurrentAgent]
    critic: Callable[[EnvSpec], Critic]
    learner: Callable[..., PPOLearner]


class PPO(Hooked):
    """Learns once from each collection, and only from that (``on_policy``).

    ``agent``, ``critic`` and ``hooks`` are factories called with the EnvSpec; ``learner`` is one for ``PPOLearner``,
    called with (spec, agent, critic, hooks, device). ``entropy`` is the weight of the policies' entropy, ``lr_share``
    the share of the learner's ``lr``, both by environment steps. ``act`` says how the team plays when it is tested.
    """

    learner: PPOLearner
    on_policy = True
    takes_pieces = True  # of episodes

    def __init__(
        self,
        spec: EnvSpec,
        device: torch.device | str,
        gen: Generator,
        *,
        agent: Callable[[EnvSpec], RecurrentAgent],
        critic: Callable[[EnvSpec], Critic],
        learner: Callable[..., PPOLearner],
        hooks: Mapping[str, Callable[[EnvSpec], LearnerHook]],
        entropy: LinearSchedule,
        lr_share: LinearSchedule,
        act: Act,
    ) -> None:
        require_choice("algo", get_args(Act), act=act)
        self.hooks = [make(spec) for make in hooks.values()]
        for name, hook in zip(hooks, self.hooks, strict=True):
            if type(hook).loss is not NoHook.loss:
                raise ConfigError(
                    f"algo.hooks.{name}: {type(hook).__name__} adds a loss to values; this algorithm has none"
                )
        self.entropy, self.lr_share, self.how, self.gen, self.device = entropy, lr_share, act, gen, torch.device(device)
        self.learner = self.make_learner(spec, ActorFactories(agent, critic, learner))

    def make_learner(self, spec: EnvSpec, make: ActorFactories) -> PPOLearner:
        """Build the learner and its networks; algorithms with more networks override this."""
        return make.learner(spec, make.agent(spec), make.critic(spec), self.hooks, device=self.device)

    def policy(self, clock: Clock) -> Policy:
        return Actor(self.learner.agent, self.how, self.learner.last_action)

    def update(self, replay: Replay, fresh: EpisodeBatch, clock: Clock) -> Metrics:
        before = self.learner.updates
        metrics = self.fit(self.learner, fresh.to(self.device), clock)
        clock.updates += self.learner.updates - before
        return metrics

    def fit(self, learner: PPOLearner, fresh: EpisodeBatch, clock: Clock) -> Metrics:
        """Let ``learner`` learn from ``fresh`` with the entropy weight and learning rate that are due at ``clock``."""
        return learner.update(fresh, self.entropy(clock.env_steps), self.lr_share(clock.env_steps), self.gen)
