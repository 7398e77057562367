"""What the reports of both matrices share: intervals as text, CSV, consoles, colours, TensorBoard, published files."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from marl.core.intervals import Interval, limits
from marl.run.events import EventFile
from marl.run.files import write_atomic

LONGEST_FOLDER = 200  # bytes of a name; file systems allow 255


def interval_lines(interval: Interval) -> list[str]:
    """Return "0.50" and "[0.25, 0.75]"; a single value has no bounds."""
    return [f"{interval.mean:.2f}", *([f"[{interval.low:.2f}, {interval.high:.2f}]"] if interval.bounded else [])]


def csv_text(columns: tuple[str, ...], lines: Iterable[dict[str, Any]]) -> str:
    """Return lines as CSV with a header; what a line lacks is empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def wide_console(width: int) -> Console:
    """Return the terminal, or, where there is none, a console of ``width`` characters."""
    console = Console()
    return console if console.is_terminal else Console(width=width)


def colour_ends(values: np.ndarray, metric: str) -> tuple[float, float]:
    """Return the values of the first and last colour: 0 and 1 for rates, else 0 or the least, and the largest."""
    known = values[np.isfinite(values)]
    low, high = limits(metric)
    return (low, high) if np.isfinite(high) else (known.min(initial=0.0), known.max(initial=0.0) or 1.0)


def folder_name(name: str) -> str:
    """Return a name as that of a single folder; a long one is cut and ends in a digest."""
    flat = name.replace("/", "-")
    data = flat.encode()
    if len(data) <= LONGEST_FOLDER:
        return flat
    return f"{data[: LONGEST_FOLDER - 13].decode(errors='ignore')}~{hashlib.sha256(data).hexdigest()[:12]}"


def write_scalars(folder: Path, runs: dict[str, tuple[int, dict[str, float]]]) -> None:
    """Write TensorBoard scalars, replacing those that were there: step and values by the name of a run."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, (step, scalars) in runs.items():
        EventFile(folder / folder_name(name)).write(scalars, step)


def write_files(folder: Path, texts: dict[str, str]) -> None:
    """Write text files by name into ``folder``."""
    for name, text in texts.items():
        write_atomic(folder / name, text)


def publish(path: Path, document: dict[str, Any], draw: Callable[[Path], Path]) -> Path:
    """Write ``document`` as ``path`` (.json), and draw its picture next to it."""
    write_files(path.parent, {path.name: json.dumps(document, indent=1) + "\n"})
    draw(path.with_suffix(".png"))
    return path
