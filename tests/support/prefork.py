"""A process with everything imported, from which others are forked: a script begins in a tenth of a second.

``quick_python`` returns a program that is called as the interpreter is. ``-m scripts.NAME`` and files of Python run in
a fork, with the folder, environment, standard streams and signals of whoever calls it, and end if that one ends;
anything else is left to the interpreter. What a script reads before or while it is imported, and what its process tree
looks like, is for tests that start the interpreter.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import json
import os
import pickle
import runpy
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from marl.core.processes import PARENT

ROOT = Path(__file__).resolve().parents[2]
HEAD = 8  # bytes that say how long a request is
IMPORTS = "tests.support.preload"
FOLDER = Path(tempfile.gettempdir())  # of this process; a script's is what its environment says


class Server:
    """The process that is forked; it ends with this one."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="fork", dir=FOLDER)
        self.address = os.path.join(self.folder.name, "socket")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.address)
        listener.listen(16)
        code = f"from tests.support.prefork import serve; serve({listener.fileno()})"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE,
            pass_fds=[listener.fileno()], start_new_session=True,
        )  # fmt: skip
        listener.close()
        self.python = Path(self.folder.name) / "python"
        words = [
            sys.executable,
            "-IS",
            str(Path(__file__).with_name("prefork_client.py")),
            self.address,
            sys.executable,
        ]
        self.python.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        self.python.chmod(0o755)
        atexit.register(self.close)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        self.folder.cleanup()


@functools.cache
def server() -> Server:
    """Start the process that is forked, once per test process."""
    return Server()


def quick_python() -> Path:
    """Return the program that stands for the interpreter."""
    return server().python


def call(work: Callable[..., object], *arguments: Any, cwd: Path, out: int, err: int, limit: float) -> int | None:
    """Call ``work(*arguments)`` in a fork that works in the folder ``cwd`` and writes to the descriptors ``out`` and
    ``err``. Return its exit code, or None if it was still at work after ``limit`` seconds and was killed."""
    request = {"work": pickle.dumps((work, arguments)).hex(), "cwd": str(cwd), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as connection, open(os.devnull) as nothing:
        connection.connect(server().address)
        connection.settimeout(limit)
        text = json.dumps(request).encode()
        socket.send_fds(connection, [len(text).to_bytes(HEAD, "big")], [nothing.fileno(), out, err])
        connection.sendall(text)
        try:
            answer = connection.recv(HEAD)
        except TimeoutError:
            return None
        return int.from_bytes(answer, "big", signed=True)


# ------------------------------------------------------------------------------------------------ in the forked process


def serve(descriptor: int) -> None:
    """Import everything; then fork for each request, until stdin is closed."""
    runpy.run_module(IMPORTS)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    with socket.socket(fileno=descriptor) as listener:
        while True:
            connection, _ = listener.accept()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            if os.fork() == 0:
                listener.close()
                _keep(connection)
            connection.close()


def _end_with_stdin() -> None:
    os.read(0, 1)
    os._exit(0)


def _keep(connection: socket.socket) -> None:
    """Fork once more for the work; pass on signals to it, and its exit code to whoever asked. Never returns."""
    head, streams, _, _ = socket.recv_fds(connection, HEAD, 3)
    request, left = b"", int.from_bytes(head, "big")
    while len(request) < left:
        request += connection.recv(left - len(request))
    worker = os.fork()
    if worker == 0:
        connection.close()
        _begin(json.loads(request), streams)
    for stream in streams:
        os.close(stream)

    def pass_on() -> None:
        with contextlib.suppress(OSError):
            while number := connection.recv(1):
                os.kill(worker, number[0])
            os.kill(worker, signal.SIGKILL)

    threading.Thread(target=pass_on, daemon=True).start()
    code = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
    with contextlib.suppress(OSError):
        connection.sendall(code.to_bytes(HEAD, "big", signed=True))
    os._exit(0)


def _begin(request: dict[str, Any], streams: list[int]) -> None:
    """Take over what the one who asked has, do the work, and end as the interpreter ends. Never returns."""
    for stream, name in enumerate(("stdin", "stdout", "stderr")):
        os.dup2(streams[stream], stream)
        os.close(streams[stream])
        file = open(stream, "rb" if name == "stdin" else "wb", closefd=False)
        setattr(sys, name, io.TextIOWrapper(file, encoding="utf8", line_buffering=name == "stderr"))
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    if PARENT in os.environ:  # whoever started this is not its parent
        os.environ[PARENT] = str(os.getppid())
    tempfile.tempdir = None
    code = 0
    try:
        _work(request)
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 0 if left.code is None else 1
        if isinstance(left.code, str):
            print(left.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for file in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            file.flush()
    os._exit(code)


def _work(request: dict[str, Any]) -> None:
    sys.path[:0] = [path for path in os.environ.get("PYTHONPATH", "").split(":") if path not in ("", str(ROOT))]
    if "work" in request:
        work, arguments = pickle.loads(bytes.fromhex(request["work"]))
        work(*arguments)
        return
    words = request["words"]
    sys.executable = request["python"]  # what the script starts is quick too; multiprocessing knows the interpreter
    if words[0] == "-m":
        sys.path.insert(0, os.getcwd())
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(words[0]).resolve().parent))
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")
