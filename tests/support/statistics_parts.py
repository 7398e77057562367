"""Groups of runs made of numbers, and aggregates made by hand, for tests of statistics and of what shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from marl.core.types import ConfigError
from marl.show.gather import Run, Tasks
from marl.show.statistics import TAUS, Aggregate, Band, Estimate, Pair, load_rliable

WON, RETURN = "eval/win_rate", "eval/return"


def rliable() -> tuple[ModuleType, ModuleType]:
    """Return rliable's library and metrics; skip the test that asks where they are missing."""
    try:
        return load_rliable()
    except ConfigError as error:
        pytest.skip(str(error))


def run(seed: int, values: Sequence[float] | Mapping[int, float], key: str = WON, **more: Any) -> Run:
    """Return a run with the ``values`` of its tests, by step or at 0, 100, 200, ..."""
    tests = values if isinstance(values, Mapping) else {100 * i: value for i, value in enumerate(values)}
    rows = [{"env_steps": step, key: value} for step, value in tests.items()]
    return Run(Path(f"seed{seed}"), {"seed": seed}, rows, more.get("unfinished"), {})


def tasks(scores: Mapping[str, Mapping[str, Sequence[float]]], key: str = WON) -> Tasks:
    """Return runs by their final scores: task -> method -> one score for each seed from 0."""
    return {
        task: {
            label: [run(seed, [0.0, score], key) for seed, score in enumerate(found)] for label, found in held.items()
        }
        for task, held in scores.items()
    }


def aggregate_by_hand(key: str = WON, single: bool = False) -> Aggregate:
    """Return an aggregate of two methods on two tasks; those of a ``single`` seed have no intervals."""

    def estimate(value: float) -> Estimate:
        return Estimate(value, None, None) if single else Estimate(value, value - 0.125, value + 0.125)

    def band(x: list[float], value: float) -> Band:
        ends = (None, None) if single else ([value - 0.1] * len(x), [value + 0.1] * len(x))
        return Band(x, [value] * len(x), *ends)

    methods = {"study qmix": 0.75, "study vdn": 0.5}
    names = ("iqm", "median", "mean", "optimality_gap")
    seeds = [0] if single else [0, 1]
    return Aggregate(
        key=key,
        tasks=["toy-corridor", "toy-shift"],
        seeds={method: {"toy-corridor": seeds, "toy-shift": seeds} for method in methods},
        limits={"toy-corridor": (0.0, 1.0), "toy-shift": (0.0, 1.0)},
        scale=f"{key} is a rate and counts as it is",
        scores={method: [[value, value]] * len(seeds) for method, value in methods.items()},
        intervals={method: {name: estimate(value) for name in names} for method, value in methods.items()},
        pairs=[
            Pair("study qmix", "study vdn", estimate(0.75)),
            Pair("study vdn", "study qmix", estimate(0.25)),
        ],
        profiles={method: band(TAUS.tolist(), value) for method, value in methods.items()},
        curves={method: band([0.0, 100.0], value) for method, value in methods.items()},
        notes=[],
    )
