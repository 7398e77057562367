"""FIM pays the team for influence on center-of-gravity state features, most for those it already influences.

Park, Lee, Han 2025, "Focusing Influence Mechanism for Multi-Agent Reinforcement Learning", arXiv 2506.19417. The
structure is the paper's; docs/fim.md says which details are reconstructed. Axis letter ``C``: chosen features.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import Parameter

from algos.fim.cog import STILL, CenterOfGravity, Findings, NoGap
from algos.fim.memory import Memory
from algos.fim.scale import Judged, ScaleRule, episode_returns, judged_episodes, read_scale
from algos.fim.trace import Form, Trace, focus, team_reward, trace_metrics
from algos.shared.influence import CHANGED, Anneal, Dynamics, Transitions, events, one_process
from marl.core.checks import require_at_least, require_choice, require_positive, require_within
from marl.core.protocols import NoHook
from marl.core.seeding import derive
from marl.core.types import ConfigError, EnvSpec, EpisodeBatch, Forward, Metrics
from marl.run.files import write_atomic

log = logging.getLogger(__name__)
RECALLED = 0.3  # a predicted change of this size, in units of the largest seen, counts as recalled
Influence = Literal["abs", "sq"]
Average = Literal["uniform", "policy"]


@dataclass
class RewardParts:
    """The parts of a batch's reward, which ``update`` logs."""

    influence: Tensor  # [M, T, n, C]
    predicted: Tensor  # [M, T, C]
    e: Tensor  # [M, T, n or 1, C]
    reward: Tensor  # [M, T, 1]


