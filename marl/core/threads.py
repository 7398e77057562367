"""Compiled loops that run in parallel where there are several threads, and as plain loops where there is one."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import numba

from marl.core.caching import njit


class Loop:
    """A loop over ``numba.prange`` in a plain and a parallel version, with ``options`` of ``numba.njit``. A call runs
    the version for the current number of threads. Each is compiled on its first call; the parallel one takes twice as
    long to compile."""

    def __init__(self, loop: Any, **options: Any) -> None:
        twin: Any = FunctionType(loop.__code__, loop.__globals__, f"{loop.__name__}_in_threads")
        twin.__qualname__ = twin.__name__  # numba keeps compiled code under this name
        self.plain, self.threaded = njit(**options)(loop), njit(parallel=True, **options)(twin)

    def __call__(self, *arguments: Any) -> None:
        (self.plain if numba.get_num_threads() == 1 else self.threaded)(*arguments)


def by_threads(**options: Any) -> Callable[[Any], Loop]:
    """Return a decorator that makes a ``Loop``."""
    return lambda loop: Loop(loop, **options)
