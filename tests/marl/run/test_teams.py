"""Teams are tested in changed games: what is changed changes, at any depth, and nothing else."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from marl.run.teams import with_options
from tests.support.helpers import command


def test_options_inside_options_change_one_value() -> None:
    env = OmegaConf.create({"limit": 9, "kwargs": {"sight": 2, "penalty": 0.0, "size": [8, 8]}})
    changed = with_options(env, OmegaConf.create({"kwargs": {"penalty": 0.1, "size": [3, 3]}}))
    assert changed == {"limit": 9, "kwargs": {"sight": 2, "penalty": 0.1, "size": [3, 3]}}
    assert env.kwargs.penalty == 0.0, "the original has changed"


@pytest.mark.skipif(importlib.util.find_spec("lbforaging") is None, reason="needs lbforaging: pip install -e .[lbf]")
def test_a_game_of_another_package_keeps_its_other_arguments(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    command("evaluate", "policy=random", "env=lbf", "env.workers=1", "+env_options.kwargs.max_episode_steps=3",
            "episodes=4", "n_envs=2", f"out={out}")  # fmt: skip
    assert max(json.loads(out.read_text())["episodes"]["length"]) == 3
