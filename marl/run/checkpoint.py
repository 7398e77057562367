"""Checkpoints that survive crashes: write to a temporary folder, flush, rename; verify digests and load with
``weights_only``.

A checkpoint is ``checkpoints/step_000400000/{state.pt, replay.pt, meta.json}``. Its folder exists whole or not at all;
``latest`` names the newest. A damaged checkpoint is skipped with a warning in favour of the one before.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import torch

log = logging.getLogger(__name__)
MILESTONE = "MILESTONE"  # marker file: this checkpoint is never deleted


class CheckpointError(RuntimeError):
    """No usable checkpoint, or one that belongs to another configuration."""


def digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            sha.update(chunk)
    return sha.hexdigest()


def write_atomic(path: Path, text: str) -> None:
    """Replace ``path`` in one step: readers see the old text or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("w", encoding="utf8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _save_tensor_file(value: dict[str, Any], path: Path) -> str:
    with path.open("wb") as file:
        torch.save(value, file)
        file.flush()
        os.fsync(file.fileno())
    return digest(path)


def _sync_folder(path: Path) -> None:
    """Flush a folder's entries to the disk, where the system can open folders (Windows cannot)."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
    """Write ``root/step_...`` and delete all checkpoints but the newest ``keep`` and those saved as a ``milestone``.

    Raises OSError if the disk is full; earlier checkpoints are then left intact.
    """
    root.mkdir(parents=True, exist_ok=True)
    final = root / f"step_{step:012d}"
    hidden = root / f".{final.name}.{uuid.uuid4().hex[:8]}"
    try:
        hidden.mkdir()
        digests = {"state.pt": _save_tensor_file(state, hidden / "state.pt")}
        if replay is not None:
            digests["replay.pt"] = _save_tensor_file(replay, hidden / "replay.pt")
        if milestone or (final / MILESTONE).exists():  # saving a step again does not unmark it
            (hidden / MILESTONE).touch()
        write_atomic(hidden / "meta.json", json.dumps({**meta, "step": step, "digests": digests}, indent=1))
        _sync_folder(hidden)
        if final.exists():  # a resumed run saves the same step again; the new folder is complete by now
            final.rename(root / f".old.{uuid.uuid4().hex[:8]}")
        hidden.rename(final)
        _sync_folder(root)
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
    """Return the checkpoint folders, newest first."""
    return sorted(root.glob("step_*"), reverse=True)


def verify(folder: Path) -> dict[str, Any]:
    """Check the files of a checkpoint and return its metadata. Raise CheckpointError if a file is damaged."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf8"))
        for name, expected in meta["digests"].items():
            if digest(folder / name) != expected:
                raise CheckpointError(f"{folder / name} is damaged (its digest differs)")
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder} is damaged: {error}") from error
    return meta


def newest(root: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest whole checkpoint and its metadata, or None. Skip damaged ones with a warning."""
    for folder in folders(root):
        try:
            return folder, verify(folder)
        except CheckpointError as error:
            log.warning("checkpoint skipped: %s", error)
    return None


def load_state(folder: Path) -> dict[str, Any]:
    """Load everything but the replay of a verified checkpoint, on the CPU: networks and optimizers copy what they are
    given to their own device, environments and generators have none."""
    return torch.load(folder / "state.pt", map_location="cpu", weights_only=True)


def load_replay(folder: Path) -> dict[str, Any] | None:
    """Load the replay of a verified checkpoint, on the CPU; None if it was not saved."""
    path = folder / "replay.pt"
    return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None
