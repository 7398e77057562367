"""Named random streams: each consumer owns a generator, so that evaluating or adding an attack moves nothing else."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Generator

STREAMS = ("init", "env", "explore", "replay", "attack", "eval")


def derive(seed: int, name: str) -> int:
    """63-bit seed for ``name``; independent of which other names exist."""
    words = np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(2, np.uint32)
    return (int(words[0]) << 31) ^ int(words[1])


class Streams:
    """One ``torch.Generator`` per name, all on ``device`` except ``replay`` and ``env``, which index CPU memory."""

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self.seed = seed
        self._gens: dict[str, Generator] = {}
        for name in STREAMS:
            on_cpu = name in ("init", "env", "replay")
            gen = Generator(device="cpu" if on_cpu else device)
            gen.manual_seed(derive(seed, name))
            self._gens[name] = gen

    def __getitem__(self, name: str) -> Generator:
        return self._gens[name]

    def env_seed(self, name: str) -> int:
        """Seed for the environment of stream ``name`` ("env" or "eval"); fits in 31 bits as Gymnasium asks."""
        return derive(self.seed, f"{name}/lanes") & 0x7FFFFFFF

    @contextmanager
    def initializing(self) -> Iterator[None]:
        """Inside, network initialisation draws from the ``init`` stream; the global generator is left as it was."""
        with torch.random.fork_rng():
            torch.manual_seed(derive(self.seed, "init/networks"))
            yield

    def state_dict(self) -> dict[str, Any]:
        return {name: gen.get_state() for name, gen in self._gens.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, gen in self._gens.items():
            gen.set_state(state[name].cpu())
