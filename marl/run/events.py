"""Scalars for TensorBoard, written by this thread and at once: a full disk is known where it matters."""

from __future__ import annotations

import io
import itertools
import os
import socket
import time
from pathlib import Path

from marl.run.files import append

_numbers = itertools.count()


class EventFile:
    """A new event file in ``folder``. With ``purge`` TensorBoard forgets older files' scalars from that step on."""

    def __init__(self, folder: Path, purge: int | None = None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self.path = folder / name
        first = [Event(wall_time=time.time(), file_version="brain.Event:2")]
        if purge is not None:
            start = SessionLog(status=SessionLog.START)
            first.append(Event(wall_time=time.time(), step=purge, session_log=start))
        self._begin: bytes = _records(first)

    def write(self, scalars: dict[str, float], step: int) -> None:
        """Add scalars. Raise WriteError; the file is then as it was."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=key, simple_value=value) for key, value in scalars.items()]
        data = _records([Event(wall_time=time.time(), step=step, summary=Summary(value=values))])
        append(self.path, self._begin + data, lines=False)
        self._begin = b""


def _records(events: list[object]) -> bytes:
    from tensorboard.summary.writer.record_writer import RecordWriter

    out = io.BytesIO()
    for event in events:
        RecordWriter(out).write(event.SerializeToString())  # type: ignore[attr-defined]
    return out.getvalue()
