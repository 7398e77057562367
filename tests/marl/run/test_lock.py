"""One process at a time writes into a folder: others are refused before they write, the dead are in nobody's way."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from marl.core.types import ConfigError
from marl.run.lock import LOCK, held, started, tidied
from tests.support.helpers import train
from tests.support.prefork import quick_python

HOLD = """
import os, sys
from pathlib import Path
from marl.run.lock import held
with held(Path(sys.argv[1])):
    print("held by", os.getpid(), flush=True)
    sys.stdin.readline()
"""


def begin(folder: Path, place: Path) -> subprocess.Popen[str]:
    """Start a process, from a file in ``place``, that owns ``folder`` until it is told to end."""
    program = place / "hold.py"
    program.write_text(HOLD)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([quick_python(), program, folder], **pipes)  # type: ignore[call-overload]


@contextmanager
def holder(folder: Path, place: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a process that owns ``folder``; yield it once it does, with the number that it has itself."""
    with begin(folder, place) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("held by "), process.communicate()[1]
        yield process, int(said.split()[-1])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("program")


def tree(folder: Path) -> dict[str, bytes | None]:
    """Return every path below a folder with its bytes."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def test_a_second_process_is_refused_and_the_first_releases(place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with holder(folder, place) as (first, number):
        before = tree(tmp_path)
        line = f"out={folder} is in use by process {number} on {socket.gethostname()}"
        with pytest.raises(ConfigError, match=line), held(folder, "out"):
            pytest.fail("two owners")
        assert tree(tmp_path) == before
        first.communicate("end\n")
    assert not folder.exists(), "an empty folder is left behind"
    with held(folder):
        assert json.loads((folder / LOCK).read_text())["pid"] == os.getpid()


def test_a_second_training_is_refused_before_it_writes(place: Path, tmp_path: Path) -> None:
    with holder(tmp_path / "run", place) as (first, number):
        before = tree(tmp_path)
        with pytest.raises(ConfigError, match=f"in use by process {number}"):
            train(tmp_path / "run")
        assert tree(tmp_path) == before
        first.communicate("end\n")


def test_it_is_released_after_an_exception(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), held(tmp_path / "run"):
        (tmp_path / "run" / "file").touch()
        raise RuntimeError
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["file"]


def test_what_a_killed_process_left_is_taken_over(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with holder(tmp_path, place) as (_, number):
        os.kill(number, signal.SIGKILL)
    assert (tmp_path / LOCK).exists()
    with held(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert f"was left by process {number}; taken over" in caplog.text


@pytest.mark.parametrize("text", ["", "{", '{"pid": 1}', "null"])
def test_a_lock_that_names_nobody_is_taken_over(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / LOCK).write_text(text)
    with held(tmp_path):
        pass
    assert "left by nobody known" in caplog.text and not (tmp_path / LOCK).exists()


def test_a_number_that_another_process_has_by_now_is_no_owner(tmp_path: Path) -> None:
    theirs = {"host": socket.gethostname(), "pid": os.getpid(), "started": "before"}
    (tmp_path / LOCK).write_text(json.dumps(theirs))
    assert started(os.getpid()) != "before"
    with held(tmp_path):
        pass


def test_the_lock_of_another_machine_counts(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(json.dumps({"host": "elsewhere", "pid": 2**22 + 1, "started": "1"}))
    with pytest.raises(ConfigError, match=rf"on elsewhere; if that process is gone, remove {tmp_path / LOCK}"):
        with held(tmp_path):
            pytest.fail("two owners")
    assert (tmp_path / LOCK).exists()


def test_many_at_once_have_one_owner(place: Path, tmp_path: Path) -> None:
    """Processes that take over one stale lock at the same moment: exactly one gets it."""
    (tmp_path / LOCK).write_text(json.dumps({"host": socket.gethostname(), "pid": 2**22 + 1, "started": "1"}))
    processes = [begin(tmp_path, place) for _ in range(4)]
    said = []
    owner = None
    for process in processes:  # the owner says so and waits; the others end
        line = process.stdout.readline()
        said.append(line[:7])
        owner = process if line else owner
    assert sorted(said) == ["", "", "", "held by"]
    assert owner is not None
    owner.communicate("end\n")
    for process in processes:
        process.communicate()
    assert list(tmp_path.iterdir()) == []


def test_a_finished_run_is_read_without_a_lock(place: Path, tmp_path: Path) -> None:
    """Also while somebody else holds it, and where nothing can be written."""
    final = train(tmp_path / "run", "train.total_steps=64", "log.to=[]")
    before = tree(tmp_path)
    with holder(tmp_path / "run", place) as (other, _):
        assert train(tmp_path / "run", "train.total_steps=64") == final
        other.communicate("end\n")
    assert tree(tmp_path) == before


def test_only_empty_folders_are_removed(tmp_path: Path) -> None:
    (tmp_path / "runs" / "other").mkdir(parents=True)
    (tmp_path / "runs" / "kept").touch()
    with tidied(tmp_path / "runs" / "a" / "b", tmp_path / "runs"):
        (tmp_path / "runs" / "a" / "b").mkdir(parents=True)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["kept", "other"]


def test_folders_that_were_there_stay_where_that_is_asked(tmp_path: Path) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    for there in (True, False):
        with tidied(tmp_path / "runs" / "mine" / "new", tmp_path / "runs", keep_present=there):
            (tmp_path / "runs" / "mine" / "new").mkdir()
        assert (tmp_path / "runs" / "mine").exists() is there
