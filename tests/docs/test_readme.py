"""Run the Python example of the README in an empty folder, as a newcomer does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from marl.core.intervals import Interval

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf8"), re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    run, actions, matrix, cross = (names[name] for name in ("run", "actions", "matrix", "cross"))
    assert isinstance(run.scores["return"], Interval) and run.finished
    assert actions.shape == (32, 2) and (tmp_path / "episode.gif").exists()
    assert matrix.complete and cross.complete
