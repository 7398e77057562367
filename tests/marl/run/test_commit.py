"""The commit that results name: "-dirty" for every state of the code that it does not hold."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from marl.run import resume
from marl.run.trainer import Run
from tests.support.helpers import train

git_commit = resume.git_commit.__wrapped__  # which asks git each time
WHO = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")


def git(repository: Path, *arguments: str) -> None:
    subprocess.run(["git", *WHO, *arguments], cwd=repository, check=True, capture_output=True)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a repository with a package in it; return the package, as ``marl`` would lie in it."""
    repository = tmp_path / "repository"
    (repository / "marl").mkdir(parents=True)
    (repository / "marl" / "code.py").write_text("x = 1\n")
    (repository / ".gitignore").write_text("runs/\n")
    git(repository, "init", "--quiet")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "first")
    monkeypatch.setattr(resume, "SOURCE", repository / "marl")
    return repository / "marl"


def test_a_clean_tree_is_its_commit(tree: Path) -> None:
    assert len(git_commit()) == 12 and "dirty" not in git_commit()


@pytest.mark.parametrize("name", ["marl/plugin.py", "my_plugins/agreement.py", "conf/algo/mine.yaml", "mine.yml"])
def test_code_and_configurations_that_no_commit_holds_are_dirty(name: str, tree: Path) -> None:
    clean, path = git_commit(), tree.parent / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    assert git_commit() == f"{clean}-dirty"
    git(tree.parent, "add", ".")
    assert git_commit() == f"{clean}-dirty"
    git(tree.parent, "commit", "--quiet", "-m", "second")
    assert "dirty" not in git_commit()


def test_changed_files_are_dirty(tree: Path) -> None:
    clean = git_commit()
    (tree / "code.py").write_text("x = 2\n")
    assert git_commit() == f"{clean}-dirty"
    (tree / "plugin.py").write_text("")
    assert git_commit() == f"{clean}-dirty"


@pytest.mark.parametrize(
    "name", ["runs/a/plugin.py", "results/a/.hydra/config.yaml", ".hydra/config.yaml", "notes.txt"]
)
def test_results_and_notes_are_not(name: str, tree: Path) -> None:
    path = tree.parent / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    assert "dirty" not in git_commit()


def test_outside_a_repository_it_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "SOURCE", tmp_path)
    assert git_commit() == "unknown"


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Forget what git said of another tree."""
    resume.git_commit.cache_clear()
    yield
    resume.git_commit.cache_clear()


def test_a_run_says_what_it_began_with(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: None
) -> None:
    """And not what somebody writes while it runs."""
    learn, clean = Run.learn, git_commit()
    monkeypatch.setattr(Run, "learn", lambda *a: (tree / "plugin.py").write_text("") or learn(*a))
    train(tmp_path / "run", "train.total_steps=8")
    (saved,) = (tmp_path / "run" / "checkpoints").glob("step_*/meta.json")
    for path in (tmp_path / "run" / "meta.json", saved):
        assert json.loads(path.read_text())["commit"] == clean


def test_a_run_says_so(tree: Path, tmp_path: Path, forgotten: None) -> None:
    (tree / "plugin.py").write_text("")
    train(tmp_path / "run", "train.total_steps=8")
    assert json.loads((tmp_path / "run" / "meta.json").read_text())["commit"].endswith("-dirty")
