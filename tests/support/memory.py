"""What a computation allocates, counted tensor by tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def _storages(tree: Any) -> dict[int, int]:
    """Return the bytes of every storage behind the tensors of ``tree``, by its address."""
    held = [t.untyped_storage() for t in tree_leaves(tree) if isinstance(t, torch.Tensor)]
    return {storage.data_ptr(): storage.nbytes() for storage in held}


class Allocated(TorchDispatchMode):
    """Inside this context ``bytes`` adds up the storage of every result of an operation that is no view or change of
    its arguments: an upper bound of what is held at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = _storages((args, kwargs))
        out = func(*args, **(kwargs or {}))
        self.bytes += sum(size for address, size in _storages(out).items() if address not in given)
        return out
