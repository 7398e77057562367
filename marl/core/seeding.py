"""Named random streams: each consumer owns a generator, so that evaluating or adding an attack moves nothing else."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Generator

from marl.core.checks import require_at_least

STREAMS = ("explore", "replay", "attack", "eval", "eval_attack")


def derive(seed: int, name: str) -> int:
    """Derive a 63-bit seed for ``name``; it does not depend on which other names exist."""
    words = np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(2, np.uint32)
    return (int(words[0]) << 31) ^ int(words[1])


class Streams:
    """One ``torch.Generator`` per name, on ``device``; only ``replay``, which indexes CPU memory, is on the CPU.

    Under torchrun each ``rank`` has its own streams, except for the initial weights, which all ranks share.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu", rank: int = 0) -> None:
        require_at_least("", 0, seed=seed)
        self.seed, self.rank = seed, rank
        self._gens: dict[str, Generator] = {}
        for name in STREAMS:
            gen = Generator(device="cpu" if name == "replay" else device)
            gen.manual_seed(derive(seed, self._name(name)))
            self._gens[name] = gen

    def _name(self, name: str) -> str:
        return f"{name}/rank{self.rank}" if self.rank else name

    def __getitem__(self, name: str) -> Generator:
        return self._gens[name]

    def env_seed(self, name: str) -> int:
        """Return the seed for the environment of stream ``name`` ("env" or "eval"); it fits in 31 bits, as Gymnasium
        requires."""
        return derive(self.seed, self._name(f"{name}/lanes")) & 0x7FFFFFFF

    @contextmanager
    def initializing(self) -> Iterator[None]:
        """Draw initial weights from their own seed inside this context; the global generator is restored after it."""
        with torch.random.fork_rng():
            torch.manual_seed(derive(self.seed, "init/networks"))
            yield

    def state_dict(self) -> dict[str, Any]:
        return {name: gen.get_state() for name, gen in self._gens.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, gen in self._gens.items():
            gen.set_state(state[name].cpu())
