"""What a state may hold: what ``torch.load`` gives back with ``weights_only``, which runs no code of the file.

Everything else is told by its path in the state. ``require_readable`` refuses it before a training begins; what has
become of a state later is saved as the nearest thing that can be read (``as_readable``).
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
PLAIN = (bool, int, float, str, type(None), torch.Tensor, torch.nn.Parameter)  # exactly: no subclasses


def says_unreadable(path: str, value: Any) -> str:
    """Return the line that says what cannot be given back, and what can."""
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"the state of {path} holds a value of the type {name}; {ALLOWED}"


def unreadable(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield whatever in ``tree`` a saved file would not give back, each with its path, which begins with ``path``."""
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
    """Refuse a state that a checkpoint would not give back; raise ConfigError naming the first value."""
    for path, value in unreadable(dict(state), section):
        raise ConfigError(says_unreadable(path, value))


def as_readable(tree: Any) -> Any:
    """Return ``tree`` with numbers and arrays of NumPy, and containers of other types, as the nearest thing that a
    saved file gives back."""
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
    """Return whether a value that holds no others, or others of few kinds, can be saved and loaded."""
    if type(value) in PLAIN:
        return True
    file = io.BytesIO()
    try:
        torch.save(value, file)
        torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    except (pickle.PickleError, RuntimeError, TypeError, AttributeError):
        return False
    return True
