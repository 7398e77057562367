"""The replay's sampler as a plug-in: ``Recent`` is a complete second sampler, in this file and one configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Generator, Tensor

from marl.core.protocols import Replay
from marl.core.types import ConfigError, EnvSpec, core_fields
from marl.learn.replay import EpisodeReplay, Uniform
from marl.run.collect import empty_batch
from marl.run.folders import pick_checkpoint
from marl.run.trainer import fit, open_run
from tests.support.helpers import TINY, compose_train

SPEC = EnvSpec(2, 3, 4, 5, 6, torch.zeros(4), torch.ones(4))
RECENT = {"_target_": "tests.marl.run.test_sampler.Recent", "among": 12}


class Recent:
    """Draws different episodes from the newest ``among`` ones, all equally likely."""

    def __init__(self, among: int) -> None:
        self.among = among
        self.draws = 0

    def draw(self, replay: Replay, size: int, gen: Generator) -> Tensor:
        self.draws += 1
        newest = replay.ages().argsort()[: max(size, self.among)]
        return newest[torch.randperm(len(newest), generator=gen)[:size]]

    def state_dict(self) -> dict[str, Any]:
        return {"draws": self.draws}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.draws = int(state["draws"])


def filled(capacity: int, episodes: int, sampler: Any) -> EpisodeReplay:
    """Return a replay to which ``episodes`` episodes were added; episode k has the state k and the length 1 + k % 3."""
    replay = EpisodeReplay(capacity, SPEC.episode_limit, core_fields(SPEC), sampler=sampler)
    for k in range(episodes):
        batch = empty_batch(core_fields(SPEC), 1, SPEC.episode_limit, torch.device("cpu"))
        batch.state[:] = k
        batch.length[:] = 1 + k % 3
        batch.filled[:, : 1 + k % 3] = True
        replay.add(batch)
    return replay


def test_ages_and_lengths_follow_the_ring() -> None:
    replay = filled(4, 6, Uniform())  # slots hold the episodes 4, 5, 2, 3
    assert replay.ages().tolist() == [1, 0, 3, 2]
    assert replay.lengths().tolist() == [2, 3, 3, 1]
    assert filled(4, 3, Uniform()).ages().tolist() == [2, 1, 0]


def test_a_batch_knows_where_its_episodes_are_stored() -> None:
    replay = filled(4, 6, Uniform())
    batch = replay.sample(3, Generator().manual_seed(0), "cpu")
    assert batch.index is not None and len(set(batch.index.tolist())) == 3
    stored = torch.tensor([4, 5, 2, 3])
    assert batch.state[:, 0, 0].tolist() == stored[batch.index].tolist()
    picked = torch.tensor([2, 0])
    chosen = batch.lanes(picked).trim(1).index
    assert chosen is not None and torch.equal(chosen, batch.index[picked])
    assert empty_batch(core_fields(SPEC), 1, 2, torch.device("cpu")).index is None


def test_uniform_draws_every_episode_alike() -> None:
    replay, gen = filled(8, 8, Uniform()), Generator().manual_seed(0)
    counts = torch.zeros(8)
    for _ in range(4000):
        counts[Uniform().draw(replay, 2, gen)] += 1
    assert (counts / 8000 - 1 / 8).abs().max() < 0.01  # 2 of 8 each time; standard deviation 0.0032


def test_recent_draws_the_newest_alone() -> None:
    replay, gen = filled(8, 11, Recent(3)), Generator().manual_seed(0)
    seen = {int(k) for _ in range(50) for k in replay.sample(2, gen, "cpu").state[:, 0, 0]}
    assert seen == {8, 9, 10}


def tiny(folder: Path) -> DictConfig:
    return compose_train(folder.parent, *TINY, "replay.capacity=40")


def test_a_run_samples_as_configured_and_resumes_the_samplers_state(tmp_path: Path) -> None:
    cfg = tiny(tmp_path)
    cfg.replay.sampler = RECENT
    fit(cfg, tmp_path)
    cfg.train.total_steps = 800
    saved = pick_checkpoint(tmp_path, None)
    run = open_run(cfg, tmp_path, {}, saved)
    try:
        assert isinstance(run.replay.sampler, Recent)
        assert run.replay.sampler.draws == run.clock.updates > 0
    finally:
        run.close()


def test_a_class_that_cannot_draw_is_refused(tmp_path: Path) -> None:
    cfg = tiny(tmp_path)
    cfg.replay.sampler = {"_target_": "pathlib.PurePosixPath"}
    with pytest.raises(ConfigError, match=r"replay.sampler=pathlib.PurePosixPath has no method draw"):
        fit(cfg, tmp_path)
    cfg.replay.sampler = {"_target_": "tests.marl.run.test_sampler.Recent", "amongst": 3}
    with pytest.raises(ConfigError, match=r"replay.sampler.*amongst"):
        fit(cfg, tmp_path)
    assert not (tmp_path / "config.json").exists()
