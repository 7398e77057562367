"""The robustness matrix: its numbers by hand, what is measured once and what again, and what it leaves behind."""

from __future__ import annotations

import csv
import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from marl.core.protocols import Fitting
from marl.core.types import core_fields
from marl.measure import matrix as engine
from marl.measure.matrix import measure, read_cell
from marl.measure.robustness_scores import add_leads, combine, over_tasks, score_rows, score_run
from marl.run.evaluate import evaluate
from marl.show.robustness_report import csv_text, document, table
from tests.support.robustness_parts import (
    BOTH,
    CALLS,
    CORRIDOR,
    NATURAL,
    TRIP,
    Counting,
    Scripted,
    Starts,
    Student,
    Trip,
    column,
    entrant,
    fake,
    matrix,
    measured,
    plan,
    score,
    setting,
)

T_975 = {1: 12.7062, 2: 4.30265, 5: 2.57058}  # Student's t by degrees of freedom


@pytest.fixture(autouse=True)
def forget() -> None:
    CALLS.clear()
    Starts.SEEN.clear()


def test_a_new_version_of_the_measurement_changes_the_keys_of_cells_and_fits_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = [TRIP, column("student", fake("Student", rounds=2), "victim")]
    before = plan([entrant([0, 0])], columns, setting(tmp_path))[0]
    monkeypatch.setattr(engine, "MEASUREMENT", engine.MEASUREMENT + 1)
    after = plan([entrant([0, 0])], columns, setting(tmp_path))[0]
    assert [cell.team for cell in before] == [cell.team for cell in after]
    assert not {cell.key for cell in before} & {cell.key for cell in after}
    assert before[1].fit is not None and after[1].fit is not None and before[1].fit.key != after[1].fit.key


# numbers


def test_a_row_by_hand(tmp_path: Path) -> None:
    """Payoffs [[8, 2], [4, 0]]; the team plays (0, 0) and wins with 8. Six episodes on four lanes, 0 1 2 3 0 1, of
    which the attack trips three: 4 instead of 8 where one agent is made to play 1, 0 where both are."""
    (method, row), outcome = measured([entrant([0, 0])], [NATURAL, TRIP, BOTH], setting(tmp_path))
    assert outcome.complete and not outcome.impossible and (method.level, row.level) == ("method", "run")
    natural, trip, both = (score(row, name) for name in ("natural", "trip", "both"))
    assert (natural.win_rate.mean, natural.returns.mean, natural.return_std) == (1.0, 8.0, 0.0)
    assert trip.win_rate.mean == both.win_rate.mean == 0.5
    wilson = (0.18762, 0.81238)  # 3 of 6
    assert (trip.win_rate.low, trip.win_rate.high) == pytest.approx(wilson, abs=1e-5)
    assert (trip.returns.mean, both.returns.mean) == (6.0, 4.0)
    assert (trip.return_std, both.return_std) == pytest.approx((4.8**0.5, 2 * 4.8**0.5))
    half = T_975[5] * (4.8 / 6) ** 0.5
    assert (trip.returns.low, trip.returns.high) == pytest.approx((6 - half, 6 + half), rel=1e-4)
    assert (trip.attacked_steps, trip.attacked_actions) == (0.5, 0.5)
    assert (both.attacked_steps, both.attacked_actions) == (0.5, 1.0)
    assert trip.length == 1.0 and natural.attacked_steps == 0.0
    assert trip.drop is not None
    half = T_975[5] * (0.3 / 6) ** 0.5  # episodes are paired: 1 0 1 0 1 0
    assert (trip.drop.mean, trip.drop.low, trip.drop.high) == pytest.approx((0.5, 0.5 - half, 1.0), rel=1e-4)
    assert 0.5 + half > 1, "no rate can drop that far"
    assert row.worst("win_rate", "natural") == "trip" and row.worst("return", "natural") == "both"
    assert score(method, "trip") is trip, "a method of one run is that run"


