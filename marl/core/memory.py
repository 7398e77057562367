"""Refuse what does not fit into free memory, with the numbers, and the options that made it so large."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import torch

from marl.core.config import flatten, plain
from marl.core.types import ConfigError

TOO_MUCH = re.compile(
    r"allocate|out of memory|calculation overflowed|too big|too large|dimension exceeded|dimensions are not allowed",
    re.I,
)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
ASKED = re.compile(r"allocate (\d[\d.]* \w+)")


def available_bytes(device: torch.device) -> int:
    """Return the free memory of ``device``, in bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


@contextmanager
def enough_memory(what: str, node: Any, section: str) -> Iterator[None]:
    """Turn the errors that torch, NumPy and Python raise for something too large into a ConfigError that says
    ``what`` it was, and names the largest number in its configuration ``node``, which is called ``section``."""
    try:
        yield
    except ConfigError:
        raise
    except (MemoryError, OverflowError, RuntimeError, ValueError) as error:
        if not isinstance(error, MemoryError | OverflowError) and not TOO_MUCH.search(str(error)):
            raise
        asked = ASKED.search(str(error))
        size = _size(asked[1]) if asked else "more than can be counted"
        free = available_bytes(torch.device("cpu")) / 2**30
        numbers = {k: v for k, v in flatten(plain(node), section).items() if isinstance(v, int) and v > 1}
        largest = max(numbers, key=lambda key: numbers[key], default=None)
        hint = f"; the largest number in it is {largest}={numbers[largest]}" if largest is not None else ""
        raise ConfigError(f"{what} does not fit into memory: {size} at once, {free:.1f} GiB are free{hint}") from error


def require_room(key: str, number: int, bytes_each: int, what: str, device: torch.device) -> None:
    """Refuse ``key=number`` if ``device`` has no room for ``number`` times ``bytes_each``; raise ConfigError, in which
    they are called ``what``."""
    need, free = number * bytes_each, available_bytes(device)
    if need > free:
        raise ConfigError(
            f"{key}={number} {what} need {need / 2**30:.1f} GiB but {device} has {free / 2**30:.1f} GiB free: at most "
            f"{free // bytes_each} fit"
        )


def _size(asked: str) -> str:
    number, unit = asked.split()
    return f"{int(number) / 2**30:.1f} GiB" if unit == "bytes" else asked


def keep_freed_memory() -> None:
    """Let glibc keep the memory of freed tensors of up to 32 MiB for the next ones. By default it returns this memory
    to the kernel after every update, which hands it out again page by page, zeroed: a tenth of an update's time. Do
    nothing with other C libraries."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 32 * 2**20)
        mallopt(M_TRIM_THRESHOLD, 2**30)
