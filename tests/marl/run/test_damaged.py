"""Files that a crash, a full disk or a person has damaged: one line that names the file, or the run continues from what
is whole, with a warning. One damaged run ends no measurement of others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from marl.core.types import ConfigError
from marl.measure.entrants import from_runs
from marl.run import checkpoint
from marl.run.folders import read_config, read_meta, read_team
from marl.run.metrics import read_rows
from marl.run.teams import load_trained
from marl.run.trainer import fit
from tests.support.helpers import compose_train, run_dir, train
from tests.support.processes import run as script

SHORT = ("train.total_steps=128", "checkpoint.every=64")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(folder, *SHORT)
    return folder


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


BROKEN_DONE = ("", "{", "null", "[1]", '{"env_steps": "many", "final": {}}', '{"env_steps": 1000}', '{"final": 3}')


@pytest.mark.parametrize("text", BROKEN_DONE)
def test_a_damaged_done_file_is_written_again(text: str, run: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = json.loads((run / "DONE").read_text())
    (run / "DONE").write_text(text)
    assert train(run, *SHORT) == before["final"]
    assert json.loads((run / "DONE").read_text()) == before
    assert f"{run / 'DONE'} is damaged" in caplog.text


@pytest.mark.parametrize("text", ["", "{", "null", "[]"])
def test_a_damaged_configuration_is_written_again_if_the_checkpoint_is_of_this_run(
    text: str, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = (run / "config.json").read_text()
    (run / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=rf"{run / 'config.json'} is damaged"):
        read_config(run)
    with pytest.raises(ConfigError, match=r"config.json is damaged.*the checkpoint is of another configuration"):
        train(run, *SHORT, "seed=3", "train.total_steps=256")
    assert (run / "config.json").read_text() == text, "a refused run wrote"
    train(run, *SHORT, "train.total_steps=256")
    assert "config.json is damaged" in caplog.text
    now, then = json.loads((run / "config.json").read_text()), json.loads(before)
    assert {key: now[key] for key in ("algo", "env", "seed")} == {key: then[key] for key in ("algo", "env", "seed")}


def test_without_its_configuration_a_run_is_continued_by_the_same_one_alone(run: Path) -> None:
    (run / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"has no config.json, and the checkpoint is of another configuration"):
        train(run, *SHORT, "seed=3", "train.total_steps=256")
    assert not (run / "config.json").exists(), "a refused run wrote"
    train(run, *SHORT, "train.total_steps=256")
    assert json.loads((run / "config.json").read_text())["seed"] == 0


def test_a_damaged_meta_file_is_named(run: Path) -> None:
    (run / "meta.json").write_text("")
    with pytest.raises(ConfigError, match=rf"{run / 'meta.json'} is damaged"):
        read_meta(run)


def test_rows_that_are_none_are_left_out(run: Path) -> None:
    """A person's note stays in the file; what a crash has cut does not."""
    rows = len(read_rows(run / "eval.jsonl"))
    with (run / "eval.jsonl").open("ab") as file:
        file.write(b'{"note": 1}\nnull\n[3]\n{"env_steps": "x"}\n\xff\xfe\n{"env_steps": 1')
    assert len(read_rows(run / "eval.jsonl")) == rows
    train(run, *SHORT, "train.total_steps=256")
    lines = (run / "eval.jsonl").read_text().splitlines()
    assert '{"note": 1}' in lines and len([json.loads(line) for line in lines]) == len(lines)


def test_copies_under_other_names_are_not_ours(run: Path) -> None:
    root = run / "checkpoints"
    newest = checkpoint.folders(root)[0]
    kept = [root / f"{newest.name}_best", root / "step_best", root / "my step_1"]
    for copy in kept:
        shutil.copytree(newest, copy)
    assert checkpoint.folders(root)[0] == newest
    train(run, *SHORT, "train.total_steps=512")
    for copy in kept:
        checkpoint.verify(copy)
    parts, _ = load_trained(run, {}, 2)
    parts.env.close()


def alien(folder: Path, state: object) -> None:
    """Put another state into a checkpoint, with a digest that is right."""
    torch.save(state, folder / "state.pt")
    meta = json.loads((folder / "meta.json").read_text())
    meta["digests"]["state.pt"] = checkpoint.digest(folder / "state.pt")
    (folder / "meta.json").write_text(json.dumps(meta))


def no_archive(folder: Path) -> None:
    (folder / "state.pt").write_bytes(b"nothing that torch wrote")
    meta = json.loads((folder / "meta.json").read_text())
    meta["digests"]["state.pt"] = checkpoint.digest(folder / "state.pt")
    (folder / "meta.json").write_text(json.dumps(meta))


