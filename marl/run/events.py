"""Scalars for TensorBoard, written by this thread and at once, so that a full disk is noticed where it matters."""

from __future__ import annotations

import io
import itertools
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from marl.run.files import append

_numbers = itertools.count()


class EventFile:
    """A new event file in ``folder``. With ``purge`` TensorBoard forgets older files' scalars from that step on.
    ``begin``: summaries that come before all scalars."""

    def __init__(self, folder: Path, purge: int | None = None, begin: Sequence[object] = ()) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self.path = folder / name
        first = [Event(wall_time=time.time(), file_version="brain.Event:2")]
        if purge is not None:
            start = SessionLog(status=SessionLog.START)
            first.append(Event(wall_time=time.time(), step=purge, session_log=start))
        first += [Event(wall_time=time.time(), summary=summary) for summary in begin]
        self._begin: bytes = _records(first)

    def write(self, scalars: dict[str, float], step: int) -> None:
        """Append scalars. Raise WriteError, with the file unchanged."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=key, simple_value=value) for key, value in scalars.items()]
        data = _records([Event(wall_time=time.time(), step=step, summary=Summary(value=values))])
        append(self.path, self._begin + data, lines=False)
        self._begin = b""


def hparams(name: str, values: Mapping[str, bool | int | float | str]) -> list[object]:
    """Return the summaries that list ``values`` on TensorBoard's page of hyperparameters, whose metrics are the run's
    scalars."""
    from google.protobuf.struct_pb2 import Value
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

    start = SessionStartInfo(group_name=name, start_time_secs=time.time())
    for key, value in values.items():
        if isinstance(value, bool):
            start.hparams[key].CopyFrom(Value(bool_value=value))
        elif isinstance(value, str):
            start.hparams[key].CopyFrom(Value(string_value=value))
        else:
            start.hparams[key].CopyFrom(Value(number_value=value))
    about = metadata.create_summary_metadata(HParamsPluginData(session_start_info=start))
    tag = metadata.SESSION_START_INFO_TAG
    return [Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)])]


def _records(events: list[object]) -> bytes:
    from tensorboard.summary.writer.record_writer import RecordWriter

    out = io.BytesIO()
    for event in events:
        RecordWriter(out).write(event.SerializeToString())  # type: ignore[attr-defined]
    return out.getvalue()
