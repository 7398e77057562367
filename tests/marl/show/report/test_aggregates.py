"""Groups over all environments: the section that shows an aggregate, and where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from marl.core.types import ConfigError
from marl.show import statistics
from marl.show.gather import gather
from marl.show.report import facts
from marl.show.report.aggregates import aggregates, section
from marl.show.statistics import Aggregate, Band, Estimate, Pair
from tests.support.report_parts import make_run, options

pytest.importorskip("plotly", reason="charts need plotly: pip install -e .[report]")


def made(methods: tuple[str, ...] = ("a", "b")) -> Aggregate:
    one = Estimate(0.5, 0.25, 0.75)
    return Aggregate(
        key="eval/win_rate", tasks=["x", "y"], seeds={}, limits={"x": (0.0, 1.0), "y": (0.0, 1.0)}, scale="as it is",
        scores={name: [[0.5, 0.5], [0.5, 0.5]] for name in methods},
        intervals={name: dict.fromkeys(statistics.STATISTICS, one) for name in methods},
        pairs=[Pair("a", "b", Estimate(0.75, 0.5, 1.0)), Pair("b", "a", Estimate(0.25, 0.0, 0.5))],
        profiles={name: Band([0.0, 1.0], [1.0, 0.0], None, None) for name in methods},
        curves={name: Band([0.0, 100.0], [0.0, 0.5], [0.0, 0.25], [0.0, 0.75]) for name in methods}, notes=["said"],
    )  # fmt: skip


def test_an_aggregate_becomes_a_table_and_charts() -> None:
    found = section(made(), {"a": ("#0072B2", "solid"), "b": ("#D55E00", "dash")})
    assert found.table.lines[0] == ["a", "4", *["0.500 [0.250, 0.750]"] * 4] and found.notes == ["said"]
    assert "x 0 to 1, y 0 to 1" in found.about
    better, above, along = (json.loads(chart.json) for _, chart in found.charts)
    assert better["data"][0]["z"] == [[None, 0.75], [0.25, None]] and "[0.50, 1.00]" in better["data"][0]["text"][0][1]
    assert [trace["name"] for trace in above["data"]] == ["a", "b"], "lines without bands"
    assert [trace["line"].get("dash") for trace in along["data"]] == [None, "solid", None, "dash"], "bands and lines"
    assert along["data"][1]["customdata"] == [[0, 0], [0.25, 0.75]]


def test_one_method_is_not_compared_with_itself() -> None:
    found = section(made(("a",)), {"a": ("#0072B2", "solid")})
    assert [what.partition(":")[0] for what, _ in found.charts] == [
        "Performance profiles", "Interquartile mean over environment steps",
    ]  # fmt: skip


def test_groups_without_a_common_environment_are_not_compared_and_that_is_said(tmp_path: Path) -> None:
    make_run(tmp_path, "a-none", task="x")
    make_run(tmp_path, "b-none", task="y")
    try:
        statistics.load_rliable()
    except ConfigError as error:
        pytest.skip(str(error))
    tasks, _ = gather(f"{tmp_path}/**", metas=True)
    found, notes = aggregates(tasks, facts.groups_of(tasks), "eval/win_rate", 1)
    assert found is None and notes and all(note.startswith("Aggregates: ") for note in notes)


def test_groups_are_compared_by_the_statistics_of_rliable(tmp_path: Path) -> None:
    """Both seeds of b are above both of a: the probability of improvement is 1."""
    for seed, (low, high) in enumerate(((0.1, 0.8), (0.2, 0.9))):
        make_run(tmp_path, "a-none", seed, ((0, 0.0), (1000, low)))
        make_run(tmp_path, "b-none", seed, ((0, 0.0), (1000, high)))
    try:
        statistics.load_rliable()
    except ConfigError as error:
        pytest.skip(str(error))
    tasks, _ = gather(options(tmp_path).runs, metas=True)
    found, notes = aggregates(tasks, facts.groups_of(tasks), "eval/win_rate", 1)
    assert found is not None and notes == []
    assert [line[2].split()[0] for line in found.table.lines] == ["0.150", "0.850"]
    assert json.loads(found.charts[0][1].json)["data"][0]["z"] == [[None, 0.0], [1.0, None]]
