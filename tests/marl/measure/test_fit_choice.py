"""Fits of an attack with restarts: the strongest is accepted, and only where it harms more than attacking at once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from attacks.wolfpack import Wolfpack
from marl.core.types import ConfigError
from marl.measure.fitting import Hasty
from marl.measure.suite import read_suite
from marl.run.build import factory
from tests.attacks.test_attack_contract import configuration
from tests.support.attack_parts import spec_of
from tests.support.robustness_parts import CALLS, NATURAL, Gambler, column, entrant, fake, measured, score, setting


def fitted(where: Path, skills: list[int], attack: dict[str, Any], **how: int) -> tuple[Any, float]:
    """Return what is kept of the fit, and what the column leaves a team that wins four lanes of four without attack."""
    CALLS.clear()
    Gambler.SKILLS[:] = skills
    one = replace(column("gambler", attack, fit="victim"), **how)  # type: ignore[arg-type]
    rows, _ = measured([entrant([0, 0])], [NATURAL, one], setting(where, episodes=4))
    (about,) = (where / "fits").glob("*.json")
    return json.loads(about.read_text()), score(rows[-1], "gambler").win_rate.mean


@pytest.mark.parametrize(
    ("haste", "skills", "accepted", "left"),
    [
        (2, [1, 3], "fit 2", 0.25),
        (0, [3, 1], "fit 1", 0.25),
        (2, [3, 3], "fit 1", 0.25),
        (4, [1, 3], "at once", 0.0),
        (3, [3, 1], "at once", 0.25),  # as strong is not stronger
    ],
)
def test_the_strongest_is_accepted(haste: int, skills: list[int], accepted: str, left: float, tmp_path: Path) -> None:
    about, won = fitted(tmp_path, list(skills), fake("Gambler", haste=haste), restarts=2, trials=4)
    assert (about["accepted"], won) == (accepted, left) and CALLS["fits"] == 2
    tried = {name: one["won"] for name, one in about["tried"].items()}
    assert tried == {"at once": 1 - haste / 4, "fit 1": 1 - skills[0] / 4, "fit 2": 1 - skills[1] / 4}


def test_without_trials_the_fit_is_taken_as_it_is(tmp_path: Path) -> None:
    about, won = fitted(tmp_path, [1], fake("Gambler", haste=4))
    assert "accepted" not in about and won == 0.75


def test_an_attack_that_cannot_do_without_is_compared_with_itself(tmp_path: Path) -> None:
    about, won = fitted(tmp_path, [], fake("Student", rounds=1), restarts=2, trials=4)
    assert (about["accepted"], won) == ("fit 1", 0.5) and list(about["tried"]) == ["fit 1", "fit 2"]


def test_a_pack_at_once_starts_as_often_as_it_can() -> None:
    """The planner's own starts come back when it is told to use them; what was told is kept with what was learnt."""
    attack = torch_wolfpack()
    assert isinstance(attack, Hasty) and not attack.at_once
    attack.at_once, attack.track = True, None
    attack.left = torch.zeros(2, dtype=torch.long)
    chance, _ = attack.foresee(None, torch.ones(2, dtype=torch.bool))  # type: ignore[arg-type]
    assert chance == 1.0
    other = torch_wolfpack()
    other.load_state_dict(attack.state_dict())
    assert other.at_once
    other.load_state_dict({"foresight": None})
    assert not other.at_once, "files from before have no such choice"


def torch_wolfpack() -> Wolfpack:
    made = factory(configuration("wolfpack"), "attack")(spec_of(), "cpu")
    assert isinstance(made, Wolfpack)
    return made


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"restarts": 2}, r"restarts=2 and trials=0 of fitting need suite.columns.mine.trials"),
        ({"trials": 8, "fit": None}, r"restarts=1 and trials=8 of fitting need suite.columns.mine.fit"),
        ({"restarts": 0, "trials": 8}, r"restarts=0 must be at least 1"),
        ({"trials": -1}, r"trials=-1 must be at least 0"),
    ],
)
def test_what_cannot_be_chosen_is_refused(node: dict[str, Any], message: str) -> None:
    mine = {"attack": fake("Student", rounds=1), "fit": "victim", **node}
    suite = DictConfig({"columns": {"mine": mine}, "baseline": None})
    with pytest.raises(ConfigError, match=message):
        read_suite(suite, None)
