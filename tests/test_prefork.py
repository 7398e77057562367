"""Programs in a fork of a process that has imported everything behave as in a process of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.prefork import call, quick_python
from tests.support.processes import wait_until

SEEN = """
import atexit, os, sys
from pathlib import Path
atexit.register(print, "the end")
print(sys.argv[1:], os.getcwd(), os.environ["ONLY_HERE"], "PATH" in os.environ, sys.stdin.read())
print(__name__, sys.path[0], file=sys.stderr)
import beside
sys.exit(beside.CODE)
"""


def answer(folder: Path, text: str, *words: str, env: dict[str, str] | None = None) -> list[tuple[int, str, str]]:
    """Run a program by the interpreter and by the quick one; return exit code and output of both."""
    (folder / "program.py").write_text(text)
    found = []
    for python in (Path(sys.executable), quick_python()):
        done = subprocess.run(
            [python, "program.py", *words], cwd=folder, env=env, input="typed", capture_output=True, text=True
        )
        found.append((done.returncode, done.stdout, done.stderr))
    return found


def test_a_program_sees_what_it_would_see(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("CODE = 7\n")
    real, quick = answer(tmp_path, SEEN, "a b", "--c", env={"ONLY_HERE": "yes"})
    assert real == quick and real[0] == 7 and real[1] == f"['a b', '--c'] {tmp_path} yes False typed\nthe end\n"


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("raise ValueError('why')", 1, "ValueError: why\n"),
        ("import sys; sys.exit('why')", 1, "why\n"),
        ("import sys; sys.exit(None)", 0, ""),
        ("import os; os.abort()", -signal.SIGABRT, ""),
        ("import os; os._exit(3)", 3, ""),
    ],
)
def test_a_program_ends_as_it_would_end(text: str, code: int, said: str, tmp_path: Path) -> None:
    for found in answer(tmp_path, text):
        assert found[0] == code and found[2].endswith(said) and bool(found[2]) == bool(said)


def test_what_is_no_script_is_left_to_the_interpreter() -> None:
    words = ["-c", "import sys; print(sys.executable, 'torch' in sys.modules)"]
    done = subprocess.run([quick_python(), *words], capture_output=True, text=True, check=True)
    assert done.stdout == f"{sys.executable} False\n"


WAITING = """
import os, signal, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
Path("new").write_text(str(os.getpid()))
Path("new").rename("begun")
time.sleep(600)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 5), (signal.SIGKILL, -signal.SIGKILL)])
def test_signals_reach_the_program_and_it_ends_with_who_called_it(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(WAITING)
    process = subprocess.Popen([quick_python(), "program.py"], cwd=tmp_path, text=True)
    wait_until((tmp_path / "begun").exists, process)
    worker = Path(f"/proc/{(tmp_path / 'begun').read_text()}")
    process.send_signal(number)
    assert process.wait() == code
    wait_until(lambda: not worker.exists())


def forever() -> None:
    print("begun", flush=True)
    while True:
        pass


def test_a_call_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    """``call`` returns None for it, and the exit code of one that ends."""
    with (tmp_path / "out").open("wb") as out:
        files = {"cwd": tmp_path, "out": out.fileno(), "err": out.fileno()}
        assert call(forever, **files, limit=1.0) is None
        assert call(os._exit, 4, **files, limit=600.0) == 4
    assert (tmp_path / "out").read_text() in ("", "begun\n")
