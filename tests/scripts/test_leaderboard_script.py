"""A leaderboard: what is added to it, in which order, what a check finds, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marl.core.intervals import Interval, rate_interval
from marl.measure import leaderboard
from marl.measure.leaderboard import Entry, Weakest
from marl.measure.leaderboard_check import agreement, compare
from marl.measure.robustness_scores import Matrix
from marl.show.leaderboard import board_tables
from tests.scripts.test_cli import refused
from tests.support.helpers import command
from tests.support.leaderboard_parts import SMALL, added, changed, check, read
from tests.support.own_configs import write_configs

# adding


def test_an_entry_says_what_was_measured_and_how(trained: Path, tmp_path: Path) -> None:
    entries = added(tmp_path, trained, by="Our group")
    assert (read(tmp_path)["leaderboard"], read(tmp_path)["version"]) == ("robustness", 1)
    (ours,) = [entry for entry in entries if entry["name"].startswith("ours")]
    assert len(entries) == 2 and (ours["by"], ours["task"], ours["seeds"]) == ("Our group", "toy-corridor", [0, 1])
    assert len(set(ours["weights"])) == 2 and (ours["suite"], ours["baseline"]) == ("quick", "natural")
    assert (ours["episodes"], ours["n_envs"], ours["seed"], ours["act"]) == (10, 4, 0, None)
    assert ours["fit"] == {"n_envs": 32, "replay": 1000} and ours["physics"] == 1 and ours["commit"] and ours["date"]
    assert list(ours["columns"]) == ["natural", "random"] and ours["columns"]["natural"]["n"] == 2
    assert ours["without_attack"] == ours["columns"]["natural"]
    assert ours["weakest"] == {"column": "random", **ours["columns"]["random"]}
    assert ours["every"]["mean"] <= ours["weakest"]["mean"] and ours["by_luck"]["n"] == 2
    command("robustness", f"runs=['{trained}/**']", f"out={tmp_path}/again", *SMALL)
    rows = json.loads((tmp_path / "again" / "matrix.json").read_text())["rows"]
    (row,) = [row for row in rows if row["level"] == "method" and row["agent"] == ours["name"]]
    assert {name: cell["win_rate"] for name, cell in row["cells"].items()} == ours["columns"]
    assert row["every"]["mean"] == ours["every"]["mean"]


def test_the_same_weights_in_the_same_setting_replace_the_older_entry(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (one,) = (path.parent for path in (trained / "ours").rglob("config.json") if path.parent.name.endswith("seed0"))
    first = added(tmp_path, trained / "ours", by="us")
    capsys.readouterr()
    second = added(tmp_path, trained / "ours", "luck=false", by="we")
    assert "replaced: ours" in capsys.readouterr().out
    assert len(first) == len(second) == 1 and second[0]["by"] == "we" and second[0]["by_luck"] is None
    assert {key for key in first[0] if first[0][key] != second[0][key]} <= {"by", "by_luck", "date"}
    assert len(added(tmp_path, trained / "ours", "seed=1")) == 2, "other episodes"
    assert len(added(tmp_path, trained / "ours", "suite.budget=2")) == 3, "another attack"
    assert len(added(tmp_path, one)) == 4, "other weights"
    assert len(added(tmp_path, trained / "theirs")) == 5


def entry(name: str, task: str, every: float | None, weakest: float, text: str) -> Entry:
    tree = json.loads(text)["entries"][0]
    rates = {key: rate_interval([1.0] * round(10 * value) + [0.0] * round(10 - 10 * value)).as_dict()  # type: ignore[arg-type]
             for key, value in (("every", every or 0.0), ("weakest", weakest))}  # fmt: skip
    tree |= {"name": name, "task": task, "every": None if every is None else rates["every"]}
    return Entry.from_dict(tree | {"weakest": {"column": "random", **rates["weakest"]}})


def test_the_file_is_sorted_by_game_and_by_what_is_won_in_every_column(board: str, tmp_path: Path) -> None:
    given = [
        ("e", "b", 0.9, 0.9),
        ("d", "a", None, 0.9),
        ("c", "a", 0.2, 0.3),
        ("b", "a", 0.2, 0.5),
        ("a", "a", 0.4, 0.4),
    ]
    leaderboard.write(tmp_path / "board.json", [entry(*one, board) for one in given])
    assert [one.name for one in leaderboard.read(tmp_path / "board.json")] == ["a", "b", "c", "d", "e"]


def test_a_team_that_an_attack_cannot_reach_is_not_ranked_above_those_that_it_meets(board: str, tmp_path: Path) -> None:
    """Such ranks mean nothing: there are two tables, and the file has the team with more columns first."""
    hit, immune = entry("hit", "a", 0.2, 0.3, board), entry("immune", "a", 0.9, 0.9, board)
    hit = replace(hit, columns={**hit.columns, "fgsm": hit.weakest.win_rate})
    immune = replace(immune, columns={**immune.columns, "fgsm": "it has no gradients"})
    leaderboard.write(tmp_path / "board.json", [immune, hit])
    read_back = leaderboard.read(tmp_path / "board.json")
    assert [one.name for one in read_back] == ["hit", "immune"]
    assert [one.measured for one in read_back] == [("fgsm", "natural", "random"), ("natural", "random")]
    first, second = board_tables([*read_back, replace(hit, name="hit too")])
    assert [[*map(str, table.columns[1].cells)] for table in (first, second)] == [["hit", "hit too"], ["immune"]]
    assert "not possible" not in str(first.title) and str(second.title).endswith("; not possible: fgsm")


def test_the_board_of_the_zoo_is_in_order(tmp_path: Path) -> None:
    file = Path(__file__).parents[2] / "zoo" / "leaderboard.json"
    leaderboard.write(tmp_path / "board.json", entries := leaderboard.read(file))
    assert (tmp_path / "board.json").read_text() == file.read_text() and len(board_tables(entries)) == 1


def test_an_incomplete_matrix_adds_nothing(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped = Matrix("quick", [], ["natural", "random"], "natural", "win_rate", 10, complete=False, about={})
    monkeypatch.setattr("marl.measure.leaderboard.measured", lambda cfg, suite, find: stopped)
    command(
        "leaderboard",
        f"file={tmp_path}/board.json",
        f"runs=['{trained}/**']",
        f"out={tmp_path}/out",
        "by=us",
        *SMALL,
    )
    assert "nothing added" in capsys.readouterr().out and not (tmp_path / "board.json").exists()


def test_the_board_is_printed(board: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "board.json").write_text(board)
    command("leaderboard", f"file={tmp_path}/board.json")
    printed = capsys.readouterr().out
    assert "toy-corridor, rules of version 1; suite quick" in printed
    for words in ("ours", "theirs", "us", "every column", "weakest column", "random"):
        assert words in printed
    assert [path.name for path in tmp_path.iterdir()] == ["board.json"]


# checking


def test_a_check_measures_again_and_agrees(
    trained: Path, board: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(tmp_path, trained, board, "episodes=3", "seed=9") == 0, "the entry's own setting counts"
    printed = capsys.readouterr().out
    assert printed.count(": agrees") == 2 and "equal" in printed and "by luck" in printed
    assert not (tmp_path / "out").exists(), "the next check measures again"


def test_a_check_finds_the_suite_of_ones_own(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--config-dir", str(write_configs(tmp_path / "conf")), f"file={tmp_path}/board.json",
             f"runs=['{trained}/theirs']", f"out={tmp_path}/out")  # fmt: skip
    command("leaderboard", *given, "suite=mine", "by=us", "episodes=4", "n_envs=4")
    capsys.readouterr()
    command("leaderboard", *given, "check=true")
    assert ": agrees" in capsys.readouterr().out


def test_weights_that_are_not_there_are_not_checked(
    trained: Path, board: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(tmp_path, trained / "theirs", board) == 0
    printed = capsys.readouterr().out
    assert "not checked: ours" in printed and "its weights are not among the runs" in printed
    assert printed.count(": agrees") == 1


def rate(wins: int) -> dict[str, Any]:
    return {"mean": wins / 20, "low": 0.0, "high": 1.0, "n": 2}


@pytest.mark.parametrize("key", ["every", "without_attack", "weakest", "by_luck", "columns"])
def test_a_check_finds_a_forged_number(
    key: str, trained: Path, board: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = json.loads(board)
    first = next(one for one in tree["entries"] if len(one["seeds"]) == 2)
    tree["entries"] = [first]
    value = first["columns"]["random"] if key == "columns" else first[key]
    forged = rate(20 if value["mean"] < 0.5 else 0) | ({"column": "random"} if key == "weakest" else {})
    first[key] = first["columns"] | {"random": forged} if key == "columns" else forged
    assert check(tmp_path, trained, json.dumps(tree)) == 1
    out, err = capsys.readouterr()
    assert "does not agree" in out and "1 of 1 entries" in err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attacks": "0" * 20}, "the suite quick has other columns, or has changed since"),
        ({"suite": "gone", "attacks": "0" * 20}, "the suite gone has other columns, or has changed since"),
        ({"physics": 7}, "the rules of toy-corridor have changed since: version 1, the entry has 7"),
        ({"game": "0" * 20}, "the options of toy-corridor are not those of the entry"),
        ({"suite": "paper"}, "the suite paper has other columns"),
        ({"suite": "elsewhere"}, "the suite elsewhere has other columns"),
        ({"seeds": [7, 1]}, "seeds=[7, 1], but its runs have the seeds [0, 1]"),
        ({"seeds": [1, 0]}, "seeds=[1, 0], but its runs have the seeds [0, 1]"),
        ({"task": "toy-matrix"}, "on toy-matrix: its weights play toy-corridor"),
    ],
    ids=lambda value: "-".join(map(str, next(iter(value.items())))) if isinstance(value, dict) else "",
)
def test_a_setting_that_is_not_that_of_the_weights_is_named(
    changes: dict[str, Any],
    words: str,
    trained: Path,
    board: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An entry whose setting was altered, or is no more."""
    ours = next(one for one in json.loads(board)["entries"] if len(one["seeds"]) == 2)
    text = json.dumps({**json.loads(board), "entries": [ours]})
    assert check(tmp_path, trained, changed(text, **changes)) == 1
    printed = capsys.readouterr().out
    assert words in printed and "does not agree: ours" in printed