ALIENS: dict[str, Callable[[Path], None]] = {
    "of another algorithm": lambda folder: alien(folder, {"algo": {"other": {}}, "clock": {"env_steps": 1}}),
    "without parts": lambda folder: alien(folder, {}),
    "a list": lambda folder: alien(folder, [1]),
    "no archive": no_archive,
}


@pytest.mark.parametrize("kind", ALIENS)
def test_a_checkpoint_of_something_else_is_one_line(kind: str, run: Path) -> None:
    """Its digest is right, so that it is taken for whole. A refused run leaves the folder as it was."""
    for folder in checkpoint.folders(run / "checkpoints"):
        ALIENS[kind](folder)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for use in (
        lambda: train(run, *SHORT, "train.total_steps=256"),
        lambda: load_trained(run, {}, 2),
        lambda: train(run.parent / "other", f"init_from='{run}'"),
    ):
        with pytest.raises((ConfigError, checkpoint.CheckpointError)) as refused:
            use()
        assert str(run) in str(refused.value) and "\n" not in str(refused.value)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert not (run.parent / "other").exists()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "config.json": lambda run: (run / "config.json").write_text(""),
    "no path": lambda run: (run / "config.json").write_text('{"seed": 1}'),
    "no checkpoint": lambda run: (
        shutil.rmtree(checkpoint.folders(run / "checkpoints")[0].parent / "latest", True)
        or [shutil.rmtree(folder) for folder in checkpoint.folders(run / "checkpoints")]
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_left_out_of_a_matrix_by_name(
    damage: str, whole: Path, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    DAMAGES[damage](run)
    (entrant,) = from_runs([str(run), str(whole)], None, None)
    assert entrant.source["run"] == str(whole)
    assert f"left out: {run}" in caplog.text
    with pytest.raises(ConfigError, match="runs: no run can be used"):
        from_runs(str(run), None, None)


FOREIGN = {  # what other projects write into a config.json
    '{"checkpoint": "model.pt", "train": {"n_envs": 4}}': "checkpoint='model.pt'; it must be a group of options",
    '{"algo": "ppo", "seed": 1}': "algo='ppo'; it must be a group of options",
    '{"train": {"lr": 1}, "algo": {}}': "no train.n_envs",
    '{"train": {"n_envs": "4"}}': "train.n_envs='4'; it must be a whole number",
    '{"train": null}': "train=None; it must be a group of options",
    '{"run_path": ["a"]}': "run_path=['a']; it must be a text",
    '{"seed": true}': "seed=True; it must be a whole number",
}


@pytest.mark.parametrize("text", FOREIGN)
def test_a_configuration_of_another_project_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError) as refused:
        read_config(tmp_path, "runs")
    begins = f"runs={tmp_path} is not a run folder of this project: its config.json has "
    assert str(refused.value) == begins + FOREIGN[text]


@pytest.mark.parametrize(("text", "key"), [("{}", "algo"), ('{"env": {}}', "algo"), ('{"algo": {}}', "env")])
def test_a_team_is_built_only_of_a_whole_configuration(text: str, key: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    assert read_config(tmp_path) == json.loads(text), "which is enough for those who build nothing"
    with pytest.raises(ConfigError, match=f"is not a run folder of this project: its config.json has no {key}$"):
        read_team(tmp_path)


def test_a_script_refuses_the_folder_of_another_project(tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "config.json").write_text('{"train": {"n_envs": 4}, "algo": "ppo", "seed": 1}')
    done = script("evaluate", "run=foreign", cwd=tmp_path)
    line = "error: run=foreign is not a run folder of this project: its config.json has algo='ppo'; it must be"
    assert done.returncode == 2 and done.stderr == f"{line} a group of options\n", done.stderr


FROZEN = ("algo=frozen", "algo.run=runs/victim", "env=toy/corridor", "train.total_steps=64", "train.n_envs=8",
          "eval.n_envs=8", "eval.episodes=8", "eval.final_episodes=8", "replay.capacity=64",
          "log.to=[]")  # fmt: skip


def test_a_frozen_team_is_found_from_another_folder(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The configuration names it by a path from where the training was started; and the tree may have moved since."""
    there, moved = tmp_path / "there", tmp_path / "moved"
    shutil.copytree(whole, there / "runs" / "victim")
    monkeypatch.chdir(there)
    cfg = compose_train(Path("runs"), *FROZEN)
    fit(cfg, run_dir(cfg))
    fit(cfg, Path("named"))
    monkeypatch.chdir(tmp_path)
    for frozen in (there / run_dir(cfg), there / "named"):
        assert read_team(frozen).algo.run == str(there / "runs" / "victim")
        load_trained(frozen, {}, 2)[0].env.close()
    there.rename(moved)
    load_trained(moved / run_dir(cfg), {}, 2)[0].env.close()
    monkeypatch.chdir(moved)
    assert read_team(run_dir(cfg)).algo.run == "runs/victim"
