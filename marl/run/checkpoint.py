"""Checkpoints that survive crashes: write to a temporary folder, flush, rename; verify digests and load with
``weights_only``.

A checkpoint is ``checkpoints/step_000400000/{state.pt, replay.pt, meta.json}``. Its folder is complete or does not
exist; ``latest`` names the newest. A damaged checkpoint is skipped with a warning in favour of the one before.
"""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from marl.core.states import ALLOWED
from marl.core.types import ConfigError
from marl.run.files import naming, save_tensors, sync_folder, write_atomic

log = logging.getLogger(__name__)
MILESTONE = "MILESTONE"  # marker file: this checkpoint is never deleted
STRANGE = re.compile(r"[Uu]nsupported (?:global: )?GLOBAL (\S+)")  # torch's wording
OURS = re.compile(r"step_\d+")  # folders of other names are somebody else's: neither read nor deleted


class CheckpointError(RuntimeError):
    """No usable checkpoint, or one that belongs to another configuration."""


def digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            sha.update(chunk)
    return sha.hexdigest()


def _save_digested(value: dict[str, Any], path: Path) -> str:
    save_tensors(value, path)
    return digest(path)


def save(
    root: Path,
    step: int,
    state: dict[str, Any],
    replay: dict[str, Any] | None,
    meta: dict[str, Any],
    *,
    keep: int,
    milestone: bool,
) -> Path:
    """Write ``root/step_...`` and delete all checkpoints except the newest ``keep`` and those saved as a ``milestone``.

    Raises WriteError if the disk is full; earlier checkpoints are then left intact.
    """
    final = root / f"step_{step:012d}"
    hidden = root / f".{final.name}.{uuid.uuid4().hex[:8]}"
    with naming(final):
        try:
            hidden.mkdir(parents=True)
            digests = {"state.pt": _save_digested(state, hidden / "state.pt")}
            if replay is not None:
                digests["replay.pt"] = _save_digested(replay, hidden / "replay.pt")
            if milestone or (final / MILESTONE).exists():  # saving a step again does not unmark it
                (hidden / MILESTONE).touch()
            write_atomic(hidden / "meta.json", json.dumps({**meta, "step": step, "digests": digests}, indent=1))
            sync_folder(hidden)
            if final.exists():  # a resumed run saves the same step again; the new folder is complete by now
                final.rename(root / f".old.{uuid.uuid4().hex[:8]}")
            hidden.rename(final)
            sync_folder(root)
            write_atomic(root / "latest", final.name)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
    _rotate(root, final, keep)
    return final


def _rotate(root: Path, saved: Path, keep: int) -> None:
    """Remove leftovers and all but the ``keep`` newest up to ``saved``. Later folders are damaged ones that a
    resumed run fell back from; they must not displace good ones."""
    for leftover in [*root.glob(".step_*"), *root.glob(".old.*")]:
        shutil.rmtree(leftover, ignore_errors=True)
    for folder in [f for f in folders(root) if f.name <= saved.name][keep:]:
        if not (folder / MILESTONE).exists():
            shutil.rmtree(folder, ignore_errors=True)


def folders(root: Path) -> list[Path]:
    """Return the checkpoint folders, newest first; copies that somebody keeps under other names do not count."""
    return sorted((folder for folder in root.glob("step_*") if OURS.fullmatch(folder.name)), reverse=True)


def verify(folder: Path) -> dict[str, Any]:
    """Check the files of a checkpoint and return its metadata. Raise CheckpointError if a file is damaged."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf8"))
        for name, expected in meta["digests"].items():
            if digest(folder / name) != expected:
                raise CheckpointError(f"{folder / name} is damaged (its digest differs)")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder} is damaged: {error}") from error
    return meta


def newest(root: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest intact checkpoint and its metadata, or None. Skip damaged ones with a warning."""
    for folder in folders(root):
        try:
            return folder, verify(folder)
        except CheckpointError as error:
            log.warning("checkpoint skipped: %s", error)
    return None


@contextmanager
def that_fits(otherwise: str) -> Iterator[None]:
    """Turn errors from loading a state of other classes into a ConfigError that begins with ``otherwise``."""
    try:
        yield
    except (ConfigError, CheckpointError):
        raise
    except (KeyError, IndexError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        lines = str(error).strip().splitlines() or [""]  # torch's message lists every tensor
        why = f"it has no {lines[0]}" if isinstance(error, KeyError) else lines[-1].strip()
        raise ConfigError(f"{otherwise}: {why}") from error


def load_state(folder: Path) -> dict[str, Any]:
    """Load everything except the replay of a verified checkpoint, on the CPU: networks and optimizers copy what they
    are given to their own device, environments and generators have none. The rounded weights of packed teams
    (``marl.measure.zoo.rounded``) become float32 again."""
    state = load_tensors(folder / "state.pt")
    _widen(state)
    return state


def load_replay(folder: Path) -> dict[str, Any] | None:
    """Load the replay of a verified checkpoint, on the CPU; None if it was not saved."""
    path = folder / "replay.pt"
    return load_tensors(path) if path.exists() else None


def load_tensors(path: Path) -> dict[str, Any]:
    """Load a file of tensors and builtins, on the CPU. Raise CheckpointError if it is not one."""
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, LookupError, pickle.UnpicklingError) as error:  # of the right digest, but not ours
        if (strange := STRANGE.search(str(error))) is not None:
            raise CheckpointError(
                f"{path} cannot be read: it holds a value of the type {strange[1]}; {ALLOWED}"
            ) from error
        lines = str(error).splitlines() if isinstance(error, RuntimeError) else []
        raise CheckpointError(f"{path} is damaged: {lines[0] if lines else 'it is no file of tensors'}") from error
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path} is damaged: it holds a {type(loaded).__name__}")
    return loaded


def _widen(tree: Any) -> Any:
    """Convert the float16 tensors in nested dicts and lists, changing these in place, to float32; return the tree."""
    if isinstance(tree, dict | list):
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            tree[key] = _widen(tree[key])
        return tree
    return tree.float() if isinstance(tree, torch.Tensor) and tree.dtype == torch.float16 else tree