def test_weights_in_a_game_that_the_runs_do_not_play_are_not_checked(
    trained: Path, board: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A team can have played two games: another game is not a forged one."""
    tree = json.loads(board)
    tree["entries"] = tree["entries"][:1]
    assert check(tmp_path, trained, changed(json.dumps(tree), task="toy-matrix", game="0" * 20)) == 0
    printed = capsys.readouterr().out
    assert "not checked: " in printed and "on toy-matrix: its weights play toy-corridor" in printed


def test_numbers_agree_where_each_lies_in_the_other_ones_interval() -> None:
    def of(wins: int, total: int = 100) -> Interval:
        return rate_interval([1.0] * wins + [0.0] * (total - wins))  # type: ignore[arg-type]

    assert agreement(of(50), of(50), 100, 1) == "equal"
    assert agreement(of(50), of(57), 100, 1) == "within"
    assert agreement(of(50), of(70), 100, 1) == "no"
    assert agreement(Interval(0.57, 0.0, 1.0, 100), of(50), 100, 1) == "no", "not the interval of that win rate"
    seeds = Interval(0.5, 0.0, 1.0, 2), Interval(0.8, 0.1, 1.0, 2)
    assert agreement(*seeds, 100, 2) == "no", "the same teams play again: the spread of seeds explains nothing"
    assert agreement(seeds[0], Interval(0.54, 0.0, 1.0, 2), 100, 2) == "within"
    assert agreement(seeds[0], Interval(0.5, 0.0, 1.0, 3), 100, 2) == "no"


def test_an_entry_must_be_consistent_with_its_own_columns(board: str, tmp_path: Path) -> None:
    """A head that flatters the columns below it is caught even where it is near enough to be measured so by chance."""
    path = tmp_path / "board.json"
    path.write_text(board)
    entry = leaderboard.read(path)[0]
    columns = {"natural": rate_interval(np.arange(100) < 80), "random": rate_interval(np.arange(100) < 50)}
    flattering = rate_interval(np.arange(100) < 55)
    honest = replace(
        entry, seeds=(0,), weights=("w",), baseline="natural", episodes=100, columns=columns,
        without_attack=columns["natural"], weakest=Weakest("random", columns["random"]),
    )  # fmt: skip
    assert {number.verdict for number in compare(honest, honest)} == {"equal"}
    for forged, name in (
        (replace(honest, weakest=Weakest("random", flattering)), "weakest column"),
        (replace(honest, weakest=Weakest("natural", columns["natural"])), "weakest column"),
        (replace(honest, without_attack=rate_interval(np.arange(100) < 83)), "without attack"),
    ):
        assert [n.name.partition(" (")[0] for n in compare(forged, honest) if n.verdict == "no"] == [name]


# refusals


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ("by is missing",)),
        (["by=' '"], ("by is missing",)),
        (["check=true", "runs=null"], ("runs is missing",)),
        (["by=us", "runs=null"], ("runs is missing",)),
        (["by=us", "runs=nowhere"], ("runs=nowhere", "no run folder")),
        (["by=us", "only=[random]"], ("only=random leaves out natural",)),
        (["by=us", "only=[natural]"], ("only=natural", "at least one attack")),
        (["by=us", "only=[natural,wind]"], ("only=wind", "natural, random")),
        (["by=us", "suite.baseline=null"], ("suite.baseline=null", "without attack")),
        (["by=us", "suite=papre"], ("suite=papre", "paper")),
        (["by=us", "episodes=0"], ("episodes=0", "at least 1")),
        (["by=us", "act=greedy"], ("act=greedy", "actors")),
        (["by=us", "metric=return"], ("metric", "episodes")),
        (["by=us", "file="], ("file=", "must name")),
        (["by=us", "file=BOARD/x.json"], ("x.json cannot be written", "is a file")),
        (["by=us", "file=HERE"], ("is a folder",)),
        (["check=true", "file=HERE/none.json"], ("none.json does not exist",)),
        (["check=true", "out=BOARD"], ("cannot be written",)),
    ],
    ids=str,
)
def test_bad_input_is_refused_and_the_file_stays(
    arguments: list[str], expected: tuple[str, ...], trained: Path, board: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / "board.json"
    path.write_text(board)
    given = {"file": str(path), "runs": f"'{trained}/**'", "out": f"{tmp_path}/out", "suite": "quick"}
    words = [one.replace("BOARD", str(path)).replace("HERE", str(tmp_path)) for one in arguments]
    own = {word.partition("=")[0] for word in words}
    line = refused(capsys, "leaderboard", *(f"{k}={v}" for k, v in given.items() if k not in own), *words)
    for part in expected:
        assert part in line
    assert path.read_text() == board and [one.name for one in tmp_path.iterdir()] == ["board.json"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("not JSON", "is not a leaderboard"),
        ("[]", "is not a leaderboard"),
        ('{"rows": []}', "is not a leaderboard"),
        ('{"leaderboard": "robustness", "version": 2, "entries": []}', "of version 2; 1 can be read"),
        ('{"leaderboard": "robustness", "version": 1}', "no list of entries"),
        ('{"leaderboard": "robustness", "version": 1, "entries": [5]}', "entry 1 is damaged: it is no JSON object"),
        ({"name": 5}, "entry 1 is damaged: name=5 has the wrong type"),
        ({"speed": 5}, "entry 1 is damaged: speed is not a key"),
        ({"seeds": [0]}, "seeds and weights must be as many"),
        ({"seeds": ["a", "b"]}, "whole numbers"),
        ({"seeds": [1, 1]}, "seeds=[1, 1] must differ: one run counts once"),
        ({"weights": ["w", "w"]}, "weights=['w', 'w'] must differ: one run counts once"),
        ({"fit": {"lanes": 3}}, "fit has n_envs and replay"),
        ({"episodes": 0}, "must be at least 1"),
        ({"every": {"mean": 1.5, "low": 0, "high": 1, "n": 2}}, "mean=1.5 must be within [0, 1]"),
        ({"by_luck": {"mean": 1}}, "must have mean, low, high and n"),
        ({"baseline": "calm"}, "baseline=calm is not a column"),
        ({"weakest": {}}, "weakest=None is not a column"),
        ({"weakest": {"column": []}}, "entry 1 is damaged: weakest=[] is not a column"),
        ({"every": {"mean": 1, "low": 0, "high": 1, "n": math.inf}}, "'n': inf} must have mean, low, high and n"),
        pytest.param("[" * 100000, "is not a leaderboard", id="nested"),
    ],
    ids=str,
)
@pytest.mark.parametrize("way", [["by=us"], ["check=true"], ["runs=null"]], ids=["add", "check", "show"])
def test_a_file_that_is_no_leaderboard_is_refused_and_stays(
    way: list[str], text: Any, expected: str, trained: Path, board: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / "board.json"
    both = json.loads(board)
    both["entries"].sort(key=lambda one: -len(one["seeds"]))
    path.write_text(before := text if isinstance(text, str) else changed(json.dumps(both), **text))
    given = [] if way == ["runs=null"] else [f"runs='{trained}/**'"]
    assert expected in refused(capsys, "leaderboard", f"file={path}", f"out={tmp_path}/out", *given, *way)
    assert path.read_text() == before and [one.name for one in tmp_path.iterdir()] == ["board.json"]
