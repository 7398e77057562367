"""What a state may hold: what ``torch.load`` reads with ``weights_only``, which runs no code from the file.

Errors name anything else by its path in the state. ``require_readable`` refuses it before training starts; values that
appear in a state later are saved as their closest readable equivalents (``as_readable``).
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from marl.core.types import ConfigError

ALLOWED = "a state holds tensors, numbers, text, None, lists, tuples and dicts"
PLAIN = (bool, int, float, str, type(None), torch.Tensor, torch.nn.Parameter)  # these types exactly, no subclasses


def says_unreadable(path: str, value: Any) -> str:
    """Return the error message that names a value that cannot be restored, and says what can."""
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"the state of {path} holds a value of the type {name}; {ALLOWED}"


def unreadable(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield (path, value) for everything in ``tree`` that a saved file could not restore; paths begin with ``path``."""
    if type(tree) in (dict, OrderedDict):
        for key, value in tree.items():
            if not _returns(key):
                yield path, key
            yield from unreadable(value, f"{path}.{key}".lstrip("."))
    elif type(tree) in (list, tuple):
        for place, value in enumerate(tree):
            yield from unreadable(value, f"{path}[{place}]")
    elif not _returns(tree):
        yield path, tree


def require_readable(state: Mapping[str, Any], section: str = "") -> None:
    """Refuse a state that a checkpoint could not restore; raise ConfigError naming the first such value."""
    for path, value in unreadable(dict(state), section):
        raise ConfigError(says_unreadable(path, value))


def as_readable(tree: Any) -> Any:
    """Return ``tree`` with NumPy numbers and arrays, and containers of other types, replaced by the closest equivalents
    that a saved file can restore."""
    if isinstance(tree, np.generic):
        return tree.item()
    if isinstance(tree, np.ndarray):
        return torch.from_numpy(tree.copy()) if tree.dtype.kind in "biufc" else as_readable(tree.tolist())
    if isinstance(tree, Mapping):
        return {as_readable(key): as_readable(value) for key, value in tree.items()}
    if isinstance(tree, tuple):
        return tuple(as_readable(value) for value in tree)
    return [as_readable(value) for value in tree] if isinstance(tree, list | deque | set | frozenset) else tree


def _returns(value: Any) -> bool:
    """Return whether a value that is not a dict, list or tuple can be saved and loaded again; try it if need be."""
    if type(value) in PLAIN:
        return True
    file = io.BytesIO()
    try:
        torch.save(value, file)
        torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    except (pickle.PickleError, RuntimeError, TypeError, AttributeError):
        return False
    return True
