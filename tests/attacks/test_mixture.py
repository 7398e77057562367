"""Mixtures of attacks: who gets which lanes, what is stored, who learns from what."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from attacks.base import LaneAttack, NoAttack
from attacks.missing import Missing
from attacks.mixture import Mixture
from attacks.noise import Noise
from attacks.random import RandomActions
from marl.core.types import Clock, ConfigError, EnvSpec, Field
from marl.learn.replay import EpisodeReplay
from tests.support.attack_parts import corridor, corridor_victim, play
from tests.support.helpers import make_spec, newest_state, random_batch, rows, train

STEP: dict[str, Any] = {"budget": None, "budget_unit": "step"}
ALWAYS: dict[str, Any] = {"rate": 1.0, "agents": None, "redraw": "step", **STEP}


def mixture(spec: EnvSpec, **weights: float) -> Mixture:
    parts = {
        "random": lambda spec, device: RandomActions(spec, device, p=1.0, **STEP),
        "missing": lambda spec, device: Missing(spec, device, agents=1, mode="idle", **STEP),
        "noise": lambda spec, device: Noise(spec, device, epsilon=0.5, **ALWAYS),
    }
    return Mixture(spec, "cpu", attacks={name: parts[name] for name in weights}, weights=weights)


def drawn(attack: Mixture, lanes: int) -> Tensor:
    attack.begin(lanes, corridor_victim(corridor().spec), torch.Generator().manual_seed(0))
    return attack.chosen


def test_mixtures_draw_by_weight() -> None:
    shares = torch.bincount(drawn(mixture(make_spec(), noise=3.0, random=1.0), 8000)) / 8000
    assert shares.tolist() == pytest.approx([0.75, 0.25], abs=0.02)
    assert (drawn(mixture(make_spec(), noise=0.0, random=2.0), 1000) == 1).all()


def test_every_lane_is_under_its_own_attack() -> None:
    batch = play(mixture(corridor().spec, missing=1.0, noise=1.0))
    of = batch["attack_id"]
    assert set(of.tolist()) == {0, 1}
    absent, noisy = of == 0, of == 1
    blurred = (batch["obs_seen"] != batch.obs).any(-1)
    assert not blurred[absent].any() and torch.equal(blurred[noisy], batch["hit"][noisy])
    assert torch.equal(batch.actions[noisy], batch.intended[noisy])
    assert (batch["hit"][absent].sum(-1) <= 1).all() and batch["hit"][absent].any(-1)[:, 0].all()


def test_a_team_trains_under_a_mixture(tmp_path: Path) -> None:
    """Half of the lanes are attacked and they alone are counted; what was shown is stored."""
    train(tmp_path / "run", "attack=mixture", "train.attack_fraction=0.5", "checkpoint.every=200")
    written = rows(tmp_path / "run", "metrics")[-1]
    assert 0 < written["attack/hits_per_episode"] <= written["attack/hit_actions_per_episode"]
    assert written["updates"] > 0 and math.isfinite(written["loss/td"])
    _, replay = newest_state(tmp_path / "run")
    assert replay is not None and {"hit", "obs_seen", "attack_id"} <= set(replay["data"])


class Counting(LaneAttack):
    """Learns nothing; says from how many episodes."""

    def __init__(self, spec: EnvSpec, device: Any) -> None:
        super().__init__(spec, device, **STEP)
        self.told = 0

    def update(self, replay: Any, fresh: Any, victim: Any, clock: Any) -> dict[str, Tensor]:
        self.told = int(fresh.attacked.sum())
        return {"loss/attack": torch.tensor(float(self.told))}

    def state_dict(self) -> dict[str, Any]:
        return {"told": self.told}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.told = state["told"]


def test_parts_of_a_mixture_learn_from_their_own_episodes_and_are_saved() -> None:
    spec = make_spec()
    attack = Mixture(spec, "cpu", attacks={"a": Counting, "b": Counting}, weights={"a": 1, "b": 1})
    fresh = random_batch(spec, 6)
    fresh.data["attacked"] = torch.tensor([True] * 5 + [False])
    attack.chosen = torch.tensor([0, 1, 1, 0, 1, 1])
    metrics = attack.update(
        EpisodeReplay(8, spec.episode_limit, fresh.fields, "cpu", False),
        fresh,
        corridor_victim(corridor().spec),
        Clock(),
    )
    assert {key: value.item() for key, value in metrics.items()} == {"loss/attack_a": 2.0, "loss/attack_b": 3.0}
    other = Mixture(spec, "cpu", attacks={"a": Counting, "b": Counting}, weights={"a": 1, "b": 1})
    other.load_state_dict(attack.state_dict())
    assert [part.told for part in other.parts().values()] == [2, 3]  # type: ignore[attr-defined]


class Untouchable(NoAttack):
    """Must not even be made."""

    def __init__(self, spec: EnvSpec, device: Any) -> None:
        raise ConfigError("it needs what this game lacks")


def test_what_has_no_weight_is_removed() -> None:
    """It asks for nothing, declares and draws nothing; the others keep their numbers, and what they draw."""
    spec = corridor().spec
    parts = {"random": lambda s, d: RandomActions(s, d, p=0.5, **STEP), "counting": Counting}

    def played(**weights: float) -> tuple[Mixture, Any]:
        made = {name: parts.get(name, Untouchable) for name in weights}
        attack = Mixture(spec, "cpu", attacks=made, weights=weights)
        return attack, play(attack)

    alone, expected = played(random=1.0, counting=1.0)
    attack, batch = played(first=0.0, random=1.0, between=0.0, counting=1.0, last=0.0)
    assert attack.fields() == alone.fields() and attack.state_dict().keys() == {"random", "counting"}
    assert torch.equal(batch.actions, expected.actions) and torch.equal(batch["hit"], expected["hit"])
    numbers = torch.tensor([1, 3], dtype=torch.int8)
    assert torch.equal(batch["attack_id"], numbers[expected["attack_id"].long()])
    attack.update(
        EpisodeReplay(8, spec.episode_limit, batch.fields, "cpu", False), batch, corridor_victim(spec), Clock()
    )
    assert attack.parts()["counting"].told == (batch["attack_id"] == 3).sum()  # type: ignore[attr-defined]


class OtherHit(NoAttack):
    def fields(self) -> dict[str, Field]:
        return {"hit": Field((), torch.bool)}


def test_parts_that_mean_different_things_by_a_field_are_refused() -> None:
    attack = Mixture(make_spec(), "cpu", attacks={"odd": OtherHit}, weights={"odd": 1})
    with pytest.raises(ConfigError, match=r"attack\.attacks\.odd declares field 'hit'"):
        attack.fields()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"b": 1.0}, r"attack\.weights names b; attack\.attacks names a"),
        ({"a": 0.0}, r"attack\.weights=\{'a': 0\.0\} must be at least 0, and one of them above"),
        ({"a": -1.0}, r"attack\.weights=\{'a': -1\.0\} must be at least 0"),
    ],
)
def test_bad_weights(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Mixture(make_spec(), "cpu", attacks={"a": Counting}, weights=weights)
