"""Counts what an environment tells of its steps, for any algorithm: formations, joint pushes. Pays nothing."""

from __future__ import annotations

from typing import Any

import torch

from marl.core.protocols import NoHook
from marl.core.types import ConfigError, EnvSpec, EpisodeBatch, Field, Forward, Metrics


class Visits(NoHook):
    """Training stays as it is, bit for bit. Names are those of ``EnvSpec.info_names``, whole numbers one per lane.

    Logged, all since training began: ``visits/<name>`` is how many different values the names in ``distinct`` have had,
    and the sum of the values of those in ``totals``. Under torchrun each rank counts its own episodes.
    """

    def __init__(self, spec: EnvSpec, *, distinct: list[str], totals: list[str]) -> None:
        for name in (*distinct, *totals):
            if name not in spec.info_names:
                there = ", ".join(spec.info_names) or "nothing"
                raise ConfigError(f"visits: '{name}' is not told by this environment; it tells {there}")
        self.seen = {name: set[int]() for name in distinct}
        self.sums = dict.fromkeys(totals, 0)

    def fields(self) -> dict[str, Field]:
        return {name: Field((), torch.int64) for name in (*self.seen, *self.sums)}

    def annotate(self, fresh: EpisodeBatch) -> None:
        for name, seen in self.seen.items():
            seen.update(fresh[name][fresh.filled].tolist())
        for name in self.sums:
            self.sums[name] += int(fresh[name][fresh.filled].sum())

    def update(self, batch: EpisodeBatch, fwd: Forward) -> Metrics:
        counts = {name: len(seen) for name, seen in self.seen.items()} | self.sums
        return {f"visits/{name}": torch.tensor(count, dtype=torch.double) for name, count in counts.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"seen": {name: torch.tensor(sorted(seen)) for name, seen in self.seen.items()}, "sums": dict(self.sums)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = {name: set(values.tolist()) for name, values in state["seen"].items()}
        self.sums = dict(state["sums"])
