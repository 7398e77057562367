"""FoX: formation-aware exploration. Rare formations are rewarded, and so are latents that know the formation.

Jo, Lee, Yeom, Han 2024 (AAAI), arXiv 2308.11272. Equations as implemented, and what is reconstructed: docs/fox.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from algos.fox.aware import Awareness
from algos.fox.formation import PARTNERS, CountTable, Formations
from algos.fox.nets import FoXHeads
from algos.shared.central import one_of
from marl.core.distributed import global_count
from marl.core.protocols import NoHook
from marl.core.seeding import derive
from marl.core.types import ConfigError, EnvSpec, EpisodeBatch, Field, Forward, Metrics
from marl.learn.agents import RecurrentAgent
from marl.learn.algorithm import ValueAlgorithm
from marl.learn.learner import ValueLearner, best_available
from marl.learn.mixers import Mixer


class FoXHook(NoHook):
    """Counts formations, rewards rare ones and, by ``aware``, latents that know them.

    ``beta1``, ``beta2`` scale the two rewards; ``shift``: nonpositive subtracts each reward's maximum. ``variant`` code
    keeps the published code's defects that docs/fox.md lists. ``count_mode``: fresh looks counts up when a batch is
    sampled, stored when it was collected; null leaves it to the variant. ``seed`` starts this hook's own stream;
    projections and initial weights come from torch's global one.
    """

    def __init__(
        self,
        spec: EnvSpec,
        agent: RecurrentAgent,
        device: torch.device | str,
        seed: int,
        *,
        variant: Literal["fixed", "code"],
        beta1: float,
        beta2: float,
        shift: Literal["nonpositive", "none"],
        count_mode: Literal["fresh", "stored"] | None,
        decimals: int,
        bits: int,
        features: Sequence[int] | None,
        partners: Literal["minmax", "max", "min"],
        mask_dead: bool,
        canonical: bool,
        max_keys: int,
        aware: Callable[..., Awareness],
    ) -> None:
        one_of("fox.variant", variant, ("fixed", "code"))
        one_of("fox.shift", shift, ("nonpositive", "none"))
        one_of("fox.partners", partners, PARTNERS)
        for name, number in {"beta1": beta1, "beta2": beta2}.items():
            if number < 0:
                raise ConfigError(f"fox.{name}={number} must not be negative")
        check_spec(spec, bits, features)
        self.code, self.beta1, self.beta2, self.nonpositive = variant == "code", beta1, beta2, shift == "nonpositive"
        count_mode = count_mode or ("stored" if self.code else "fresh")
        one_of("fox.count_mode", count_mode, ("fresh", "stored"))
        self.stored, self.n, self.device = count_mode == "stored", spec.n_agents, torch.device(device)
        self.gen = Generator(device).manual_seed(seed)
        self.aware = aware(agent, self.gen, bits, self.code)
        width = spec.obs_dim if features is None else len(features)
        matrix = torch.rand(bits, width) if self.code else torch.randn(bits, width)
        self.formations = Formations(
            matrix, decimals=decimals, features=features, partners=partners, mask_dead=mask_dead, canonical=canonical
        )
        self.table = CountTable(max_keys, device)
        self.rewarded: Metrics = {}

    def parameters(self) -> Iterable[nn.Parameter]:
        return self.aware.weights

    def fields(self) -> dict[str, Field]:
        own = {
            "fox_blocks": Field((self.n, 4)),
            "fox_partners": Field((self.n, 2), torch.int16),
            "fox_id": Field((), torch.int64),
        }
        return own | ({"fox_visit": Field((), torch.int64)} if self.stored else {})

    def annotate(self, fresh: EpisodeBatch) -> None:
        """Formations of what was observed, the last observation included, and one visit for each. The code leaves the
        last one uncounted. Order of counting: lanes, then steps."""
        seen = slots(fresh) <= fresh.length[:, None]
        blocks, partners, ids = self.formations(fresh.obs[seen], fresh.alive[seen])
        fresh.data["fox_blocks"][seen] = blocks
        fresh.data["fox_partners"][seen] = partners.short()
        fresh.data["fox_id"][seen] = ids
        self.aware.observe(blocks)
        counted = self.counted(fresh)
        visits = self.table.add(fresh.fox_id[counted].to(self.device))
        if self.stored:
            fresh.data["fox_visit"][counted] = visits.to(counted.device)

    def counted(self, batch: EpisodeBatch) -> Tensor:
        """Slots bool [M, T+1] whose formation counts as a visit."""
        return batch.filled if self.code else slots(batch) <= batch.length[:, None]

    # rewards

    @torch.no_grad()
    def reward(self, batch: EpisodeBatch, fwd: Forward) -> Tensor | float:
        """[M, T, 1], for the formation that each transition arrives at."""
        self.rewarded, total, count = {}, torch.zeros((), device=self.device), batch.filled.sum()
        if self.beta1 > 0:
            bonus = self.beta1 * self.count_bonus(batch)
            self.rewarded["fox/count_bonus"], total = bonus.sum() / count, bonus
        if self.beta2 > 0:
            bonus = self.beta2 * self.aware_bonus(batch, fwd)
            self.rewarded["fox/aware_bonus"], total = bonus.sum() / count, total + bonus
        return total.unsqueeze(-1) if self.rewarded else 0.0

    def count_bonus(self, batch: EpisodeBatch) -> Tensor:
        """N(F)^-1/2 of the formation arrived at, [M, T]; zeros where nothing happened."""
        filled = batch.filled[:, :-1]
        visits = batch.fox_visit[:, 1:] if self.stored else self.table.count(batch.fox_id[:, 1:])
        counted = filled & self.counted(batch)[:, 1:] & (visits > 0)
        bonus = torch.where(counted, visits.clamp(min=1).float().pow(-0.5), 0.0)
        if self.nonpositive:  # the code shifts steps that were not counted too: an episode's end looks worst of all
            bonus = torch.where(filled if self.code else counted, bonus - bonus.amax(), 0.0)
        return bonus

    def aware_bonus(self, batch: EpisodeBatch, fwd: Forward) -> Tensor:
        """The awareness reward, [M, T]; zeros where nothing happened."""
        filled = batch.filled[:, :-1]
        partners = batch.fox_partners[:, :-1] if self.code else batch.fox_partners[:, 1:]  # the code is a step late
        gain, self.rewarded["fox/normalizer"] = self.aware.reward(
            fwd.h[:, 1:][filled], partners[filled].long(), batch.fox_blocks[:, 1:][filled], self.nonpositive
        )
        return torch.zeros(filled.shape, device=gain.device).masked_scatter(filled, gain)

    def update(self, batch: EpisodeBatch, fwd: Forward) -> Metrics:
        facts = self.aware.update(batch, fwd.h)
        return self.rewarded | facts | {"fox/n_formations": torch.tensor(float(len(self.table)))}

    def state_dict(self) -> dict[str, Any]:
        return {
            "aware": self.aware.state_dict(),
            "table": self.table.state_dict(),
            "matrix": self.formations.matrix,
            "gen": self.gen.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.aware.load_state_dict(state["aware"])
        self.table.load_state_dict(state["table"])
        self.formations.matrix = state["matrix"].cpu()
        self.gen.set_state(state["gen"].cpu())


def check_spec(spec: EnvSpec, bits: int, features: Sequence[int] | None) -> None:
    """ConfigError where this environment has no formations, or not these."""
    if spec.n_agents < 2:
        raise ConfigError("algo=fox needs at least 2 agents; this environment has 1")
    if not 1 <= bits <= 20:
        raise ConfigError(f"fox.bits={bits} must be within 1..20")
    if features is not None and (not features or not all(0 <= f < spec.obs_dim for f in features)):
        raise ConfigError(f"fox.features={list(features)} must name features within 0..{spec.obs_dim - 1}, or be null")


def slots(batch: EpisodeBatch) -> Tensor:
    """Slot numbers long [1, T+1]."""
    return torch.arange(batch.horizon + 1, device=batch.length.device)[None]


@dataclass
class FoXForward(Forward):
    """A pass with the agents' own heads."""

    local: Tensor  # [M, T+1, n, A], with gradient


