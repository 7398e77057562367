"""The commands of docs/running.md and docs/attacks.md that build on one study, run in their order with small numbers;
those of README.md are among them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.documented import ROOT, on_page
from tests.support.helpers import command

SMALL = {  # options that do not change the folder of a run
    "train": ["train.total_steps=50", "eval.episodes=2", "eval.final_episodes=2", "eval.n_envs=2",
              "log.to=[]", "log.progress=off"],
    "evaluate": ["episodes=2", "n_envs=2"],
    "robustness": ["episodes=2", "n_envs=2"],
    "crossplay": ["episodes=2", "n_envs=2"],
    "report": ["statistics=false"],
}  # fmt: skip
STUDY, RUN = "runs/study", "runs/study/skirmish-2s3z/qmix-none/seed1"


def commands(page: str, mark: str, folder: Path) -> list[list[str]]:
    """Return (script, *words) of the commands on a page that have ``mark`` in them."""
    found = [words for shown in on_page(ROOT / page) if mark in shown.text for words in shown.commands(folder)]
    return [[words[2].removeprefix("scripts."), *words[3:]] for words in found]


def test_a_study_is_trained_tested_drawn_filmed_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    running = commands("docs/running.md", "study", tmp_path / "empty")
    front = commands("README.md", "study", tmp_path / "empty")
    assert len(front) == 6 and [words for words in front if words not in running] == []
    attacked = commands("docs/attacks.md", "runs/...", tmp_path / "empty")
    scripts = [words[0] for words in running + attacked]
    assert scripts == ["train", "evaluate", "plot", "plot", "report", "record", "robustness", "crossplay", "evaluate",
                       "record", "evaluate"]  # fmt: skip
    (tmp_path / "empty").rmdir()
    monkeypatch.chdir(tmp_path)
    another = [word.replace("seed=1", "seed=2") for word in running[0]]
    for script, *words in [another, *running, *attacked]:
        words = [word.replace("runs/...", RUN) for word in words]
        command(script, *words, *SMALL.get(script, []))
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "plots", "outputs", "result.json", "report.html"}
    assert json.loads(Path("result.json").read_text())["n"] == 2
    made = [RUN + "/DONE", "plots/curves_skirmish-2s3z.png", "plots/summary.json", "outputs/study.json",
            "outputs/study.png", "outputs/robustness/matrix.json", "outputs/crossplay/crossplay.json"]  # fmt: skip
    assert [name for name in made if not Path(name).is_file()] == [] and list(Path(RUN).rglob("*.gif"))
    assert json.loads(Path("outputs/study.json").read_text())["groups"][0]["seeds"] == [1, 2]
