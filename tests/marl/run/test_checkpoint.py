"""Checkpoints exist whole or not at all, whatever fails during a write; damaged ones are skipped; tensors only."""

from __future__ import annotations

import errno
import json
import os
import random
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from marl.core.seeding import globals_state, restore_globals
from marl.run import checkpoint, files
from tests.support.helpers import differences, train

STATE = {"weights": torch.arange(6.0), "clock": {"env_steps": 1}}
REPLAY = {"data": torch.ones(4)}
SYNCS = 6  # state.pt, replay.pt, meta.json, the hidden folder, the root, latest


def save(root: Path, step: int, *, keep: int = 2, milestone: bool = False, **state: Any) -> Path:
    return checkpoint.save(root, step, STATE | state, REPLAY, {"exact": True}, keep=keep, milestone=milestone)


def steps(root: Path) -> list[int]:
    """Return the steps of the folders that a reader sees, oldest first."""
    return sorted(int(folder.name.removeprefix("step_")) for folder in checkpoint.folders(root))


def hidden(root: Path) -> list[str]:
    return [path.name for path in root.iterdir() if path.name.startswith(".")]


def newest_step(root: Path) -> int:
    found = checkpoint.newest(root)
    assert found is not None
    return int(found[1]["step"])


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    folder = save(tmp_path, 7)
    assert differences(checkpoint.load_state(folder), STATE) == []
    assert differences(checkpoint.load_replay(folder), REPLAY) == []
    assert checkpoint.verify(folder)["exact"] is True
    assert (tmp_path / "latest").read_text() == folder.name == "step_000000000007"
    without = checkpoint.save(tmp_path, 8, STATE, None, {}, keep=2, milestone=False)
    assert checkpoint.load_replay(without) is None


def test_nothing_saved_is_none(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "nowhere") is None


def fails_after(calls: int, function: Callable[..., Any], error: BaseException) -> Callable[..., Any]:
    """Wrap ``function`` so that call number ``calls`` (from 0) and all later ones raise."""
    count = iter(range(10**6))

    def call(*args: Any, **kwargs: Any) -> Any:
        if next(count) >= calls:
            raise error
        return function(*args, **kwargs)

    return call


@pytest.mark.parametrize("at", range(SYNCS))
def test_a_full_disk_leaves_the_earlier_checkpoint(at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full at the first, second, ... write gives an error, keeps the old checkpoint, and leaves no
    partial one."""
    save(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails_after(at, os.fsync, OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            save(tmp_path, 2)
    assert hidden(tmp_path) == []
    assert steps(tmp_path) == ([1] if at < 4 else [1, 2])  # from the rename on, the new one is whole
    for folder in checkpoint.folders(tmp_path):
        checkpoint.verify(folder)
    save(tmp_path, 3)
    assert newest_step(tmp_path) == 3


def test_a_system_that_opens_no_folders_has_checkpoints_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows a folder cannot be opened, and so not be flushed."""
    opened = os.open

    def refuse_folders(path: Any, *rest: Any, **named: Any) -> int:
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *rest, **named)

    monkeypatch.setattr(os, "open", refuse_folders)
    save(tmp_path, 1)
    assert newest_step(tmp_path) == 1 and hidden(tmp_path) == []


@pytest.mark.parametrize("at", range(SYNCS))
def test_a_kill_leaves_a_whole_checkpoint(at: int, tmp_path: Path) -> None:
    """The process dies, without any clean-up, at each of the writes; the next save removes the leftovers."""
    save(tmp_path, 1)
    child = os.fork()
    if child == 0:
        count = iter(range(SYNCS))
        sync = os.fsync
        os.fsync = lambda fd: os._exit(9) if next(count) == at else sync(fd)  # type: ignore[assignment]
        save(tmp_path, 2)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert steps(tmp_path) == ([1] if at < 4 else [1, 2])
    for folder in checkpoint.folders(tmp_path):
        checkpoint.verify(folder)
    save(tmp_path, 3)
    assert newest_step(tmp_path) == 3
    assert [name for name in hidden(tmp_path) if "step_" in name or "old" in name] == []


