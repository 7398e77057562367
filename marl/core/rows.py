"""The slots of a batch that matter, packed into rows: nothing after an episode's end is computed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


class Rows:
    """N of the slots of M episodes [M, T+1] as rows [N, ...], one episode after another.

    On the CPU (``slots`` long [M] says how many slots of each episode matter) these are its steps and the slot to
    bootstrap from, the longest episode first, so that neighbours have similar lengths. On a GPU (``slots`` None) they
    are all slots in order, since selecting some would stall it. On both, sums over rows must be masked by
    ``rows["filled"]``. ``rows[name]`` [N, ...] are the rows of a field of ``data``, selected once.
    """

    def __init__(
        self, episodes: int, width: int, slots: Tensor | None, data: Mapping[str, Tensor] | None = None
    ) -> None:
        self.shape, self.data = (episodes, width), data or {}
        self.index: Tensor | None = None  # long [N], slot numbers
        self.episodes = torch.arange(episodes)  # long [M], on the CPU: which episodes, in the order of the rows
        self.start: Tensor | None = None  # long [M + 1]: the m-th longest episode is rows start[m] to start[m + 1]
        if slots is not None:
            lengths, order = slots.long().sort(descending=True, stable=True)
            self.episodes, self.start = order, F.pad(lengths.cumsum(0), (1, 0))
            first = (order * width - self.start[:-1]).repeat_interleave(lengths)
            self.index = torch.arange(len(first)) + first
        self._chosen: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._chosen:
            self._chosen[name] = self.of(self.data[name])
        return self._chosen[name]

    def of(self, x: Tensor) -> Tensor:
        """Select the rows of x [M, T+1, ...] -> [N, ...]; x [M, T, ...] is padded with a slot of zeros."""
        if x.shape[1] < self.shape[1]:
            x = F.pad(x, [*[0, 0] * (x.dim() - 2), 0, 1])
        x = x.flatten(0, 1)
        return x if self.index is None else x.index_select(0, self.index)

    def part(self, places: Tensor) -> tuple[Rows, Tensor]:
        """Return the rows of some episodes as ``Rows`` of their own, and the numbers that they have here, long [N'].
        ``places`` long [M'], ascending, on the CPU, selects episodes by their position in the order of the rows. The
        result's ``episodes`` are numbered as here."""
        if self.start is None:
            width = self.shape[1]
            found = Rows(len(places), width, None)
            index = (places[:, None] * width + torch.arange(width)).flatten()
        else:
            lengths = self.start.diff()[places]
            found = Rows(len(places), self.shape[1], lengths)
            assert found.start is not None
            first = (self.start[places] - found.start[:-1]).repeat_interleave(lengths)
            index = torch.arange(len(first)) + first
        found.episodes = self.episodes[places]
        return found, index

    def steps(self) -> tuple[Rows, Tensor]:
        """Return the rows without each episode's last slot as ``Rows`` of the same episodes, and the numbers that they
        have here, long [N']. CPU only."""
        assert self.start is not None and self.index is not None
        lengths = self.start.diff() - 1
        found = Rows(*self.shape, lengths, self.data)
        index = torch.arange(int(lengths.sum())) + torch.arange(len(lengths)).repeat_interleave(lengths)
        found.episodes, found.index = self.episodes, self.index[index]
        return found, index

    def spread(self, values: Tensor) -> Tensor:
        """Put rows [N, ...] back into their slots -> [M, T+1, ...], zeros elsewhere."""
        if self.index is None:
            return values.unflatten(0, self.shape)
        slots = values.new_zeros(self.shape[0] * self.shape[1], *values.shape[1:])
        return slots.index_copy(0, self.index, values).unflatten(0, self.shape)
