"""The number of threads that a user asks for is the one that torch computes with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numba
import pytest
import torch

from marl.run.build import use_threads
from tests.support.refusals import in_a_child

pytestmark = pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="needs two threads")


def torch_first(threads: int) -> None:
    """Limit torch before numba, whose pool begins with all cores."""
    torch.set_num_threads(threads)
    numba.set_num_threads(threads)


def limited(limit: Callable[[int], None]) -> None:
    """Print the threads of torch and numba after ``limit(1)`` in a process whose torch has computed, and whose numba
    has not started its threads."""
    torch.ones(2**20).sum()
    limit(1)
    print(torch.get_num_threads(), numba.get_num_threads())


def test_torch_keeps_to_its_threads_when_numba_starts_its_own(tmp_path: Path) -> None:
    assert in_a_child(limited, use_threads, cwd=tmp_path) == (0, "1 1\n", "")


def test_the_other_order_would_give_torch_all_cores(tmp_path: Path) -> None:
    """Test the test above."""
    if numba.threading_layer() != "omp":
        pytest.skip(f"numba has threads of {numba.threading_layer()}, which torch does not share")
    assert in_a_child(limited, torch_first, cwd=tmp_path)[1] == f"{numba.config.NUMBA_NUM_THREADS} 1\n"
