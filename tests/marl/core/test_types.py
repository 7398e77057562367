"""The data that passes: what its tensors can hold."""

from __future__ import annotations

import torch

from marl.core.types import core_fields
from marl.run.collect import empty_batch
from tests.support.helpers import make_spec


def test_lengths_count_beyond_sixteen_bits() -> None:
    """An episode of 40,000 steps once had the length -25,536, and training ran for ever."""
    batch = empty_batch(core_fields(make_spec()), 1, 2, torch.device("cpu"))
    batch["length"].fill_(32_767)
    batch["length"].add_(torch.tensor([True]))
    assert batch["length"].tolist() == [32_768]
