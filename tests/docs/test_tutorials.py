"""Follow the tutorials by hand: write their files into a folder and run their commands, with small numbers."""

from __future__ import annotations

import importlib
import json
import math
import re
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

import marl
from envs.base import ContractError, check_env
from marl.run.metrics import read_rows
from tests.support.documented import ROOT, on_page
from tests.support.helpers import command

DOCS = ROOT / "docs"
PAGES = ("index.md", *(f"tutorials/{name}.md" for name in ("train", "environment", "algorithm", "attack")))
BLOCK = re.compile(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SMALL = {  # options that do not change the folder of a run
    "train": ["train.total_steps=60", "eval.episodes=2", "eval.final_episodes=2", "eval.n_envs=2",
              "log.to=[]", "log.progress=off"],
    "evaluate": ["episodes=2", "n_envs=2"],
    "robustness": ["episodes=2", "n_envs=2"],
}  # fmt: skip


def words(page: str) -> int:
    return len((DOCS / page).read_text(encoding="utf8").split())


def write_files(page: str, folder: Path) -> list[str]:
    """Write the files that a page shows, code blocks that begin with a comment of their name; return the names."""
    found = BLOCK.findall((DOCS / page).read_text(encoding="utf8"))
    for name, body in found:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(body, encoding="utf8")
    return [name for name, _ in found]


def run_commands(page: str, shell: Path, *more: str) -> list[str]:
    """Run the scripts that a page starts, in their order and with small numbers, trainings with ``more`` options;
    return the scripts' names."""
    shell.mkdir()
    shown = [words for line in on_page(DOCS / page) for words in line.commands(shell)]
    shell.rmdir()
    started = []
    for python, _, module, *given in [words for words in shown if words[0] != "make"]:
        assert python == "python", f"{page} starts {python}"
        script = module.removeprefix("scripts.")
        small = [] if "--help" in given else [*SMALL.get(script, []), *(more if script == "train" else ())]
        command(script, *given, *small)
        started.append(script)
    return started


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a current folder outside the repository, on the path as ``python`` puts it there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] in ("my_game", "my_algo")]:
        del sys.modules[name]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_how_long_it_takes_to_read(page: str) -> None:
    (said,) = re.findall(r"^\*Reading time: (\d+) minutes", (DOCS / page).read_text(encoding="utf8"), re.MULTILINE)
    assert int(said) == math.ceil(words(page) / 200)


def test_an_own_algorithm_is_less_than_a_quarter_of_an_hour_away() -> None:
    said = sum(math.ceil(words(page) / 200) for page in (PAGES[0], PAGES[2], PAGES[3]))
    assert said < 15 and f"takes {said} minutes of reading" in (DOCS / PAGES[0]).read_text(encoding="utf8")
    table = (DOCS / PAGES[0]).read_text(encoding="utf8")
    assert all(f"]({page}), {math.ceil(words(page) / 200)} minutes |" in table for page in PAGES[1:])


def test_the_first_page_runs(folder: Path) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", (DOCS / PAGES[0]).read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code.replace("episodes=20", "episodes=2"), "index.md", "exec"), names)
    assert isinstance(names["team"], marl.Team) and Path("episode.gif").is_file()


