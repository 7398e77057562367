"""The text of the progress line, with a clock that the test moves."""

from __future__ import annotations

import io
import logging
import re
from pathlib import Path

import pytest
from rich.console import Console

from marl.run import bars, progress
from marl.run.bars import Bars, Teller
from marl.run.progress import STOPPING, ConsoleHandler, Doing, TrainProgress, doing
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


def test_a_run_beside_others_tells_what_it_does_and_is_drawn_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(bars.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Doing, "teller", Teller(tmp_path, "runs/x/game/qmix-none/seed1"))
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    drawn = Bars(tmp_path, screen)

    def lines() -> list[str]:
        drawn.look()
        with screen.capture() as seen:
            screen.print(drawn.progress.get_renderable())
        plain = re.sub(r"\x1b\[[0-9;]*m", "", seen.get())
        return [" ".join(line.split()[1:]).replace("━", "").replace("╸", "") for line in plain.splitlines()]

    line = TrainProgress("auto", total_steps=3000, first_step=0)
    assert [" ".join(one.split()) for one in lines()] == ["game/qmix-none/seed1 training"]
    with doing("testing"):
        assert "testing" in lines()[0], "at once"
    now[0] += 1
    line.show(1500, {"train/return": 2.5})
    assert "training" in lines()[0] and "1,500/3,000 steps return 2.50" in lines()[0]
    now[0] += 0.1
    line.show(1600, {})
    assert "1,500/3,000" in lines()[0], "not at every collection"
    Teller(tmp_path, "runs/x/other/qmix-none/seed1").tell(at_once=True, doing="training")
    assert len(lines()) == 2, "the same algorithm and seed in another game"
    Teller(tmp_path, "runs/x/game/qmix-none/seed1").tell(at_once=True, doing="training")
    assert len(lines()) == 2, "a run that begins again takes the place of its own bar"
    Teller(tmp_path, "runs/x/other/qmix-none/seed1").close()
    (tmp_path / "stop").touch()
    assert "stopping" in lines()[0], "a signal is answered before the run has seen it"
    assert Doing.teller is not None
    Doing.teller.close()
    assert lines() == []


def test_a_name_is_no_markup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(progress, "error_console", lambda: screen)
    Teller(tmp_path, "runs/game/qmix[a,b]/seed1").tell(at_once=True, doing="training")
    drawn, jobs = Bars(tmp_path, screen), progress.JobProgress(2)
    drawn.look()
    with jobs, screen.capture() as seen:
        jobs.show("qmix[/a] in random", 0.5)
        assert jobs.bar is not None
        screen.print(drawn.progress.get_renderable(), jobs.bar.get_renderable())
    plain = re.sub(r"\x1b\[[0-9;]*m", "", seen.get())
    assert "game/qmix[a,b]/seed1" in plain and "qmix[/a] in random" in plain


def test_lines_say_whose_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "finished", None, None)
    assert ConsoleHandler().format(record) == "finished"
    monkeypatch.setattr(ConsoleHandler, "whose", "qmix-none/seed1")
    assert ConsoleHandler().format(record) == "qmix-none/seed1  finished"


def test_a_run_that_stops_does_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Doing, "now", "training")
    with doing("testing"):
        Doing.begin(STOPPING)
    assert Doing.now == STOPPING
    TrainProgress("off", total_steps=1, first_step=0)
    assert Doing.now == "training", "the next run of this process"