def test_drops_are_paired() -> None:
    """Two attacks with the same win rate: one always costs the same episodes."""
    won = np.array([1, 1, 0, 0, 1, 1])
    base = {"won": won, "return": won * 2.0, "length": won, "hits": won, "hit_actions": won}
    lost = {**base, "won": np.zeros(6), "return": np.zeros(6)}
    drop = score_run(lost, base, "return").drop
    half = T_975[5] * (32 / 30 / 6) ** 0.5  # 2 2 0 0 2 2: squares around 4/3 add up to 16/3
    assert drop is not None and (drop.mean, drop.high - drop.mean) == pytest.approx((8 / 6, half), rel=1e-4)
    assert score_run(lost, None, "return").drop is None


def test_seeds_of_a_method_and_tasks(tmp_path: Path) -> None:
    """One seed always wins with 8, the other never, with 2; another task has one run."""
    entrants = [entrant([0, 0]), entrant([0, 1], seed=1), entrant(None, env=CORRIDOR, task="corridor")]
    rows, _ = measured(entrants, [NATURAL, TRIP], setting(tmp_path))
    assert [(row.level, row.task, row.seeds) for row in rows] == [
        ("method", "matrix", (0, 1)), ("run", "matrix", (0,)), ("run", "matrix", (1,)), ("method", "corridor", (0,)),
        ("run", "corridor", (0,)), ("tasks", "matrix, corridor", (0, 1)),
    ]  # fmt: skip
    both = score(rows[0], "natural")
    assert (both.win_rate.mean, both.win_rate.n) == (0.5, 2)
    assert (both.win_rate.low, both.win_rate.high) == (0.0, 1.0), "not 0.5 - 6.35 and 0.5 + 6.35"
    assert (both.returns.mean, both.return_std) == (5.0, pytest.approx(18**0.5))
    assert both.returns.high == pytest.approx(5 + T_975[1] * 3, rel=1e-4), "a return has no limits"
    drop = score(rows[0], "trip").drop
    assert drop is not None and (drop.mean, drop.n) == (0.25, 2)  # 0.5 of the first, nothing of the second
    assert (drop.low, drop.high) == (-1.0, 1.0)
    tasks = score(rows[-1], "natural").win_rate
    assert tasks.mean == 0.75 and not tasks.bounded, "one run of a task tells nothing about its seeds"


def test_leads_are_paired_by_seed_and_task() -> None:
    """Ahead by 0.1, 0.2, 0.3 (mean 0.2, variance 0.01); by 0 and 0.2 in the other task, whose seed 2 has no partner.
    The third method shares no seed."""
    wins = {("a", "base"): [0.1, 0.5, 0.6], ("a", "other"): [0.2, 0.7, 0.9], ("b", "base"): [0.5, 0.5],
            ("b", "other"): [0.5, 0.7, 1.0], ("a", "alone"): [0.4]}  # fmt: skip
    entrants, cells = [], []
    for (task, label), values in wins.items():
        for k, value in enumerate(values):
            entrants.append(entrant([0, 0], label, k + 5 * (label == "alone"), task=task))
            won = np.arange(10) < 10 * value
            cells.append({"x": dict.fromkeys(("return", "length", "hits", "hit_actions"), won * 1.0) | {"won": won}})
    rows = add_leads(score_rows(entrants, cells, None, "win_rate"), "base", "win_rate")
    found = {(row.level, row.task, row.label): row.leads.get("x") for row in rows if row.leads}
    assert list(found) == [("method", "a", "other"), ("method", "b", "other"), ("tasks", "a, b", "other")]
    lead, half = found["method", "a", "other"], T_975[2] * 0.1 / 3**0.5
    assert lead is not None and (lead.mean, lead.low, lead.n) == pytest.approx((0.2, 0.2 - half, 3), rel=1e-4)
    both, parts = found["tasks", "a, b", "other"], (0.01 / 3, 0.02 / 2)
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 2 + parts[1] ** 2)
    half = float(stats.t.ppf(0.975, freedom)) * sum(parts) ** 0.5 / 2
    assert both is not None and (both.mean, both.high) == pytest.approx((0.15, 0.15 + half))


