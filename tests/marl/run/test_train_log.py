"""A run keeps what it says in ``train.log``, whatever the process that trains it shows."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

import marl
from tests.support.helpers import TINY


def test_a_run_keeps_its_log_and_the_process_shows_what_it_did_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, shown = logging.getLogger(), logging.StreamHandler(sys.stdout)
    monkeypatch.setattr(root, "handlers", [shown])
    monkeypatch.setattr(root, "level", logging.WARNING)
    run = marl.train(*TINY, dir=tmp_path / "run")
    kept = (run.dir / "train.log").read_text()
    assert "run folder" in kept and "final test" in kept
    assert "run folder" not in capsys.readouterr().out
    assert root.level == logging.WARNING and root.handlers == [shown] and not shown.filters
