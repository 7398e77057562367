"""torch's Adam and RMSprop, without its compiler.

torch decorates the methods of its optimizers for the sake of ``torch.compile``, and the decorators import the compiler
(``torch._dynamo``) on first use: about a second and 70 MiB in every process that trains. Nothing here is
compiled, so these two have the methods without the decorators; they compute the same as torch's.
"""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

import torch

Kind = TypeVar("Kind", bound=type[torch.optim.Optimizer])
DECORATED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


def undecorated(kind: Kind) -> Kind:
    """Remove the decorators from an optimizer's methods, except ``no_grad`` around a step."""
    bare: Any = kind
    for name in DECORATED:
        setattr(bare, name, inspect.unwrap(getattr(kind, name)))
    bare.step = torch.no_grad()(inspect.unwrap(bare.step))
    return kind


@undecorated
class Adam(torch.optim.Adam):
    """torch's Adam, for steps that are not differentiated."""


@undecorated
class RMSprop(torch.optim.RMSprop):
    """torch's RMSprop, for steps that are not differentiated."""
