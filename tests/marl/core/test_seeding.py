"""Named streams, and generators that continue from states that another kind of device saved."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from marl.core.seeding import Streams, globals_state, restore, restore_globals

ROOT = Path(__file__).resolve().parents[3]
FROM_A_GPU = torch.arange(16, dtype=torch.uint8)  # the size of what torch.Generator("cuda").get_state() gives


def numbers(gen: torch.Generator) -> list[float]:
    return torch.rand(3, generator=gen).tolist()


def test_streams_continue_where_they_were() -> None:
    streams = Streams(3)
    numbers(streams["attack"])
    saved, expected = streams.state_dict(), numbers(streams["attack"])
    other = Streams(3)
    other.load_state_dict(saved)
    assert numbers(other["attack"]) == expected != numbers(Streams(3)["attack"])


def test_a_state_of_another_kind_of_device_begins_a_stream_of_its_own() -> None:
    def begun(seed: int, name: str, state: torch.Tensor) -> list[float]:
        gen = torch.Generator().manual_seed(seed)
        assert not restore(gen, state, name)
        return numbers(gen)

    first = begun(1, "a", FROM_A_GPU)
    assert first == begun(1, "a", FROM_A_GPU)
    others = [begun(2, "a", FROM_A_GPU), begun(1, "b", FROM_A_GPU), begun(1, "a", FROM_A_GPU + 1)]
    assert first not in others and numbers(torch.Generator().manual_seed(1)) not in [first, *others]


def test_such_streams_are_told_once_and_the_others_continue(caplog: pytest.LogCaptureFixture) -> None:
    streams = Streams(3)
    numbers(streams["replay"])
    saved = streams.state_dict() | dict.fromkeys(("explore", "attack", "eval", "eval_attack"), FROM_A_GPU)
    expected, other = numbers(streams["replay"]), Streams(3)
    with caplog.at_level(logging.WARNING):
        other.load_state_dict(saved)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "explore, attack, eval, eval_attack were saved on another kind of device" in caplog.text
    assert numbers(other["replay"]) == expected
    assert len({tuple(numbers(other[name])) for name in ("explore", "attack", "eval", "eval_attack")}) == 4


@pytest.mark.parametrize("saved", [1, 2, 3])
def test_states_of_more_gpus_than_are_here_begin_anew(
    saved: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With two GPUs, what one or two have saved is continued, and what three have saved is not."""
    continued: list[list[torch.Tensor]] = []
    begun: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", continued.append)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", begun.append)
    with caplog.at_level(logging.WARNING):
        restore_globals(globals_state() | {"cuda": [FROM_A_GPU] * saved})
    assert (len(continued), len(begun)) == ((1, 0) if saved < 3 else (0, 1))
    assert ("3 GPUs were saved, 2 are here" in caplog.text) == (saved == 3)


def test_states_of_gpus_are_left_alone_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    touched: list[Any] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", touched.append)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", touched.append)
    saved, expected = globals_state() | {"cuda": [FROM_A_GPU]}, torch.rand(3)
    restore_globals(saved)
    assert touched == [] and torch.equal(torch.rand(3), expected), "the CPU's generator is restored all the same"


def test_every_generator_is_restored_by_one_function() -> None:
    """A plug-in that sets a saved state by itself breaks where a run goes on on another kind of device."""
    own = {"marl/core/seeding.py", "algos/s2q/policy.py"}  # the latter gives a generator back its own present state
    for folder in ("marl", "algos", "attacks", "envs"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if str(path.relative_to(ROOT)) not in own:
                assert not re.search(r"\.set_state\(", path.read_text(encoding="utf8")), path
