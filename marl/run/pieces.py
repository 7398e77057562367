"""Pieces of episodes, as ``train.rollout`` collects them: each row of a batch is one, with an extra slot to bootstrap
from, so that flags and masks mean the same as for whole episodes."""

from __future__ import annotations

import torch
from torch import Tensor

from marl.core.types import Carry, EpisodeBatch, Field, Obs, Step
from marl.run.collect import empty_batch


def begin_fields(carry: Carry) -> dict[str, Field]:
    """Return the fields that hold a policy's memory at the start of a piece."""
    return {f"begin_{name}": Field(tuple(value.shape[1:]), value.dtype, "episode") for name, value in carry.items()}


class Pieces:
    """Pieces of episodes under construction, ``steps`` + 1 slots each; the room for pieces doubles when it is full."""

    def __init__(self, fields: dict[str, Field], lanes: int, steps: int, device: torch.device) -> None:
        self.fields, self.steps, self.device = fields, steps, device
        self.data = empty_batch(fields, lanes, steps, device).data
        self.used = 0
        self.place = torch.zeros(lanes, dtype=torch.long, device=device)  # each lane's current piece,
        self.at = torch.zeros(lanes, dtype=torch.long, device=device)  # and its slot within it
        self.bad: list[Tensor] = []  # the numbers of dropped pieces

    def clear(self) -> None:
        """Start over in the same memory."""
        for value in self.data.values():
            value[: self.used] = 0
        self.used, self.bad = 0, []

    def begin(self, lanes: Tensor, now: Obs, seen: Tensor, carry: Carry) -> None:
        """Begin a piece in each of ``lanes`` long [K]."""
        count, room = len(lanes), len(self.data["filled"])
        if self.used + count > room:
            more = empty_batch(self.fields, max(room, count), self.steps, self.device).data
            self.data = {name: torch.cat([value, more[name]]) for name, value in self.data.items()}
        new = torch.arange(self.used, self.used + count, device=self.device)
        self.used += count
        self.place[lanes], self.at[lanes] = new, 0
        for name, value in self._observed(now, seen).items():
            self.data[name][new, 0] = value[lanes]
        for name, value in carry.items():
            self.data[f"begin_{name}"][new] = value.to(self.device)[lanes]

    def _observed(self, now: Obs, seen: Tensor) -> dict[str, Tensor]:
        values = {name: getattr(now, name) for name in ("obs", "state", "avail", "alive")}
        return values | ({"obs_seen": seen.to(self.device)} if "obs_seen" in self.data else {})

    def _put(self, values: dict[str, Tensor]) -> None:
        """Store each lane's values in its current slot, by one flat index, which is faster than two."""
        slots = self.place * (self.steps + 1) + self.at
        for name, value in values.items():
            self.data[name].flatten(0, 1).index_copy_(0, slots, value)

    def add(self, step: Step, seen: Tensor, values: dict[str, Tensor]) -> None:
        """Store a step of every lane and the observation after it, of which the policy is shown ``seen``."""
        values = {**step.info, **values, "reward": step.reward, "terminated": step.terminated}
        known = {name: self.fields[name] for name in values if name in self.fields and name != "won"}
        stored = {name: values[name].to(self.device, field.dtype) for name, field in known.items()}
        here = {name: value for name, value in stored.items() if known[name].per == "step"}
        self._put(here | {"filled": torch.ones_like(step.terminated)})
        for name, value in stored.items():
            if known[name].per == "episode":
                self.data[name][self.place] = value
        self.data["won"][self.place] |= step.info["won"]
        self.at += 1
        self.data["length"][self.place] = self.at.to(torch.int32)
        self._put(self._observed(step.next, seen))

    def show_all(self) -> None:
        """Record that policies were shown the true observations."""
        if "obs_seen" in self.data:
            self.data["obs_seen"][: self.used] = self.data["obs"][: self.used]

    def drop(self, lanes: Tensor) -> None:
        """Drop the current pieces of ``lanes`` bool [B]."""
        self.bad.append(self.place[lanes])

    def batch(self) -> EpisodeBatch:
        """Return the collected pieces, without the dropped ones."""
        whole = EpisodeBatch({name: value[: self.used] for name, value in self.data.items()}, self.fields)
        if not self.bad:
            return whole
        good = torch.ones(self.used, dtype=torch.bool, device=self.device)
        good[torch.cat(self.bad)] = False
        return whole.lanes(good)
