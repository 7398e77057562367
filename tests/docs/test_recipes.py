"""Test the recipes of CONTRIBUTING.md: copied into a folder of their own, they train with their command."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from envs.base import check_env
from marl.run.metrics import read_rows
from tests.support.helpers import TINY, command

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(python|yaml|)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SMALL = [option for option in TINY if not option.startswith("env=")]


class Recipe:
    """One recipe in a folder of its own: ``train`` runs its command there."""

    def __init__(self, folder: Path, number: int) -> None:
        text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf8")
        (section,) = [
            part for part in re.split(r"^## ", text, flags=re.MULTILINE) if part.startswith(f"Recipe {number}:")
        ]
        files, commands = {}, []
        for language, body in BLOCK.findall(section):
            if language:
                files[body.partition("\n")[0].removeprefix("# ")] = body
            else:
                commands.append(body)
        assert sorted(Path(name).suffix for name in files) == [".py", ".yaml"], "one Python file and one YAML file"
        for name, body in files.items():
            (folder / name).parent.mkdir(parents=True)
            (folder / name).write_text(body, encoding="utf8")
        (self.command,) = commands
        self.folder = folder

    def module(self, name: str) -> Any:
        return importlib.import_module(f"my_plugins.{name}")

    def train(self, *more: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Run the command with small numbers; return the rows of metrics.jsonl and of eval.jsonl."""
        python, m, script, *arguments = shlex.split(self.command)
        assert (python, m, script) == ("python", "-m", "scripts.train")
        command("train", *arguments, *SMALL, f"runs_dir={self.folder / 'runs'}", "log.progress=off", *more)
        (done,) = (self.folder / "runs").rglob("DONE")
        return read_rows(done.parent / "metrics.jsonl"), read_rows(done.parent / "eval.jsonl")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a current folder outside the repository, on the path as ``python -m`` puts it there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_plugins"]:
        del sys.modules[name]


def test_an_algorithm(folder: Path) -> None:
    metrics, _ = Recipe(folder, 1).train()
    rates = [row["agreement/rate"] for row in metrics if "agreement/rate" in row]
    assert rates and all(0 < rate <= 1 for rate in rates)


def test_an_algorithm_pays_for_equal_actions(folder: Path) -> None:
    recipe = Recipe(folder, 1)
    hook = recipe.module("agreement").Agreement(None, scale=0.5)
    actions = torch.tensor([[[1, 1], [0, 1], [2, 2], [0, 0]]])  # [M, T+1, n]; the third step is padding
    filled = torch.tensor([[True, True, False, False]])
    batch = type("Batch", (), {"actions": actions, "filled": filled})
    assert hook.reward(batch, None).tolist() == [[[0.5], [0.0], [0.0]]]
    assert hook.update(batch, None)["agreement/rate"] == 0.5


def test_an_attack(folder: Path) -> None:
    metrics, _ = Recipe(folder, 2).train()
    hits = [row["attack/hits_per_episode"] for row in metrics if "attack/hits_per_episode" in row]
    assert hits and all(0 < hit <= 8 for hit in hits), "within the budget of 8 steps"


def test_an_environment(folder: Path) -> None:
    recipe = Recipe(folder, 3)
    _, tests = recipe.train("train.total_steps=3000", "algo.learner.lr=0.005")
    assert all(row["eval/length"] == 7 and 0 <= row["eval/return"] <= 7 for row in tests)
    assert tests[-1]["eval/return"] > 2.5, "learnt: independent uniform answers earn 7 / 9 an episode"
    make = recipe.module("echo").Echo
    check_env(lambda n_envs, seed: make(2, 3, 7, n_envs=n_envs, seed=seed))
    env = make(2, 3, 7, n_envs=4)
    answers = env.reset().state.argmax(-1, keepdim=True).repeat(1, 2)
    answers[0, 1] = (answers[0, 1] + 1) % 3  # one agent of lane 0 is wrong
    assert env.step(answers).reward.tolist() == [0, 1, 1, 1]


def test_a_replay_sampler(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(folder, 4)
    newest, picked, stored = recipe.module("newest").Newest, [], []
    draw = newest.draw

    def watched(self: Any, replay: Any, size: int, gen: torch.Generator) -> torch.Tensor:
        index = draw(self, replay, size, gen)
        assert len(index.unique()) == size
        picked.append(replay.ages()[index].double().mean())
        stored.append(replay.ages().double().mean())
        return index

    monkeypatch.setattr(newest, "draw", watched)
    recipe.train("train.total_steps=1000")
    assert len(picked) > 10 and sum(picked) < 0.6 * sum(stored), "younger than uniform picks would be"
