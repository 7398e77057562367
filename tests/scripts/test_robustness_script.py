"""What a robustness matrix leaves behind, and the script that makes it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from marl.measure.robustness_scores import add_leads, score_rows
from marl.show.robustness_report import heatmap, table, write
from tests.marl.run.test_lock import holder, tree
from tests.scripts.test_cli import refused
from tests.support.helpers import TINY, command
from tests.support.own_configs import write_configs
from tests.support.robustness_parts import NATURAL, TRIP, column, entrant, fake, matrix, measured, setting

# what it leaves behind


def test_files_hold_the_matrix(tmp_path: Path) -> None:
    entrants = [entrant([0, 0]), entrant([0, 1], seed=1)]
    rows, _ = measured(entrants, [NATURAL, TRIP, column("peek", fake("Peek"))], setting(tmp_path))
    write(matrix(rows), tmp_path / "out")
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {"matrix.csv", "matrix.json", "matrix.png", "bars.png", "tensorboard"}
    found = json.loads((tmp_path / "out" / "matrix.json").read_text())
    assert (found["commit"], found["metric"], found["complete"]) == ("c0ffee", "win_rate", True)
    assert [row["level"] for row in found["rows"]] == ["method", "run", "run"] and found["rows"][0]["seeds"] == [0, 1]
    assert found["rows"][1]["cells"]["trip"]["win_rate"]["mean"] == 0.5 and found["rows"][1]["worst"] == "trip"
    assert found["rows"][0]["cells"]["trip"]["win_rate"]["n"] == 2
    lines = list(csv.DictReader((tmp_path / "out" / "matrix.csv").read_text().splitlines()))
    assert len(lines) == 9 + 3, "and a line for what each row wins in every column"
    (last,) = [one for one in lines if (one["level"], one["seeds"], one["column"]) == ("run", "0", "every")]
    told = found["rows"][1]["every"]
    assert float(last["win_rate"]) == told["mean"] <= 0.5 and told["columns"] == ["natural", "trip"]
    assert told["by_luck"] == [1.0, 1.0]
    (line,) = [one for one in lines if (one["level"], one["seeds"], one["column"]) == ("run", "0", "trip")]
    assert (line["win_rate"], line["return"], line["attacked_steps"], line["drop"]) == ("0.5", "6.0", "0.5", "0.5")
    assert float(line["win_low"]) == pytest.approx(0.18762, abs=1e-5) and line["worst"] == "True"
    assert len(list((tmp_path / "out" / "tensorboard").rglob("events*"))) == 2


def test_files_and_the_table_hold_what_luck_would_leave(tmp_path: Path) -> None:
    """Of four episodes one is won in both columns, and two in both plays without attack."""
    shown = {"won": [1, 1, 1, 0]}, {"won": [1, 0, 0, 1]}, {"won": [1, 0, 1, 1], "chance": [1] * 4}
    natural, trip, again = (
        dict.fromkeys(("return", "length", "hits", "hit_actions"), np.zeros(4))
        | {name: np.array(values, bool) for name, values in one.items()} for one in shown
    )  # fmt: skip
    found: list[dict[str, Any]] = [{"natural": natural, "trip": trip}]

    def left(replays: list[Any] | None) -> tuple[Any, dict[str, dict[str, str]], str, list[str]]:
        again = None if replays is None else [replays]
        made = matrix(score_rows([entrant([0, 0])], found, "natural", "win_rate", again))
        write(made, tmp_path)
        row = json.loads((tmp_path / "matrix.json").read_text())["rows"][0]
        lines = csv.DictReader((tmp_path / "matrix.csv").read_text().splitlines())
        text, notes = table(made)
        column = "|".join(str(cell) for cell in text.columns[-1].cells).replace("\n", "|")
        return row, {line["column"]: line for line in lines if line["level"] == "run"}, column, notes

    row, lines, text, notes = left([again])
    assert row["every"]["mean"] == 0.25 and row["every"]["by_luck"] == [0.75**2, 0.75]
    luck = row["every_by_luck"]
    assert (luck["possible"], luck["mean"], luck["replays"], luck["alike"]) == (True, 0.5, 1, False)
    assert (luck["low"], luck["high"]) == pytest.approx((0.15004, 0.84996), abs=1e-5)
    assert (lines["every_by_luck"]["win_rate"], lines["every_by_luck"]["possible"]) == ("0.5", "True")
    assert text == "0.25|[0.05, 0.70]|by luck 0.50|[0.15, 0.85]" and not notes
    scalars = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard").rglob("events*"))
    assert b"robustness/every_by_luck/win_rate" in scalars
    settled = left([{**again, "won": natural["won"], "chance": np.zeros(4, bool)}])
    assert settled[0]["every_by_luck"]["alike"] and settled[2].endswith("by luck 0.75|replays alike")
    row, lines, text, notes = left(["not possible: no"])
    assert row["every_by_luck"] == {"possible": False, "why": "not possible: no"}
    assert (lines["every_by_luck"]["possible"], lines["every_by_luck"]["why"]) == ("False", "not possible: no")
    assert text.endswith("by luck 0.56 to 0.75 (1)") and notes == ["(1) not possible: no"]
    row, lines, text, _ = left(None)
    assert row["every_by_luck"] is None and "every_by_luck" not in lines and text.endswith("by luck 0.56 to 0.75")


def test_files_and_the_table_hold_the_leads(tmp_path: Path) -> None:
    rows, _ = measured([entrant([0, 0]), entrant([0, 1], "other")], [NATURAL], setting(tmp_path))
    rows = add_leads(rows, "scripted", "win_rate")
    write(replace(matrix(rows), versus="scripted"), tmp_path / "out")
    found = json.loads((tmp_path / "out" / "matrix.json").read_text())
    assert found["versus"] == "scripted" and found["rows"][2]["leads"]["natural"]["mean"] == -1.0
    assert not any("leads" in row for k, row in enumerate(found["rows"]) if k != 2)
    lines = list(csv.DictReader((tmp_path / "out" / "matrix.csv").read_text().splitlines()))
    assert [line["lead"] for line in lines] == ["", "", "-1.0", ""] and lines[2]["lead_low"] == "", (
        "one pair: no bounds"
    )
    shown, _ = table(replace(matrix(rows), versus="scripted"))
    assert "leads over scripted" in str(shown.title)
    assert "lead -1.00" in "".join(str(cell) for cell in shown.columns[1].cells)


def test_the_heatmap_shows_the_numbers(tmp_path: Path) -> None:
    """Another win rate, another colour; grey only where there is none."""

    def colours(actions: list[int], columns: list[Any]) -> set[tuple[int, int, int]]:
        rows, _ = measured([entrant(actions)], columns, setting(tmp_path))
        write(matrix(rows), tmp_path / "out")
        with Image.open(tmp_path / "out" / "matrix.png") as picture:
            found = picture.convert("RGB").getcolors(10**6)
        assert found is not None
        return {colour for count, colour in found if count > 1500}  # no colour of the bar covers so much

    bright, dark, grey = (253, 231, 36), (68, 1, 84), (200, 200, 200)  # viridis at 1 and 0
    assert colours([0, 0], [NATURAL]) >= {bright} and not colours([0, 0], [NATURAL]) & {dark, grey}
    assert colours([0, 1], [NATURAL]) >= {dark} and not colours([0, 1], [NATURAL]) & {bright, grey}
    assert colours([0, 0], [NATURAL, column("peek", fake("Peek"))]) >= {bright, grey}


def test_the_heatmap_says_interval_and_dose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell without hits has no dose."""
    said: dict[tuple[int, int], str] = {}
    monkeypatch.setattr("marl.show.robustness_report.draw", lambda *_, below, **__: said.update(below))
    rows, _ = measured([entrant([0, 0])], [NATURAL, TRIP], setting(tmp_path))
    heatmap(matrix(rows), tmp_path / "matrix.png")
    assert said[0, 0] == "[0.61, 1.00]" and said[0, 1] == "[0.19, 0.81]\nhits 0.5/0.5"


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


