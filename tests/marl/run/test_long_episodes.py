"""An episode of more than 32,767 steps is counted, stored, restored and learnt from."""

from __future__ import annotations

import math

import torch

from marl.core.types import EpisodeBatch, core_fields
from marl.learn.mixers import VDN
from marl.learn.replay import EpisodeReplay
from marl.run.collect import empty_batch
from marl.run.evaluate import episode_results
from marl.run.metrics import Window
from tests.support.helpers import make_learner, make_spec

STEPS = 33_000
SPEC = make_spec(n=2, A=3, O=2, S=2, limit=STEPS)


def long_episode() -> EpisodeBatch:
    """Return an episode of ``STEPS`` steps, each counted as ``collect`` counts it."""
    batch = empty_batch(core_fields(SPEC), 1, STEPS, torch.device("cpu"))
    batch.avail.fill_(True)
    batch.filled[:, :-1] = True
    batch.reward[:, :-1] = 1.0
    for _ in range(STEPS):
        batch["length"].add_(torch.tensor([True]))
    return batch


def test_a_long_episode_is_counted_stored_and_learnt_from() -> None:
    batch = long_episode()
    results = episode_results(batch)
    assert results["length"].tolist() == [STEPS] and results["return"].tolist() == [STEPS]
    window = Window()
    window.add(batch)
    assert window.take()["length"] == STEPS
    replay, again = (EpisodeReplay(1, STEPS, batch.fields) for _ in range(2))
    replay.add(batch)
    again.load_state_dict(replay.state_dict())
    assert again.lengths().tolist() == [STEPS] == [again.longest]
    sample = again.sample(1, torch.Generator(), "cpu")
    assert sample.length.tolist() == [STEPS] and sample.horizon == STEPS
    metrics = make_learner(SPEC, VDN(SPEC)).update(sample)
    assert all(math.isfinite(value.item()) for value in metrics.values())
