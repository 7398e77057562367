"""Counts of an environment's step information (formations, joint pushes), for any algorithm and without a reward."""

from __future__ import annotations

from typing import Any

import torch

from algos.shared.features import require_info
from marl.core.protocols import NoHook
from marl.core.types import EnvSpec, EpisodeBatch, Field, Forward, Metrics


class Visits(NoHook):
    """A hook that counts step information and leaves training unchanged, bit for bit. The names are from
    ``EnvSpec.info_names``; each has one integer per lane.

    ``visits/<name>`` is logged: for names in ``distinct``, how many different values have occurred since training
    began; for those in ``totals``, the sum of the values. Under torchrun each rank counts its own episodes.
    """

    def __init__(self, spec: EnvSpec, *, distinct: list[str], totals: list[str]) -> None:
        require_info(spec, "visits", *distinct, *totals)
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