def test_train_and_watch(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started = run_commands("tutorials/train.md", folder / "shell")
    assert started == ["train", "evaluate", "record", "train", "plot", "train", "train"]
    assert len(list(Path("runs/study").rglob("DONE"))) == 6 and Path("plots/curves_skirmish-3m.png").is_file()
    assert json.loads(Path("result.json").read_text())["n"] == 2 and list(Path("runs/default").rglob("episode.gif"))
    assert "algo.learner.lr: 0.0005" in capsys.readouterr().out, "the help of a choice"


def test_an_environment(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert write_files("tutorials/environment.md", folder) == ["my_game/meet.py", "conf/env/meet.yaml", "check.py"]
    exec(compile(Path("check.py").read_text(), "check.py", "exec"), {})
    assert capsys.readouterr().out == "all rules hold\n"
    assert run_commands("tutorials/environment.md", folder / "shell") == ["train"]
    (done,) = Path("runs/default/meet").rglob("DONE")
    assert all(row["eval/length"] <= 12 for row in read_rows(done.parent / "eval.jsonl"))


def test_the_game_pays_what_the_tutorial_says(folder: Path) -> None:
    write_files("tutorials/environment.md", folder)
    env = importlib.import_module("my_game.meet").Meet(9, 12, n_envs=3)
    env.reset()
    env.place = torch.tensor([[3, 5], [3, 5], [0, 8]])
    step = env.step(torch.tensor([[2, 0], [2, 2], [0, 2]]))  # both to 4; both to the right; both against a wall
    assert step.reward.tolist() == pytest.approx([0.9, -0.1, -0.1])
    assert step.terminated.tolist() == [True, False, False] == step.info["won"].tolist()
    assert env.place.tolist() == [[4, 4], [4, 6], [0, 8]]
    starts = [math.ceil((right - left) / 2) for left, right in product(range(4), range(5, 9))]
    assert sum(starts) / 16 == 2.75 and 1 - 0.1 * 2.75 == pytest.approx(0.725), "the best, as the page says"


def test_a_game_that_breaks_a_rule_is_found(folder: Path) -> None:
    """The check of the tutorial fails for a twin whose finished lanes go on moving."""
    write_files("tutorials/environment.md", folder)
    path = folder / "my_game/meet.py"
    whole = path.read_text()
    path.write_text(whole.replace("torch.where(running[:, None], moved, self.place)", "moved"))
    assert path.read_text() != whole
    broken = importlib.import_module("my_game.meet").Meet
    with pytest.raises(ContractError, match="finished"):
        check_env(lambda n_envs, seed: broken(9, 12, n_envs=n_envs, seed=seed))


def test_an_algorithm(folder: Path) -> None:
    write_files("tutorials/environment.md", folder)
    assert write_files("tutorials/algorithm.md", folder) == ["my_algo/conservative.py", "conf/algo/conservative.yaml"]
    assert run_commands("tutorials/algorithm.md", folder / "shell", "train.total_steps=1000", "log.every=100") == [
        "train",
        "train",
    ]
    runs = [done.parent for done in Path("runs/mine").rglob("DONE")]
    rows = [row for run in runs for row in read_rows(run / "metrics.jsonl")]
    gaps = [row["conservative/gap"] for row in rows if "conservative/gap" in row]
    assert len(runs) == 2 and gaps and all(gap > 0 for gap in gaps)


def test_the_loss_is_the_equation(folder: Path) -> None:
    write_files("tutorials/algorithm.md", folder)
    hook = importlib.import_module("my_algo.conservative").Conservative(None, weight=0.5)
    q = torch.tensor([[0.0, math.log(3), 9.0], [1.0, 1.0, 1.0]]).expand(1, 3, 2, 3)  # [M, T+1, n, A]
    avail = torch.tensor([[True, True, False], [True, True, True]]).expand(1, 3, 2, 3)
    batch = type("Batch", (), {
        "actions": torch.tensor([[[0, 2], [1, 0], [0, 0]]]), "avail": avail,
        "filled": torch.tensor([[True, False, False]]), "alive": torch.tensor([[[True, True]] * 3]),
    })  # fmt: skip
    expected = (math.log(4) + math.log(3)) / 2  # ln(1 + 3) - 0, and ln(3 e) - 1; the third action is not available
    assert hook.loss(batch, type("Forward", (), {"q": q})).item() == pytest.approx(0.5 * expected)
    assert hook.update(batch, None)["conservative/gap"].item() == pytest.approx(expected)


def test_an_attack(folder: Path) -> None:
    (folder / "zoo").symlink_to(ROOT / "zoo")
    started = run_commands("tutorials/attack.md", folder / "shell")
    assert started == ["evaluate", "evaluate", "evaluate", "record", "robustness", "train"]
    assert Path("attacked.gif").is_file() and list(Path("runs/wall").rglob("DONE"))
    found = json.loads(Path("outputs/robustness/matrix.json").read_text())
    assert found["complete"] and {"natural", "WALL"} <= {row["agent"] for row in found["rows"]}


def test_the_gallery_shows_every_picture_with_a_command() -> None:
    page = (DOCS / "gallery.md").read_text(encoding="utf8")
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page)
    there = [path.relative_to(DOCS).as_posix() for path in [*DOCS.glob("images/*"), *DOCS.glob("results/*.png")]]
    assert sorted(shown) == sorted(there)
    entries = re.split(r"(?:^!\[.*\n)+", page, flags=re.MULTILINE)[1:]
    assert [entry for entry in entries if "```\n" not in entry] == []
