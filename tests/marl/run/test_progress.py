"""The text of the progress line, with a clock that the test moves."""

from __future__ import annotations

import pytest

from marl.run import progress
from marl.run.progress import TrainProgress
from marl.run.report import size_text


def test_speed_is_measured_from_the_first_collection_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """80 s of compilation before the first collection must not make the rest of the run look eight hours long."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    line = TrainProgress("off", total_steps=3000, first_step=0)
    now[0] = 80.0
    line.show(500, {})
    assert line.status(500, {}) == "500/3,000 steps", "nothing is known yet"
    now[0] = 90.0
    line.show(1000, {})  # 500 steps in 10 s; 2,000 are left
    assert line.status(1000, {"train/win_rate": 0.5}) == "1,000/3,000 steps  50 steps/s  win 0.50  left 0:00:40"
    assert line.status(3100, {}).endswith("left 0:00:00")


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (1023, "1,023 B"), (1024, "1 KiB"), (1020 * 2**20, "1,020 MiB"), (1.5 * 2**30, "1.5 GiB"),
     (156_250 * 2**30, "156,250 GiB")],
)  # fmt: skip
def test_sizes_are_written_without_exponents(number: float, text: str) -> None:
    assert size_text(number) == text