class FoXLearner(ValueLearner):
    """Adds ``local_weight`` times the mean absolute value of the agents' own heads, so that they share what they can
    (as CDS does; Li et al. 2021). An agent without such heads leaves the base learner as it is."""

    def __init__(self, *args: Any, local_weight: float, **base: Any) -> None:
        if local_weight < 0:
            raise ConfigError(f"learner.local_weight={local_weight} must not be negative")
        self.local_weight = local_weight
        super().__init__(*args, **base)

    def forward(self, batch: EpisodeBatch) -> Forward:
        heads = self.agent.fc_out
        if not isinstance(heads, FoXHeads):
            return super().forward(batch)
        x, used = self.inputs(batch)
        q, h = self.agent.unroll(x, used)
        with torch.no_grad():
            greedy = best_available(q.detach(), batch.avail)
            target_v = self.bootstrap(batch, x, used, greedy)
        return FoXForward(q, h.detach(), target_v, greedy, heads.local(h))

    def losses(self, batch: EpisodeBatch, fwd: Forward, target: Tensor) -> tuple[dict[str, Tensor], Metrics]:
        terms, metrics = super().losses(batch, fwd, target)
        if isinstance(fwd, FoXForward):
            filled = batch.filled[:, :-1, None, None]
            size = torch.where(filled, fwd.local[:, :-1].abs(), 0.0).sum()
            terms["local"] = self.local_weight * size / global_count(filled.sum() * fwd.local[0, 0].numel())
        return terms, metrics


class FoX(ValueAlgorithm):
    """``ValueAlgorithm`` with the hook that ``fox`` makes; ``agent=gru`` leaves out the formation-aware agent."""

    def __init__(self, *args: Any, fox: Callable[..., FoXHook], **base: Any) -> None:
        self.make_fox = fox
        super().__init__(*args, **base)

    def make_learner(
        self,
        spec: EnvSpec,
        agent: Callable[[EnvSpec], RecurrentAgent],
        mixer: Callable[[EnvSpec], Mixer],
        learner: Callable[..., ValueLearner],
    ) -> ValueLearner:
        first, mix = agent(spec), mixer(spec)  # in the base algorithm's order: the same initial weights
        self.fox = self.make_fox(spec, first, self.device, derive(self.gen.initial_seed(), "fox"))
        self.hooks.append(self.fox)
        return learner(spec, first, mix, self.hooks, device=self.device)

    def networks(self) -> dict[str, nn.Module]:
        return super().networks() | self.fox.aware.networks()