def test_rotation_keeps_the_newest_and_the_milestones(tmp_path: Path) -> None:
    for step in range(1, 7):
        save(tmp_path, step, milestone=step in (2, 3))
    assert steps(tmp_path) == [2, 3, 5, 6]
    save(tmp_path, 7, keep=1)
    assert steps(tmp_path) == [2, 3, 7]


def test_saving_a_step_again_replaces_it_and_keeps_its_mark(tmp_path: Path) -> None:
    """The last step of a run is often saved twice: on schedule, as a milestone, and once more at the end."""
    save(tmp_path, 1, milestone=True)
    folder = save(tmp_path, 1, weights=torch.zeros(2))
    assert checkpoint.load_state(folder)["weights"].tolist() == [0, 0]
    save(tmp_path, 2, keep=1)
    assert steps(tmp_path) == [1, 2] and hidden(tmp_path) == []


def test_a_damaged_later_checkpoint_does_not_push_out_good_ones(tmp_path: Path) -> None:
    """A run that fell back from step 200 to step 100 saves step 150 next, and must keep it."""
    save(tmp_path, 100, keep=1)
    damaged = save(tmp_path, 200, keep=2)
    (damaged / "state.pt").write_bytes(b"")
    save(tmp_path, 150, keep=1)
    assert newest_step(tmp_path) == 150


def truncate(folder: Path) -> None:
    path = folder / "state.pt"
    path.write_bytes(path.read_bytes()[:-10])


def flip_a_byte(folder: Path) -> None:
    path = folder / "state.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


DAMAGES = {
    "truncated": truncate,
    "one bit flipped": flip_a_byte,
    "replay missing": lambda folder: (folder / "replay.pt").unlink(),
    "meta missing": lambda folder: (folder / "meta.json").unlink(),
    "meta cut": lambda folder: (folder / "meta.json").write_text('{"step": 2, "dig'),
    "meta without digests": lambda folder: (folder / "meta.json").write_text('{"step": 2}'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_falls_back_with_a_warning(damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path, 1)
    DAMAGES[damage](save(tmp_path, 2))
    assert newest_step(tmp_path) == 1
    assert "step_000000000002" in caplog.text and "damaged" in caplog.text
    with pytest.raises(checkpoint.CheckpointError, match="damaged"):
        checkpoint.verify(tmp_path / "step_000000000002")
    DAMAGES[damage](tmp_path / "step_000000000001")
    assert checkpoint.newest(tmp_path) is None


def leaf_types(tree: Any) -> set[type]:
    if isinstance(tree, dict):
        return {dict} | {t for key, value in tree.items() for t in (type(key), *leaf_types(value))}
    if isinstance(tree, list | tuple):
        return {type(tree)} | {t for value in tree for t in leaf_types(value)}
    return {type(tree)}


def test_a_real_run_saves_tensors_and_builtins_only(tmp_path: Path) -> None:
    train(tmp_path / "run", "train.total_steps=200")
    found = checkpoint.newest(tmp_path / "run" / "checkpoints")
    assert found is not None
    folder, meta = found
    assert meta["exact"] is True and meta["step"] >= 200 and meta["packages"]["torch"] == metadata.version("torch")
    for name in ("state.pt", "replay.pt"):
        tree = torch.load(folder / name, weights_only=True)
        allowed = {dict, list, tuple, str, int, float, bool, type(None), torch.Tensor}
        assert {t for t in leaf_types(tree) if t not in allowed and t.__name__ != "OrderedDict"} == set(), name


def test_global_generators_return_to_where_they_were() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    np.random.randn()  # leaves a cached second value behind: part of the state too
    state = globals_state()
    first = [draw() for _ in range(3)] + [float(np.random.randn())]
    restore_globals(state)
    assert [draw() for _ in range(3)] + [float(np.random.randn())] == first
    json.dumps(state["python"])  # builtins only


def test_write_atomic_replaces_or_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "meta.json"
    files.write_atomic(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails_after(0, os.fsync, OSError(errno.ENOSPC, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            files.write_atomic(path, "new, but the disk is full")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["meta.json"]
    files.write_atomic(path, "new")
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["meta.json"]
