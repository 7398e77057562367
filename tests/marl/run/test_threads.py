"""The number of threads that a user asks for is the one that torch computes with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numba
import pytest
import torch

import marl
from marl.learn.policy import EpsilonGreedy
from marl.run.build import ComputeSettings, settings_kept, use_threads
from marl.run.teams import load_trained
from tests.support.helpers import TINY, train
from tests.support.refusals import in_a_child

pytestmark = pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="needs two threads")


def torch_first(threads: int) -> None:
    """Limit torch before numba, whose pool begins with all cores."""
    torch.set_num_threads(threads)
    numba.set_num_threads(threads)


def limited(limit: Callable[[int], None]) -> None:
    """Print the threads of torch and numba after ``limit(1)`` in a process whose torch has computed, and whose numba
    has not started its threads."""
    torch.ones(2**20).sum()
    limit(1)
    print(torch.get_num_threads(), numba.get_num_threads())


@pytest.fixture
def settings() -> Iterator[ComputeSettings]:
    """Give the settings of somebody else's program, and the tests' back at the end."""
    theirs = ComputeSettings(2, 2, False, False)
    with settings_kept(theirs):
        yield theirs


def test_the_library_gives_threads_and_determinism_back(tmp_path: Path, settings: ComputeSettings) -> None:
    words = (*TINY, "train.total_steps=50", "deterministic=true", "log.progress=off")
    team = marl.load(marl.train(*words, dir=tmp_path / "run"), device="cpu")
    team.evaluate(4, n_envs=4)
    team.act(marl.make_env("toy/corridor").reset())
    assert ComputeSettings.now() == settings


def test_a_team_acts_with_the_settings_that_it_was_loaded_with(
    tmp_path: Path, settings: ComputeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, seen, act = marl.train(*TINY, "train.total_steps=50", dir=tmp_path / "run"), [], EpsilonGreedy.act
    monkeypatch.setattr(
        EpsilonGreedy, "act", lambda *a, **kw: seen.append(ComputeSettings.now().threads) or act(*a, **kw)
    )
    marl.load(run, device="cpu", threads=1).act(marl.make_env("toy/corridor").reset())
    assert seen == [1]


def test_torch_is_not_asked_for_the_determinism_that_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking makes it import its compiler, in every command."""
    asked = list[bool]()
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda mode, warn_only: asked.append(mode))
    train(tmp_path / "one", "train.total_steps=8")
    assert asked == []
    with settings_kept():
        train(tmp_path / "two", "train.total_steps=8", "deterministic=true")
    assert asked == [True]


def test_settings_of_one_run_are_not_those_of_the_next(tmp_path: Path, settings: ComputeSettings) -> None:
    train(tmp_path / "one", "train.total_steps=8", "deterministic=true")
    assert ComputeSettings.now() == ComputeSettings(1, 1, True, False)
    train(tmp_path / "two", "train.total_steps=8")
    assert ComputeSettings.now() == ComputeSettings(1, 1, False, False)


def test_null_is_all_cores_whatever_was_set_before_and_whatever_the_run_was_trained_with(
    tmp_path: Path, settings: ComputeSettings
) -> None:
    train(tmp_path / "run", "train.total_steps=8", "threads=1")
    load_trained(tmp_path / "run", {"threads": None}, 1)[0].env.close()
    cores = numba.config.NUMBA_NUM_THREADS
    assert ComputeSettings.now() == ComputeSettings(cores, cores, False, False)


def test_torch_keeps_to_its_threads_when_numba_starts_its_own(tmp_path: Path) -> None:
    assert in_a_child(limited, use_threads, cwd=tmp_path) == (0, "1 1\n", "")


def test_the_other_order_would_give_torch_all_cores(tmp_path: Path) -> None:
    """Test the test above."""
    if numba.threading_layer() != "omp":
        pytest.skip(f"numba has threads of {numba.threading_layer()}, which torch does not share")
    assert in_a_child(limited, torch_first, cwd=tmp_path)[1] == f"{numba.config.NUMBA_NUM_THREADS} 1\n"
