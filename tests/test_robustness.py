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
from PIL import Image

from marl.evaluate import evaluate
from marl.matrix import Row, Score, combine, over_tasks, score_rows, score_run
from marl.matrix_report import Matrix, csv_text, document, table, write
from marl.protocols import Fitting
from marl.robustness import Outcome, Setting, measure, read_cell
from marl.types import core_fields
from tests.helpers import TINY, command
from tests.robustness_parts import (
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
    agent,
    column,
    fake,
    plan,
    setting,
)  # fmt: skip
from tests.test_cli import refused

T_975 = {1: 12.7062, 2: 4.30265, 5: 2.57058}  # Student's t by degrees of freedom


@pytest.fixture(autouse=True)
def forget() -> None:
    CALLS.clear()
    Starts.SEEN.clear()


def measured(agents: list[Any], columns: list[Any], where: Setting, references: Any = ()) -> tuple[list[Row], Outcome]:
    """Rows of a matrix after one pass in this process."""
    cells = plan(agents, columns, where, references)
    outcome = measure([cell for row in cells for cell in row], 1)
    found = [{c.name: read_cell(cell, outcome) for c, cell in zip(columns, row, strict=True)} for row in cells]
    return score_rows(agents, found, "natural", "win_rate"), outcome


def matrix(rows: list[Row], metric: str = "win_rate", complete: bool = True) -> Matrix:
    return Matrix("suite", rows, list(rows[0].cells), "natural", metric, 6, complete, {"commit": "c0ffee", "seed": 0})


def score(row: Row, name: str) -> Score:
    cell = row.cells[name]
    assert isinstance(cell, Score), cell
    return cell


# numbers


def test_a_row_by_hand(tmp_path: Path) -> None:
    """Payoffs [[8, 2], [4, 0]]; the team plays (0, 0) and wins with 8. Six episodes on four lanes, 0 1 2 3 0 1, of
    which the attack trips three: 4 instead of 8 where one agent is made to play 1, 0 where both are."""
    (method, row), outcome = measured([agent([0, 0])], [NATURAL, TRIP, BOTH], setting(tmp_path))
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
    assert (trip.drop.mean, trip.drop.low, trip.drop.high) == pytest.approx((0.5, 0.5 - half, 0.5 + half), rel=1e-4)
    assert row.worst("win_rate", "natural") == "trip" and row.worst("return", "natural") == "both"
    assert score(method, "trip") is trip, "a method of one run is that run"


def test_drops_are_paired() -> None:
    """Two attacks with the same win rate: one always costs the same episodes."""
    won = np.array([1, 1, 0, 0, 1, 1])
    base = {"won": won, "return": won * 2.0, "length": won, "hits": won, "agent_hits": won}
    lost = {**base, "won": np.zeros(6), "return": np.zeros(6)}
    drop = score_run(lost, base, "return").drop
    half = T_975[5] * (32 / 30 / 6) ** 0.5  # 2 2 0 0 2 2: squares around 4/3 add up to 16/3
    assert drop is not None and (drop.mean, drop.high - drop.mean) == pytest.approx((8 / 6, half), rel=1e-4)
    assert score_run(lost, None, "return").drop is None


def test_seeds_of_a_method_and_tasks(tmp_path: Path) -> None:
    """One seed always wins with 8, the other never, with 2; another task has one run."""
    agents = [agent([0, 0]), agent([0, 1], seed=1), agent(None, env=CORRIDOR, task="corridor")]
    rows, _ = measured(agents, [NATURAL, TRIP], setting(tmp_path))
    assert [(row.level, row.task, row.seeds) for row in rows] == [
        ("method", "matrix", (0, 1)), ("run", "matrix", (0,)), ("run", "matrix", (1,)), ("method", "corridor", (0,)),
        ("run", "corridor", (0,)), ("tasks", "matrix, corridor", (0, 1)),
    ]  # fmt: skip
    both = score(rows[0], "natural")
    half = T_975[1] * 0.5
    assert (both.win_rate.mean, both.win_rate.n) == (0.5, 2)
    assert (both.win_rate.low, both.win_rate.high) == pytest.approx((0.5 - half, 0.5 + half), rel=1e-4)
    assert (both.returns.mean, both.return_std) == (5.0, pytest.approx(18**0.5))
    drop = score(rows[0], "trip").drop
    assert drop is not None and (drop.mean, drop.n) == (0.25, 2)  # 0.5 of the first, nothing of the second
    tasks = score(rows[-1], "natural").win_rate
    assert tasks.mean == 0.75 and not tasks.bounded, "one run of a task tells nothing about its seeds"


