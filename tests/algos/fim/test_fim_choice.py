"""FIM where it cannot choose features, and where nobody can influence the ones that it chose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import algos.fim.hook
from marl.core.types import ConfigError, EpisodeBatch, Forward
from marl.learn.mixers import VDN
from tests.support.fim_parts import button_batch, make_fim
from tests.support.helpers import make_learner, make_spec

SPEC = replace(make_spec(n=2, A=3, O=4, S=5, limit=8), state_names=("button", "clock", "wall", "x", "y"))


def forward(batch: EpisodeBatch) -> Forward:
    torch.manual_seed(0)
    return make_learner(SPEC, VDN(SPEC)).forward(batch)


def identified(hook: algos.fim.hook.FIM, batch: EpisodeBatch) -> algos.fim.hook.FIM:
    """Return the hook after it has seen these episodes."""
    hook.annotate(batch)
    hook.reward(batch, forward(batch))
    return hook


def test_no_gap_writes_the_table_before_its_error(tmp_path: Path) -> None:
    hook = identified(make_fim(SPEC, cog={"delta": "auto_gap", "least_gap": 50.0}), button_batch(SPEC, 40))
    assert len(hook.dims) == 0
    with pytest.raises(ConfigError, match=r"found no gap of at least 50.0"):
        hook.report(tmp_path)
    lines = (tmp_path / "fim_cog.csv").read_text().splitlines()
    assert len(lines) == 1 + SPEC.state_dim and all(line.endswith("False") for line in lines[1:])


def test_what_flips_by_itself_is_chosen_but_hardly_pays() -> None:
    """The noise trap: features 3 and 4 flip on 2% of the steps, whatever the agents do."""

    def played(episodes: int, seed: int) -> EpisodeBatch:
        batch, gen = button_batch(SPEC, episodes, seed), torch.Generator().manual_seed(100 + seed)
        flips = torch.rand(*batch.filled.shape, 2, generator=gen) < 0.02
        batch.state[..., 3:5] = (flips.cumsum(1) % 2).float()
        return batch

    options = {"id_steps": 1500, "pretrain": 800, "tau": 0.05}
    hook = identified(make_fim(SPEC, {"delta": 0.9}, {"hidden_dim": 32}, **options), played(400, 0))
    assert hook.found is not None and hook.found.selected.tolist() == [True, False, False, True, True]
    fresh = played(40, 1)
    with torch.no_grad():
        influence = hook.sized(hook.dynamics.contrast(fresh, hook.dims)[0])[fresh.filled[:, :-1]]
    pays, noise = influence[:, 0, 0].mean(), influence[..., 1:].mean()
    assert pays > 0.3 and noise < 0.1 * pays, (pays, noise)
