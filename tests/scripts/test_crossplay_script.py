"""The script that makes a cross-play matrix: populations of partners, what it leaves behind, what it refuses."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from marl.core.config import resolved
from marl.core.seeding import Streams
from marl.core.types import ConfigError, EnvSpec
from marl.measure.beforehand import game_spec
from marl.measure.crossplay import pair_up, plan_seatings, seat
from marl.measure.crossplay_scores import CrossMatrix, methods
from marl.measure.entrants import from_run
from marl.measure.partners import Partner, nearest, read_populations, with_member
from marl.measure.zoo import pack_run
from marl.run import checkpoint
from marl.run.folders import pick_checkpoint, saved_steps
from marl.run.teams import load_policy
from marl.show.crossplay_report import facts, publish, table, write
from tests.scripts.test_cli import refused
from tests.support.crossplay_parts import by_hand, setting
from tests.support.helpers import TINY, command, compose_train
from tests.support.robustness_parts import CORRIDOR, fake

WALKER = "tests.support.robustness_parts.Scripted"
STAY, GO = (f"{{_target_: {WALKER}, _partial_: true, actions: {actions}}}" for actions in ("[0,0]", "null"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of one method and one of another, trained a little; all checkpoints are kept."""
    folder = tmp_path_factory.mktemp("runs")
    for algo, seed in (("qmix", 0), ("qmix", 1), ("vdn", 0)):
        command("train", *TINY, f"algo={algo}", f"seed={seed}", f"runs_dir={folder}", "log.progress=off", "name=study",
                "checkpoint.every=100", "checkpoint.milestone=100", "checkpoint.replay=false",
                "eval.every=1000")  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def vdn(runs: Path) -> Path:
    """Return the folder of VDN's run."""
    (config,) = (path for path in runs.rglob("config.json") if "vdn-none" in path.parts)
    return config.parent


def crossplay(runs: Path, out: Path, *arguments: str) -> dict[str, Any]:
    named = ", ".join(f"{{name: {algo}, path: '{runs}/**/{algo}-none/**'}}" for algo in ("qmix", "vdn"))
    command("crossplay", f"runs=[{named}]", f"out={out}", "episodes=8", "n_envs=4", *arguments)
    return json.loads((out / "crossplay.json").read_text())


def test_the_command_measures_methods_and_partners(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "docs" / "study.json"
    early = f"{{name: vdn, path: '{runs}/**/vdn-none/**'}}"
    populations = (f"+partners.script={{policies: {{stay: {STAY}, go: {GO}}}}}",
                   f"+partners.early={{runs: {early}, checkpoints: [0, 1]}}")  # fmt: skip
    found = crossplay(runs, tmp_path / "out", *populations, f"results={results}")
    assert [(m["method"], m["seeds"]) for m in found["methods"]] == [("qmix", [0, 1]), ("vdn", [0])]
    assert found["complete"] and found["game"] == "toy-corridor" and found["commits"] == [found["commit"]]
    names = [(p["population"], p["name"]) for p in found["partners"]]
    steps = [p["source"]["env_steps"] for p in found["partners"][2:]]
    assert names[:2] == [("script", "stay"), ("script", "go")] and steps[0] < steps[1]
    assert [name for _, name in names[2:]] == [f"vdn seed 0 at {step}" for step in steps]
    assert [len(row) for row in found["matrix"]] == [7] * 3
    assert found["matrix"][2][6] is None, "the newest checkpoint of VDN is in the rows itself"
    assert found["matrix"][0][1]["seats"] == found["matrix"][1][0]["seats"][::-1]
    qmix, vdn = found["methods"]
    assert qmix["cross_play"]["n"] == 2 and vdn["cross_play"] is None and qmix["with"]["vdn"]["n"] == 2
    assert qmix["populations"]["script"]["worst"]["who"] in ("stay", "go")
    own = [found["matrix"][i][i]["mean"] for i in range(3)]
    assert qmix["self_play"]["mean"] == pytest.approx((own[0] + own[1]) / 2)
    lines = list(csv.DictReader((tmp_path / "out" / "pairs.csv").read_text().splitlines()))
    assert len(lines) == 3 * 7 - 1 and {line["possible"] for line in lines} == {"True"}
    assert json.loads(results.read_text())["matrix"] == found["matrix"] and results.with_suffix(".png").exists()
    printed = capsys.readouterr().out
    for words in ("toy-corridor: return, 8 episodes a seating", "one agent of the row's method", "upper bound"):
        assert words in printed


def test_the_command_resumes_and_leaves_methods_apart(runs: Path, tmp_path: Path) -> None:
    first = crossplay(runs, tmp_path)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    assert len(kept) == 3 + 2 * 3, "each run alone, and three pairs with two seatings"
    second = crossplay(runs, tmp_path, "across=false")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()} == kept, "measured again"
    assert second["matrix"][0][:2] == first["matrix"][0][:2] and second["matrix"][0][2] is None
    assert second["methods"][0]["with"] == {}


