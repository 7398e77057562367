"""Wolfpack: one random agent is hit, then for some steps the teammates that would react most are hit together.

Lee, Hwang, Jo, Han 2025, "Wolfpack Adversarial Attack for Robust Multi-Agent Reinforcement Learning", arXiv 2502.02844.
Training under it is WALL: any value-based algorithm with ``attack=wolfpack`` (docs/wolfpack.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Generator, Tensor

from attacks.base import ActionAttack, as_victim, pick
from attacks.wolfpack.followup import AttackAction, Followup, Moment, copy_and_step, pack, reactions, worst_actions
from attacks.wolfpack.nets import Track
from attacks.wolfpack.planner import Foresight, Rules
from marl.core.checks import require_at_least, require_choice, require_positive, require_share, require_within
from marl.core.protocols import Policy, Replay, Traceable, Victim, View
from marl.core.seeding import derive
from marl.core.types import Clock, ConfigError, EnvSpec, EpisodeBatch, Metrics

Start = Literal["planner", "random"]
InitAgent = Literal["random", "argmax"]
Count = Literal["changed", "every_step"]


class Wolfpack(ActionAttack):
    """An attack by packs. A start hits one living agent; if that changes its action, a pack of ``pack_size`` teammates
    (null: half of the others, at least one) is hit in the next ``duration`` steps. Every hit forces the agent's most
    harmful action.

    ``followup``: who is in the pack: kl, those that would react most; l2, those with the most similar observations;
    random. ``followup_lr``: of the optimiser step in kl. ``start``: planner, when it predicts the largest loss within
    its window, by a softmax with ``temperature``; random, with probability ``start_prob``. ``init_agent``: random, or
    argmax of the predicted loss. ``attack_action``: local, least own value; exact, least team value. ``count``:
    changed, a step in which no action changed costs nothing; every_step, as published, follow-up steps always cost
    budget. ``exclude_dead`` false: the dead may be drawn, to no effect, as published.

    ``foresight``: factory of ``attacks.wolfpack.planner.Foresight``. Against a victim that does not learn, ``fitting``
    fits it with ``fit_updates`` gradient steps while ``fit_episodes`` are collected.
    """

    def __init__(
        self,
        *args: Any,
        pack_size: int | None,
        duration: int,
        followup: Followup,
        followup_lr: float,
        start: Start,
        start_prob: float,
        temperature: float,
        init_agent: InitAgent,
        attack_action: AttackAction,
        count: Count,
        exclude_dead: bool,
        foresight: Callable[..., Foresight],
        fit_episodes: int,
        fit_updates: int,
        **base: Any,
    ) -> None:
        super().__init__(*args, **base)
        require_choice("attack", get_args(Followup), followup=followup)
        require_choice("attack", get_args(AttackAction), attack_action=attack_action)
        require_choice("attack", get_args(Start), start=start)
        require_choice("attack", get_args(InitAgent), init_agent=init_agent)
        require_choice("attack", get_args(Count), count=count)
        if count == "every_step" and self.budget.unit != "step":
            raise ConfigError(f"attack.count=every_step counts steps; attack.budget_unit={self.budget.unit} does not")
        others = self.spec.n_agents - 1
        size = max(min(1, others), others // 2) if pack_size is None else pack_size
        require_within("attack", 0, others, pack_size=size, note="the teammates of an agent")
        require_share("attack", start_prob=start_prob)
        require_positive("attack", temperature=temperature, followup_lr=followup_lr)
        require_at_least("attack", 1, duration=duration, fit_episodes=fit_episodes, fit_updates=fit_updates)
        self.pack_size, self.duration, self.followup, self.followup_lr = size, duration, followup, followup_lr
        self.start, self.start_prob, self.temperature, self.init_agent = start, start_prob, temperature, init_agent
        self.attack_action, self.every_step, self.exclude_dead = attack_action, count == "every_step", exclude_dead
        self.fit_episodes, self.fit_updates, self.is_fitting = fit_episodes, fit_updates, False
        self.make_foresight, self.seed = foresight, derive(torch.initial_seed(), "wolfpack")
        self.at_once = False  # start whenever possible, whatever has been learnt
        self.foresight: Foresight | None = None  # built once the size of the victim's memory is known
        self.learns = start == "planner" or init_agent == "argmax"
        if self.learns:
            self.build(1)  # rejects bad options now, before work starts
            self.foresight = None

    # an episode

    def begin(self, n_envs: int, victim: Policy, gen: Generator) -> None:
        super().begin(n_envs, victim, gen)
        as_victim(victim, "wolfpack")
        if self.learns and self.foresight is None:
            self.build(memory_size(as_traceable(victim), self.spec, self.device))
        self.track = None if self.foresight is None else Track(self.foresight.qdiff, n_envs, self.device)
        self.left = torch.zeros(n_envs, dtype=torch.long, device=self.device)  # remaining follow-up steps
        self.last_start = torch.zeros_like(self.left)
        self.group = torch.zeros(n_envs, self.spec.n_agents, dtype=torch.bool, device=self.device)

    def choose(self, view: View, intended: Tensor) -> tuple[Tensor, Tensor]:
        self.draws = self.uniform(2 + self.spec.n_agents)
        can = view.active & (self.budget.left > 0)
        self.follows = can & (self.left > 0)
        hazard, best = self.foresee(view, can & (self.left == 0))
        self.starts = can & (self.left == 0) & (self.draws[:, 0] < hazard)
        self.first = pick(self.draws[:, 1], self.candidates(view)) if self.init_agent == "random" else best
        agents = torch.arange(self.spec.n_agents, device=self.device)
        wanted = torch.where(self.starts[:, None], agents == self.first[:, None], self.group & self.follows[:, None])
        forced = intended.clone()
        rows = wanted.any(-1).nonzero().squeeze(-1)
        if len(rows):
            victim = as_victim(view.victim, "wolfpack")
            with torch.no_grad():
                q = victim.q_values(view.obs.obs[rows], {name: value[rows] for name, value in view.carry.items()})
                forced[rows] = worst_actions(
                    victim, q, view.obs.state[rows], view.obs.avail[rows], intended[rows], self.attack_action
                )
        return wanted, forced

    def perturb_actions(self, view: View, intended: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        executed, fields = super().perturb_actions(view, intended)
        changed = fields["hit"].any(-1)
        if self.every_step:
            self.budget.spend((self.follows & ~changed)[:, None])
        began = self.starts & changed
        self.left = torch.where(began, self.duration, self.left - self.follows.long())
        self.last_start = torch.where(began, view.t, self.last_start)
        rows = began.nonzero().squeeze(-1)
        if len(rows):
            moment = self.moment(view, intended, executed, rows)
            self.group[rows] = self.pack(as_victim(view.victim, "wolfpack"), moment, self.draws[rows, 2:])
        return executed, fields

    def candidates(self, view: View) -> Tensor:
        """Return the agents that an attack may draw, bool [B, n]."""
        return view.obs.alive if self.exclude_dead else torch.ones_like(view.obs.alive)

    def moment(self, view: View, intended: Tensor, executed: Tensor, rows: Tensor) -> Moment:
        """Return this step of the lanes ``rows`` long [R]."""
        carry = {name: value[rows] for name, value in view.carry.items()}
        return Moment(
            view.obs.obs[rows], view.obs.state[rows], carry, intended[rows], executed[rows], self.first[rows],
            self.candidates(view)[rows],
        )  # fmt: skip

    def pack(self, victim: Victim, moment: Moment, u: Tensor) -> Tensor:
        return pack(victim, moment, self.pack_size, self.followup, self.followup_lr, u)

    @torch.no_grad()
    def foresee(self, view: View, idle: Tensor) -> tuple[Tensor | float, Tensor]:
        """Return the probability of a start [B], and the agent whose hit now would cost most, long [B]; ``idle`` bool
        [B] are the lanes where it matters."""
        nobody, unforeseen = torch.zeros_like(self.left), self.at_once or self.start == "random"
        chance = 1.0 if self.at_once else self.start_prob
        if self.track is None:
            return chance, nobody
        self.track.see(view.obs.state, view.t)
        if (unforeseen and self.init_agent == "random") or not idle.any():
            return chance, nobody
        u = self.track.foresee().masked_fill(~self.candidates(view)[..., None], -torch.inf)  # [B, n, W]
        if unforeseen:
            return chance, u[..., 0].argmax(-1)
        return start_hazard(u.amax(1), view.t - self.last_start, self.temperature), u[..., 0].argmax(-1)

    # learning about the victim

    def build(self, hidden: int) -> None:
        rules = Rules(self.duration, self.pack, self.attack_action, self.exclude_dead)
        self.foresight = self.make_foresight(self.spec, self.device, rules, hidden, self.seed)

    def update(self, replay: Replay, fresh: EpisodeBatch, victim: Policy, clock: Clock) -> Metrics:
        if self.foresight is None or not len(replay):
            return {}
        updates = self.foresight.rhythm.due(clock)
        if self.is_fitting:
            updates = math.ceil(self.fit_updates * len(fresh) / self.fit_episodes)
        return self.foresight.learn(replay, as_traceable(victim), updates)

    @property
    def fitted(self) -> float:
        """Return the share of ``fit_updates`` done; 1 if nothing is to be learnt."""
        if not self.learns:
            return 1.0
        return 0.0 if self.foresight is None else min(1.0, self.foresight.updates / self.fit_updates)

    @property
    def needs_fit(self) -> bool:
        return self.fitted < 1.0

    @contextmanager
    def fitting(self) -> Iterator[None]:
        """Start packs at random, with random agents, while the context is open."""
        before = self.start, self.init_agent
        self.start, self.init_agent, self.is_fitting = "random", "random", True
        try:
            yield
        finally:
            (self.start, self.init_agent), self.is_fitting = before, False

    def state_dict(self) -> dict[str, Any]:
        foresight = None if self.foresight is None else self.foresight.state_dict()
        return {"foresight": foresight, "at_once": self.at_once}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at_once = bool(state.get("at_once", False))  # older files do not have it
        if state["foresight"] is not None and self.learns:
            self.build(int(state["foresight"]["hidden"]))
            assert self.foresight is not None
            self.foresight.load_state_dict(state["foresight"])

    def chores(self, view: View) -> dict[str, tuple[Callable[[], float], str]]:
        """Return timings to measure: choosing the pack in all lanes at once, and one by one as published."""
        victim = as_victim(view.victim, "wolfpack")
        lanes = torch.arange(len(view.active), device=self.device)
        self.first = lanes % self.spec.n_agents
        intended = view.obs.avail.byte().argmax(-1)
        with torch.no_grad():
            q = victim.q_values(view.obs.obs, view.carry)
        worst = worst_actions(victim, q, view.obs.state, view.obs.avail, intended, self.attack_action)
        moment = self.moment(view, intended, worst, lanes)

        def batched() -> float:
            reactions(victim, moment, self.followup_lr)
            return float(len(lanes))

        def loop() -> float:
            copy_and_step(victim, moment, self.followup_lr)
            return float(len(lanes))

        return {"follow-up": (batched, "lanes/s"), "follow-up loop": (loop, "lanes/s")}


def start_hazard(u: Tensor, age: Tensor, temperature: float) -> Tensor:
    """Return the probability [B] of a start now: the first entry of a softmax over forecasts u [B, W] for the remaining
    steps of the window, ``age`` long [B] steps after the last start; 1 where this step is the last of them."""
    W = u.shape[-1]
    kept = W - age.clamp(max=W - 1)
    open_ = torch.arange(W, device=u.device) < kept[:, None]
    return (u / temperature).masked_fill(~open_, -torch.inf).softmax(-1)[:, 0]


def memory_size(victim: Traceable, spec: EnvSpec, device: torch.device) -> int:
    """Return how many numbers a victim's whole team remembers after a step, the planner's input."""
    gen = Generator(device)
    nothing = torch.zeros(1, spec.n_agents, spec.obs_dim, device=device)
    with torch.no_grad():
        return victim.advance(nothing, victim.begin(1, gen))[1]["h"][0].numel()


def as_traceable(policy: Policy) -> Traceable:
    """Return the view that the planner needs; raise ConfigError if the policy has none."""
    if not isinstance(policy, Traceable):
        raise ConfigError(
            f"attack=wolfpack follows its victim's memory, which {type(policy).__name__} does not show; "
            "attack.start=random attack.init_agent=random do without"
        )
    return policy
