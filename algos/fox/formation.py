"""Formations: what FoX calls the same situation, and how often each was visited.

Jo, Lee, Yeom, Han 2024 (AAAI), section and equation numbers unknown to us; docs/fox.md says what is reconstructed. A
formation is one block of four numbers for every agent: the distances, in observation space, to its farthest and to its
nearest teammate, and a hash of each difference by the signs of random projections (SimHash). Axis letter: ``R`` rows,
any joint observations in a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from marl.core.types import ConfigError, require_positive

CHUNK = 1024  # rows at once: what they need is [rows, n, 2, features], wide for 27 agents
GOLDEN, FIRST, SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15  # splitmix64, as signed numbers
NOBODY = 2**62  # farther than any teammate
PARTNERS = ("minmax", "max", "min")


def mix(x: Tensor) -> Tensor:
    """Finaliser of splitmix64 (Steele, Lea, Flood 2014): scrambles int64 [*], one to one."""
    x = (x ^ ((x >> 30) & (2**34 - 1))) * FIRST
    x = (x ^ ((x >> 27) & (2**37 - 1))) * SECOND
    return x ^ ((x >> 31) & (2**33 - 1))


def sequence_hash(x: Tensor) -> Tensor:
    """64-bit hash, int64 [*], of the sequences int64 [*, k]: order matters."""
    place = torch.arange(1, x.shape[-1] + 1, device=x.device) * GOLDEN
    return mix(x + place).sum(-1)


class Formations:
    """From joint observations to formations.

    ``matrix`` [b, F] holds the random projections; distances are rounded to ``decimals`` places before anything is
    compared. ``features`` are the observation's features that count (None: all). ``partners``: max or min leaves only
    the farthest or the nearest teammate, in both places of a block. ``mask_dead`` leaves dead agents out, as partners
    too, and gives them zeros. ``canonical``: teams that differ by a permutation of agents have the same id.
    """

    def __init__(
        self,
        matrix: Tensor,
        *,
        decimals: int,
        features: Sequence[int] | None,
        partners: Literal["minmax", "max", "min"],
        mask_dead: bool,
        canonical: bool,
    ) -> None:
        if not 0 <= decimals <= 6:
            raise ConfigError(f"fox.decimals={decimals} must be within 0..6")
        self.matrix, self.decimals = matrix.double(), decimals
        self.features = None if features is None else list(features)
        self.partners, self.mask_dead, self.canonical = partners, mask_dead, canonical

    def __call__(self, obs: Tensor, alive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """obs [R, n, O], alive bool [R, n] -> blocks f32 [R, n, 4] (d_max, d_min, key_max, key_min), farthest and
        nearest teammate long [R, n, 2], id int64 [R]."""
        parts = [self._rows(o, a) for o, a in zip(obs.split(CHUNK), alive.split(CHUNK), strict=True)]
        blocks, partners, ids = (torch.cat(part) for part in zip(*parts, strict=True))
        return blocks, partners, ids

    def _rows(self, obs: Tensor, alive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        o = (obs if self.features is None else obs[..., self.features]).double()
        # whole multiples of the last decimal: ties are exact, and so are ids
        steps = (torch.cdist(o, o, compute_mode="donot_use_mm_for_euclid_dist") * 10**self.decimals).round().long()
        partners = self._partners(steps, alive)  # [R, n, 2]
        rows = torch.arange(len(o), device=o.device)[:, None, None]
        apart = o[:, :, None] - o[rows, partners]  # [R, n, 2, F]: their difference first, exact where views are equal
        bits = apart @ self.matrix.T.to(o.device) > 0
        powers = 2 ** torch.arange(len(self.matrix) - 1, -1, -1, device=o.device)
        keys = (bits * powers).sum(-1)  # [R, n, 2]
        distances = steps.gather(-1, partners)
        whole = torch.cat([distances, keys], -1)  # int64 [R, n, 4]
        blocks = torch.cat([distances / 10.0**self.decimals, keys], -1).float()
        each = sequence_hash(whole)  # [R, n]
        return blocks, partners, mix(each).sum(-1) if self.canonical else sequence_hash(each)

    def _partners(self, steps: Tensor, alive: Tensor) -> Tensor:
        """Farthest and nearest teammate long [R, n, 2] by steps int64 [R, n, n]; the lowest index where they tie.
        Oneself may be the farthest (all are in one place), and is the nearest of whoever has no teammate left."""
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
    """Visits by id, as sorted tensors: counting a batch and looking one up are a few calls, whatever its size.

    Of more than ``max_keys`` ids the ones that were first seen longest ago leave.
    """

    def __init__(self, max_keys: int, device: torch.device | str) -> None:
        require_positive("fox", max_keys=max_keys)
        self.max_keys, self.first_seen = max_keys, 0
        self.ids, self.visits, self.born = (torch.zeros(0, dtype=torch.long, device=device) for _ in range(3))

    def __len__(self) -> int:
        return len(self.ids)

    def _find(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Places long [*] of ids int64 [*], or where absent ones would have to go, and whether they are there."""
        place = torch.searchsorted(self.ids, ids.contiguous())
        if not len(self):
            return place, torch.zeros_like(ids, dtype=torch.bool)
        return place, self.ids[place.clamp(max=len(self) - 1)] == ids

    def count(self, ids: Tensor) -> Tensor:
        """Visits long [*] of ids int64 [*]; 0 for those never seen."""
        place, known = self._find(ids)
        return torch.where(known, self.visits[place * known], 0) if len(self) else torch.zeros_like(ids)

    def add(self, ids: Tensor) -> Tensor:
        """Count ids int64 [R], in their order; returns what each one's count was then, itself included, long [R]."""
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
        """Sorted new ids at the places of the old ones that they precede."""
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
