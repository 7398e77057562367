"""Cells whose files were damaged are measured again, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.robustness_parts import CALLS, NATURAL, TRIP, entrant, measured, setting

LEFT = {
    "empty": b"", "zeros": b"\x00" * 64, "no_text": b"\xff\xfe", "cut": b'{"episodes": {', "null": b"null",
    "list": b"[]", "number": b"3", "text": b'"x"', "nothing_in_it": b"{}",
}  # fmt: skip


@pytest.mark.parametrize("left", LEFT.values(), ids=list(LEFT))
def test_a_damaged_cell_is_measured_again(left: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    players, columns, where = [entrant([0, 1])], [NATURAL, TRIP], setting(tmp_path)
    first, _ = measured(players, columns, where)
    natural, tripped = sorted((tmp_path / "cells").glob("*.json"), key=lambda path: "Trip" in path.read_text())
    kept = natural.read_bytes(), natural.stat().st_mtime_ns
    tripped.write_bytes(left)
    CALLS.clear()
    again, outcome = measured(players, columns, where)
    assert outcome.complete and again == first and CALLS["Trip"] == 2, "two rounds"
    assert f"{tripped} is damaged; it is measured again" in caplog.text
    assert json.loads(tripped.read_text())["episodes"]
    assert (natural.read_bytes(), natural.stat().st_mtime_ns) == kept
