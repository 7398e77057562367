"""Optimizers compute what torch's compute, and training does not load torch's compiler."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from marl.core import optimizers
from tests.support.helpers import TINY, differences


def trained(optimizer: Any, net: nn.Module) -> dict[str, Any]:
    """Make five steps, with the state saved and loaded between; return weights and state."""
    gen = torch.Generator().manual_seed(0)
    for _ in range(5):
        optimizer.zero_grad(set_to_none=True)
        net(torch.randn(4, 5, generator=gen)).square().sum().backward()
        optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
    return {"net": net.state_dict(), "optimizer": optimizer.state_dict()}


@pytest.mark.parametrize(
    ("name", "options"),
    [("Adam", {"fused": True, "eps": 1e-5}), ("Adam", {}), ("RMSprop", {"alpha": 0.99, "eps": 1e-5})],
)
def test_steps_are_those_of_torch_bit_for_bit(name: str, options: dict[str, Any]) -> None:
    found = []
    for library in (torch.optim, optimizers):
        torch.manual_seed(0)
        net = nn.Linear(5, 3)
        found.append(trained(getattr(library, name)(net.parameters(), lr=0.01, **options), net))
    assert differences(*found) == []


def test_a_step_keeps_no_graph_and_a_second_group_can_be_added() -> None:
    net, more = nn.Linear(5, 3), nn.Linear(5, 3)
    optimizer = optimizers.Adam(net.parameters(), lr=0.01)
    optimizer.add_param_group({"params": list(more.parameters())})
    (net(torch.ones(2, 5)) + more(torch.ones(2, 5))).sum().backward()
    before = more.weight.detach().clone()
    optimizer.step()
    assert not torch.equal(more.weight, before) and more.weight.is_leaf and more.weight.grad_fn is None


def test_training_loads_neither_the_compiler_nor_a_game_that_is_not_played() -> None:
    code = f"""
import sys, tempfile, marl
with tempfile.TemporaryDirectory() as folder:
    marl.train(*{list(TINY)!r}, dir=folder + "/run")
sys.exit(any(name in sys.modules for name in ("torch._dynamo", "envs.skirmish.battle")))
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=600).returncode == 0
