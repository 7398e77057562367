"""The rows of a matrix from run folders and imports: their names, what they count by, and equal seeds."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from marl.core.types import ConfigError
from marl.measure.entrants import RUN_POLICY, Entrant, from_runs, imported, same_game
from marl.measure.networks import refuse_twins
from marl.measure.robustness import refuse_mixed_games
from marl.run import checkpoint
from marl.run.renames import NEUTRAL
from tests.support.helpers import compose_train


def make_run(runs: Path, name: str = "study", seed: int = 0) -> Path:
    """Make what a row needs to know of a run: its configuration, and a checkpoint that is whole."""
    folder = runs / name / "matrix" / "vdn-none" / f"seed{seed}"
    step = folder / "checkpoints" / "step_000000000005"
    step.mkdir(parents=True)
    config = {"run_path": f"{name}/matrix/vdn-none/seed{seed}", "seed": seed, "algo": {"lr": 1.0}, "env": {"n": 2}}
    (folder / "config.json").write_text(json.dumps(config))
    (step / "state.pt").write_text(str(folder))
    (step / "meta.json").write_text(json.dumps({"digests": {"state.pt": checkpoint.digest(step / "state.pt")}}))
    return folder


def test_methods_are_named_by_their_whole_study_and_told_apart_by_folder(tmp_path: Path) -> None:
    for runs, name in (("a", "slow/x"), ("a", "fast/x"), ("b", "fast/x")):
        for seed in (1, 0):
            make_run(tmp_path / runs, name, seed)
    found = from_runs([f"{tmp_path}/a/**", f"{tmp_path}/b/**"], None, None)
    assert [(one.label, one.seed) for one in found] == [
        ("a: fast/x vdn", 0), ("a: fast/x vdn", 1), ("slow/x vdn", 0), ("slow/x vdn", 1), ("b: fast/x vdn", 0),
        ("b: fast/x vdn", 1),
    ]  # fmt: skip
    assert {one.label for one in from_runs(f"{tmp_path}/a/**", None, None)} == {"fast/x vdn", "slow/x vdn"}


def test_a_run_has_the_one_name_that_it_is_given(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    pattern, named = str(folder.parent / "seed*"), {"name": "mine", "path": str(folder)}
    for given in ([pattern, named], [named, pattern], [named, named]):
        assert [one.label for one in from_runs(given, None, None)] == ["mine"]
    with pytest.raises(ConfigError, match=f"runs: {folder} is named mine and yours; give it one name"):
        from_runs([named, {"name": "yours", "path": str(folder)}], None, None)


def test_equal_seeds_of_one_method_are_refused(tmp_path: Path) -> None:
    one, other = make_run(tmp_path / "a"), make_run(tmp_path / "b")
    given = [{"name": "mine", "path": str(folder)} for folder in (one, other)]
    with pytest.raises(ConfigError, match=f"runs: {one} and {other} are both seed 0 of mine in matrix"):
        from_runs(given, None, None)
    copy = one.rename(one.with_name("seed0_copy"))
    make_run(tmp_path / "a")
    with pytest.raises(ConfigError, match=f"{one} and {copy} are both seed 0 of study vdn in matrix"):
        from_runs(f"{tmp_path}/a/**", None, None)


def test_imports_are_seeds_that_no_run_of_their_name_has(tmp_path: Path) -> None:
    """Rows are told apart by name, task and seed: one of two equal ones would be lost."""
    policy = DictConfig({"_target_": "marl.learn.scripted.Idle", "_partial_": True})
    rows = from_runs([{"name": "v", "path": str(make_run(tmp_path, seed=1))}], None, None)
    for name in ("v", "v", "other", "v"):
        rows.append(imported({"name": name, "policy": "idle"}, policy, {"n": 2}, "matrix", rows))
    assert [(one.label, one.seed) for one in rows] == [("v", 1), ("v", 0), ("v", 2), ("other", 0), ("v", 3)]


def test_a_run_among_imports_counts_by_its_weights(tmp_path: Path) -> None:
    """Trained on, it is another team: a key made of its path would find the cells of the old one."""
    policy = DictConfig({"_target_": RUN_POLICY, "_partial_": True, "run": "???", "step": None})
    run = make_run(tmp_path)

    def content(folder: Path) -> object:
        return imported({"policy": "run", "run": str(folder)}, policy, {"n": 2}, "matrix", []).content

    first = content(run)
    moved = run.rename(tmp_path / "moved")
    assert content(moved) == first
    later = shutil.copytree(moved / "checkpoints" / "step_000000000005", moved / "checkpoints" / "step_000000000009")
    (later / "state.pt").write_text("trained on")
    (later / "meta.json").write_text(json.dumps({"digests": {"state.pt": checkpoint.digest(later / "state.pt")}}))
    assert content(moved) != first
    with pytest.raises(ConfigError, match=f"run={run} is not a run folder"):
        content(run)


def test_seeds_whose_games_differ_are_refused_by_what_differs(tmp_path: Path) -> None:
    """Cells are known by the text of their options, to which 2 and 2.0 are two."""
    folders = [make_run(tmp_path, seed=seed) for seed in (0, 1)]
    config = json.loads((folders[1] / "config.json").read_text())
    for n in (3, 2.0):
        (folders[1] / "config.json").write_text(json.dumps({**config, "env": {"n": n}}))
        with pytest.raises(ConfigError, match=rf"play matrix with different options: env.n is 2 and {n};"):
            refuse_mixed_games(from_runs(f"{tmp_path}/**", None, None))


def test_options_that_change_nothing_and_came_later_make_no_other_game() -> None:
    """At any depth; another value is another game, and so is the same option of another class."""
    old = {"_target_": "envs.skirmish.Skirmish", "map": "3m"}
    new = {**old, "enemy_health": 1.0, "ally_sight": 1.0}
    assert same_game(old, new) and same_game({"env": old, "limit": 3}, {"env": new, "limit": 3})
    assert not same_game(old, {**old, "enemy_health": 1.5})
    other = {"_target_": "envs.toys.games.Corridor"}
    assert not same_game(other, {**other, "enemy_health": 1.0})
    for target, neutral in NEUTRAL.items():
        made = OmegaConf.to_container(compose_train(Path("x"), "env=skirmish/3m").env)
        assert isinstance(made, dict) and made["_target_"] == target
        assert {key: made[key] for key in neutral} == neutral, "they are the defaults"


def test_a_team_named_twice_is_not_two_seeds() -> None:
    """Two methods may be the same team, and a method may have the same team in two games."""
    one = Entrant("here", "we", 0, {}, {"run": None, "policy": {}, "checkpoint": None}, {"weights": "a"}, {})
    refuse_twins([one, replace(one, label="they"), replace(one, task="there")], "runs")
    refuse_twins([one, replace(one, seed=1, content={"weights": "b"})], "runs")
    with pytest.raises(ConfigError, match="runs: we in here: seeds 0 and 1 are the same team; it counts once"):
        refuse_twins([one, replace(one, seed=1)], "runs")
