"""A ring buffer of whole episodes. Storage doubles as it fills; a final size that does not fit into memory is refused
before work starts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from marl.core.checks import require_at_least
from marl.core.memory import available_bytes
from marl.core.protocols import Replay, Sampler, Stateful
from marl.core.types import ConfigError, EpisodeBatch, Field, episode_bytes

FIRST_CHUNK = 128  # episodes allocated at first


class Uniform:
    """Uniform sampling of episodes without replacement."""

    def draw(self, replay: Replay, size: int, gen: Generator) -> Tensor:
        """Return ``size`` different slots of ``replay``, long [size]."""
        return torch.randperm(len(replay), generator=gen)[:size]


class EpisodeReplay:
    """A ring of the newest ``capacity`` episodes of at most ``episode_limit`` steps. ``sampler`` (None: uniform)
    chooses the episodes of a batch.

    Raises ConfigError, with the numbers, if the full ring would not fit into the memory that is currently free.
    """

    def __init__(
        self,
        capacity: int,
        episode_limit: int,
        fields: dict[str, Field],
        device: torch.device | str = "cpu",
        pin: bool = False,
        sampler: Sampler | None = None,
    ) -> None:
        require_at_least("replay", 1, capacity=capacity)
        self.capacity, self.episode_limit, self.fields = capacity, episode_limit, fields
        self.device, self.pin = torch.device(device), pin
        self.sampler: Sampler = sampler if sampler is not None else Uniform()
        self.bytes_per_episode = episode_bytes(fields, episode_limit)
        free = available_bytes(self.device)
        if self.full_bytes > free:
            raise ConfigError(
                f"replay.capacity={capacity} needs {self.full_bytes / 2**30:.1f} GiB "
                f"({self.bytes_per_episode / 2**20:.2f} MiB per episode) but {self.device} has "
                f"{free / 2**30:.1f} GiB free: at most {free // self.bytes_per_episode} episodes fit"
            )
        self._data: dict[str, Tensor] = {}
        self._lengths = torch.zeros(0, dtype=torch.int64)  # on the CPU: trimming a sample must not wait for a GPU
        self._size = self._next = 0

    @property
    def full_bytes(self) -> int:
        """Return the size of the full ring, in bytes."""
        return self.bytes_per_episode * self.capacity

    @property
    def longest(self) -> int:
        """Return the length of the longest stored episode, in steps."""
        return int(self._lengths[: self._size].max()) if self._size else 0

    def __len__(self) -> int:
        return self._size

    def _grow(self, episodes: int) -> None:
        """Make room for ``episodes``. Doubling amortises the copying; going field by field keeps the peak low. New
        memory is not initialised, since ``add`` writes every slot of an episode."""
        have = self._lengths.shape[0]
        if episodes <= have:
            return
        want = min(self.capacity, max(episodes, 2 * have, FIRST_CHUNK))
        for name, f in self.fields.items():
            lead = (want, self.episode_limit + 1) if f.per == "step" else (want,)
            bigger = torch.empty(*lead, *f.shape, dtype=f.dtype, device=self.device, pin_memory=self.pin)
            if have:
                bigger[:have] = self._data[name]
            self._data[name] = bigger
        self._lengths = torch.cat([self._lengths, torch.zeros(want - have, dtype=torch.int64)])

    def add(self, batch: EpisodeBatch) -> None:
        """Store a collected batch; once ``capacity`` is reached, it replaces the oldest episodes."""
        missing = self.fields.keys() - batch.data.keys()
        if missing:
            raise ValueError(f"episodes lack the declared fields {sorted(missing)}")
        count = len(batch)
        if count > self.capacity:
            batch = batch.lanes(torch.arange(count - self.capacity, count))
            count = self.capacity
        self._grow(min(self.capacity, self._next + count))
        slots = (self._next + torch.arange(count)) % self.capacity
        for name, f in self.fields.items():
            values = batch[name].to(self.device, f.dtype)
            where = slots.to(self.device)
            if f.per == "step":
                steps = values.shape[1]
                self._data[name][where, :steps] = values
                self._data[name][where, steps:] = 0
            else:
                self._data[name][where] = values
        self._lengths[slots] = batch.length.cpu().long()
        self._next = (self._next + count) % self.capacity
        self._size = min(self.capacity, self._size + count)

    def clear(self) -> None:
        """Forget all episodes; the memory stays allocated."""
        self._size = self._next = 0

    def ages(self) -> Tensor:
        """Return how many episodes were added after each stored one, long [len(self)]; the newest has 0."""
        return (self._next - 1 - torch.arange(self._size)) % self.capacity

    def lengths(self) -> Tensor:
        """Return the steps of each stored episode, long [len(self)]."""
        return self._lengths[: self._size]

    def sample(self, size: int, gen: Generator, device: torch.device | str) -> EpisodeBatch:
        """Return the ``size`` episodes that the sampler draws with ``gen`` (on the CPU), trimmed to the longest.
        The batch's ``index`` holds their slots."""
        if size > self._size:
            raise ValueError(f"cannot sample {size} episodes from {self._size}")
        index = self.sampler.draw(self, size, gen)
        horizon = int(self._lengths[index].max())
        where = index.to(self.device)
        data = {
            name: (self._data[name][:, : horizon + 1] if f.per == "step" else self._data[name])[where]
            for name, f in self.fields.items()
        }
        return EpisodeBatch(data, self.fields, index).to(device)

    def state_dict(self) -> dict[str, Any]:
        """Return the filled part only, in storage order."""
        horizon = self.longest
        data = {
            name: (self._data[name][: self._size, : horizon + 1] if f.per == "step" else self._data[name][: self._size])
            for name, f in self.fields.items()
            if self._size
        }
        return {
            "data": {name: value.cpu().clone() for name, value in data.items()},
            "lengths": self._lengths[: self._size].clone(),
            "size": self._size,
            "next": self._next,
            "capacity": self.capacity,
        } | ({"sampler": self.sampler.state_dict()} if isinstance(self.sampler, Stateful) else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        size = int(state["size"])
        if state["capacity"] != self.capacity:
            raise ConfigError(f"the saved replay has capacity {state['capacity']}; replay.capacity is {self.capacity}")
        self._grow(size)
        for name, value in state["data"].items():
            if self.fields[name].per == "step":
                self._data[name][:size, : value.shape[1]] = value.to(self.device)
                self._data[name][:size, value.shape[1] :] = 0
            else:
                self._data[name][:size] = value.to(self.device)
        self._lengths[:size] = state["lengths"]
        self._size, self._next = size, int(state["next"])
        if isinstance(self.sampler, Stateful) and "sampler" in state:
            self.sampler.load_state_dict(state["sampler"])