@pytest.mark.parametrize("script", ["robustness", "crossplay"])
def test_a_second_measurement_in_the_same_folder_is_refused(
    script: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with holder(tmp_path / "out", tmp_path) as (first, number):
        before = tree(tmp_path)
        line = refused(capsys, script, f"runs='{runs}/**'", f"out={tmp_path / 'out'}")
        assert f"out={tmp_path / 'out'} is in use by process {number}" in line
        assert tree(tmp_path) == before
        first.communicate("end\n")


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


def test_a_policy_without_a_file_is_a_row_on_each_of_its_maps(runs: Path, tmp_path: Path) -> None:
    """It is named after its configuration, and its options count: idle play in both games, and walkers in one."""
    imports = (
        "imports=[{policy: idle, env: [mds_mini, toy/corridor]},"
        " {name: west, policy: walkers, goals: [[0, 2], [0, 2]], env: mds_mini},"
        " {name: both, policy: walkers, goals: [[0, 2], [4, 2]], env: mds_mini}]"
    )
    found = robustness(runs, tmp_path, "runs=null", "only=[natural]", imports)
    rows = {(row["task"], row["agent"]): row for row in found["rows"] if row["level"] == "run"}
    assert list(rows) == [("mds_mini", "idle"), ("toy-corridor", "idle"), ("mds_mini", "west"), ("mds_mini", "both")]
    returns = [row["cells"]["natural"]["return"]["mean"] for row in rows.values()]
    assert returns[0] == 0.0 and returns[2:] == [0.0, 19.0]
    assert rows["mds_mini", "both"]["source"] == {"policy": "envs.grid.walkers.Walkers"}


def test_what_a_study_fits_on_may_be_more_than_what_only_asks_for(runs: Path, tmp_path: Path) -> None:
    """fit_on without any column of the suite that it is for is refused (tests/refusals)."""
    one = next(path.parent for path in runs.rglob("config.json"))
    found = robustness(runs, tmp_path, "suite=paper", "only=[natural]", f"fit_on=['{one}']", "luck=false")
    assert found["complete"] and list(found["columns"]) == ["natural"]


def test_the_command_resumes_and_renames(runs: Path, tmp_path: Path) -> None:
    first = robustness(runs, tmp_path, *TRIPPED)
    cells = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    assert len(cells) == 6, "two runs in two columns, and a replay of each: nothing in a corridor is left to chance"
    assert first["rows"][0]["every_by_luck"]["alike"] and first["rows"][0]["every_by_luck"]["replays"] == 1
    command("robustness", f"runs=[{{name: ours, path: '{runs}/**'}}]", f"out={tmp_path}", "episodes=10", "n_envs=4",
            "only=[random]", *TRIPPED)  # fmt: skip
    second = json.loads((tmp_path / "matrix.json").read_text())
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()} == cells, "measured again"
    assert [row["agent"] for row in second["rows"]] == ["ours"] * 3
    assert list(second["rows"][0]["cells"]) == ["random"] and second["rows"][0]["cells"]["random"]["drop"] is None
    for one, other in zip(first["rows"], second["rows"], strict=True):
        assert one["cells"]["random"]["return"] == other["cells"]["random"]["return"]