def test_files_hold_the_matrix(tmp_path: Path) -> None:
    sheet = by_hand([[10, 1, 4, "not possible: shy"], [3, 8, 2, 5]], ["a", "a"], [("p", "west"), ("p", "east")])
    report = CrossMatrix(sheet, methods(sheet), "matrix", 6, False, {"commit": "c0ffee"})
    write(report, tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"pairs.csv", "methods.csv", "crossplay.json", "crossplay.png", "tensorboard"}
    lines = list(csv.DictReader((tmp_path / "methods.csv").read_text().splitlines()))
    numbers = {line["what"]: float(line["mean"]) for line in lines}
    assert numbers == pytest.approx(
        {"self": 9, "cross": 2, "ratio": 2 / 9, "worst": 1, "p/mean": 3, "p/worst": 3, "p/worst_seat": 3,
         "p/br_prox": 0.75, "p/br_prox_iqm": 0.75}
    )  # fmt: skip
    assert {line["what"]: line["who"] for line in lines}["worst"] == "seeds 0 and 1"
    pairs = list(csv.DictReader((tmp_path / "pairs.csv").read_text().splitlines()))
    assert [line["why"] for line in pairs] == ["", "", "", "not possible: shy", "", "", "", ""]
    assert (pairs[6]["br_prox"], pairs[6]["limit"], pairs[0]["br_prox"]) == ("0.5", "4.0", "")
    assert len(list((tmp_path / "tensorboard").rglob("events*"))) == 1
    _, notes = table(report)
    assert notes[1:] == ["not possible: shy"] and "upper bound" in notes[0]
    found = json.loads(publish(report, tmp_path / "docs" / "study.json").read_text())
    assert (found["name"], found["complete"], found["commit"]) == ("study", False, "c0ffee")
    assert found["methods"][0]["cross_play"]["low"] is None, "JSON knows no infinity"
    assert {what for what, _, _ in facts(report.methods[0])} == set(numbers)


def picture_size(folder: Path) -> tuple[int, int]:
    with Image.open(folder / "crossplay.png") as picture:
        return picture.size


def test_the_picture_shows_the_numbers(tmp_path: Path) -> None:
    """Bright where the most is, dark at 0, grey only where there is nothing."""

    def colours(*rows: list[float | str | None]) -> set[tuple[int, int, int]]:
        sheet = by_hand(list(rows), ["a"] * len(rows), [("p", "west")])
        write(CrossMatrix(sheet, methods(sheet), "matrix", 6, True, {}), tmp_path)
        with Image.open(tmp_path / "crossplay.png") as picture:
            found = picture.convert("RGB").getcolors(10**6)
        assert found is not None
        return {colour for count, colour in found if count > 1500}

    bright, dark, grey = (253, 231, 36), (68, 1, 84), (200, 200, 200)
    assert colours([9, 0, 9], [0, 9, 9]) >= {bright, dark} and grey not in colours([9, 0, 9], [0, 9, 9])
    assert colours([9, 9, 9], [9, 9, "not possible: shy"]) >= {bright, grey}
    small = picture_size(tmp_path)
    assert colours(*[[9] * 31 + [0]] * 31) >= {bright, dark}
    assert max(picture_size(tmp_path)) < 5 * max(small), "many runs are small squares"


