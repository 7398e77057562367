"""IBAL: hides from each side of a split team the features most informative about the other's actions, and makes one
side take the actions least informative about the other's. Lee, Kang, Jo, Han 2026, "Interaction-Breaking Adversarial
Learning Framework for Robust Multi-Agent Reinforcement Learning", arXiv 2605.18024. The structure is the paper's; much
else is reconstructed (docs/ibal.md).

It uses no rewards and trains no adversary, and reads the victim's scores of actions only with ``fgsm``: dependence is
estimated from stored episodes (``attacks.ibal.estimators``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Generator, Tensor

from attacks.base import LaneDraws, as_scoring, greedy_actions, input_gradient
from attacks.ibal.curriculum import Curriculum
from attacks.ibal.estimators import Estimators, draw_groups
from attacks.ibal.models import dependence
from attacks.ibal.scores import (
    above_floor,
    across,
    describes_other_side,
    draw,
    first,
    hidden_features,
    largest,
    own_features,
    table,
    write_table,
)
from attacks.ibal.search import Search
from marl.core.checks import require_at_least, require_choice, require_positive, require_share, require_within
from marl.core.protocols import Policy, Replay, View
from marl.core.types import Clock, ConfigError, EnvSpec, EpisodeBatch, Field, Metrics

Size = Literal["random", "full"]
Score = Literal["kl", "pmi"]
Floor = Literal["median", "none"]
Hide = Literal["anything", "other_side"]
WITH_FGSM = "ibal with fgsm"


class IBAL(LaneDraws):
    """An attack that draws a group of ``k`` agents in each episode (``size`` random: k ~ U{0..k_max}; full: k_max).
    Each side is shown its observations without the ``n_masked`` features most informative about the other side
    (``hidden_features``; not ``symmetric``: only the group is blinded). In each step, with the episode's probability p,
    the group takes the actions least informative about the others'.

    p is drawn from [1/k_max, P_max] per episode, and P_max grows with success (``curriculum``); ``p_act`` fixes p.
    ``obs_attack``, ``action_attack``: either half can be off. Not ``guidance``: features and actions are drawn at
    random. Not ``schedule``: p = 1/k_max. Hidden features read zero; or, with ``noise``, their value plus Gaussian
    noise of this scale; or, with ``fgsm``, their value plus a signed gradient step of this size against the agent's own
    choice of action (``input_gradient``). ``hide`` other_side: only features that describe agents of the other side are
    hidden, ``n_masked`` of them (null: all), even those without a positive score. ``protect_own``: features that
    describe the observer itself are never hidden. ``floor`` median: each pair's median is subtracted from its scores,
    and features that do not exceed it are never hidden. While a team trains under the attack, the first
    ``warmup_episodes`` are natural.
    """

    def __init__(
        self,
        spec: EnvSpec,
        device: torch.device | str,
        *,
        k_max: int,
        size: Size,
        n_masked: int | None,
        per_agent: bool,
        symmetric: bool,
        hide: Hide,
        protect_own: bool,
        floor: Floor,
        noise: float | None,
        fgsm: float | None,
        score: Score,
        search_limit: int,
        sweeps: int,
        p_act: float | None,
        obs_attack: bool,
        action_attack: bool,
        guidance: bool,
        schedule: bool,
        warmup_episodes: int,
        report_every: int,
        estimators: Callable[[EnvSpec, torch.device, int], Estimators],
        curriculum: Callable[[int], Curriculum],
    ) -> None:
        super().__init__(spec, device)
        n = spec.n_agents
        if n < 2:
            raise ConfigError("attack=ibal needs a team of at least two agents")
        require_within("attack", 0, n // 2, k_max=k_max, note=f"half of {n} agents")
        require_choice("attack", get_args(Size), size=size)
        require_choice("attack", get_args(Score), score=score)
        require_choice("attack", get_args(Floor), floor=floor)
        require_choice("attack", get_args(Hide), hide=hide)
        require_share("attack", p_act=p_act, or_null=True)
        require_within("attack", 0, spec.obs_dim, n_masked=n_masked, or_null=True)
        require_at_least("attack", 1, search_limit=search_limit, sweeps=sweeps, report_every=report_every)
        require_at_least("attack", 0, warmup_episodes=warmup_episodes)
        require_at_least("attack", 0, noise=noise, or_null=True)
        require_positive("attack", fgsm=fgsm, or_null=True)
        if noise is not None and fgsm is not None:
            raise ConfigError(f"attack.noise={noise} and attack.fgsm={fgsm}: hidden features show only one of them")
        for wanted, needs in (("protect_own=true", protect_own), ("hide=other_side", hide == "other_side")):
            if needs and spec.about is None:
                raise ConfigError(f"attack.{wanted}: the environment does not say what its features describe")
        self.low, self.high = spec.obs_low.to(self.device), spec.obs_high.to(self.device)
        self.k_max, self.size, self.n_masked, self.per_agent = k_max, size, n_masked, per_agent
        self.symmetric, self.floor, self.noise, self.fgsm, self.score = symmetric, floor, noise, fgsm, score
        self.about = spec.about.to(self.device) if hide == "other_side" and spec.about is not None else None
        self.p_act, self.schedule, self.guidance = p_act, schedule, guidance
        self.obs_attack, self.action_attack = obs_attack, action_attack
        self.warmup_episodes, self.report_every = warmup_episodes, report_every
        own = own_features(spec) if protect_own else torch.zeros(n, spec.obs_dim, dtype=torch.bool)
        self.maskable = ~own.to(self.device)
        self.estimators = estimators(spec, self.device, max(1, k_max))
        self.curriculum = curriculum(max(1, k_max))
        self.search = Search(n, spec.n_actions, max(1, k_max), search_limit, sweeps)
        self.natural = False  # fitting to a frozen victim: nothing is attacked
        self.seen = self.reported = self.due = 0
        self.training = False  # whether a team trains under it
        self.last_masks: Tensor | None = None

    # what is attacked

    def fields(self) -> dict[str, Field]:
        """Declare ``hit`` [n]: this agent's action or observation was changed in this step. Per episode: ``ibal_group``
        [n], the group; ``ibal_p``, its probability; ``ibal_mask`` [n, O], the hidden features."""
        n, O = self.spec.n_agents, self.spec.obs_dim  # noqa: E741
        return super().fields() | {
            "obs_seen": Field((n, O)),
            "ibal_group": Field((n,), torch.bool, "episode"),
            "ibal_p": Field((), per="episode"),
            "ibal_mask": Field((n, O), torch.bool, "episode"),
        }

    def begin(self, n_envs: int, victim: Policy, gen: Generator) -> None:
        """Draw the groups, their probabilities and the hidden features, fixed for the whole episode."""
        super().begin(n_envs, victim, gen)
        if self.fgsm is not None:
            as_scoring(victim, WITH_FGSM)  # raises before anything is played
        n = self.spec.n_agents
        u = self.uniform(n + 2)
        k = torch.full_like(u[:, 0], self.k_max) if self.size == "full" else (u[:, 0] * (self.k_max + 1)).floor()
        early = self.training and self.seen < self.warmup_episodes
        quiet = early or self.natural or (self.guidance and not self.estimators.rounds)
        self.group = draw_groups(u[:, 2:], torch.zeros_like(k) if quiet else k)  # [B, n]
        self.p = self.chance(u[:, 1])
        self.mask = self.masks(self.group)  # [B, n, O]
        self.under = torch.zeros(n_envs, dtype=torch.bool, device=self.device)
        self.dependences: list[Tensor] = []

    def take_turn(self) -> bool:
        """Return True: the team always learns. The call marks training, where ``warmup_episodes`` apply."""
        self.training = True
        return True

    def chance(self, u: Tensor) -> Tensor:
        """Return each episode's probability of an attacked step, from u [B] in [0, 1)."""
        if self.p_act is not None:
            return torch.full_like(u, self.p_act)
        low = 1.0 / max(1, self.k_max)
        return low + u * ((self.curriculum.p_max if self.schedule else low) - low)

    def masks(self, group: Tensor) -> Tensor:
        """Return the features hidden from each agent, bool [B, n, O], when the team is split into group bool [B, n] and
        rest."""
        if not self.obs_attack:
            return torch.zeros(*group.shape, self.spec.obs_dim, dtype=torch.bool, device=self.device)
        if self.about is not None:
            return self.masks_of_other_side(group, self.about)
        count = hidden_features(group, self.n_masked, self.per_agent, self.spec)
        if self.guidance:
            scores = across(self.floored(), group, self.symmetric)
        else:
            lots = self.uniform(*group.shape[1:], self.spec.obs_dim)
            scores = lots * (group | self.symmetric)[..., None]
        return largest(scores, count, self.maskable)

    def masks_of_other_side(self, group: Tensor, about: Tensor) -> Tensor:
        """Return the same among the features that describe (``about`` bool [n, n, O]) an agent on the other side."""
        region = describes_other_side(group, about, self.symmetric) & self.maskable
        if self.n_masked is None:
            return region
        count = hidden_features(group, self.n_masked, self.per_agent, self.spec)
        if self.guidance:
            return first(across(self.estimators.scores.value(), group, self.symmetric), count, region)
        return first(self.uniform(*group.shape[1:], self.spec.obs_dim), count, region)

    def floored(self) -> Tensor:
        """Return the score tensor [n, n, O], above each pair's median if ``floor`` says so."""
        scores = self.estimators.scores.value()
        return above_floor(scores, self.maskable) if self.floor == "median" else scores

    def perturb_obs(self, view: View) -> Tensor:
        obs = view.obs.obs
        self.under |= view.active
        hidden = self.mask & view.active[:, None, None] & view.obs.alive[..., None]
        self.shown = torch.where(hidden, self.instead(view).clamp(self.low, self.high), obs)
        self.blinded = (self.shown != obs).any(-1)  # [B, n]
        return self.shown

    def instead(self, view: View) -> Tensor:
        """Return the values that replace hidden features [B, n, O], legal or not."""
        obs = view.obs.obs
        if self.fgsm is not None:
            return obs + self.fgsm * input_gradient(obs, greedy_actions(view, WITH_FGSM), view, WITH_FGSM).sign()
        if self.noise is not None:
            return obs + self.noise * self.normal(*obs.shape[1:])
        return torch.zeros_like(obs)

    def perturb_actions(self, view: View, intended: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        executed = intended
        if self.action_attack and self.k_max:
            u = self.uniform(1 + self.search.draws)
            struck = (u[:, 0] < self.p) & view.active
            executed = self.replace(view, intended, struck[:, None] & self.group & view.obs.alive, u[:, 1:])
        under = self.under[:, None]
        return executed, {
            "hit": (executed != intended) | self.blinded,
            "ibal_group": self.group & under,
            "ibal_p": self.p * self.under,
            "ibal_mask": self.mask & under[..., None],
        }

    def replace(self, view: View, intended: Tensor, target: Tensor, u: Tensor) -> Tensor:
        """Return the executed actions, long [B, n]: the targets (bool [B, n]) take the available actions least
        informative about the others'; u [B, draws]."""
        lanes = target.any(1).nonzero().flatten()
        none = view.obs.obs[lanes][..., :0]  # without guidance the victim's memory is not read and need not exist
        context = self.estimators.now(view, self.shown, lanes) if self.guidance else none
        group, alive, intended_here = self.group[lanes], view.obs.alive[lanes], intended[lanes]

        def cost(rows: Tensor, candidates: Tensor) -> Tensor:
            if not self.guidance:
                return torch.zeros(candidates.shape[:2], device=self.device)
            return dependence(
                self.estimators.groups, context[rows], candidates, intended_here[rows], group[rows], alive[rows],
                self.score,
            )  # fmt: skip

        forced = self.search(cost, view.obs.avail[lanes], target[lanes], intended_here, u[lanes])
        if self.guidance and len(lanes):
            rows = torch.arange(len(lanes), device=self.device)
            self.dependences.append(cost(rows, torch.stack([forced, intended_here], 1)).mean(0))
        return intended.index_put((lanes,), forced)

    # what it learns

    @property
    def needs_fit(self) -> bool:
        """Return whether fewer than ``fit_rounds`` rounds have been fitted to the victim."""
        return self.guidance and self.estimators.rounds < self.estimators.fit_rounds

    @property
    def fitted(self) -> float:
        """Return the share of ``fit_rounds`` done, 0 to 1."""
        return min(1.0, self.estimators.rounds / self.estimators.fit_rounds) if self.guidance else 1.0

    @contextmanager
    def fitting(self) -> Iterator[None]:
        """Play natural episodes while the context is open; ``update`` fits to them, ``per_episode`` rounds for each."""
        self.natural = True
        try:
            yield
        finally:
            self.natural = False
            self.seen = max(self.seen, self.warmup_episodes)

    def update(self, replay: Replay, fresh: EpisodeBatch, victim: Policy, clock: Clock) -> Metrics:
        due = clock.updates // self.estimators.every
        rounds = due - self.due
        frozen = clock.updates == 0 and self.seen >= self.warmup_episodes  # as algo=frozen is
        if self.natural or frozen:
            rounds = min(len(fresh) * self.estimators.per_episode, self.estimators.fit_rounds - self.estimators.rounds)
        self.due, self.seen = due, self.seen + len(fresh)
        facts = self.estimators.fit(replay, victim, rounds) if self.guidance else {}
        attacked = fresh.attacked & fresh["ibal_group"].any(1)
        if self.schedule and not self.natural:
            self.curriculum.add(fresh.won[attacked], fresh.reward.sum(1)[attacked], clock.env_steps)
        return facts | self.facts(fresh, attacked)

    def facts(self, fresh: EpisodeBatch, attacked: Tensor) -> Metrics:
        """Measure what the attack does, and what it did to the episodes just collected."""
        scores, steps = self.estimators.scores.value(), fresh.filled & attacked[:, None]
        facts = {
            "ibal/p_max": torch.tensor(self.curriculum.p_max),
            "ibal/k": fresh["ibal_group"].sum(1).float().mean(),
            "ibal/forced_rate": ((fresh.actions != fresh.intended).any(-1) & steps).sum() / steps.sum().clamp(min=1),
            "ibal/masked": fresh["ibal_mask"].sum((1, 2)).float().mean(),
            "ibal/score_mean": scores.mean(),
            "ibal/score_top": scores.max(),
            "ibal/win_attacked": (fresh.won & attacked).sum() / attacked.sum().clamp(min=1),
        }
        if self.guidance:
            alone = self.masks(torch.eye(self.spec.n_agents, dtype=torch.bool, device=self.device))
            before, self.last_masks = self.last_masks, alone
            facts["ibal/mask_change"] = (alone != (alone if before is None else before)).float().mean()
        if self.dependences:
            least, meant = torch.stack(self.dependences).mean(0).unbind()
            facts |= {"ibal/told_forced": least, "ibal/told_intended": meant}
        return facts

    def report(self, folder: Path) -> None:
        """Write ``ibal_scores.csv`` and ``.png`` every ``report_every`` rounds: the scores, and which features of
        each observer are hidden when one agent alone is the other side."""
        if self.estimators.rounds // self.report_every == self.reported:
            return
        self.reported = self.estimators.rounds // self.report_every
        n, scores = self.spec.n_agents, self.estimators.scores.value()
        alone = self.masks(torch.eye(n, dtype=torch.bool, device=self.device))  # [actor, observer, O]
        hidden = alone.transpose(0, 1) & ~torch.eye(n, dtype=torch.bool, device=self.device)[..., None]
        write_table(table(scores, self.floored(), hidden, self.spec), folder / "ibal_scores.csv")
        draw(scores, hidden, self.spec, folder / "ibal_scores.png")

    def state_dict(self) -> dict[str, Any]:
        return {
            "estimators": self.estimators.state_dict(),
            "curriculum": self.curriculum.state_dict(),
            "seen": self.seen,
            "due": self.due,
            "reported": self.reported,
            "last_masks": self.last_masks,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.estimators.load_state_dict(state["estimators"])
        self.curriculum.load_state_dict(state["curriculum"])
        self.seen, self.due, self.reported = int(state["seen"]), int(state["due"]), int(state["reported"])
        self.last_masks = None if state["last_masks"] is None else state["last_masks"].to(self.device)