@pytest.mark.parametrize(
    ("options", "cells"), [(["luck=false"], 4), (["metric=return"], 4), (["only=[random]"], 2)], ids=str
)
def test_replays_are_measured_where_they_are_asked_for(
    options: list[str], cells: int, runs: Path, tmp_path: Path
) -> None:
    found = robustness(runs, tmp_path, *options)
    assert len(list((tmp_path / "cells").iterdir())) == cells and found["complete"]
    assert all(row["every_by_luck"] is None for row in found["rows"])


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
        (["imports=[{policy: pymarl, env: toy/corridor}]"], ("imports: path is missing, which the policy of",)),
        (["imports=[{policy: fighters, env: [mds_mini]}]"], ("fighters play the embedded battle only",)),
        (["imports=[{policy: idle, env: [mds_mini, mds_maxi]}]"], ("env=mds_maxi does not exist",)),
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
        (["+suite.columns.random.tasks.corridor.attack.pp=1"], ("suite.columns.random.tasks.corridor.attack", "pp")),
        (["+suite.columns.random.tasks=3"], ("suite.columns.random.tasks=3", "by task")),
        (["+suite.columns.random.tasks.corridor=3"], ("suite.columns.random.tasks.corridor=3", "attack, env")),
        (["+suite.columns.random.tasks.corridor.fit=victim"], ("tasks.corridor.fit", "attack, env")),
        (["luck=maybe"], ("luck", "maybe", "bool")),
        (["budgets=[8]"], ("budgets=[8]", "at least two whole numbers")),
        (["budgets=[0,4]", "only=[natural]"], ("budgets=[0, 4]", "none of the columns has a budget")),
        (["budgets=[0,4]", "only=[random]"], ("budgets", "baseline must be among the columns")),
        (["+attack@suite.columns.every.attack=random"], ("suite.columns.every:", "choose another")),
        (["versus=nobody"], ("versus=nobody", "study")),
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


def test_games_of_ones_own_are_measured(tmp_path: Path) -> None:
    folder = write_configs(tmp_path / "conf")
    command("robustness", "--config-dir", str(folder), "imports=[{policy: idle, env: meet}]", "suite=mine",
            "episodes=2", f"out={tmp_path}/out")  # fmt: skip
    found = json.loads((tmp_path / "out" / "matrix.json").read_text())
    assert [row["task"] for row in found["rows"] if row["level"] == "run"] == ["meet"]


def test_a_suite_without_columns_is_named_with_what_it_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_configs(tmp_path / "conf")
    (folder / "suite" / "bare.yaml").write_text("baseline: natural\ncolumn: {natural: {attack: {}}}\n")
    for script in ("robustness", "leaderboard"):
        more = ("by=us", f"file={tmp_path}/b.json") if script == "leaderboard" else ()
        words = ("imports=[{policy: idle, env: meet}]", "suite=bare", f"out={tmp_path}/out", *more)
        line = refused(capsys, script, "--config-dir", str(folder), *words)
        assert "suite=bare has no columns; it has baseline, column" in line