# populations


def test_checkpoints_are_the_nearest_that_were_kept(vdn: Path) -> None:
    kept = sorted(int(one.name.removeprefix("step_")) for one in checkpoint.folders(vdn / "checkpoints"))
    assert len(kept) > 3
    assert nearest(vdn, [0.0, 1.0], "p") == [kept[0], kept[-1]]
    assert nearest(vdn, [1.0, 0.99, 0.0], "p") == [kept[0], kept[-1]], "each once, in order"
    middle = min(kept, key=lambda step: abs(step - kept[-1] / 2))
    assert nearest(vdn, [0.5], "p") == [middle]


def test_an_early_checkpoint_plays_as_it_did(vdn: Path, tmp_path: Path) -> None:
    """Its weights are those of its own step."""
    node = {"early": {"runs": str(vdn), "checkpoints": [0, 1]}}
    early, late = read_populations(node, from_run(vdn, "mine", None, None).env, "toy-corridor")
    for partner in (early, late):
        opens = partner.entrant.opens
        policy = load_policy(opens, _spec(), torch.device("cpu"), Streams(0))
        saved = checkpoint.load_state(pick_checkpoint(vdn, opens["checkpoint"]))
        assert saved["clock"]["env_steps"] == opens["checkpoint"]
        weights = saved["algo"]["learner"]["agent"]
        assert all(torch.equal(value, weights[name]) for name, value in policy.params().items())
    assert early.entrant.content["state"] != late.entrant.content["state"]
    assert seat([early.entrant] * 2, setting(tmp_path)).key != seat([late.entrant] * 2, setting(tmp_path)).key


def test_a_partner_that_two_patterns_match_counts_once(vdn: Path) -> None:
    node = {"early": {"runs": [str(vdn), str(vdn.parent / "*")], "checkpoints": [0, 1]}}
    assert len(read_populations(node, from_run(vdn, "mine", None, None).env, "toy-corridor")) == 2


def _spec() -> EnvSpec:
    return game_spec(resolved(compose_train(Path("unused"), "env=toy/corridor"))["env"])


def test_scripts_whose_files_differ_are_different_partners(tmp_path: Path) -> None:
    contents = []
    for text in ("one", "other", "one"):
        (tmp_path / "weights").write_text(text)
        node = {"p": {"policies": {"x": fake("Scripted", actions=[0, 0]) | {"path": str(tmp_path / "weights")}}}}
        with pytest.raises(ConfigError, match="path is not an option"):
            read_populations(node, CORRIDOR, "corridor")
        node["p"]["policies"]["x"]["_target_"] = f"{__name__}.FromFile"
        del node["p"]["policies"]["x"]["actions"]
        contents.append(read_populations(node, CORRIDOR, "corridor")[0].entrant.content)
    assert contents[0] == contents[2] != contents[1]


class FromFile:
    def __init__(self, spec: EnvSpec, device: Any, *, path: str) -> None:
        self.path = path


def test_a_packed_team_is_no_partner_of_its_run(vdn: Path, tmp_path: Path) -> None:
    row, packed = from_run(vdn, None, None, None), from_run(pack_run(vdn, tmp_path / "zoo"), None, None, None)
    early = from_run(vdn, None, None, None, saved_steps(vdn)[0])
    partners = [Partner("p", name, one) for name, one in (("packed", packed), ("early", early))]
    ((_, with_packed, with_early),) = plan_seatings([row], partners, True, setting(tmp_path)).pairs
    assert with_packed is None and with_early is not None and len(with_early) == 2
    assert len(pair_up(row, packed, 2, setting(tmp_path))) == 1
    alike, other = (replace(one, label="other") for one in (packed, early))
    (own, with_itself, with_other), *_ = plan_seatings([row, alike, other], [], True, setting(tmp_path)).pairs
    assert own is not None and with_other is not None, "and no other method's team is its run"
    assert with_itself is None


