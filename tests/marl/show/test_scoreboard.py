"""The scoreboard as text and as a picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from marl.measure.fidelity import MEASURES
from marl.show import scoreboard


def found(mean: float, half: float | None, log: float | None = None) -> dict[str, Any]:
    low, high = (None, None) if half is None else (mean - half, mean + half)
    return {"mean": mean, "low": low, "high": high, "n": 4, "log": log}


def board(name: str = "qmix_3s_vs_3z") -> dict[str, Any]:
    row = {measure: found(-10.125, 0.25) for measure in MEASURES}
    row |= {"win_rate": found(0.5, 0.125, 0.956), "length": found(49.96, 1.21, 54.7), "residual_rms": found(0.5, None)}
    random = {"map": "3s_vs_3z", "return": found(4.93, 0.16), "length": found(51.8, 1.3, 50.9)}
    team = {"map": "3s_vs_3z", "agent": f"{name}.th", **row}
    return {"episodes": 4, "seed": 9, "physics": 4, "teams": [team], "random": [random]}


def shown(what: dict[str, Any], width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    scoreboard.show(what, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_team_has_three_lines() -> None:
    lines = [line.split() for line in shown(board(), 100)]
    at = next(k for k, line in enumerate(lines) if "here" in line)
    assert lines[at] == ["qmix_3s_vs_3z", "here", "0.500", "-10.12", "50.0", "-10.12", "-10.12", "-10.12", "-10.125",
                         "0.500"]  # fmt: skip
    assert lines[at + 1] == ["95%", "0.375-0.625", "±0.25", "±1.2", "±0.25", "±0.25", "±0.25", "±0.250"]
    assert lines[at + 2] == ["log", "0.956", "-", "54.7", "-", "-", "-", "-", "-"]
    assert ["3s_vs_3z", "here", "4.93", "51.8"] in lines and ["log", "-", "50.9"] in lines


def test_a_name_is_no_markup() -> None:
    assert "qmix[a,b]" in "\n".join(shown(board("qmix[a,b]"), 100))


def test_a_hundred_columns_hold_it_whole() -> None:
    """What does not fit is folded, and rich cuts no number."""
    assert max(map(len, shown(board(), 100))) <= 100
    assert sum("…" in line for line in shown(board("qmix_" + "x" * 40), 100)) == 0
    assert not any(line.strip() == "random play" for line in shown({**board(), "random": []}, 100))


def test_the_best_order_is_named_beside_its_team() -> None:
    what = board()
    (row,) = what["teams"]
    row["best"] = {**{measure: row[measure] for measure in MEASURES}, "win_rate": found(0.75, 0.125), "chosen": "7"}
    text = "\n".join(shown(what, 120))
    assert "over the same number of seed 10" in text and "qmix_3s_vs_3z: 7" in text and "0.750" in text


def test_a_picture_is_drawn_with_and_without_logs(tmp_path: Path) -> None:
    empty = {**board(), "random": []}
    for measure in MEASURES:
        empty["teams"][0][measure]["log"] = None
    for name, what in (("a", board()), ("b", empty)):
        assert scoreboard.draw(what, tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "a.png").stat().st_size > (tmp_path / "b.png").stat().st_size
