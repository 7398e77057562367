"""Learned attackers that choose whom to hit and when: EGA, and training against them: ROMANCE, RARL, RAP.

Yuan et al. 2023 (ROMANCE), arXiv 2305.05909; RARL (Pinto et al. 2017) and RAP (Vinitsky et al. 2020) as it adapts them.
The published generation loop becomes turns of the one training loop: some collections in which the attackers learn,
then some in which the team does (docs/romance.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Generator, Tensor

from attacks.base import ActionAttack, as_victim
from attacks.ega.learner import SoftLearner, attacker_inputs
from attacks.ega.population import Archive, choice_policy, draw, pick_rows
from marl.core.checks import require_at_least, require_choice, require_positive, require_share
from marl.core.distributed import world
from marl.core.protocols import Policy, Replay, View
from marl.core.seeding import derive, restore
from marl.core.types import Clock, ConfigError, EnvSpec, EpisodeBatch, Field, Metrics
from marl.learn.rhythm import Rhythm

Turn = Literal["attackers", "team", "review", "nobody"]
AfterFreeze = Literal["own_turns", "every_turn"]


class EGA(ActionAttack):
    """Learned attackers. Each lane draws one for the episode, which hits one agent or nobody per step; the victim takes
    its worst action.

    ``learner`` and ``archive`` are factories of ``SoftLearner`` (whose attackers are the population) and ``Archive``. A
    generation is ``attacker_episodes`` in which the attackers learn, with a gradient step per ``episodes_per_update``
    of them, then ``team_episodes`` in which the team learns, and ``review_episodes`` in which nobody does: half of the
    lanes play the population, half the archive, to measure how good they are now. A collection belongs to one turn;
    episodes beyond the turn's length are subtracted from the same turn of the next generations, so that shares are the
    same for any number of lanes. Then every attacker is offered to the archive, and the next population is selected
    from it; without an archive there is no review and the population continues as it is. In the attackers' turns a
    share ``masked`` of the episodes has no attacks in a third of its steps, or at its beginning.

    After ``freeze_after`` generations (null: never) no attacker learns any more. ``after_freeze``: own_turns, the team
    continues to learn in its own turns only, so that it makes as many updates per step as before; every_turn, in all.
    ``generations`` ends the schedules of the archive, and fitting: against a victim that does not learn, the team has
    no turns. ``behaviour_rows``: states that the archive keeps of each attacker, to compare them.

    In training, lanes play members of the population; in tests, members of the archive if there is one.
    """

    def __init__(
        self,
        spec: EnvSpec,
        device: torch.device | str,
        *,
        budget: int | None,
        budget_unit: Literal["step", "agent_action"],
        learner: Callable[..., SoftLearner],
        archive: Callable[..., Archive],
        attacker_episodes: int,
        team_episodes: int,
        review_episodes: int,
        episodes_per_update: float,
        masked: float,
        generations: int,
        freeze_after: int | None,
        after_freeze: AfterFreeze,
        behaviour_rows: int,
    ) -> None:
        super().__init__(spec, device, budget=budget, budget_unit=budget_unit)
        require_at_least("attack", 1, attacker_episodes=attacker_episodes)
        require_at_least("attack", 1, generations=generations, behaviour_rows=behaviour_rows)
        require_at_least("attack", 0, team_episodes=team_episodes, review_episodes=review_episodes)
        require_positive("attack", episodes_per_update=episodes_per_update)
        require_share("attack", masked=masked)
        require_choice("attack", get_args(AfterFreeze), after_freeze=after_freeze)
        if world()[1] > 1:
            raise ConfigError("learned attackers do not run under torchrun: one process trains them")
        self.rhythm, self.masked = Rhythm.steady(episodes_per_update), masked
        self.generations, self.freeze_after, self.behaviour_rows = generations, freeze_after, behaviour_rows
        self.after_freeze = after_freeze
        self.learn_gen = Generator().manual_seed(derive(torch.initial_seed(), "ega"))
        self.learner: SoftLearner = learner(spec, device, self.learn_gen)
        self.archive: Archive = archive(self.learner.nets)
        self.turns: dict[Turn, int] = {"attackers": attacker_episodes, "team": team_episodes}
        self.turns["review"] = review_episodes if self.archive.size else 0
        self.owed = dict(self.turns)  # episodes that each turn still has in this generation; below 0: played ahead
        self.generation = 0
        self.returns = torch.zeros(2, self.learner.population)  # of the team under each in this generation: sum, count
        self.announced = self.is_fitting = self.training = False

    # whose turn it is

    @property
    def frozen(self) -> bool:
        return self.freeze_after is not None and self.generation >= self.freeze_after

    @property
    def turn(self) -> Turn:
        """Return who learns from the next training collection."""
        turn = self.nominal
        if not self.frozen or self.is_fitting:
            return turn
        return "team" if turn == "team" or self.after_freeze == "every_turn" else "nobody"

    @property
    def round(self) -> dict[Turn, int]:
        """Return the number of episodes of each turn of a generation."""
        return {turn: count for turn, count in self.turns.items() if not (turn == "team" and self.is_fitting)}

    @property
    def nominal(self) -> Turn:
        """Return whose turn it would be without a freeze: the first that is still owed episodes."""
        return next(turn for turn in self.round if self.owed[turn] > 0)

    def take_turn(self) -> bool:
        """Return whether the team learns from the next collection; called before every training collection,
        never before a test."""
        self.announced = True
        return self.turn == "team"

    @property
    def needs_fit(self) -> bool:
        return self.generation < self.generations

    @property
    def fitted(self) -> float:
        return min(1.0, self.generation / self.generations)

    @contextmanager
    def fitting(self) -> Iterator[None]:
        """Let only the attackers learn while the context is open; the victim stays as it is."""
        self.is_fitting, self.owed = True, dict(self.turns)
        try:
            yield
        finally:
            self.is_fitting = False
            if not self.needs_fit:
                self.learner.forget()

    # playing

    def fields(self) -> dict[str, Field]:
        """Declare, besides ``hit``: ``ega_choice``, the agent that the attacker wanted to hit, n for nobody;
        ``ega_member``, the index of the attacker that played, counting the archive first, then the population."""
        return super().fields() | {
            "ega_choice": Field((), torch.int16),
            "ega_member": Field((), torch.int16, "episode"),
        }

    def begin(self, n_envs: int, victim: Policy, gen: Generator) -> None:
        super().begin(n_envs, victim, gen)
        self.victim = as_victim(victim, "EGA")
        self.training, self.announced = self.announced or self.is_fitting, False
        old, new = len(self.archive), self.learner.population
        if self.training:
            share = 0.5 if old and self.turn == "review" else 0.0
        else:
            share = 1.0 if old else 0.0
        u = self.uniform()  # [B]; below ``share``: the archive, spread evenly over its members
        ranked = torch.where(u < share, u / max(share, 1e-9) * old, old + (u - share) / max(1 - share, 1e-9) * new)
        self.member = ranked.long().clamp(max=old + new - 1)  # first the archive, then the population
        weights = torch.cat([self.archive.weights.to(self.device), self.learner.weights.detach()])
        self.layers = self.learner.nets.split(weights[self.member])  # once: weights change only between episodes
        self.spared = torch.zeros(n_envs, self.spec.episode_limit, dtype=torch.bool, device=self.device)
        if self.training and self.turn == "attackers" and self.masked > 0:
            self.spared = self.spare()

    def spare(self) -> Tensor:
        """Draw the steps without attacks, bool [B, T]: in a share ``masked`` of the lanes, a random third of all steps,
        or up to a third at the beginning."""
        T = self.spec.episode_limit
        lane, steps = self.uniform(3), self.uniform(T)  # [B, 3], [B, T]
        start = torch.arange(T, device=self.device) < (lane[:, 2:] * (T // 3 + 1)).floor()
        third = steps.argsort(1).argsort(1) < T // 3
        return torch.where(lane[:, 1:2] < 0.5, start, third) & (lane[:, :1] < self.masked)

    @torch.no_grad()
    def choose(self, view: View, intended: Tensor) -> tuple[Tensor, Tensor]:
        n, learner = self.spec.n_agents, self.learner
        left = self.budget.left
        share = left / max(1, self.budget.limit)
        x = torch.cat([view.obs.state, share[:, None].to(view.obs.state.dtype)], -1)  # [B, I]
        q = learner.nets.values(self.layers, x[:, None]).squeeze(1)  # [B, C]
        v = choice_policy(q, learner.p_ref, learner.temperature, learner.floor)
        choice = draw(self.uniform(), v)
        may = view.active & (left > 0) & ~self.spared[:, view.t]
        self.choice = torch.where(may, choice, n)
        values = self.victim.q_values(view.obs.obs, view.carry)
        worst = values.masked_fill(~view.obs.avail, torch.inf).argmin(-1)  # [B, n]
        return self.choice[:, None] == torch.arange(n, device=self.device), worst

    def perturb_actions(self, view: View, intended: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        executed, found = super().perturb_actions(view, intended)
        return executed, found | {"ega_choice": self.choice, "ega_member": self.member}

    # learning

    def update(self, replay: Replay, fresh: EpisodeBatch, victim: Policy, clock: Clock) -> Metrics:
        """Learn from the attacked episodes of a training collection; other collections change nothing.

        In a mixture with other attacks there may be none: the turn passes all the same, so that all stay in step.
        """
        if not self.training:
            return {}
        turn, fresh = self.turn, fresh.to(self.device)
        nominal = self.nominal
        first = self.owed[nominal] > self.turns[nominal] - clock.fresh  # the first collection of its turn
        episodes = self.with_budget(fresh).lanes(fresh.attacked)
        spared = self.spared.any(1)[fresh.attacked]
        metrics: Metrics = {}
        if turn == "review" and first:
            self.returns.zero_()  # what counts is how good they have become
        self.note_returns(episodes.lanes(~spared))
        if not self.frozen and turn != "review" and len(episodes):
            self.learner.remember(episodes)
        if turn == "attackers":
            for _ in range(self.rhythm.due(clock)):
                metrics = self.learner.update()
        self.owed[nominal] -= clock.fresh
        if all(self.owed[turn] <= 0 for turn in self.round):
            self.finish_generation(episodes)
        return metrics | {
            "attack/generation": torch.tensor(float(self.generation)),
            "attack/archive": torch.tensor(float(len(self.archive))),
        }

    def note_returns(self, episodes: EpisodeBatch) -> None:
        """Add up the team's returns under each member of the population; update the qualities of the archive's."""
        member, result = episodes.ega_member.long().cpu(), episodes.reward.sum(1).cpu()
        old = len(self.archive)
        self.archive.review(member[member < old], result[member < old])
        member, result = member[member >= old] - old, result[member >= old]
        self.returns[0].index_add_(0, member, result)
        self.returns[1] += torch.bincount(member, minlength=self.learner.population)

    def with_budget(self, batch: EpisodeBatch) -> EpisodeBatch:
        """Return the episodes with the share of the budget left before every slot, [B, T+1]."""
        hit = batch["hit"]
        spent = (hit.any(-1) if self.budget.unit == "step" else hit.sum(-1)).long()
        share = 1.0 - (spent.cumsum(1) - spent) / max(1, self.budget.limit)
        return EpisodeBatch({**batch.data, "ega_budget": share}, {**batch.fields, "ega_budget": Field(())})

    def finish_generation(self, episodes: EpisodeBatch) -> None:
        """Offer the attackers to the archive and select the next population; ``episodes`` show how they behave."""
        if self.archive.size and not self.frozen and len(episodes):
            rows = attacker_inputs(episodes)[episodes.filled]
            wanted = (episodes.ega_choice < self.spec.n_agents)[episodes.filled]
            member = (episodes.ega_member.long() - len(self.archive))[:, None].expand_as(episodes.filled)[
                episodes.filled
            ]
            for i in (self.returns[1] > 0).nonzero().flatten().tolist():
                self.archive.offer(
                    self.learner.weights[i].detach(),
                    pick_rows(rows, wanted & (member == i), self.behaviour_rows, self.learn_gen),
                    -float(self.returns[0, i] / self.returns[1, i]),
                    progress=self.generation / self.generations,
                    policy=self.learner.policy,
                    gen=self.learn_gen,
                )
        while all(self.owed[turn] <= 0 for turn in self.round):  # what was played ahead may fill several generations
            self.generation += 1
            for turn, count in self.round.items():
                self.owed[turn] += count
        self.returns.zero_()
        if self.archive.size and len(self.archive):
            trained = self.is_fitting or not self.frozen
            self.learner.install(self.archive.select(self.learner.population, self.generation, self.learn_gen, trained))
        if self.frozen:
            self.learner.forget()

    def state_dict(self) -> dict[str, Any]:
        return {
            "learner": self.learner.state_dict(),
            "archive": self.archive.state_dict(),
            "generation": self.generation,
            "owed": dict(self.owed),
            "returns": self.returns.clone(),
            "dice": self.learn_gen.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state["learner"])
        self.archive.load_state_dict(state["archive"])
        self.generation = int(state["generation"])
        self.owed = dict(state.get("owed", self.turns))  # older versions count differently: the generation restarts
        self.returns = state["returns"].cpu().clone()
        restore(self.learn_gen, state["dice"], "ega")