class FIM(NoHook):
    """A hook that rewards influence on chosen state features. The first ``id_steps`` environment steps pay no bonus;
    they serve to choose the features (``cog``) and to train the forward model (``pretrain`` minibatches). Afterwards
    r_int = ``scale`` * min(``r_clip``, mean_i sum_d w I).

    ``scale`` rule: once features are chosen, it is computed from what random play is paid and loses, with ``margin``,
    ``least_scale`` and ``most_scale`` (``algos.fim.scale.ScaleRule``), and then stays fixed. ``influence``: abs (with a
    dead zone of ``tau``, at most 1) or sq. ``average`` over an agent's alternatives: uniform, or policy (softmax of its
    values over ``temperature``). ``trace``, ``trace_form``, ``eta``, ``kappa``: see ``algos.fim.trace.focus``.
    ``refresh_every``: the environment steps between further searches, which add features found in the newest
    ``id_steps`` steps; 0: never. ``anneal_steps``: see ``algos.shared.influence.Anneal``.
    """

    whole_because = "its traces, and the bonus that its rule judges, are those of episodes"

    def __init__(
        self,
        spec: EnvSpec,
        *,
        cog: Callable[[EnvSpec], CenterOfGravity],
        model: Callable[[EnvSpec, int], Dynamics],
        scale: float | str,
        eta: float,
        kappa: float,
        tau: float,
        r_clip: float,
        influence: Influence,
        average: Average,
        temperature: float,
        trace: Trace,
        trace_form: Form,
        id_steps: int,
        pretrain: int,
        refresh_every: int,
        anneal_steps: int | None,
        margin: float = 2.5,
        least_scale: float = 0.02,
        most_scale: float = 10.0,
    ) -> None:
        one_process("algo.hooks.fim")
        require_choice("fim", get_args(Influence), influence=influence)
        require_choice("fim", get_args(Average), average=average)
        require_choice("fim", get_args(Trace), trace=trace)
        require_choice("fim", get_args(Form), trace_form=trace_form)
        require_positive("fim", r_clip=r_clip, temperature=temperature, id_steps=id_steps, pretrain=pretrain)
        require_at_least("fim", 0, kappa=kappa, tau=tau, refresh_every=refresh_every)
        require_within("fim", 0, 1, ends="[)", eta=eta)
        self.scale, self.rule = read_scale(scale), ScaleRule(margin, least_scale, most_scale)
        self.judged: Judged | None = None
        self.eta, self.kappa, self.tau, self.r_clip = eta, kappa, tau, r_clip
        self.kind, self.average, self.temperature = influence, average, temperature
        self.trace, self.trace_form = trace, trace_form
        self.id_steps, self.pretrain, self.refresh_every = id_steps, pretrain, refresh_every
        self.cog, self.anneal = cog(spec), Anneal(anneal_steps)
        self.dynamics = model(spec, derive(torch.initial_seed(), "fim"))
        self.memory = Memory(spec, id_steps, self.dynamics.uses_obs, judged=self.scale is None)
        self.found: Findings | None = None
        self.due, self.dims, self.reported = id_steps, torch.zeros(0, dtype=torch.long), True
        self.seen: RewardParts | None = None
        self.no_gap: NoGap | None = None

    def parameters(self) -> Iterable[Parameter]:
        return self.dynamics.model.parameters()

    def annotate(self, fresh: EpisodeBatch) -> None:
        self.anneal.observe(fresh)
        if self.found is None or self.refresh_every:
            self.memory.add(fresh)

    def reward(self, batch: EpisodeBatch, fwd: Forward) -> Tensor | float:
        """Return the intrinsic reward [M, T, 1]; 0 until features are chosen, and if none qualify."""
        self.seen = None
        self.dynamics.to(batch.state.device)
        if self.anneal.seen >= self.due:
            self.identify(batch.state.device)
        if not len(self.dims):
            return 0.0
        with torch.no_grad():
            q = fwd.q.detach()[:, :-1] / self.temperature if self.average == "policy" else None
            parts = self.paid(batch, q)
            parts.reward = self.present_scale() * self.anneal.factor() * parts.reward
        self.seen = parts
        return parts.reward

    def paid(self, batch: EpisodeBatch, q: Tensor | None) -> RewardParts:
        """Return the parts of the reward at scale 1; q [M, T, n, A] weights alternatives, None: equally."""
        contrast, predicted = self.dynamics.contrast(batch, self.dims, q)
        influence = self.sized(contrast)
        weighted, e = focus(influence, self.trace, self.trace_form, self.eta, self.kappa)
        return RewardParts(influence, predicted, e, team_reward(weighted, self.r_clip))

    def present_scale(self) -> float:
        """Return the given scale, or that of the rule, which exists once features are chosen."""
        if self.scale is not None:
            return self.scale
        assert self.judged is not None
        return self.judged.scale

    def sized(self, contrast: Tensor) -> Tensor:
        """Return the influence, within [0, 1], of a predicted difference."""
        if self.kind == "sq":
            return contrast.square().clamp(max=1.0)
        return (contrast.abs() - self.tau).clamp(0.0, 1.0)

    # choosing features

    def identify(self, device: torch.device) -> None:
        """Choose the features, or add to them, and train the model on the steps in which they were found."""
        episodes = self.memory.episodes().to(device)
        data = self.dynamics.transitions(episodes)
        change = data.change[data.filled]
        before = self.found
        if before is None:
            try:
                found = self.cog.find(change)
            except NoGap as error:
                self.no_gap, found = error, error.found
        else:
            found = self.refreshed(before, change)
        self.due = self.anneal.seen + self.refresh_every if self.refresh_every else torch.iinfo(torch.long).max
        if not self.refresh_every:
            self.memory.clear()
        new = int(found.selected.sum()) - (0 if before is None else int(before.selected.sum()))
        self.found, self.dims = found, found.selected.nonzero().flatten()
        self.reported = self.reported and before is not None and not new
        if new:
            self.train_on(data, self.pretrain)
            if self.scale is None and self.judged is None:
                self.judge(episodes)
                if before is not None:
                    log.warning("fim: these episodes are not random play: no feature qualified while it lasted")
        names = [self.cog.names[d] for d in self.dims.tolist()]
        if names:
            log.info("fim: %d center-of-gravity features: %s", len(names), ", ".join(names[:12]))
        else:
            log.warning("fim: no state feature qualifies; the base learner goes on alone (docs/fim.md)")

    @torch.no_grad()
    def judge(self, episodes: EpisodeBatch) -> None:
        """Set the scale by rule from ``episodes`` of random play."""
        few = judged_episodes(episodes)
        paid = self.paid(few, None).reward.sum((1, 2))  # 0 on padding
        self.judged = self.rule.judge(paid, episode_returns(few))
        log.log(logging.WARNING if self.judged.capped else logging.INFO, "%s", self.judged.said())

    def refreshed(self, before: Findings, change: Tensor) -> Findings:
        """Return the earlier findings plus new ones. Features never leave and keep their normaliser."""
        try:
            now = self.cog.find(change)
        except ConfigError as error:  # no gap this time; the earlier choice stands
            log.warning("fim: %s", error)
            return before
        old = before.selected.to(change.device)
        scale = torch.where(old, before.scale.to(change.device), now.scale)
        return Findings(scale, now.changed, now.entropy, old | now.selected)

    def train_on(self, data: Transitions, steps: int | None = None) -> Tensor:
        assert self.found is not None
        device = data.change.device
        selected, scale = self.found.selected.to(device), self.found.scale.to(device).clamp(min=STILL)
        return self.dynamics.learn(data, selected, scale, steps)

    def report(self, folder: Path) -> None:
        """Write the table and the plot of entropies, and the scale by rule, once per finding; then raise NoGap if there
        was no gap."""
        if self.found is not None and not self.reported:
            self.cog.report(self.found, folder)
            if self.judged is not None:
                write_atomic(folder / "fim_scale.json", json.dumps(vars(self.judged), indent=2) + "\n")
            self.reported = True
        if self.no_gap is not None:
            raise self.no_gap

    # learning, logging

    def update(self, batch: EpisodeBatch, fwd: Forward) -> Metrics:
        """Train the forward model and return the parts of this batch's reward."""
        facts: Metrics = {
            "fim/id_steps": torch.tensor(float(min(self.anneal.seen, self.id_steps))),
            "fim/n_cog": torch.tensor(float(len(self.dims))),
        }
        if self.seen is None:
            return facts
        data = self.dynamics.transitions(batch)
        facts["fim/anneal"], facts["fim/scale"] = torch.tensor(self.anneal.factor()), torch.tensor(self.present_scale())
        if self.judged is not None:
            facts["fim/random_bonus"] = torch.tensor(self.judged.scale * self.judged.bonus)
            facts["fim/penalty"] = torch.tensor(self.judged.penalty)
        facts |= self.metrics(self.seen, data, batch)
        return facts | {"fim/model_loss": self.train_on(data)}

    def metrics(self, seen: RewardParts, data: Transitions, batch: EpisodeBatch) -> Metrics:
        assert self.found is not None
        filled = data.filled
        changed = (data.change[..., self.dims].abs() > CHANGED) & filled[..., None]  # [M, T, C]
        recalled = (seen.predicted.abs() > RECALLED) & changed
        quiet = filled & ~events(data, self.found.selected.to(filled.device))
        noise = torch.where(quiet, seen.influence.mean((-1, -2)), 0.0).sum() / quiet.sum().clamp(min=1)
        intrinsic, extrinsic = seen.reward.sum(), batch.reward[:, :-1].abs().sum()
        return {
            "fim/event_recall": recalled.sum() / changed.sum().clamp(min=1),
            "fim/noise_floor": noise,
            "fim/r_int": intrinsic / len(batch),
            "fim/r_int_share": intrinsic / (intrinsic + extrinsic).clamp(min=1e-8),
            **trace_metrics(seen.e, filled),
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "dynamics": self.dynamics.state_dict(),
            "memory": self.memory.state_dict(),
            "found": None if self.found is None else dict(vars(self.found)),
            "anneal": self.anneal.state_dict(),
            "due": self.due,
            "judged": None if self.judged is None else dict(vars(self.judged)),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.dynamics.load_state_dict(state["dynamics"])
        self.memory.load_state_dict(state["memory"])
        self.anneal.load_state_dict(state["anneal"])
        self.due = int(state["due"])
        if state.get("judged") is not None:
            self.judged = Judged(**state["judged"])
        if state["found"] is not None:
            self.found = Findings(**state["found"])
            self.dims = self.found.selected.nonzero().flatten()
            self.reported = False  # cheap, and the run folder may have been moved without its report