def test_the_interval_over_tasks_by_hand() -> None:
    """Tasks [0, 2] and [4, 6]: each mean has variance 1, two degrees of freedom together."""
    found = over_tasks([np.array([0.0, 2.0]), np.array([4.0, 6.0])])
    half = T_975[2] * 2**0.5 / 2
    assert (found.mean, found.low, found.high, found.n) == pytest.approx((3.0, 3 - half, 3 + half, 4), rel=1e-4)
    certain = over_tasks([np.array([1.0, 1.0]), np.array([0.0, 0.0])])
    assert (certain.low, certain.high) == (0.5, 0.5)


def test_a_mean_over_tasks_does_not_weigh_them_by_seeds() -> None:
    results = {"won": np.array([1, 1]), "return": np.array([1.0, 1.0])}
    won = score_run(results | dict.fromkeys(("length", "hits", "hit_actions"), np.array([3, 5])), None, "win_rate")
    lost = replace(won, win_rate=replace(won.win_rate, mean=0.0))
    together = combine([[won, won, won], [lost, lost]], "win_rate")
    assert together.win_rate.mean == 0.5 and together.length == 4.0 and together.drop is None


# the same episodes


def test_every_cell_begins_the_same_episodes(tmp_path: Path) -> None:
    """Also in later rounds, in a game that draws while it is played, and under an attack that lets it last longer."""
    counting = {**CORRIDOR, "_target_": "tests.support.robustness_parts.Counting"}
    columns = [column(f"stay {k}", fake("Starts", agents=k, to=0)) for k in (0, 2)]
    rows, _ = measured([entrant(None, env=counting)], columns, setting(tmp_path, 12, 4))
    lengths = [score(rows[0], c.name).length for c in columns]
    assert lengths[0] < lengths[1]
    first, second = Starts.SEEN[:3], Starts.SEEN[3:]
    assert len(first) == len(second) == 3 and all(map(torch.equal, first, second))
    assert not torch.equal(first[0], first[1]), "rounds differ from one another"


def test_without_seeds_for_rounds_the_episodes_would_differ() -> None:
    """The test above, tested."""
    for agents in (0, 2):
        env = Counting(**{k: v for k, v in CORRIDOR.items() if k[0] != "_"}, n_envs=4, seed=0)
        attack = Starts(env.spec, "cpu", agents=agents, to=0)
        gen = torch.Generator()
        evaluate(env, Scripted(env.spec, "cpu", actions=None), attack, core_fields(env.spec) | attack.fields(),
                 episodes=12, policy_gen=gen, attack_gen=gen, device="cpu")  # fmt: skip
    assert torch.equal(Starts.SEEN[0], Starts.SEEN[3]) and not torch.equal(Starts.SEEN[1], Starts.SEEN[4])


def test_a_column_may_differ_by_task(tmp_path: Path) -> None:
    """The attack trips nobody, but both agents on one task; on another what its game pays differs."""
    tasks = {"second": {"attack": {"agents": 2}}, "third": {"env": {"payoff": [[7, 2], [4, 0]]}}}
    varied = replace(column("varied", fake("Trip", agents=0, to=1)), tasks=tasks)
    entrants = [entrant([0, 0], task=task) for task in ("first", "second", "third")]
    rows, outcome = measured(entrants, [NATURAL, varied], setting(tmp_path))
    assert outcome.complete
    returns = {row.task: score(row, "varied").returns.mean for row in rows if row.level == "run"}
    assert returns == {"first": 8.0, "second": 4.0, "third": 7.0}
    assert varied.attack["agents"] == 0, "the column itself stays"
    assert column("one", fake("Trip", agents=2, to=1)).on("second") == replace(varied.on("second"), name="one")


# once, and again


