"""Which team an entry of a leaderboard is: packed teams, seeds that are one team or play two games, and ``act``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from marl.measure import leaderboard, matrix
from marl.measure.entrants import acting, from_runs
from tests.scripts.test_cli import refused
from tests.support.helpers import command
from tests.support.leaderboard_parts import SMALL, added, changed, check, read
from tests.test_actors import TINY as ACTORS


def test_seeds_of_one_method_play_one_game(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An entry, and a row of a matrix, names one game. Under two names they are two methods."""
    shutil.copytree(trained / "ours", tmp_path / "runs")
    first, second = sorted((tmp_path / "runs").rglob("config.json"), key=lambda path: path.parent.name[-1])
    config = json.loads(second.read_text())
    second.write_text(json.dumps({**config, "env": {**config["env"], "length": config["env"]["length"] + 1}}))
    how = (f"file={tmp_path}/board.json", f"out={tmp_path}/out", *SMALL, "by=us", "luck=false")
    line = refused(capsys, "leaderboard", f"runs=[{{name: we, path: '{tmp_path}/runs/**'}}]", *how)
    assert "runs: we seed 0 and we seed 1 play toy-corridor with different options: env.length is" in line
    assert not (tmp_path / "out" / "cells").exists()
    names = (f"{{name: {name}, path: '{path.parent}'}}" for name, path in (("we", first), ("far", second)))
    command("leaderboard", f"runs=[{','.join(names)}]", *how)
    assert len({one["game"] for one in read(tmp_path)["entries"]}) == 2


def test_one_team_counts_as_one_seed(
    trained: Path, board: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Packed and under another seed it is refused; on a board, where its two files have two digests, it is found."""
    command("zoo", f"runs=[{{name: theirs, path: '{trained}/theirs/**'}}]", f"out={tmp_path}/zoo")
    (config,) = (tmp_path / "zoo").rglob("config.json")
    config.write_text(json.dumps({**json.loads(config.read_text()), "seed": 7}))
    given = f"runs=[{{name: we, path: '{trained}/theirs/**'}}, {{name: we, path: '{tmp_path}/zoo/*'}}]"
    how = (f"file={tmp_path}/board.json", given, f"out={tmp_path}/out", *SMALL)
    told = refused(capsys, "leaderboard", "by=us", *how)
    assert "runs: we in toy-corridor: seeds 0 and 7 are the same team; it counts once" in told
    assert not (tmp_path / "out" / "cells").exists() and not (tmp_path / "board.json").exists()
    tree = json.loads(board)
    tree["entries"] = [one for one in tree["entries"] if len(one["seeds"]) == 2]
    twins = [
        leaderboard.former_weights(one) for one in from_runs([f"{trained}/theirs/**", f"{tmp_path}/zoo/*"], None, None)
    ]
    (tmp_path / "board.json").write_text(changed(json.dumps(tree), weights=twins))
    with pytest.raises(SystemExit):
        command("leaderboard", "check=true", *how)
    assert "seeds 0 and 1 are the same team" in capsys.readouterr().out


def test_a_packed_team_is_the_team_on_the_board(
    trained: Path, board: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the board is older and counts the file that the weights lay in."""
    command("zoo", f"runs=[{{name: theirs, path: '{trained}/theirs/**'}}]", f"out={tmp_path}/zoo")
    tree = json.loads(board)
    tree["entries"] = [one for one in tree["entries"] if one["name"].startswith("theirs")]
    assert check(tmp_path, tmp_path / "zoo", json.dumps(tree)) == 0
    assert capsys.readouterr().out.count(": agrees") == 1
    (tmp_path / "board.json").write_text(json.dumps(tree))
    assert [one["by"] for one in added(tmp_path, tmp_path / "zoo", by="we")] == ["we"], "it stands there once"
    (packed,) = from_runs([f"{tmp_path}/zoo"], None, None)
    tree["entries"][0]["weights"] = [leaderboard.former_weights(packed)]
    assert check(tmp_path, tmp_path / "zoo", json.dumps(tree)) == 0
    assert capsys.readouterr().out.count(": agrees") == 1
    (tmp_path / "board.json").write_text(json.dumps(tree))
    assert [one["by"] for one in added(tmp_path, tmp_path / "zoo", by="we")] == ["we"]


@pytest.fixture(scope="module")
def actors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a team of actors, which sample; tests only read it."""
    runs = tmp_path_factory.mktemp("actors")
    command("train", "algo=ippo", "env=toy/corridor", *ACTORS, f"runs_dir={runs}", "log.progress=off", "name=actors")
    return runs


@pytest.mark.parametrize(("act", "said"), [(None, "greedy"), ("greedy", None), ("sample", "greedy")])
def test_an_act_that_actors_did_not_play_with_does_not_agree(
    act: str | None, said: str | None, actors: Path, board: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An entry whose ``act`` was altered, in a game that is its own."""
    (one,) = acting(from_runs([f"{actors}/**"], None, None), act)
    tree = json.loads(board)
    tree["entries"] = [entry for entry in tree["entries"] if len(entry["seeds"]) == 1]
    game = {"game": matrix.digest({"env": one.env}), "seeds": [one.seed], "weights": [leaderboard.weights_of(one)]}
    assert check(tmp_path, actors, changed(json.dumps(tree), act=said, **game)) == 1
    first = "null" if act in (None, "sample") else act  # they are trained to sample
    assert f"act={said or 'null'}, but its weights are those of act={first}" in capsys.readouterr().out


def test_imports_have_no_seeds_that_an_entry_could_contradict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how = (f"file={tmp_path}/board.json", "imports=[{policy: random, env: toy/corridor}]", f"out={tmp_path}/out",
           *SMALL, "luck=false")  # fmt: skip
    command("leaderboard", *how, "by=us")
    (tmp_path / "board.json").write_text(changed(json.dumps(read(tmp_path)), seeds=[3]))
    capsys.readouterr()
    command("leaderboard", *how, "check=true")
    assert ": agrees" in capsys.readouterr().out


def test_a_team_that_has_no_choice_is_checked_whatever_act_says(
    trained: Path, actors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Added beside actors with act=greedy, and checked alone; also where an older entry says act."""
    given = f"runs=['{trained}/theirs/**','{actors}/**']"
    how = (f"file={tmp_path}/board.json", f"out={tmp_path}/out", *SMALL, "luck=false", "by=us", "act=greedy")
    command("leaderboard", given, *how)
    entries = {one["name"].split()[0]: one for one in read(tmp_path)["entries"]}
    assert (entries["theirs"]["act"], entries["actors"]["act"]) == (None, "greedy")
    for older in (None, "greedy"):
        one = {**read(tmp_path), "entries": [{**entries["theirs"], "act": older}]}
        capsys.readouterr()
        assert check(tmp_path, trained / "theirs", json.dumps(one)) == 0
        assert capsys.readouterr().out.count(": agrees") == 1
    command("leaderboard", given, *how)
    assert len(read(tmp_path)["entries"]) == 2, "the older entry is replaced"
