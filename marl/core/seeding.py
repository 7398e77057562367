"""Named random streams: each consumer owns a generator, so that evaluating or adding an attack affects no other stream.

The framework itself draws nothing from the global generators of Python, NumPy and torch. Plug-ins may, so these are
seeded too.
"""

from __future__ import annotations

import logging
import random
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from marl.core.checks import require_at_least

log = logging.getLogger(__name__)
STREAMS = ("explore", "replay", "attack", "eval", "eval_attack")


def derive(seed: int, name: str) -> int:
    """Derive a 63-bit seed for ``name``; it does not depend on which other names exist."""
    words = np.random.SeedSequence([seed, zlib.crc32(name.encode())]).generate_state(2, np.uint32)
    return (int(words[0]) << 31) ^ int(words[1])


def restore(gen: Generator, state: Tensor, name: str) -> bool:
    """Set ``gen`` to a saved state and return True. If the state was saved on another kind of device, it does not fit:
    then restart ``gen`` (``branch``) and return False."""
    try:
        gen.set_state(state.cpu())
    except RuntimeError:
        branch(gen, state, name)
        return False
    return True


def branch(gen: Generator, state: Tensor, name: str) -> None:
    """Restart ``gen`` from a seed derived from its own, ``name`` and how far the saved stream ``state`` had come."""
    gen.manual_seed(derive(gen.initial_seed() % 2**63, f"{name}/{zlib.crc32(state.cpu().numpy().tobytes())}"))


def seed_globals(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch, on all devices."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def globals_state() -> dict[str, Any]:
    """Return the states of Python's, NumPy's and torch's global generators, as tensors and builtins."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    words_np = torch.from_numpy(np.asarray(keys, dtype=np.int64))
    state: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": [str(name), words_np, int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_globals(state: dict[str, Any]) -> None:
    """Restore ``globals_state``. If it covers more GPUs than there are, their generators restart, with a warning."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    saved = [one.cpu() for one in state.get("cuda", [])]
    if not torch.cuda.is_available():
        return
    if len(saved) <= (here := torch.cuda.device_count()):
        torch.cuda.set_rng_state_all(saved)
    else:
        log.warning("the global generators of %d GPUs were saved, %d are here: they start over", len(saved), here)
        torch.cuda.manual_seed_all(derive(zlib.crc32(torch.cat(saved).numpy().tobytes()), "global/cuda"))


@contextmanager
def globals_kept(seed: int | None = None) -> Iterator[None]:
    """Restore the global generators on exit. Inside, they are seeded with ``seed`` (None: left as they are)."""
    before = globals_state()
    try:
        if seed is not None:
            seed_globals(seed)
        yield
    finally:
        restore_globals(before)


class Streams:
    """One ``torch.Generator`` per name, on ``device``; only ``replay``, which indexes CPU memory, is on the CPU.

    Under torchrun each ``rank`` has its own streams, except for the initial weights, which all ranks share. They are
    made first in every training and measurement, since this also seeds the global generators from the same seed.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu", rank: int = 0) -> None:
        require_at_least("", 0, seed=seed)
        self.seed, self.rank = seed, rank
        self._gens: dict[str, Generator] = {}
        for name in STREAMS:
            gen = Generator(device="cpu" if name == "replay" else device)
            gen.manual_seed(derive(seed, self._name(name)))
            self._gens[name] = gen
        seed_globals(self.global_seed("start"))

    def _name(self, name: str) -> str:
        return f"{name}/rank{self.rank}" if self.rank else name

    def __getitem__(self, name: str) -> Generator:
        return self._gens[name]

    def env_seed(self, name: str) -> int:
        """Return the seed for the environment of stream ``name`` ("env" or "eval"); it fits in 31 bits, as Gymnasium
        requires."""
        return derive(self.seed, self._name(f"{name}/lanes")) & 0x7FFFFFFF

    def global_seed(self, name: str) -> int:
        """Return the seed of the global generators for the part ``name`` of a run."""
        return derive(self.seed, self._name(f"global/{name}"))

    def initializing(self) -> AbstractContextManager[None]:
        """Draw initial weights from a seed of their own inside this context, which restores the global generators."""
        return globals_kept(derive(self.seed, "init/networks"))

    def state_dict(self) -> dict[str, Any]:
        return {name: gen.get_state() for name, gen in self._gens.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from saved streams, which are those of rank 0. Streams of other ranks, and streams saved on another
        kind of device, restart from seeds derived from the saved ones (``branch``)."""
        anew = []
        for name, gen in self._gens.items():
            if self.rank:
                branch(gen, state[name], name)
            elif not restore(gen, state[name], name):
                anew.append(name)
        if anew:
            log.warning("the random streams %s were saved on another kind of device: they start over", ", ".join(anew))
