"""Cells that were measured under other rules of a game are not taken for those of today."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from envs.skirmish import Skirmish
from envs.skirmish.physics import VERSION
from marl.measure.matrix import content_key, physics_of
from tests.support.helpers import command

BATTLE = {"_target_": "envs.skirmish.Skirmish", "map": "3m"}


@pytest.mark.parametrize(
    ("env", "version"),
    [
        (BATTLE, VERSION),
        ({"_target_": "envs.wrappers.StateBlock", "env": {"_target_": "x.y", "env": BATTLE}}, VERSION),
        ({"_target_": "envs.toys.games.Corridor"}, 1),
        ({"_target_": "nowhere.Nothing"}, 1),
        ({}, 1),
        (None, 1),
    ],
)
def test_the_version_of_a_game_is_read_off_its_configuration(env: object, version: int) -> None:
    assert physics_of(env) == version


def test_a_new_version_is_another_key_and_games_without_one_keep_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    corridor = {"_target_": "envs.toys.games.Corridor"}
    before, other = content_key({"env": BATTLE, "seed": 0}), content_key({"env": corridor})
    monkeypatch.setattr(Skirmish, "physics", VERSION + 1)
    assert content_key({"env": BATTLE, "seed": 0}) != before and content_key({"env": corridor}) == other


def test_a_matrix_says_its_version_and_measures_again_under_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("imports=[{policy: random, env: skirmish/3m}]", "only=[natural]", "episodes=2", "n_envs=2")

    def measure() -> int:
        command("robustness", *words, f"out={tmp_path}/m", f"results={tmp_path}/found.json")
        return len(list((tmp_path / "m" / "cells").iterdir()))

    assert measure() == measure() == 1
    assert json.loads((tmp_path / "found.json").read_text())["physics"] == {"skirmish-3m": VERSION}
    monkeypatch.setattr(Skirmish, "physics", VERSION + 1)
    assert measure() == 2
