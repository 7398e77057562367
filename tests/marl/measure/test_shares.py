"""Shares of the time: what is inside counts for the inside alone, and nothing stays wrapped."""

from __future__ import annotations

from pathlib import Path

import pytest

from marl.core.config import resolved
from marl.measure import shares
from marl.measure.shares import Shares, parts_of
from marl.run import collect
from marl.run.trainer import open_run
from tests.support.helpers import TINY, compose_train


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


@pytest.mark.parametrize(("env", "one_loop"), [("toy/corridor", False), ("spread", True)])
def test_a_compiled_collection_is_watched_as_a_whole(env: str, one_loop: bool, tmp_path: Path) -> None:
    """A class whose methods are wrapped declares no compiled form: the watched collection would be another one."""
    cfg = compose_train(tmp_path, *TINY, f"env={env}")
    run = open_run(cfg, tmp_path / "run", resolved(cfg), None)
    found, rolled = Shares(), []
    calls = [(part, owner, names) for part, owner, names in parts_of(run)]
    original = collect.roll
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collect, "roll", lambda *a, **k: rolled.append(1) or original(*a, **k))
        with found.watch(calls):
            run.collect()
    assert bool(rolled) == one_loop == ("environment, policy and attack as one loop" in found.seconds)
    run.close()
