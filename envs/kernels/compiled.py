"""How the rules are compiled, and kept compiled.

``rule`` marks a function that only kernels call. Without numba's reference counting a step takes half the time, threads
do not contend for the counters of shared tables, and a rule that allocates does not compile. Arrays are long argument
lists in compiled code, so inlining every rule takes off another third.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numba import njit

OPTIONS: dict[str, Any] = {"_nrt": False, "error_model": "numpy", "forceinline": True}
rule: Any = njit(**OPTIONS)

HERE = Path(__file__).parent
BATTLE = HERE.parent / "skirmish"
NOT_COMPILED = {
    "__init__.py",
    "env.py",
    "layout.py",
    "map_table.py",
    "maps.py",
    "paths.py",
    "render.py",
    "setup.py",
    "single.py",
}


def forget_stale(kernel: Any, sources: Sequence[Path] | None = None) -> None:
    """Drop what is compiled of the module of ``kernel`` (a cached dispatcher) if a file with compiled rules changed.

    Numba notices changes in a kernel's own file alone, not in the files of the rules that it calls: ``sources``, or
    all rules of the battle. A stamp beside the compiled code holds the digest of the files that it was compiled from.
    """
    sources = sorted(
        sources or (path for d in (HERE, BATTLE) for path in d.glob("*.py") if path.name not in NOT_COMPILED)
    )
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    folder = Path(kernel.stats.cache_path)
    module = kernel.py_func.__module__.rsplit(".", 1)[-1]
    stamp = folder / f"{module}.sources"
    if stamp.exists() and stamp.read_text() == digest:
        return
    try:
        for compiled in folder.glob(f"{module}.*.nb[ic]"):
            compiled.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        stamp.write_text(digest)
    except OSError:  # a cache that we may not write is one that numba does not write either
        pass
