"""Formations, FoX's classes of situations that count as the same, and how often each was visited.

Jo, Lee, Yeom, Han 2024 (AAAI); section and equation numbers are unknown to us. docs/fox.md says what is reconstructed.
A formation is one block of four numbers for every agent: the distances, in observation space, to its farthest and to
its nearest teammate, and a hash of each difference by the signs of random projections (SimHash). Axis letter: ``R``
rows, each a joint observation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from marl.core.checks import require_at_least, require_within

CHUNK = 1024  # rows at once: they need memory [rows, n, 2, features], a lot for 27 agents
GOLDEN, FIRST, SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15  # splitmix64, as signed numbers
NOBODY = 2**62  # farther than any teammate
Partners = Literal["minmax", "max", "min"]


def mix(x: Tensor) -> Tensor:
    """Scramble int64 [*] one to one, with the finaliser of splitmix64 (Steele, Lea, Flood 2014)."""
    x = (x ^ ((x >> 30) & (2**34 - 1))) * FIRST
    x = (x ^ ((x >> 27) & (2**37 - 1))) * SECOND
    return x ^ ((x >> 31) & (2**33 - 1))


def sequence_hash(x: Tensor) -> Tensor:
    """Return a 64-bit hash, int64 [*], of the sequences int64 [*, k]. Order matters."""
    place = torch.arange(1, x.shape[-1] + 1, device=x.device) * GOLDEN
    return mix(x + place).sum(-1)


class Formations:
    """A map from joint observations to formations.

    ``matrix`` [b, F] holds the random projections; distances are rounded to ``decimals`` places before they are
    compared. ``features`` are the observation features that count (None: all). ``partners``: max or min puts only the
    farthest or the nearest teammate in both places of a block. ``mask_dead`` leaves out dead agents, as partners too,
    and gives them zeros. ``canonical``: teams that differ by a permutation of agents have the same id.
    """

    def __init__(
        self,
        matrix: Tensor,
        *,
        decimals: int,
        features: Sequence[int] | None,
        partners: Partners,
        mask_dead: bool,
        canonical: bool,
    ) -> None:
        require_within("fox", 0, 6, decimals=decimals)
        self.matrix, self.decimals = matrix.double(), decimals
        self.features = None if features is None else list(features)
        self.partners, self.mask_dead, self.canonical = partners, mask_dead, canonical

    def __call__(self, obs: Tensor, alive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map obs [R, n, O] and alive bool [R, n] to blocks f32 [R, n, 4] (d_max, d_min, key_max, key_min), the
        farthest and the nearest teammate long [R, n, 2], and ids int64 [R]."""
        parts = [self._rows(o, a) for o, a in zip(obs.split(CHUNK), alive.split(CHUNK), strict=True)]
        blocks, partners, ids = (torch.cat(part) for part in zip(*parts, strict=True))
        return blocks, partners, ids

    def _rows(self, obs: Tensor, alive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        o = (obs if self.features is None else obs[..., self.features]).double()
        # integer multiples of the last decimal make ties and ids exact
        steps = (torch.cdist(o, o, compute_mode="donot_use_mm_for_euclid_dist") * 10**self.decimals).round().long()
        partners = self._partners(steps, alive)  # [R, n, 2]
        rows = torch.arange(len(o), device=o.device)[:, None, None]
        apart = o[:, :, None] - o[rows, partners]  # [R, n, 2, F]; subtract, then project: exact where views are equal
        bits = apart @ self.matrix.T.to(o.device) > 0
        powers = 2 ** torch.arange(len(self.matrix) - 1, -1, -1, device=o.device)
        keys = (bits * powers).sum(-1)  # [R, n, 2]
        distances = steps.gather(-1, partners)
        whole = torch.cat([distances, keys], -1)  # int64 [R, n, 4]
        blocks = torch.cat([distances / 10.0**self.decimals, keys], -1).float()
        each = sequence_hash(whole)  # [R, n]
        return blocks, partners, mix(each).sum(-1) if self.canonical else sequence_hash(each)

    def _partners(self, steps: Tensor, alive: Tensor) -> Tensor:
        """Return the farthest and the nearest teammate, long [R, n, 2], by distances ``steps`` int64 [R, n, n]; ties go
        to the lowest index. An agent may be its own farthest (if all are in one place), and is its own nearest if it
        has no teammate left."""
        own = torch.arange(steps.shape[-1], device=steps.device)
        itself = own[:, None] == own
        far, near = steps, steps.masked_fill(itself, NOBODY)
        if self.mask_dead:
            far = far.masked_fill(~alive[:, None] & ~itself, -1)
            near = near.masked_fill(~alive[:, None], NOBODY)
        farthest, nearest = far.argmax(-1), near.argmin(-1)
        if self.mask_dead:
            farthest = torch.where(alive, farthest, own)
            nearest = torch.where(alive & (near.amin(-1) < NOBODY), nearest, own)
        first = nearest if self.partners == "min" else farthest
        return torch.stack([first, farthest if self.partners == "max" else nearest], -1)


class CountTable:
    """Visit counts by id in sorted tensors: a batch of any size is counted or looked up in a few calls.

    Beyond ``max_keys`` ids, those that were first seen longest ago are dropped.
    """

    def __init__(self, max_keys: int, device: torch.device | str) -> None:
        require_at_least("fox", 1, max_keys=max_keys)
        self.max_keys, self.first_seen = max_keys, 0
        self.ids, self.visits, self.born = (torch.zeros(0, dtype=torch.long, device=device) for _ in range(3))

    def __len__(self) -> int:
        return len(self.ids)

    def _find(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the places long [*] of ids int64 [*], or those where absent ids belong, and which ids are present."""
        place = torch.searchsorted(self.ids, ids.contiguous())
        if not len(self):
            return place, torch.zeros_like(ids, dtype=torch.bool)
        return place, self.ids[place.clamp(max=len(self) - 1)] == ids

    def count(self, ids: Tensor) -> Tensor:
        """Return the visits long [*] of ids int64 [*]; 0 for ids never seen."""
        place, known = self._find(ids)
        return torch.where(known, self.visits[place * known], 0) if len(self) else torch.zeros_like(ids)

    def add(self, ids: Tensor) -> Tensor:
        """Count ids int64 [R] in their order and return each one's count at that moment, itself included, long [R]."""
        order = ids.argsort(stable=True)
        new, group, times = torch.unique(ids, return_inverse=True, return_counts=True)
        start = times.cumsum(0) - times  # of each group in the sorted order
        rank = torch.empty_like(ids)
        rank[order] = torch.arange(1, len(ids) + 1, device=ids.device) - start[group[order]]
        after = self.count(ids) + rank
        place, known = self._find(new)
        self.visits[place[known]] += times[known]
        self._insert(new[~known], times[~known], place[~known])
        return after

    def _insert(self, ids: Tensor, visits: Tensor, place: Tensor) -> None:
        """Insert sorted new ids at the places of the old ids that they precede."""
        count = len(ids)
        born = self.first_seen + torch.arange(count, device=ids.device)
        self.first_seen += count
        slot = place + torch.arange(count, device=ids.device)
        old = torch.ones(len(self) + count, dtype=torch.bool, device=ids.device)
        old[slot] = False
        self.ids, self.visits, self.born = (
            torch.empty(len(old), dtype=torch.long, device=ids.device).masked_scatter(old, a).index_put((slot,), b)
            for a, b in ((self.ids, ids), (self.visits, visits), (self.born, born))
        )
        if len(self) > self.max_keys:
            kept = self.born >= self.first_seen - self.max_keys
            self.ids, self.visits, self.born = self.ids[kept], self.visits[kept], self.born[kept]

    def state_dict(self) -> dict[str, Any]:
        return {"ids": self.ids, "visits": self.visits, "born": self.born, "first_seen": self.first_seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = self.ids.device
        self.ids, self.visits, self.born = (state[name].clone().to(device) for name in ("ids", "visits", "born"))
        self.first_seen = int(state["first_seen"])
