"""A run goes on on another kind of device than it began on."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from marl.run import checkpoint
from marl.run.teams import load_trained
from tests.support.helpers import differences, newest_state, train

pytestmark = pytest.mark.usefixtures("no_drawing")
ON_A_GPU = torch.arange(16, dtype=torch.uint8)  # the size of what torch.Generator("cuda").get_state() gives
CPU_STATE = len(torch.Generator().get_state())


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change what all checkpoints of a run hold, with right digests."""
    for path in checkpoint.folders(folder / "checkpoints"):
        state = checkpoint.load_state(path)
        change(state)
        torch.save(state, path / "state.pt")
        meta = json.loads((path / "meta.json").read_text())
        meta["digests"]["state.pt"] = checkpoint.digest(path / "state.pt")
        (path / "meta.json").write_text(json.dumps(meta))


def as_on_a_gpu(state: dict[str, Any]) -> None:
    """Replace the states of all generators that a run with ``device=cuda`` has on the GPU, the plug-ins' included."""

    def swap(tree: Any) -> None:
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            if isinstance(value, dict | list):
                swap(value)
            elif isinstance(value, torch.Tensor) and value.dtype == torch.uint8 and len(value) == CPU_STATE:
                tree[key] = ON_A_GPU.clone()

    replay, state["rng"]["cuda"] = state["streams"]["replay"], [ON_A_GPU]
    for part in ("streams", "algo", "attack"):
        swap(state[part])
    state["streams"]["replay"] = replay


SETUPS = {
    "vdn": (),
    "a hook with a generator": ("algo=ernie",),
    "an attack with a generator": ("attack=wolfpack", "attack.duration=2", "attack.foresight.window=4"),
}


@pytest.mark.parametrize("setup", SETUPS)
def test_a_run_begun_on_a_gpu_goes_on_on_the_cpu(setup: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ends = []
    for name in ("one", "same"):
        train(tmp_path / name, *SETUPS[setup], "train.total_steps=200")
        edit(tmp_path / name, as_on_a_gpu)
        load_trained(tmp_path / name, {}, 4)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert train(tmp_path / name, *SETUPS[setup])
        told = [record.message for record in caplog.records if "start over" in record.message]
        assert told == ["the random streams explore, attack, eval, eval_attack were saved on another kind of device: "
                        "they start over"]  # fmt: skip
        ends.append(newest_state(tmp_path / name)[0])
    assert differences(*ends) == [] and ends[0]["clock"]["env_steps"] >= 400
