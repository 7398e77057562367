"""The global generators of Python, NumPy and torch, which only plug-ins draw from, follow the run's seed."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import marl
from envs.toys.games import Corridor
from marl.core.protocols import NoHook
from marl.core.seeding import Streams, globals_kept, globals_state, seed_globals
from marl.core.types import EnvSpec, EpisodeBatch, Forward, Step
from marl.run import checkpoint
from marl.run.build import build
from marl.run.trainer import open_run
from tests.marl.run.test_run import assert_resumes_exactly, assert_same_run
from tests.support.helpers import TINY, compose_train, differences, newest_state, train

GENERATORS = (random.random, np.random.rand, lambda: torch.rand(()).item())
HOOK = (
    "+algo.hooks.noise._target_=tests.marl.run.test_global_generators.Noise", "+algo.hooks.noise._partial_=true",
)  # fmt: skip
NOISY = ("env._target_=tests.marl.run.test_global_generators.Noisy",)


def draw() -> list[float]:
    """Draw one number from each of the three global generators."""
    return [float(generator()) for generator in GENERATORS]


class Noise(NoHook):
    """Draws from all three when it is made, which fixes the first reward, and whenever it is asked for a reward."""

    def __init__(self, spec: EnvSpec) -> None:
        self.made = sum(draw())

    def reward(self, batch: EpisodeBatch, fwd: Forward) -> Tensor | float:
        return self.made + sum(draw())


class Noisy(Corridor):
    """Draws its rewards from all three."""

    def step(self, actions: Tensor) -> Step:
        step = super().step(actions)
        step.reward += sum(draw()) * self.running
        return step


def disturb() -> None:
    """Leave the global generators anywhere: what the process did before must not matter."""
    random.seed()
    np.random.seed()
    torch.seed()


def weights(folder: Path) -> Any:
    return newest_state(folder)[0]["algo"]


def test_a_plugin_that_draws_from_them_is_repeatable(tmp_path: Path) -> None:
    one, same, other = tmp_path / "one", tmp_path / "same", tmp_path / "other"
    for folder, seed in ((one, 1), (same, 1), (other, 2)):
        disturb()
        train(folder, *HOOK, *NOISY, f"seed={seed}")
    assert_same_run(one, same)
    assert differences(weights(one), weights(other)) != []


def test_each_of_the_three_is_seeded() -> None:
    drawn = []
    for seed in (1, 1, 2):
        disturb()
        Streams(seed)
        drawn.append(draw())
    assert drawn[0] == drawn[1] and all(a != b for a, b in zip(drawn[0], drawn[2], strict=True))


def test_a_resumed_run_draws_what_it_would_have_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_resumes_exactly(tmp_path, monkeypatch, *HOOK, *NOISY, meanwhile=disturb)


def test_evaluation_draws_apart_from_training(tmp_path: Path) -> None:
    often, seldom = tmp_path / "often", tmp_path / "seldom"
    train(often, *HOOK, *NOISY, "eval.every=50")
    train(seldom, *HOOK, *NOISY, "eval.every=1000")
    assert differences(weights(often), weights(seldom)) == []


def test_ranks_draw_differently_and_begin_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = compose_train(tmp_path, *TINY)
    drawn, states = [], []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        parts = build(cfg, 4)
        drawn.append(draw())
        states.append(parts.algo.state_dict())
    assert differences(*states) == []
    assert all(a != b for a, b in zip(*drawn, strict=True))


def test_ranks_continue_differently(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint holds the generators and the environment of rank 0 only."""
    train(tmp_path / "run", "train.total_steps=200")
    cfg = compose_train(tmp_path, *TINY)
    found = checkpoint.newest(tmp_path / "run" / "checkpoints")
    assert found is not None
    drawn, episodes, explored = [], [], []
    for rank in ("0", "1", "1"):
        monkeypatch.setenv("RANK", rank)
        run = open_run(cfg, tmp_path / "run", {}, found[0])
        drawn.append(draw())
        episodes.append(run.parts.env.reset().obs.clone())
        explored.append(torch.rand(3, generator=run.parts.streams["explore"]).tolist())
    assert drawn[1] == drawn[2] and all(a != b for a, b in zip(drawn[0], drawn[1], strict=True))
    assert torch.equal(episodes[1], episodes[2]) and not torch.equal(episodes[0], episodes[1])
    assert explored[1] == explored[2] != explored[0]


def test_every_call_of_the_library_gives_them_back(tmp_path: Path) -> None:
    seed_globals(7)
    before = globals_state()
    run = marl.train(*TINY, *HOOK, "train.total_steps=50", "log.progress=off", dir=tmp_path / "run")
    team = marl.load(run.dir, device="cpu")
    first = team.evaluate(8, n_envs=8)
    team.record(tmp_path / "film.gif")
    team.act(marl.make_env("toy/corridor").reset())
    marl.crossplay(run, episodes=4, n_envs=4, device="cpu", out=tmp_path / "cross")
    marl.robustness(run, only=["natural"], episodes=4, n_envs=4, device="cpu", out=tmp_path / "robust")
    assert differences(globals_state(), before) == []
    disturb()
    assert team.evaluate(8, n_envs=8) == first


def test_they_are_kept_whatever_happens_inside() -> None:
    before = globals_state()
    with pytest.raises(ZeroDivisionError), globals_kept(3):
        inside = draw()
        raise ZeroDivisionError
    assert differences(globals_state(), before) == []
    with globals_kept(3):
        assert draw() == inside
