"""Data parallelism by an explicit sum of gradients: every rank owns its lanes and its replay (launch with torchrun).

Loss terms divide by ``global_count`` of their elements, so that the sum over ranks is the gradient of the mean over
all ranks' data, and all ranks end up with the same weights. Without torchrun, nothing is communicated.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn


def world() -> tuple[int, int]:
    """Return (rank, number of ranks); (0, 1) without torchrun."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def start(device: torch.device) -> None:
    """Join the process group that torchrun describes; do nothing without torchrun."""
    if world()[1] > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def stop() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def summed(values: Tensor) -> Tensor:
    """Return the sum of a tensor over ranks."""
    return _combined(values, dist.ReduceOp.SUM)


def greatest(values: Tensor) -> Tensor:
    """Return the element-wise maximum of a tensor over ranks."""
    return _combined(values, dist.ReduceOp.MAX)


def _combined(values: Tensor, how: dist.ReduceOp.RedOpType) -> Tensor:
    if not dist.is_initialized():
        return values
    moved = values.clone().to(_group_device())
    dist.all_reduce(moved, how)
    return moved.to(values.device)


def global_count(count: Tensor) -> Tensor:
    """Return the sum of a 0-d count over ranks, at least 1."""
    return summed(count).clamp(min=1)


def all_reduce_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Sum the gradients of all ranks in one message."""
    if not dist.is_initialized():
        return
    grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    for p, part in zip(parameters, flat.split([g.numel() for g in grads]), strict=True):
        p.grad = part.view_as(p)


def _group_device() -> str:
    return "cuda" if dist.get_backend() == "nccl" else "cpu"


def broadcast(value: bool) -> bool:
    """Return rank 0's decision on every rank, so that all stop together."""
    if not dist.is_initialized():
        return value
    tensor = torch.tensor([int(value)], device=_group_device())
    dist.broadcast(tensor, 0)
    return bool(tensor.item())


def total(value: int) -> int:
    """Return the sum of an integer over ranks."""
    return _reduced(value, dist.ReduceOp.SUM)


def fewest(value: int) -> int:
    """Return the minimum of an integer over ranks."""
    return _reduced(value, dist.ReduceOp.MIN)


def _reduced(value: int, how: dist.ReduceOp.RedOpType) -> int:
    if not dist.is_initialized():
        return value
    tensor = torch.tensor([value], device=_group_device())
    dist.all_reduce(tensor, how)
    return int(tensor.item())