def test_what_is_measured_stays_and_what_changes_is_measured_anew(tmp_path: Path) -> None:
    entrants, columns, where = [entrant([0, 0]), entrant([0, 1], seed=1)], [NATURAL, TRIP], setting(tmp_path)
    first, _ = measured(entrants, columns, where)
    assert CALLS["Trip"] == 4, "two rounds for each entrant"
    second, _ = measured(entrants, columns, where)
    assert CALLS["Trip"] == 4 and second == first
    for changed, rounds in (
        ((entrants, columns, setting(tmp_path, episodes=7)), 4),
        ((entrants, columns, setting(tmp_path, n_envs=2)), 6),
        ((entrants, columns, setting(tmp_path, seed=1)), 4),
        ((entrants, [NATURAL, column("trip", fake("Trip", agents=1, to=0))], where), 4),
        (([entrant([0, 0]), entrant([1, 1], seed=1)], columns, where), 2),  # other weights: one entrant alone
        (([entrant([0, 0], env={**entrants[0].env, "payoff": [[8, 2], [4, 1]]})], columns, where), 2),
    ):
        CALLS.clear()
        measured(*changed)
        assert CALLS["Trip"] == rounds, changed
    CALLS.clear()
    measured([entrant([0, 0], label="another name")], [NATURAL, column("renamed", TRIP.attack)], where)
    measured(entrants, columns, replace(where, threads=2))
    assert not CALLS, "names and threads decide nothing"


