"""Stand for the interpreter: ask the process at the address of the first argument for a fork of it that runs the
script, pass on signals, and end as the script ends. Whatever is no script of ours is run by the second argument.

Runs without site packages, since it has to begin quickly."""

import json
import os
import signal
import socket
import sys


def main(address: str, interpreter: str, *words: str) -> None:
    ours = words[:1] == ("-m",) and words[1].startswith("scripts.")
    if not ours and not (words and words[0].endswith(".py")):
        os.execv(interpreter, [interpreter, *words])
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    python = os.path.join(os.path.dirname(address), "python")
    request = {"words": words, "cwd": os.getcwd(), "environment": dict(os.environ), "python": python}
    text = json.dumps(request).encode()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(number, lambda number, _: connection.send(bytes([number])))
    socket.send_fds(connection, [len(text).to_bytes(8, "big")], [0, 1, 2])
    connection.sendall(text)
    code = int.from_bytes(connection.recv(8), "big", signed=True)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


main(*sys.argv[1:])
