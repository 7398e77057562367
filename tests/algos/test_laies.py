"""LAIES: its reward by hand, the unchanged base learner, refused options, checkpoints."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from algos.laies import LAIES
from algos.shared.influence import Dynamics
from marl.core.types import ConfigError, EpisodeBatch
from marl.learn.mixers import VDN
from tests.support.fim_parts import MODEL, additive, button_batch
from tests.support.helpers import compose_train, differences, make_learner, make_spec

SPEC = replace(make_spec(n=2, A=3, O=4, S=5, limit=8), state_names=("button", "clock", "wall", "x", "y"))
OPTIONS: dict[str, Any] = {
    "external": ["button"], "influence_scale": 2.0, "agent_clip": 0.5, "total_clip": 1.2, "change_scale": 10.0,
    "change_clip": 0.15, "anneal_steps": None, "clip_on": "influence",
}  # fmt: skip
LAIES_MODEL = {**MODEL, "inputs": "state", "predict": "state", "batch_size": None, "event_frac": 0.0, "slow_every": 2}


def make_laies(model: dict[str, Any] | None = None, **changes: Any) -> LAIES:
    torch.manual_seed(0)
    return LAIES(SPEC, model=partial(Dynamics, **{**LAIES_MODEL, **(model or {})}), **{**OPTIONS, **changes})


def rewarded(hook: LAIES, batch: EpisodeBatch) -> Tensor:
    found = hook.reward(batch, None)  # type: ignore[arg-type]
    assert isinstance(found, Tensor)
    return found


def hand_made(**changes: Any) -> tuple[LAIES, EpisodeBatch]:
    """Agent 0's action 1 is predicted to add 0.9 to the button, agent 1's action 2 to add 0.5. Three steps: (1, 0),
    (0, 2), (1, 2), everything available; the button really moves 0.1, 0, 1."""
    hook, batch = make_laies(**changes), button_batch(SPEC, 2)
    table = torch.zeros(2, 3, 5)
    table[0, 1, 0], table[1, 2, 0] = 0.9, 0.5
    additive(hook.dynamics, table)
    hook.dynamics.updates = 1
    batch.data["avail"][:], batch.data["alive"][:] = True, True
    batch.data["filled"][0] = torch.arange(9) < 3
    batch.data["actions"][0, :3] = torch.tensor([[1, 0], [0, 2], [1, 2]], dtype=torch.int16)
    batch.data["state"][0, :4, 0] = torch.tensor([0.0, 0.1, 0.1, 1.1])
    return hook, batch


def test_reward_by_hand() -> None:
    hook, batch = hand_made()
    # squared influences: 0.9^2 clipped at 0.5, 0.45^2, 0.5^2, 0.25^2; twice their sums, at most 1.2
    influence = [2 * (0.5 + 0.0625), 2 * (0.2025 + 0.25), 1.2]
    change = [0.1 * 0.01, 0.0, 0.1 * 0.15]
    expected = [a + b for a, b in zip(influence, change, strict=True)]
    found = rewarded(hook, batch)
    assert found.shape == (2, 8, 1)
    assert found[0, :3, 0].tolist() == pytest.approx(expected, rel=1e-4) and not found[0, 3:].any()
    batch.data["alive"][0, 0, 0] = False
    assert rewarded(hook, batch)[0, 0, 0].item() == pytest.approx(2 * 0.0625 + 0.001, rel=1e-4)


def test_the_published_reward_by_hand() -> None:
    """The clip is on the sum: 1.125 + 0.001, 0.905 + 0, 1.5 (with 0.015 more), at most 1.2; then at most 0.9."""
    for clip, expected in ((1.2, [1.126, 0.905, 1.2]), (0.91, [0.91, 0.905, 0.91]), (2.0, [1.126, 0.905, 1.515])):
        hook, batch = hand_made(clip_on="sum", total_clip=clip)
        found = rewarded(hook, batch)
        assert found[0, :3, 0].tolist() == pytest.approx(expected, rel=1e-4) and not found[0, 3:].any()
    hook, batch = hand_made(clip_on="sum", total_clip=9.0, change_clip=50.0, change_scale=10.0)
    batch.data["state"][0, 3, 0] = 4.1  # moves 4, squared 16, of which a hundredth is above the cap of 0.06
    assert rewarded(hook, batch)[0, 2, 0].item() == pytest.approx(1.5 + 10 * 0.06, rel=1e-4)


def test_the_published_numbers_are_the_defaults() -> None:
    hook = compose_train(Path("runs"), "algo=laies").algo.hooks.laies
    assert (hook.influence_scale, hook.change_scale, hook.total_clip, hook.clip_on) == (100.0, 0.1, 1.0, "sum")
    assert hook.anneal_steps == 2_000_000 and (hook.agent_clip, hook.change_clip) == (0.002, 0.15)
    old = compose_train(Path("runs"), "experiment=sparse_battle_small/laies").algo.hooks.laies
    assert (old.change_scale, old.total_clip, old.clip_on, old.anneal_steps) == (1.0, 0.4, "influence", None)


def test_the_reward_fades_from_the_first_success_on() -> None:
    """Nothing is won in the first three steps collected, something in the next three; six later half of it is gone."""
    hook, batch = hand_made(clip_on="sum", anneal_steps=12)
    full = rewarded(hook, batch)
    batch.data["reward"][:], batch.data["filled"][1] = 0.0, False
    hook.annotate(batch)
    assert torch.equal(rewarded(hook, batch)[0], full[0])
    batch.data["reward"][0, 2] = 1.0
    for collected, factor in ((6, 1.0), (9, 0.75), (12, 0.5)):
        hook.annotate(batch)
        assert hook.anneal.seen == collected
        assert torch.allclose(rewarded(hook, batch)[0], factor * full[0])
    for _ in range(3):
        hook.annotate(batch)
    assert not rewarded(hook, batch).any(), "and is gone"


def test_only_external_features_pay() -> None:
    hook, batch = hand_made(external=["wall"])
    assert not rewarded(hook, batch)[0].any()


def test_an_untrained_model_pays_nothing() -> None:
    hook, batch = make_laies(), button_batch(SPEC, 6)
    assert hook.reward(batch, None) == 0.0  # type: ignore[arg-type]
    hook.update(batch, None)  # type: ignore[arg-type]
    assert differences(dict(hook.dynamics.slow.state_dict()), dict(hook.dynamics.model.state_dict())) == []
    assert rewarded(hook, batch).sum() > 0


def test_the_model_learns_the_next_state() -> None:
    hook, batch = make_laies(model={"lr": 0.01, "steps_per_update": 5}), button_batch(SPEC, 20)
    losses = [float(hook.update(batch, None)["laies/model_loss"]) for _ in range(60)]  # type: ignore[arg-type]
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("kind", ["mlp", "gru"])
def test_scale_0_is_the_base_learner_bit_for_bit(kind: str) -> None:
    def learn(hooks: list[LAIES]) -> Tensor:
        torch.manual_seed(0)
        learner = make_learner(SPEC, VDN(SPEC), hooks)
        for seed in range(4):
            batch = button_batch(SPEC, 8, seed)
            for hook in hooks:
                hook.annotate(batch)
            learner.update(batch)
        return torch.cat([p.detach().flatten() for p in learner.parameters])

    model = {"kind": kind}
    assert torch.equal(learn([make_laies(model, influence_scale=0.0, change_scale=0.0)]), learn([]))
    assert not torch.equal(learn([make_laies(model)]), learn([]))


def test_a_checkpoint_continues_exactly() -> None:
    old, new = make_laies(anneal_steps=100), make_laies(anneal_steps=100)

    def play(hook: LAIES, seed: int) -> dict[str, Any]:
        batch = button_batch(SPEC, 8, seed)
        hook.annotate(batch)
        return {"r": torch.as_tensor(hook.reward(batch, None)), **hook.update(batch, None)}  # type: ignore[arg-type]

    for seed in range(3):
        play(old, seed)
    new.load_state_dict(copy.deepcopy(old.state_dict()))
    for seed in range(3, 6):
        assert differences(play(old, seed), play(new, seed)) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"external": ["enemy"]}, "laies.external='enemy' names no state feature; there are button"),
        ({"external": []}, "laies.external is empty"),
        ({"agent_clip": 0.0}, "laies.agent_clip=0.0 must be above 0"),
        ({"clip_on": "total"}, "laies.clip_on=total is not known; choose one of sum, influence"),
        ({"influence_scale": -1.0}, "laies.influence_scale=-1.0 must be at least 0"),
    ],
)
def test_bad_options_are_one_clear_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_laies(**changes)