def test_the_interval_over_tasks_by_hand() -> None:
    """Tasks [0, 2] and [4, 6]: each mean has variance 1, two degrees of freedom together."""
    found = over_tasks([np.array([0.0, 2.0]), np.array([4.0, 6.0])])
    half = T_975[2] * 2**0.5 / 2
    assert (found.mean, found.low, found.high, found.n) == pytest.approx((3.0, 3 - half, 3 + half, 4), rel=1e-4)
    certain = over_tasks([np.array([1.0, 1.0]), np.array([0.0, 0.0])])
    assert (certain.low, certain.high) == (0.5, 0.5)


def test_a_mean_over_tasks_does_not_weigh_them_by_seeds() -> None:
    results = {"won": np.array([1, 1]), "return": np.array([1.0, 1.0])}
    won = score_run(results | dict.fromkeys(("length", "hits", "agent_hits"), np.array([3, 5])), None, "win_rate")
    lost = replace(won, win_rate=replace(won.win_rate, mean=0.0))
    together = combine([[won, won, won], [lost, lost]])
    assert together.win_rate.mean == 0.5 and together.length == 4.0 and together.drop is None


# the same episodes


def test_every_cell_begins_the_same_episodes(tmp_path: Path) -> None:
    """Also in later rounds, in a game that draws while it is played, and under an attack that lets it last longer."""
    counting = {**CORRIDOR, "_target_": "tests.robustness_parts.Counting"}
    columns = [column(f"stay {k}", fake("Starts", agents=k, to=0)) for k in (0, 2)]
    rows, _ = measured([agent(None, env=counting)], columns, setting(tmp_path, 12, 4))
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


# once, and again


def test_what_is_measured_stays_and_what_changes_is_measured_anew(tmp_path: Path) -> None:
    agents, columns, where = [agent([0, 0]), agent([0, 1], seed=1)], [NATURAL, TRIP], setting(tmp_path)
    first, _ = measured(agents, columns, where)
    assert CALLS["Trip"] == 4, "two rounds for each agent"
    second, _ = measured(agents, columns, where)
    assert CALLS["Trip"] == 4 and second == first
    for changed, rounds in (
        ((agents, columns, setting(tmp_path, episodes=7)), 4),
        ((agents, columns, setting(tmp_path, n_envs=2)), 6),
        ((agents, columns, setting(tmp_path, seed=1)), 4),
        ((agents, [NATURAL, column("trip", fake("Trip", agents=1, to=0))], where), 4),
        (([agent([0, 0]), agent([1, 1], seed=1)], columns, where), 2),  # other weights: one agent alone
        (([agent([0, 0], env={**agents[0].env, "payoff": [[8, 2], [4, 1]]})], columns, where), 2),
    ):
        CALLS.clear()
        measured(*changed)
        assert CALLS["Trip"] == rounds, changed
    CALLS.clear()
    measured([agent([0, 0], label="another name")], [NATURAL, column("renamed", TRIP.attack)], where)
    measured(agents, columns, replace(where, threads=2))
    assert not CALLS, "names and threads decide nothing"


