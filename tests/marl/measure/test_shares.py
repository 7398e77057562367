"""Shares of the time: what is inside counts for the inside alone, and nothing stays wrapped."""

from __future__ import annotations

import pytest

from marl.measure import shares
from marl.measure.shares import Shares


class Outer:
    def work(self) -> str:
        tick(3.0)
        Inner().work()
        tick(4.0)
        return "done"


class Inner:
    def work(self) -> None:
        tick(5.0)


class Late(Inner):
    """Inherits what is watched."""


NOW = [0.0]


def tick(seconds: float) -> None:
    NOW[0] += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares.time, "process_time", lambda: NOW[0])


def test_the_time_of_a_call_within_a_call_counts_once() -> None:
    """3 + 4 outside, 5 inside, twice; then 5 more inside alone, by a class that inherits."""
    found = Shares()
    with found.watch([("outer", Outer, ("work",)), ("inner", Inner, ("work",)), ("late", Late, ("work",))]):
        assert Outer().work() == "done"
        Outer().work()
        Late().work()
    assert found.seconds == {"outer": 14.0, "inner": 10.0, "late": 5.0}
    Outer().work()
    assert sum(found.seconds.values()) == 29.0, "nobody watches any more"
    assert "work" not in vars(Late)


def test_a_call_that_fails_counts_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Shares()
    with pytest.raises(ZeroDivisionError), found.watch([("outer", Outer, ("work",)), ("inner", Inner, ("work",))]):
        monkeypatch.setattr("tests.marl.measure.test_shares.tick", lambda seconds: 1 / 0)
        Outer().work()
    assert found.seconds["outer"] == 0.0 and found._inner == []
