"""Packed teams: they play as their runs do, are small, can be trained on, and are found by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import marl
from marl.core.types import ConfigError
from marl.measure import zoo
from marl.run import checkpoint
from marl.run.folders import pick_checkpoint
from marl.run.trainer import fit
from tests.scripts.test_cli import refused
from tests.support.helpers import TINY, command, compose_train

FIXED = [word for word in TINY if not word.startswith(("agent@", "algo."))]  # for a team that does not learn


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of QMIX in a corridor."""
    runs = tmp_path_factory.mktemp("zoo") / "runs"
    for seed in (0, 1):
        cfg = compose_train(runs, "env=toy/corridor", "algo=qmix", f"seed={seed}", *TINY)
        fit(cfg, runs / "toy-corridor" / "qmix-none" / f"seed{seed}")
    return runs


@pytest.fixture(scope="module")
def packed(trained: Path) -> Path:
    command("zoo", f"runs=[{{name: My Team, path: '{trained}/**'}}]", f"out={trained.parent}/zoo")
    return trained.parent / "zoo"


def parts(folder: Path) -> Any:
    return torch.load(pick_checkpoint(folder, None) / "state.pt", weights_only=True)["algo"]["learner"]


def test_teams_play_as_their_runs_do(trained: Path, packed: Path) -> None:
    names = sorted(path.name for path in packed.iterdir() if path.is_dir())
    assert names == ["my-team-toy-corridor-0", "my-team-toy-corridor-1"]
    run, team = trained / "toy-corridor" / "qmix-none" / "seed1", packed / names[1]
    assert marl.load(team).evaluate(episodes=8) == marl.load(run).evaluate(episodes=8)
    before, after = parts(run), parts(team)
    for name, tensor in before["agent"].items():
        assert torch.equal(tensor, after["agent"][name])
        assert torch.equal(tensor, after["target_agent"][name])
    assert before["optimizer"]["state"] and not after["optimizer"]["state"]
    size = [
        sum(path.stat().st_size for path in folder.rglob("state.pt")) for folder in (pick_checkpoint(run, None), team)
    ]
    assert size[1] < 0.5 * size[0], "networks once, instead of four times their size"


def test_teams_can_be_rounded_to_half_the_size(trained: Path, packed: Path, tmp_path: Path) -> None:
    """Their weights are the nearest in 16 bits, and float32 again once they are read; packing them again changes
    nothing."""
    command("zoo", f"runs=[{{name: My Team, path: '{trained}/**'}}]", f"out={tmp_path}/zoo", "half=true")
    whole, half = (folder / "my-team-toy-corridor-1" for folder in (packed, tmp_path / "zoo"))
    sizes = [next(folder.rglob("state.pt")).stat().st_size for folder in (half, whole)]
    assert sizes[0] < 0.7 * sizes[1], "the file's own words do not shrink"
    exact, read = parts(whole), checkpoint.load_state(pick_checkpoint(half, None))["algo"]["learner"]
    for name, weights in exact["agent"].items():
        assert read["agent"][name].dtype == torch.float32
        assert torch.equal(read["agent"][name], weights.half().float()), name
        assert torch.equal(read["target_agent"][name], read["agent"][name])
    assert marl.load(half).evaluate(episodes=8)
    assert "(16 bits)" in (tmp_path / "zoo" / "README.md").read_text()
    assert "(16 bits)" not in (packed / "README.md").read_text()
    again = zoo.pack_run(half, tmp_path / "again", half=True)
    assert next(again.rglob("state.pt")).read_bytes() == next(half.rglob("state.pt")).read_bytes()
    fit(compose_train(tmp_path / "runs", "env=toy/corridor", "algo=qmix", *TINY, f"init_from={half}"), tmp_path / "run")


def test_weights_beyond_16_bits_are_refused_and_what_is_no_weight_stays() -> None:
    """What hooks count, and scales, may be beyond 2,048, from where on not every integer has 16 bits."""
    run, counts = Path("runs/seed0"), torch.tensor([70001.0, 2049.0])
    assert zoo.rounded({"agent": {"a": torch.tensor([65504.0, torch.inf])}}, run)["agent"]["a"].dtype == torch.float16
    kept = {"updates": 70001, "counts": counts, "hooks": [{"n": counts}], "optimizer": {"state": {0: {"step": counts}}},
            "scale": {"count": counts[0], "ids": torch.tensor([1])}}  # fmt: skip
    assert not tensors_of(zoo.rounded(kept, run), torch.float16)
    with pytest.raises(ConfigError, match=r"half=true: runs/seed0 holds the value 7e\+04; 16 bits reach to 65,504"):
        zoo.rounded({"agent": {"a": torch.tensor([70000.0])}}, run)


