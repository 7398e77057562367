"""Full and read-only disks: a row or a report that cannot be written is a warning, networks that cannot be saved are an
error of one line, and whatever was whole before is whole afterwards.

A limit on the size of files stands for a full disk (writes fail with EFBIG, in the middle of a file); with the right to
mount, a small file system is one.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from marl.run import checkpoint, files
from marl.run.signals import StopRequest
from marl.run.sweep import Entry, Sweep
from tests.support.helpers import TINY, train
from tests.support.prefork import quick_python
from tests.support.refusals import ROOT, in_a_child, script

LIMIT = 4_000_000


class Said(NamedTuple):
    returncode: int | None
    stderr: str


def train_limited(limit: int, *words: str) -> None:
    """Train as the script does, with a limit on the size of files; for a process of its own."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    script(shlex.join(["train", *words]))


def limited(limit: int, runs: Path, *overrides: str) -> Said:
    """Train a tiny run in a process whose files cannot grow beyond ``limit`` bytes."""
    words = (*TINY, f"runs_dir={runs}", "log.progress=off", *overrides)
    code, _, err = in_a_child(train_limited, limit, *words, cwd=ROOT)
    return Said(code, err)


def run_folder(runs: Path) -> Path:
    (config,) = runs.rglob("config.json")
    return config.parent


def test_networks_that_cannot_be_saved_end_in_one_line(tmp_path: Path) -> None:
    """Rows and the log are written, and no part of a checkpoint stays."""
    done = limited(20_000, tmp_path, "log.to=[tensorboard]")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: the networks of ") and last.endswith(
        "could not be saved; the same command tries again"
    )
    assert "not written: File too large; earlier ones are intact" in done.stderr
    folder = run_folder(tmp_path)
    assert list((folder / "checkpoints").iterdir()) == []
    assert (folder / "metrics.jsonl").exists() and not (folder / "DONE").exists() and not (folder / ".lock").exists()


def test_a_sweep_on_a_full_disk_still_knows_its_runs_and_still_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: object, **__: object) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    sweep = Sweep()
    sweep.share(tmp_path)
    assert sweep.folder is not None
    sweep.process = 0  # as seen from one of its workers
    sweep.note(Entry("one", "finished"))
    monkeypatch.setattr(Path, "write_text", full)
    sweep.note(Entry("another", "failed", "a reason"))
    sweep.ask_to_stop("SIGINT")
    monkeypatch.setattr(StopRequest, "asked", sweep.folder / "stop")
    assert StopRequest()
    assert [(entry.run, entry.outcome) for entry in sweep.close()] == [("a run", "failed"), ("one", "finished")]
    assert list(tmp_path.iterdir()) == []


def test_rows_that_cannot_be_written_end_no_run(tmp_path: Path) -> None:
    """Every row would make the file too long; networks go into files of their own. The next run begins a new line."""
    train(tmp_path / "run", "train.total_steps=200")
    (tmp_path / "run" / "DONE").unlink()
    for name in ("metrics.jsonl", "eval.jsonl"):
        path = tmp_path / "run" / name
        rows, note = path.read_text(), json.dumps({"env_steps": 0, "note": ""})
        path.write_text(note.replace('""', f'"{"x" * (LIMIT - len(note) - len(rows) - 1)}"') + "\n" + rows + '{"cut')
    done = limited(LIMIT, tmp_path, "log.to=[tensorboard]", f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.count("eval.jsonl not written: File too large; what belongs there is left out") == 1
    folder = tmp_path / "run"
    assert (folder / "DONE").exists() and checkpoint.newest(folder / "checkpoints") is not None
    for name in ("metrics.jsonl", "eval.jsonl"):
        lines = (folder / name).read_text().splitlines()
        assert all(isinstance(json.loads(line)["env_steps"], int) for line in lines)


APPEND_TWICE = """
import resource, signal, sys
from pathlib import Path
from marl.run import files
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (30, resource.RLIM_INFINITY))
path = Path(sys.argv[1])
for _ in range(2):
    with files.expendable(path):
        files.append(path, b"x" * 9)
"""


def test_a_part_of_a_row_is_taken_back_and_a_torn_one_stands_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n{"cut')
    files.append(path, b'{"b": 2}\n')
    assert path.read_bytes() == b'{"a": 1}\n{"cut\n{"b": 2}\n'
    (tmp_path / "append.py").write_text(APPEND_TWICE)
    words = [quick_python(), tmp_path / "append.py", path]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stderr.count("not written") == 1, "said for every row"
    assert path.read_bytes() == b'{"a": 1}\n{"cut\n{"b": 2}\n'


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of two mebibytes."""
    place = tmp_path / "tiny"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_full_from_the_start_is_one_line(tiny_disk: Path) -> None:
    with pytest.raises(OSError), (tiny_disk / "fill").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    done = limited(1 << 40, tiny_disk / "runs")
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ") and "No space left on device" in done.stderr


def test_a_disk_that_fills_up_leaves_earlier_checkpoints_whole(tiny_disk: Path) -> None:
    folder = tiny_disk / "run"
    train(folder, "train.total_steps=200")
    step = {path.name: path for path in checkpoint.folders(folder / "checkpoints")}
    with pytest.raises(OSError), (tiny_disk / "fill").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(files.WriteError, match="No space left on device"):
        checkpoint.save(folder / "checkpoints", 10**6, {"w": torch.zeros(10**6)}, None, {}, keep=1, milestone=False)
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {*step, "latest"}
    for path in step.values():
        checkpoint.verify(path)
    files.save_tensors({"w": torch.zeros(1)}, tiny_disk.parent / "elsewhere.pt")


def test_a_read_only_disk_is_one_line_and_a_finished_run_on_it_is_read(tiny_disk: Path) -> None:
    train(tiny_disk / "run", "train.total_steps=64")
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    again = limited(1 << 40, tiny_disk, "train.total_steps=64", f"hydra.run.dir={tiny_disk / 'run'}")
    assert again.returncode == 0 and "is finished already" in again.stderr, again.stderr
    done = limited(1 << 40, tiny_disk, "resume=never", f"hydra.run.dir={tiny_disk / 'run'}")
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ") and "Read-only file system" in done.stderr
    fresh = limited(1 << 40, tiny_disk / "runs")
    assert fresh.returncode == 2 and "Traceback" not in fresh.stderr, fresh.stderr
    assert "Read-only file system" in fresh.stderr.splitlines()[-1]