def test_ctrl_c_keeps_what_is_finished_and_the_same_command_goes_on(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    columns = [NATURAL, TRIP, column("interrupt", fake("Interrupting")), BOTH]
    rows, outcome = measured([entrant([0, 0])], columns, setting(tmp_path))
    assert not outcome.complete and signal.getsignal(signal.SIGINT) is before
    assert rows[0].cells["interrupt"] == rows[0].cells["both"] == "not measured yet"
    assert score(rows[0], "trip").win_rate.mean == 0.5 and len(list((tmp_path / "cells").iterdir())) == 2
    assert CALLS == {"Trip": 2, "Interrupting": 1}
    columns[2] = TRIP
    rows, outcome = measured([entrant([0, 0])], columns, setting(tmp_path))
    assert outcome.complete and CALLS == {"Trip": 4, "Interrupting": 1}
    assert score(rows[0], "both").returns.mean == 4.0


def test_a_crash_keeps_what_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    columns = [TRIP, column("crash", fake("Peek"))]
    monkeypatch.setattr("tests.support.robustness_parts.Peek.begin", fail)
    with pytest.raises(RuntimeError):
        measured([entrant([0, 0])], columns, setting(tmp_path))
    assert [path.suffix for path in (tmp_path / "cells").iterdir()] == [".json"]


def test_side_by_side_is_the_same(tmp_path: Path) -> None:
    cells = {}
    for processes in (1, 2):
        where = setting(tmp_path / str(processes))
        (row,) = plan([entrant([0, 0])], [TRIP, BOTH, column("peek", fake("Peek"))], where)
        outcome = measure(row, processes)
        assert outcome.complete and list(outcome.impossible) == [row[2].key]
        cells[processes] = [read_cell(cell, outcome) for cell in row[:2]]
    for one, other in zip(cells[1], cells[2], strict=True):
        assert isinstance(one, dict) and isinstance(other, dict)
        assert {k: v.tolist() for k, v in one.items()} == {k: v.tolist() for k, v in other.items()}
    assert CALLS["Trip"] == 4, "the other processes count for themselves"


# what is not possible


def test_an_attack_that_a_victim_cannot_support_is_named_and_the_rest_is_measured(tmp_path: Path) -> None:
    columns = [NATURAL, column("peek", fake("Peek")), column("few", NATURAL.attack, absent_agents=1), TRIP]
    rows, outcome = measured([entrant([0, 0])], columns, setting(tmp_path))
    assert outcome.complete and len(outcome.impossible) == 2
    assert rows[0].cells["peek"] == "not possible: attack: peek reads the values of its victim; Scripted shows none"
    assert "env.absent_agents is not an option of MatrixGame" in str(rows[0].cells["few"])
    assert score(rows[0], "trip").win_rate.mean == 0.5 and rows[0].worst("win_rate", "natural") == "trip"
    made, notes = table(matrix(rows))
    assert made.row_count == 1 and notes == [f"({k}) {rows[0].cells[n]}" for k, n in ((1, "peek"), (2, "few"))]
    lines = {line["column"]: line for line in csv.DictReader(csv_text(matrix(rows)).splitlines())}
    assert (lines["peek"]["possible"], lines["peek"]["win_rate"], lines["peek"]["worst"]) == ("False", "", "False")
    assert "Scripted shows none" in lines["peek"]["why"] and lines["trip"]["possible"] == "True"
    cells = document(matrix(rows))["rows"][0]["cells"]
    assert cells["peek"] == {"possible": False, "why": rows[0].cells["peek"]} and cells["trip"]["possible"]


# fitting


def test_the_student_is_an_attack_to_be_fitted() -> None:
    env = Counting(**{k: v for k, v in CORRIDOR.items() if k[0] != "_"}, n_envs=1)
    assert isinstance(Student(env.spec, "cpu", rounds=1), Fitting)
    assert not isinstance(Trip(env.spec, "cpu", agents=1, to=0), Fitting)


def test_attacks_are_fitted_to_each_victim_once(tmp_path: Path) -> None:
    """It finds out what agent 0 plays: 0 in one team, 1 in the other, and turns it around in even lanes."""
    entrants = [entrant([0, 0]), entrant([1, 0], seed=1)]
    columns = [NATURAL, column("student", fake("Student", rounds=3), fit="victim")]
    rows, _ = measured(entrants, columns, setting(tmp_path))
    assert CALLS["fits"] == 2
    assert [score(row, "student").returns.mean for row in rows] == [6.0, 6.0, 6.0]  # 8 and 4, 4 and 8
    assert [score(row, "student").attacked_steps for row in rows[1:]] == [0.5, 0.5]
    about = [json.loads(path.read_text()) for path in sorted((tmp_path / "fits").glob("*.json"))]
    assert sorted(one["metrics"]["student/seen"] for one in about) == [0.0, 1.0]
    assert {(one["episodes"], one["env_steps"]) for one in about} == {(12, 12)}
    measured(entrants, columns, setting(tmp_path, episodes=7))
    assert CALLS["fits"] == 2, "other episodes, the same fit"
    measured(entrants, [column("student", fake("Student", rounds=4), fit="victim")], setting(tmp_path))
    assert CALLS["fits"] == 4, "another attack, another fit"


def test_a_fit_depends_on_the_seed_alone(tmp_path: Path) -> None:
    found = []
    for k, seed in enumerate((0, 0, 1)):
        torch.rand(k)  # whatever else was drawn before
        where = setting(tmp_path / str(k), seed=seed)
        before = torch.get_rng_state()
        measured([entrant([0, 0])], [column("student", fake("Student", rounds=2), fit="victim")], where)
        assert torch.equal(torch.get_rng_state(), before)
        (path,) = (where.out / "fits").glob("*.pt")
        found.append(torch.load(path, weights_only=True)["attack"]["drawn"])
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_one_fit_to_a_reference_meets_all_victims(tmp_path: Path) -> None:
    """It thinks that everybody plays 0 and makes agent 0 play 1: nothing changes for the team that does anyway."""
    entrants = [entrant([0, 0]), entrant([1, 0], seed=1), entrant(None, env=CORRIDOR, task="corridor")]
    columns = [column("student", fake("Student", rounds=2), fit="reference")]
    rows, _ = measured(entrants, columns, setting(tmp_path), references=[entrant([0, 1], label="reference")])
    assert CALLS["fits"] == 1
    returns = [score(row, "student").returns.mean for row in rows if row.task == "matrix" and row.level == "run"]
    assert returns == [6.0, 4.0]
    assert "fit_on= names 0 runs of the game of corridor" in str(rows[-2].cells["student"])
    measured(entrants[:2], columns, setting(tmp_path / "other"))
    assert CALLS["fits"] == 3, "without a reference, each victim is its own"


def test_a_fit_that_is_not_possible_and_one_that_is_missing_are_said(tmp_path: Path) -> None:
    columns = [
        column("blind", fake("Blind", rounds=1), fit="victim"),
        column("trip", TRIP.attack, fit="victim"),
        column("raw", fake("Student", rounds=1)),
    ]
    rows, outcome = measured([entrant([0, 0])], columns, setting(tmp_path))
    assert outcome.complete and len(outcome.impossible) == 3
    for name, words in (("blind", "reads the values"), ("trip", "nothing to fit"), ("raw", "needs fit=victim")):
        assert words in str(rows[0].cells[name])
