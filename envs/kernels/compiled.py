"""Compilation of rules, and removal of stale compiled code.

``rule`` marks a function that only kernels call. Without numba's reference counting a step takes half the time, threads
do not contend for the counters of shared tables, and a rule that allocates does not compile. Arrays become long
argument lists in compiled code, so inlining every rule saves another third.
"""

from __future__ import annotations

import functools
import hashlib
import re
import sys
from pathlib import Path
from typing import Any

from numba import types

from marl.core.caching import njit

Record = Any  # one record of a numpy array; its fields read as attributes in compiled code

OPTIONS: dict[str, Any] = {"_nrt": False, "error_model": "numpy"}
OUTSIDE = ("marl.core.rolling", "marl.learn.acting", "marl.learn.gru")  # called by kernels, but not part of a game
INSIDE: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # each wrapper would be one more copy
IMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+import\s+(\([^)]*\)|.*)|import\s+(.*))", re.MULTILINE)


def rule(function: Any) -> Any:
    """Compile ``function`` for kernels; it is inlined into its callers."""
    return _compile_once(function, {**OPTIONS, "forceinline": True})


def part(function: Any) -> Any:
    """Compile ``function`` as a rule that is not inlined: it compiles faster, for what is called once per step."""
    return _compile_once(function, OPTIONS)


def _compile_once(function: Any, options: dict[str, Any]) -> Any:
    """Compile one version of a rule for all signed integers and constants.

    Numba on its own recompiles a rule, and everything it calls, for int32, for int64 and for every constant, and each
    version twice more, for callers in Python and C. Here a caller in Python gets a separate compiled function, which is
    created on the first call.
    """
    compiled: Any = njit(**{**options, **INSIDE})(function)
    with_literals = compiled.get_call_template

    def get_call_template(args: tuple[Any, ...], kws: dict[str, Any]) -> Any:
        return with_literals(tuple(map(_widen, args)), {name: _widen(kind) for name, kind in kws.items()})

    def add_overload(result: Any) -> None:
        compiled.overloads[tuple(result.signature.args)] = result

    compiled.get_call_template = get_call_template
    compiled.add_overload = add_overload  # numba's own also exposes it to Python, where it cannot be called
    compiled._compile_for_args = njit(**options)(function)._compile_for_args
    return compiled


def _widen(kind: Any) -> Any:
    """Return the type for which a rule is compiled when it is passed an argument of type ``kind``."""
    kind = types.unliteral(kind) if isinstance(kind, types.IntegerLiteral | types.BooleanLiteral) else kind
    return types.int64 if kind in types.signed_domain else kind


def forget_stale(kernel: Any) -> None:
    """Delete the cached code of the module of ``kernel`` (a cached dispatcher) if one of its source files has changed.

    Numba only notices changes in a kernel's own file, not in the files of the rules that it calls. A stamp next to
    the cached code holds the digest of all files that it was compiled from.
    """
    name = kernel.py_func.__module__
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources_of(name))).hexdigest()
    folder, stem = Path(kernel.stats.cache_path), name.rsplit(".", 1)[-1]
    stamp = folder / f"{stem}.sources"
    if stamp.exists() and stamp.read_text() == digest:
        return
    try:
        for compiled in folder.glob(f"{stem}.*.nb[ic]"):
            compiled.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        stamp.write_text(digest)
    except OSError:  # if we may not write to the cache, neither may numba
        pass


@functools.cache
def _imports(path: Path) -> set[str]:
    """Return the names of the modules that the file at ``path`` imports, and a few that are not modules; done without
    a syntax tree, which would take about forty times as long."""
    found: set[str] = set()
    for module, names, plain in IMPORT.findall(path.read_text(encoding="utf8")):
        found.update(re.findall(r"[\w.]+", plain), [module], [f"{module}.{name}" for name in re.findall(r"\w+", names)])
    return found


def sources_of(name: str) -> list[Path]:
    """Return the files of the loaded module ``name`` and of its direct and indirect imports, as far as these are in its
    own top-level package or in ``OUTSIDE``.

    These are the files that compiled code in the module can depend on, and a few more. Imports must be absolute.
    """
    package, found, left = name.partition(".")[0], {}, [name]
    while left:
        module = left.pop()
        path = getattr(sys.modules.get(module), "__file__", None)
        if module in found or path is None:
            continue
        found[module] = Path(path)
        wanted = _imports(found[module])
        left += [target for target in wanted if target.partition(".")[0] == package or target in OUTSIDE]
    return [found[module] for module in sorted(found)]
