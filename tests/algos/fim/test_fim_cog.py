"""Entropies by hand, the choice of center-of-gravity features, and the report of it."""

from __future__ import annotations

import csv
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from algos.fim.cog import CenterOfGravity, entropies
from algos.fim.memory import Memory
from algos.shared.features import matching
from marl.core.types import ConfigError
from tests.support.fim_parts import COG, button_batch, make_cog, make_dynamics
from tests.support.helpers import make_spec

NAMES = ("wall", "clock", "rare", "coin", "box 0 x", "time")
SPEC = replace(make_spec(S=6), state_names=NAMES)


def changes() -> Tensor:
    """Make changes [100, 6] of features that change never, always by 0.25, in 5 of 100 steps, in 50 of 100, in 10 of
    100 (in either direction), and by ten sizes, each in ten steps."""
    change = torch.zeros(100, 6)
    change[:, 1] = 0.25
    change[:5, 2] = 3.0
    change[::2, 3] = 0.5
    change[10:20:2, 4], change[11:20:2, 4] = 0.1, -0.1
    change[:, 5] = (torch.arange(100) % 10 + 0.5) / 9.5
    return change


def binary(p: float) -> float:
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def test_entropies_by_hand() -> None:
    found = make_cog(SPEC).find(changes())
    expected = [0.0, 0.0, binary(0.05), binary(0.5), binary(0.1), math.log(10)]
    assert found.entropy.tolist() == pytest.approx(expected, abs=1e-5)
    assert found.changed.tolist() == pytest.approx([0.0, 1.0, 0.05, 0.5, 0.1, 1.0])
    assert found.scale.tolist() == pytest.approx([0.0, 0.25, 3.0, 0.5, 0.1, 1.0])


def test_entropies_do_not_depend_on_units() -> None:
    change = changes()
    assert torch.equal(make_cog(SPEC).find(10 * change).entropy, make_cog(SPEC).find(change).entropy)
    assert not torch.equal(entropies(change.abs(), torch.ones(6), 20), entropies(10 * change.abs(), torch.ones(6), 20))


def test_normalisers_by_hand() -> None:
    """With changes 1 to 1000: the largest, their mean, and the one that a thousandth of them exceeds."""
    change = torch.zeros(4000, 6)
    change[:1000, 0] = torch.arange(1.0, 1001.0)
    for normaliser, scale in (("max", 1000.0), ("mean", 500.5), ("quantile", 999.0)):
        assert make_cog(SPEC, normaliser=normaliser).find(change).scale[0].item() == pytest.approx(scale)


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ({"delta": 0.6}, {"rare", "box 0 x"}),
        ({"delta": 0.25}, {"rare"}),
        ({"delta": 3.0}, {"rare", "coin", "box 0 x", "time"}),
        ({"delta": 3.0, "h_min": 0.25}, {"coin", "box 0 x", "time"}),
        ({"delta": 3.0, "exclude": ["^time$", "coin"]}, {"rare", "box 0 x"}),
        ({"delta": 3.0, "candidates": ["box", "0:3"]}, {"rare", "box 0 x"}),
    ],
)
def test_choices(options: dict[str, Any], chosen: set[str]) -> None:
    found = make_cog(SPEC, **options).find(changes())
    assert {name for name, keep in zip(NAMES, found.selected.tolist(), strict=True) if keep} == chosen


def test_both_bounds_are_strict() -> None:
    entropy = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    chosen = make_cog(SPEC, delta=entropy[4].item(), h_min=entropy[1].item()).select(entropy)
    assert chosen.tolist() == [False, False, True, True, False, False]


def test_the_largest_gap() -> None:
    """ln H: -4.0, -3.5 | -0.7, -0.4; a feature that never varies does not count."""
    entropy = torch.tensor([0.0, -3.5, -0.7, -4.0, -0.4, 0.0]).exp()
    entropy[0] = entropy[5] = 0.0
    assert make_cog(SPEC, delta="auto_gap").select(entropy).tolist() == [False, True, False, True, False, False]
    assert not make_cog(SPEC, delta="auto_gap").select(torch.zeros(6)).any()
    with pytest.raises(ConfigError, match=r"no gap of at least 3.0 in ln H; .* H: coin 0.0183, clock 0.0302, rare"):
        make_cog(replace(SPEC, state_names=("a", "clock", "rare", "coin", "b", "c")), delta="auto_gap",
                 least_gap=3.0).select(entropy)  # fmt: skip


def test_resets_are_no_changes() -> None:
    """An episode's last button is not compared with the first one of the next episode."""
    spec = make_spec(n=2, A=3, O=4, S=5, limit=8)
    batch = button_batch(spec, 30)
    batch.state[torch.arange(9) > batch.length[:, None]] = 100.0  # a state that no step led to
    data = make_dynamics(spec).transitions(batch)
    change = data.change[data.filled]
    assert len(change) == batch.filled.sum() and change[:, 0].max() < 0.11 and not change[:, 2].any()
    last = batch.length.long() - 1
    assert torch.equal(data.change[range(30), last], batch.state[range(30), last + 1] - batch.state[range(30), last])


def test_memory_keeps_the_newest_steps() -> None:
    spec = make_spec(n=2, A=3, O=4, S=5, limit=8)
    memory, batches = Memory(spec, 60, with_obs=False), [button_batch(spec, 10, seed) for seed in range(5)]
    steps = [int(batch.filled.sum()) for batch in batches]
    for batch in batches:
        memory.add(batch.trim(int(batch.length.max())))
    kept = memory.episodes()
    count = len(kept) // 10
    assert 0 < count < 5 and kept.filled.sum() == sum(steps[-count:]) >= 60 > sum(steps[1 - count :])
    assert torch.equal(kept.state[-10:, : batches[-1].length.max()], batches[-1].state[:, : batches[-1].length.max()])
    assert "obs" not in kept


def test_the_report_names_what_was_chosen(tmp_path: Path) -> None:
    cog = make_cog(SPEC, exclude=["coin"])
    cog.report(cog.find(changes()), tmp_path / "reports")
    with open(tmp_path / "reports" / "fim_cog.csv", encoding="utf8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list(NAMES)
    assert [row["name"] for row in rows if row["selected"] == "True"] == ["rare", "box 0 x"]
    assert rows[3]["candidate"] == "False" and float(rows[3]["entropy"]) == pytest.approx(binary(0.5))
    assert (tmp_path / "reports" / "fim_cog.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_to_draw_is_drawn(tmp_path: Path) -> None:
    cog = make_cog(SPEC)
    cog.report(cog.find(torch.zeros(10, 6)), tmp_path)
    assert (tmp_path / "fim_cog.png").exists() and "matplotlib.pyplot" not in sys.modules


def test_patterns() -> None:
    assert matching(SPEC, ["^box", "4:"], "key").tolist() == [False, False, False, False, True, True]
    assert matching(make_spec(S=3), ["dim 1"], "key").tolist() == [False, True, False]
    assert not matching(SPEC, ["enemy"], "key", must=False).any()
    for patterns, message in ((["enemy"], "names no state feature; there are wall"), (["("], "no regular expression")):
        with pytest.raises(ConfigError, match=message):
            matching(SPEC, patterns, "key")


class Unnormalised(CenterOfGravity):
    """The broken twin does not divide changes by their size."""

    def scale_of(self, change: Tensor) -> Tensor:
        return torch.ones(change.shape[1])


def test_a_choice_that_depends_on_units_would_be_seen() -> None:
    broken = Unnormalised(SPEC, **COG)
    assert not torch.equal(broken.find(changes() / 100).entropy, broken.find(changes()).entropy)