def test_members_are_asked_for_by_name(vdn: Path) -> None:
    entrant = with_member(from_run(vdn, "mine", None, None), "partner 2")
    assert entrant.who == "mine partner 2 seed 0" and entrant.content["member"] == "partner 2"
    with pytest.raises(ConfigError, match="no member partner 2: ValueAlgorithm trains one team only"):
        load_policy(entrant.opens, _spec(), torch.device("cpu"), Streams(0))
    found = read_populations(
        {"b": {"runs": {"name": "mine", "path": str(vdn)}, "members": ["x", "y"]}}, entrant.env, "toy-corridor"
    )
    assert [partner.name for partner in found] == ["mine x seed 0", "mine y seed 0"]


def test_responses_belong_to_their_partner(vdn: Path) -> None:
    env = from_run(vdn, "mine", None, None).env
    node = {"policies": {"stay": fake("Scripted", actions=[0, 0]), "go": fake("Scripted", actions=None)},
            "responses": {"go": str(vdn)}}  # fmt: skip
    stay, go = read_populations({"p": node}, env, "toy-corridor")
    assert stay.responses == () and [one.label for one in go.responses] == [from_run(vdn, None, None, None).label]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["runs=null"], ("runs is missing",)),
        (["runs=nowhere"], ("runs=nowhere", "no run folder")),
        (["env=toy/corridoor"], ("toy/corridoor", "did you mean toy/corridor")),
        (["partners=nobody"], ("partners=nobody", "none")),
        (["+partners.p.speed=1"], ("partners.p has neither runs nor policies",)),
        (["+partners.p={runs: RUNS, speed: 1}"], ("partners.p.speed", "checkpoints, members")),
        (["+partners.p.runs=nowhere"], ("partners.p.runs=nowhere", "no run folder")),
        (["+partners.p={runs: RUNS, checkpoints: [2]}"], ("partners.p.checkpoints=[2]", "0 to 1")),
        (["+partners.p.policies.x=1"], ("partners.p.policies.x has no _target_",)),
        ([f"+partners.p.policies.x={{_target_: {WALKER}, _partial_: true}}"], ("partners.p.policies.x", "actions")),
        ([f"+partners.p={{policies: {{x: {STAY}}}, responses: {{y: RUNS}}}}"], ("responses.y", "there are x")),
        (["episodes=0"], ("episodes=0", "at least 1")),
        (["epsilon=1.5"], ("epsilon=1.5", "[0, 1]")),
        (["seed=-1"], ("seed=-1", "at least 0")),
        (["metric=length"], ("metric=length", "win_rate, return")),
        (["results=study.txt"], ("study.txt must end in .json",)),
        (["device=cuda:99"], ("device=cuda:99", "cpu")),
        (["episode=5"], ("episode", "episodes")),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_work_starts(
    arguments: list[str], expected: tuple[str, ...], runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"out={tmp_path / 'out'}", *([] if arguments[0].startswith("runs=") else [f"runs='{runs}/**'"])]
    line = refused(capsys, "crossplay", *given, *(a.replace("RUNS", f"'{runs}/**'") for a in arguments))
    for words in expected:
        assert words in line
    assert not (tmp_path / "out").exists()


def test_runs_of_different_games_need_one(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command("train", *TINY, "env=toy/corridor", "env.length=7", f"runs_dir={tmp_path}", "log.progress=off", "name=far")
    capsys.readouterr()
    line = refused(capsys, "crossplay", f"runs=['{runs}/**','{tmp_path}/**']", f"out={tmp_path / 'out'}")
    assert "different games" in line and "env=NAME" in line
