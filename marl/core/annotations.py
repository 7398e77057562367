"""Check whether values from YAML fit the annotations of the parameters that receive them. Numbers and text, choices
(``Literal``), lists and mappings of these, and factories (nodes with a ``_target_``) are checked; annotations that only
type checkers understand accept everything."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

import numpy as np

from marl.core.types import ConfigError

P = ParamSpec("P")
R = TypeVar("R")
LISTS = (list, tuple, Sequence)
PLAIN = (bool, int, float, str, type(None))
UNREADABLE = (NameError, AttributeError, TypeError, SyntaxError)  # names for type checkers only, and non-types


def hints_of(function: Callable[..., Any], names: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the annotations of a function's parameters that can be evaluated, without those of ``*args`` and
    ``**rest``, which belong to no single value. ``names`` is the namespace to evaluate them in (None: the module's)."""
    known = getattr(function, "__globals__", {}) if names is None else names
    found: dict[str, Any] = {}
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # some builtins have none
        return found
    for name, parameter in parameters.items():
        if (
            parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            or parameter.annotation is parameter.empty
        ):
            continue
        try:
            hint = parameter.annotation
            found[name] = eval(hint, dict(known)) if isinstance(hint, str) else hint
        except UNREADABLE:
            continue
    return found


def require_type(section: str, hints: Mapping[str, Any], **values: Any) -> None:
    """Refuse values that do not fit the annotations ``hints``; raise ConfigError naming the first. No option may be nan
    or infinite."""
    _require_type(section, hints, values, "null")


def _require_type(section: str, hints: Mapping[str, Any], values: Mapping[str, Any], none: str) -> None:
    """Do what ``require_type`` does; ``none`` is the word for None in messages."""
    for name, value in values.items():
        key = f"{section}.{name}" if section else name
        hint = hints.get(name, Any)
        if (choices := _choices(hint)) is not None and value not in choices and isinstance(value, PLAIN):
            null = f", or {none}" if fits(None, hint) else ""
            words = ", ".join(str(choice) for choice in choices if choice is not None)
            raise ConfigError(f"{key}={value} is not known; choose one of {words}{null}")
        if not fits(value, hint):
            whole = isinstance(value, float) and value.is_integer() and fits(int(value), hint)
            meant = f"; write {int(value)}" if whole else ""
            raise ConfigError(f"{key}={value} has the wrong type; it must be {describe(hint, none)}{meant}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{key}={value} must be a finite number")


def typed(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function refuse arguments that do not fit its annotations, with a ConfigError naming the first. NumPy
    numbers count as Python numbers."""
    takes, hints = inspect.signature(function), hints_of(function)

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        given = takes.bind(*args, **kwargs)
        for name, value in given.arguments.items():
            given.arguments[name] = value.item() if isinstance(value, np.generic) else value
        _require_type("", hints, {name: value for name, value in given.arguments.items() if name in hints}, "None")
        return function(*given.args, **given.kwargs)

    return checked


def fits(value: Any, hint: Any) -> bool:
    """Return whether a value fits an annotation."""
    if hint is Any:
        return True
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(fits(value, arm) for arm in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (bool, str, type(None)):
        return isinstance(value, hint)
    if hint is None:
        return value is None
    if hint is Path:
        return isinstance(value, str | Path)
    if origin is Callable or hint is Callable:
        return callable(value) or _makes(value)
    if (origin or hint) in LISTS:
        return _fits_list(value, hint)
    if (origin or hint) in (dict, Mapping):
        inner = get_args(hint)[1] if len(get_args(hint)) == 2 else Any
        return isinstance(value, Mapping) and all(fits(value[key], inner) for key in value)
    if isinstance(hint, type) and hint is not object:
        return not isinstance(value, PLAIN) and not isinstance(value, list | tuple)
    return True


def describe(hint: Any, none: str = "null") -> str:
    """Return what an annotation allows, in words; ``none`` is the word for None."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " | ".join(describe(arm, none) for arm in inner)
    if origin is Literal:
        return " | ".join(map(str, inner))
    if hint in (None, type(None)):
        return none
    if origin is Callable or hint is Callable:
        return "a configuration with a _target_"
    if (origin or hint) in (dict, Mapping):
        return f"names, each with {describe(inner[1], none)}" if len(inner) == 2 else "names with values"
    if (origin or hint) in LISTS:
        return (
            f"a list of {' and '.join(describe(arm, none) for arm in inner if arm is not Ellipsis)}"
            if inner
            else "a list"
        )
    return hint.__name__ if isinstance(hint, type) else str(hint)


def _makes(value: Any) -> bool:
    """Return whether a value is a node with a ``_target_``."""
    return isinstance(value, Mapping) and "_target_" in value


def _choices(hint: Any) -> tuple[Any, ...] | None:
    """Return the choices of an annotation that allows nothing else (except None); otherwise None."""
    arms = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if not all(arm in (None, type(None)) or get_origin(arm) is Literal for arm in arms):
        return None
    words = tuple(word for arm in arms if get_origin(arm) is Literal for word in get_args(arm))
    return (*words, None) if len(arms) > 1 and words else words or None


def _fits_list(value: Any, hint: Any) -> bool:
    if isinstance(value, str | Mapping) or not isinstance(value, Sequence):
        return False
    inner = get_args(hint)
    if get_origin(hint) is tuple and inner and Ellipsis not in inner:
        return len(value) == len(inner) and all(fits(item, arm) for item, arm in zip(value, inner, strict=True))
    return all(fits(item, inner[0]) for item in value) if inner else True