def test_ctrl_c_keeps_what_is_finished_and_the_same_command_goes_on(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    columns = [NATURAL, TRIP, column("interrupt", fake("Interrupting")), BOTH]
    rows, outcome = measured([agent([0, 0])], columns, setting(tmp_path))
    assert not outcome.complete and signal.getsignal(signal.SIGINT) is before
    assert rows[0].cells["interrupt"] == rows[0].cells["both"] == "not measured yet"
    assert score(rows[0], "trip").win_rate.mean == 0.5 and len(list((tmp_path / "cells").iterdir())) == 2
    assert CALLS == {"Trip": 2, "Interrupting": 1}
    columns[2] = TRIP
    rows, outcome = measured([agent([0, 0])], columns, setting(tmp_path))
    assert outcome.complete and CALLS == {"Trip": 4, "Interrupting": 1}
    assert score(rows[0], "both").returns.mean == 4.0


def test_a_crash_keeps_what_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    columns = [TRIP, column("crash", fake("Peek"))]
    monkeypatch.setattr("tests.robustness_parts.Peek.begin", fail)
    with pytest.raises(RuntimeError):
        measured([agent([0, 0])], columns, setting(tmp_path))
    assert [path.suffix for path in (tmp_path / "cells").iterdir()] == [".json"]


def test_side_by_side_is_the_same(tmp_path: Path) -> None:
    cells = {}
    for processes in (1, 2):
        where = setting(tmp_path / str(processes))
        (row,) = plan([agent([0, 0])], [TRIP, BOTH, column("peek", fake("Peek"))], where)
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
    rows, outcome = measured([agent([0, 0])], columns, setting(tmp_path))
    assert outcome.complete and len(outcome.impossible) == 2
    assert rows[0].cells["peek"] == "not possible: attack=peek reads the values of its victim; Scripted shows none"
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
    agents = [agent([0, 0]), agent([1, 0], seed=1)]
    columns = [NATURAL, column("student", fake("Student", rounds=3), fit="victim")]
    rows, _ = measured(agents, columns, setting(tmp_path))
    assert CALLS["fits"] == 2
    assert [score(row, "student").returns.mean for row in rows] == [6.0, 6.0, 6.0]  # 8 and 4, 4 and 8
    assert [score(row, "student").attacked_steps for row in rows[1:]] == [0.5, 0.5]
    about = [json.loads(path.read_text()) for path in sorted((tmp_path / "fits").glob("*.json"))]
    assert sorted(one["metrics"]["student/seen"] for one in about) == [0.0, 1.0]
    assert {(one["episodes"], one["env_steps"]) for one in about} == {(12, 12)}
    measured(agents, columns, setting(tmp_path, episodes=7))
    assert CALLS["fits"] == 2, "other episodes, the same fit"
    measured(agents, [column("student", fake("Student", rounds=4), fit="victim")], setting(tmp_path))
    assert CALLS["fits"] == 4, "another attack, another fit"


def test_one_fit_to_a_reference_meets_all_victims(tmp_path: Path) -> None:
    """It thinks that everybody plays 0 and makes agent 0 play 1: nothing changes for the team that does anyway."""
    agents = [agent([0, 0]), agent([1, 0], seed=1), agent(None, env=CORRIDOR, task="corridor")]
    columns = [column("student", fake("Student", rounds=2), fit="reference")]
    rows, _ = measured(agents, columns, setting(tmp_path), references=[agent([0, 1], label="reference")])
    assert CALLS["fits"] == 1
    returns = [score(row, "student").returns.mean for row in rows if row.task == "matrix" and row.level == "run"]
    assert returns == [6.0, 4.0]
    assert "fit_on= names 0 runs of the game of corridor" in str(rows[-2].cells["student"])
    measured(agents[:2], columns, setting(tmp_path / "other"))
    assert CALLS["fits"] == 3, "without a reference, each victim is its own"


def test_a_fit_that_is_not_possible_and_one_that_is_missing_are_said(tmp_path: Path) -> None:
    columns = [
        column("blind", fake("Blind", rounds=1), fit="victim"), column("trip", TRIP.attack, fit="victim"),
        column("raw", fake("Student", rounds=1)), TRIP,
    ]  # fmt: skip
    rows, outcome = measured([agent([0, 0])], columns[:3], setting(tmp_path))
    assert outcome.complete and len(outcome.impossible) == 3
    for name, words in (("blind", "reads the values"), ("trip", "nothing to fit"), ("raw", "needs fit=victim")):
        assert words in str(rows[0].cells[name])


# what it leaves behind


def test_files_hold_the_matrix(tmp_path: Path) -> None:
    agents = [agent([0, 0]), agent([0, 1], seed=1)]
    rows, _ = measured(agents, [NATURAL, TRIP, column("peek", fake("Peek"))], setting(tmp_path))
    write(matrix(rows), tmp_path / "out")
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {"matrix.csv", "matrix.json", "matrix.png", "tensorboard"}
    found = json.loads((tmp_path / "out" / "matrix.json").read_text())
    assert (found["commit"], found["metric"], found["complete"]) == ("c0ffee", "win_rate", True)
    assert [row["level"] for row in found["rows"]] == ["method", "run", "run"] and found["rows"][0]["seeds"] == [0, 1]
    assert found["rows"][1]["cells"]["trip"]["win_rate"]["mean"] == 0.5 and found["rows"][1]["worst"] == "trip"
    assert found["rows"][0]["cells"]["trip"]["win_rate"]["n"] == 2
    lines = list(csv.DictReader((tmp_path / "out" / "matrix.csv").read_text().splitlines()))
    assert len(lines) == 9
    (line,) = [one for one in lines if (one["level"], one["seeds"], one["column"]) == ("run", "0", "trip")]
    assert (line["win_rate"], line["return"], line["attacked_steps"], line["drop"]) == ("0.5", "6.0", "0.5", "0.5")
    assert float(line["win_low"]) == pytest.approx(0.18762, abs=1e-5) and line["worst"] == "True"
    assert len(list((tmp_path / "out" / "tensorboard").rglob("events*"))) == 2


def test_the_heatmap_shows_the_numbers(tmp_path: Path) -> None:
    """Another win rate, another colour; grey only where there is none."""

    def colours(actions: list[int], columns: list[Any]) -> set[tuple[int, int, int]]:
        rows, _ = measured([agent(actions)], columns, setting(tmp_path))
        write(matrix(rows), tmp_path / "out")
        with Image.open(tmp_path / "out" / "matrix.png") as picture:
            found = picture.convert("RGB").getcolors(10**6)
        assert found is not None
        return {colour for count, colour in found if count > 1500}  # no colour of the bar covers so much

    bright, dark, grey = (253, 231, 36), (68, 1, 84), (200, 200, 200)  # viridis at 1 and 0
    assert colours([0, 0], [NATURAL]) >= {bright} and not colours([0, 0], [NATURAL]) & {dark, grey}
    assert colours([0, 1], [NATURAL]) >= {dark} and not colours([0, 1], [NATURAL]) & {bright, grey}
    assert colours([0, 0], [NATURAL, column("peek", fake("Peek"))]) >= {bright, grey}


# the script


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds, trained a little."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        command("train", *TINY, f"seed={seed}", f"runs_dir={folder}", "log.progress=off", "name=study")
    return folder


def robustness(runs: Path, out: Path, *arguments: str) -> dict[str, Any]:
    command("robustness", f"runs=['{runs}/**']", f"out={out}", "episodes=10", "n_envs=4", *arguments)
    return json.loads((out / "matrix.json").read_text())


TRIPPED = ("suite.columns.random.attack.p=0.5", "suite.budget=3")


def test_the_command_measures_runs_and_imports(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    team = tmp_path / "team.th"
    gru = torch.nn.GRUCell(8, 8)
    weights = {f"rnn.{k}": v for k, v in gru.state_dict().items()}
    for name, net in (("fc1", torch.nn.Linear(4, 8)), ("fc2", torch.nn.Linear(8, 4))):
        weights |= {f"{name}.{k}": v for k, v in net.state_dict().items()}
    torch.save(weights, team)
    imports = f"imports=[{{path: '{team}', env: toy/corridor}}, {{name: mine, path: '{team}', env: toy/corridor}}]"
    results = tmp_path / "docs" / "study.json"
    found = robustness(runs, tmp_path / "out", *TRIPPED, imports, f"results={results}")
    rows = [(row["level"], row["task"], row["agent"].split(" ")[0], row["seeds"]) for row in found["rows"]]
    assert rows == [
        ("method", "toy-corridor", "study", [0, 1]), ("run", "toy-corridor", "study", [0]),
        ("run", "toy-corridor", "study", [1]), ("method", "toy-corridor", "team", [0]),
        ("run", "toy-corridor", "team", [0]), ("method", "toy-corridor", "mine", [0]),
        ("run", "toy-corridor", "mine", [0]),
    ]  # fmt: skip
    assert found["rows"][3]["cells"] == found["rows"][5]["cells"], "the same file under another name"
    assert found["columns"]["random"]["attack"]["budget"] == 3 and found["name"] == "quick"
    assert found["command"].startswith("python -m scripts.robustness") and found["commits"] == [found["commit"]]
    for row in found["rows"]:
        assert 0 < row["cells"]["random"]["attacked_steps"] <= 3
        assert row["cells"]["random"]["attacked_steps"] <= row["cells"]["random"]["attacked_actions"] <= 6
    published = json.loads(results.read_text())
    assert published["rows"] == found["rows"] and (published["name"], published["suite"]) == ("study", "quick")
    assert results.with_suffix(".png").exists()
    printed = capsys.readouterr().out
    assert "quick: win rate over 10 episodes a cell" in printed and "seed 1" in printed and "worst" in printed


def test_the_command_resumes_and_renames(runs: Path, tmp_path: Path) -> None:
    first = robustness(runs, tmp_path, *TRIPPED)
    cells = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    assert len(cells) == 4
    command("robustness", f"runs=[{{name: ours, path: '{runs}/**'}}]", f"out={tmp_path}", "episodes=10", "n_envs=4",
            "only=[random]", *TRIPPED)  # fmt: skip
    second = json.loads((tmp_path / "matrix.json").read_text())
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()} == cells, "measured again"
    assert [row["agent"] for row in second["rows"]] == ["ours"] * 3
    assert list(second["rows"][0]["cells"]) == ["random"] and second["rows"][0]["cells"]["random"]["drop"] is None
    for one, other in zip(first["rows"], second["rows"], strict=True):
        assert one["cells"]["random"]["return"] == other["cells"]["random"]["return"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["suite=papre"], ("suite=papre", "paper", "quick")),
        (["+attack@suite.columns.more.attack=nope"], ("nope", "none")),
        (["+suite.columns.more.fit=victim"], ("suite.columns.more has no attack",)),
        (["+suite.columns.natural.speed=1"], ("suite.columns.natural.speed", "attack, env, fit")),
        (["+suite.columns.random.fit=maybe"], ("fit=maybe", "victim, reference")),
        (["+suite.columns.random.attack.pp=1"], ("suite.columns.random.attack.pp", "budget")),
        (["suite.columns.random.attack.p=often"], ("attack.p=often", "float")),
        (["suite.baseline=nothing"], ("suite.baseline=nothing", "natural")),
        (["only=[natural,wind]"], ("only=wind", "natural, random")),
        (["runs=nowhere"], ("runs=nowhere", "no run folder")),
        (["runs=[1]"], ("runs has 1",)),
        (["runs=null"], ("runs is missing",)),
        (["imports=[{name: a}]"], ("imports has", "path", "env")),
        (["imports=[{path: nowhere.th, env: toy/corridor}]"], ("nowhere.th is not a file",)),
        (["imports=[{path: nowhere.th, env: toy/corridoor}]"], ("toy/corridoor", "did you mean toy/corridor")),
        (["imports=[{path: nowhere.th, env: toy/corridor, speed: 1}]"], ("speed", "path, mixer")),
        (["fit_on=nowhere"], ("fit_on=nowhere", "no run folder")),
        (["episodes=0"], ("episodes=0", "at least 1")),
        (["jobs=0"], ("jobs=0", "at least 1")),
        (["seed=-1"], ("seed=-1", "at least 0")),
        (["threads=0"], ("threads=0", "at least 1")),
        (["device=cuda:99"], ("device=cuda:99", "cpu")),
        (["metric=length"], ("metric=length", "win_rate, return")),
        (["results=study.txt"], ("study.txt must end in .json",)),
        (["episode=5"], ("episode", "episodes")),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_work_starts(
    arguments: list[str], expected: tuple[str, ...], runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [
        f"out={tmp_path / 'out'}",
        *([] if any(a.startswith("runs=") for a in arguments) else [f"runs='{runs}/**'"]),
    ]
    line = refused(capsys, "robustness", *given, *arguments)
    for words in expected:
        assert words in line
    assert not (tmp_path / "out").exists()
