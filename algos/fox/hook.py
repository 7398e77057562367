"""FoX's rewards for rare formations and for latents that predict them.

Equations as implemented, and what is reconstructed: docs/fox.md.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Generator, Tensor, nn

from algos.fox.aware import Awareness
from algos.fox.formation import CountTable, Formations, Partners
from marl.core.checks import require_at_least, require_choice, require_within
from marl.core.protocols import NoHook
from marl.core.seeding import restore
from marl.core.types import ConfigError, EnvSpec, EpisodeBatch, Field, Forward, Metrics
from marl.learn.agents import RecurrentAgent

log = logging.getLogger(__name__)
FIT = (0.02, 0.3)  # shares of distinct formations between which counts tell rare ones from common ones
Variant = Literal["fixed", "code"]
Shift = Literal["nonpositive", "none"]
CountMode = Literal["fresh", "stored"]


class FoXHook(NoHook):
    """A hook that counts formations and rewards rare ones and, through ``aware``, latents that predict them.

    ``beta1``, ``beta2`` scale the two rewards; ``shift``: nonpositive subtracts each reward's maximum. ``variant``:
    code keeps the defects of the published code that docs/fox.md lists. ``count_mode``: fresh looks counts up when a
    batch is sampled, stored when it is collected; null: the variant's. ``calib_steps``: the number of observations
    after which the log says what share of their formations is distinct (``fox/calib_distinct``); 0: never. ``seed``
    starts the hook's own random stream; projections and initial weights come from torch's global one.
    """

    def __init__(
        self,
        spec: EnvSpec,
        agent: RecurrentAgent,
        device: torch.device | str,
        seed: int,
        *,
        variant: Variant,
        beta1: float,
        beta2: float,
        shift: Shift,
        count_mode: CountMode | None,
        decimals: int,
        bits: int,
        features: Sequence[int] | None,
        partners: Partners,
        mask_dead: bool,
        canonical: bool,
        max_keys: int,
        aware: Callable[..., Awareness],
        calib_steps: int = 20000,
    ) -> None:
        require_choice("fox", get_args(Variant), variant=variant)
        require_choice("fox", get_args(Shift), shift=shift)
        require_choice("fox", get_args(Partners), partners=partners)
        require_choice("fox", get_args(CountMode), count_mode=count_mode, or_null=True)
        require_at_least("fox", 0, beta1=beta1, beta2=beta2, calib_steps=calib_steps)
        check_spec(spec, bits, features)
        self.code, self.beta1, self.beta2, self.nonpositive = variant == "code", beta1, beta2, shift == "nonpositive"
        count_mode = count_mode or ("stored" if self.code else "fresh")
        self.stored, self.n, self.device = count_mode == "stored", spec.n_agents, torch.device(device)
        self.gen = Generator(device).manual_seed(seed)
        self.aware = aware(agent, self.gen, bits, self.code)
        width = spec.obs_dim if features is None else len(features)
        matrix = torch.rand(bits, width) if self.code else torch.randn(bits, width)
        self.formations = Formations(
            matrix, decimals=decimals, features=features, partners=partners, mask_dead=mask_dead, canonical=canonical
        )
        self.table = CountTable(max_keys, device)
        self.calib_steps, self.observed, self.distinct = calib_steps, 0, -1.0  # -1: not known yet
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
        """Store the formation of every observation, including the last one, and count a visit for each, lane by lane.
        The published code leaves the last one uncounted."""
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
        self.observed += len(visits)
        if self.distinct < 0 and self.observed >= self.calib_steps > 0:
            self.distinct = self.table.first_seen / self.observed
            say_distinct(self.distinct, self.observed)

    def counted(self, batch: EpisodeBatch) -> Tensor:
        """Return the slots whose formation counts as a visit, bool [M, T+1]."""
        return batch.filled if self.code else slots(batch) <= batch.length[:, None]

    # rewards

    @torch.no_grad()
    def reward(self, batch: EpisodeBatch, fwd: Forward) -> Tensor | float:
        """Return the reward [M, T, 1] for the formation that each transition arrives at."""
        self.rewarded, total, count = {}, torch.zeros((), device=self.device), batch.filled.sum()
        if self.beta1 > 0:
            bonus = self.beta1 * self.count_bonus(batch)
            self.rewarded["fox/count_bonus"], total = bonus.sum() / count, bonus
        if self.beta2 > 0:
            bonus = self.beta2 * self.aware_bonus(batch, fwd)
            self.rewarded["fox/aware_bonus"], total = bonus.sum() / count, total + bonus
        return total.unsqueeze(-1) if self.rewarded else 0.0

    def count_bonus(self, batch: EpisodeBatch) -> Tensor:
        """Return N(F)^-1/2 of the formation arrived at, [M, T]; 0 on padding."""
        filled = batch.filled[:, :-1]
        visits = batch.fox_visit[:, 1:] if self.stored else self.table.count(batch.fox_id[:, 1:])
        counted = filled & self.counted(batch)[:, 1:] & (visits > 0)
        bonus = torch.where(counted, visits.clamp(min=1).float().pow(-0.5), 0.0)
        if self.nonpositive:  # the published code also shifts uncounted steps: an episode's end looks worst of all
            bonus = torch.where(filled if self.code else counted, bonus - bonus.amax(), 0.0)
        return bonus

    def aware_bonus(self, batch: EpisodeBatch, fwd: Forward) -> Tensor:
        """Return the awareness reward, [M, T]; 0 on padding."""
        filled = batch.filled[:, :-1]
        partners = (
            batch.fox_partners[:, :-1] if self.code else batch.fox_partners[:, 1:]
        )  # the published code is one step behind
        gain, self.rewarded["fox/normalizer"] = self.aware.reward(
            fwd.h[:, 1:][filled], partners[filled].long(), batch.fox_blocks[:, 1:][filled], self.nonpositive
        )
        return torch.zeros(filled.shape, device=gain.device).masked_scatter(filled, gain)

    def update(self, batch: EpisodeBatch, fwd: Forward) -> Metrics:
        facts = self.aware.update(batch, fwd.h)
        known = {"fox/calib_distinct": torch.tensor(self.distinct)} if self.distinct >= 0 else {}
        return self.rewarded | facts | known | {"fox/n_formations": torch.tensor(float(len(self.table)))}

    def state_dict(self) -> dict[str, Any]:
        return {
            "aware": self.aware.state_dict(),
            "table": self.table.state_dict(),
            "matrix": self.formations.matrix,
            "gen": self.gen.get_state(),
            "calib": (self.observed, self.distinct),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.aware.load_state_dict(state["aware"])
        self.table.load_state_dict(state["table"])
        self.formations.matrix = state["matrix"].cpu()
        restore(self.gen, state["gen"], "fox")
        self.observed, self.distinct = state.get("calib", (0, -1.0))  # absent from checkpoints of earlier versions


def say_distinct(share: float, observed: int) -> None:
    """Log what share of the formations is distinct, and warn if counts of them cannot guide exploration."""
    said = f"fox: {share:.3g} of the first {observed:,} formations are distinct"
    if share > FIT[1]:
        log.warning(
            "%s (fit: %g to %g), so counts hardly tell rare from common; give algo.fox.decimals or algo.fox.bits a "
            "smaller number, or algo.fox.features a list (docs/fox.md)", said, *FIT,
        )  # fmt: skip
    elif share < FIT[0]:
        log.warning(
            "%s (fit: %g to %g), so each is soon common and the bonus fades; unless the game has no more, give "
            "algo.fox.decimals or algo.fox.bits a larger number (docs/fox.md)", said, *FIT,
        )  # fmt: skip
    else:
        log.info("%s", said)


def check_spec(spec: EnvSpec, bits: int, features: Sequence[int] | None) -> None:
    """Refuse environments without formations, and options that do not fit; raise ConfigError."""
    if spec.n_agents < 2:
        raise ConfigError("algo=fox needs at least 2 agents; this environment has 1")
    require_within("fox", 1, 20, bits=bits)
    if features is not None and (not features or not all(0 <= f < spec.obs_dim for f in features)):
        raise ConfigError(f"fox.features={list(features)} must name features within 0..{spec.obs_dim - 1}, or be null")


def slots(batch: EpisodeBatch) -> Tensor:
    """Return slot numbers, long [1, T+1]."""
    return torch.arange(batch.horizon + 1, device=batch.length.device)[None]