def tensors_of(tree: Any, dtype: torch.dtype) -> list[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        return [tree] if tree.dtype == dtype else []
    values = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return [tensor for value in values for tensor in tensors_of(value, dtype)]


def test_training_goes_on_from_a_packed_team(packed: Path, tmp_path: Path) -> None:
    origin = f"init_from={packed}/my-team-toy-corridor-0"
    fit(compose_train(tmp_path, "env=toy/corridor", "algo=qmix", *TINY, origin), tmp_path / "run")
    assert (tmp_path / "run" / "DONE").exists()


def test_a_team_takes_the_place_of_another_that_trained_for_longer(trained: Path, packed: Path, tmp_path: Path) -> None:
    """A packed team may be packed again, too."""
    run, out = trained / "toy-corridor" / "qmix-none" / "seed0", tmp_path / "team"
    later = out / "checkpoints" / "step_000000900000"
    later.mkdir(parents=True)
    zoo.pack_run(run, out)
    assert not later.exists() and [path.name for path in tmp_path.iterdir()] == ["team"]
    again = zoo.pack_run(out, tmp_path / "again")
    assert marl.load(again).evaluate(episodes=8) == marl.load(run).evaluate(episodes=8)


def test_what_there_is_stands_in_a_table(packed: Path) -> None:
    text = (packed / "README.md").read_text()
    record = json.loads((packed / "my-team-toy-corridor-0" / "meta.json").read_text())
    assert record["commit"] and "folder" not in record, "where it comes from, but no path of a machine"
    digest = zoo.checkpoint.verify(pick_checkpoint(packed / "my-team-toy-corridor-0", None))["digests"]["state.pt"]
    assert text.count("| my-team-toy-corridor-") == 2 and digest[:16] in text


def test_a_team_is_found_by_its_name(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marl.run.folders.ZOO", packed)
    assert marl.load("zoo:my-team-toy-corridor-0").dir == packed / "my-team-toy-corridor-0"
    with pytest.raises(ConfigError, match=r"zoo:nobody is not in .*; there are my-team-toy-corridor-0, my-team-"):
        marl.load("zoo:nobody")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("run", ["evaluate", "episodes=2", "run=zoo:NAME"]),
        ("policy.run", ["evaluate", "episodes=2", "policy=run", "policy.run=zoo:NAME", "env=toy/corridor"]),
        ("runs", ["robustness", "episodes=2", "runs=zoo:NAME", "only=[natural]", "out=OUT"]),
        ("runs of a list", ["crossplay", "episodes=2", "runs=[{name: a, path: 'zoo:NAME'}]", "out=OUT"]),
        ("init_from", ["train", *TINY, "algo=qmix", "train.total_steps=64", "init_from=zoo:NAME", "runs_dir=OUT"]),
        ("algo.run", ["train", *FIXED, "algo=frozen", "train.total_steps=64", "algo.run=zoo:NAME", "runs_dir=OUT"]),
    ],
)
def test_scripts_take_the_names_of_teams(
    key: str,
    words: list[str],
    packed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("marl.run.folders.ZOO", packed)
    monkeypatch.chdir(tmp_path)
    script, *given = [word.replace("OUT", str(tmp_path / "out")) for word in words]
    command(script, *(word.replace("NAME", "my-team-toy-corridor-0") for word in given))
    capsys.readouterr()
    line = refused(capsys, script, "resume=never", *given) if script == "train" else refused(capsys, script, *given)
    assert f"zoo:NAME is not in {packed}; there are my-team-toy-corridor-0, my-team-toy-corridor-1" in line, key


def test_only_what_is_a_target_of_equal_shape_is_left_out() -> None:
    """A target that a method calls so, but that is something else, stays."""
    net, other = {"w": torch.ones(2)}, {"w": torch.zeros(3)}
    slim = zoo.slim(
        {"net": net, "target_net": {"w": torch.zeros(2)}, "rate": 1, "target_rate": 2, "a": net, "target_a": other}
    )
    assert (
        slim["target_net"] is slim["net"]
        and slim["target_rate"] == 2
        and torch.equal(slim["target_a"]["w"], other["w"])
    )
    optimizer = {"state": {0: {"exp_avg": torch.ones(1)}}, "param_groups": [{"lr": 1.0}]}
    assert zoo.slim([optimizer]) == [{"state": {}, "param_groups": [{"lr": 1.0}]}]


def test_what_cannot_be_packed_is_refused(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        ((), "runs is missing"), (("runs=[nowhere]",), "runs=nowhere matches no run folder"),
        ((f"runs=[{trained}]", f"out={trained}/toy-corridor/qmix-none/seed0/config.json"), "is a file"),
    ):  # fmt: skip
        assert message in refused(capsys, "zoo", f"out={tmp_path}/zoo", *words)
    assert not (tmp_path / "zoo").exists()
