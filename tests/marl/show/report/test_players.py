"""Films on the page: frames as pictures, which runs are filmed, and how a long film is made to fit."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from marl.run.compose import option
from marl.show.gather import gather
from marl.show.report import facts
from marl.show.report.players import Film, films, fitted, outcome, picture, thinned
from tests.support.helpers import train
from tests.support.report_parts import make_run, options


def decoded(uri: str) -> np.ndarray:
    kind, _, data = uri.partition(",")
    assert kind == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def test_a_frame_is_a_picture_of_the_same_colours_and_not_too_wide() -> None:
    frame = np.zeros((40, 80, 3), np.uint8)
    frame[:, 40:] = (200, 40, 40)
    shown = decoded(picture(frame))
    assert shown.shape == (40, 80, 3)
    assert np.abs(shown[20, 20]).max() < 12 and np.abs(shown[20, 60].astype(int) - (200, 40, 40)).max() < 12
    assert decoded(picture(np.zeros((300, 1280, 3), np.uint8))).shape == (150, 640, 3)


def made_film(tmp_path: Path, frames: int, size: int = 10) -> Film:
    make_run(tmp_path / "made")
    (group,) = facts.groups_of(gather(f"{tmp_path / 'made'}/**", metas=True)[0])
    return Film(group, "seed 0", "won", [f"{k:0{size}d}" for k in range(frames)], 100, 50, frames - 1)


@pytest.mark.parametrize(
    ("frames", "most", "kept", "every"),
    [
        (5, 50, [0, 1, 2, 3, 4], 1),
        (5, 49, [0, 2, 4], 2),
        (6, 40, [0, 2, 4, 5], 2),  # the last one stays
        (6, 30, [0, 3, 5], 3),
        (6, 10, [5], 6),
    ],
)
def test_a_long_film_keeps_every_kth_frame_and_the_last(
    frames: int, most: int, kept: list[int], every: int, tmp_path: Path
) -> None:
    found = thinned(made_film(tmp_path, frames), most)
    assert [int(frame) for frame in found.frames] == kept and (found.every, found.steps) == (every, frames - 1)


def test_films_share_the_room_that_there_is_and_what_they_lack_is_said(tmp_path: Path) -> None:
    film = made_film(tmp_path, 4)
    whole, nothing = fitted([film, film], 80)
    assert [len(one.frames) for one in whole] == [4, 4] and nothing == []
    short, (note,) = fitted([film, film], 79)
    assert [len(one.frames) for one in short] == [3, 3] and "2 of 2 episodes show only some" in note
    none, (note,) = fitted([film, film], 19)
    assert none == [] and "2 films are left out" in note
    assert fitted([], -5) == ([], [])


def test_small_games_are_shown_larger() -> None:
    assert [Film.zoom.fget(type("F", (), {"width": width})) for width in (60, 239, 240, 640)] == [4, 2, 1, 1]  # type: ignore[attr-defined]


def test_an_outcome_is_said_in_words() -> None:
    result = {"won": True, "return": 1.5, "length": 12, "hits": 0}
    assert outcome(result) == "won, return 1.50, 12 steps"
    assert outcome({**result, "won": False, "hits": 3}) == "not won, return 1.50, 12 steps, 3 of them attacked"


def test_one_episode_of_each_group_is_filmed_by_a_seed_that_can_be_played(tmp_path: Path) -> None:
    """Seed 0 has lost its checkpoints, so seed 1 plays; a group without any is named."""
    for seed in (0, 1):
        train(tmp_path / "runs" / f"here{seed}", "algo=vdn", f"seed={seed}", "train.total_steps=50")
    (tmp_path / "runs" / "here0" / "checkpoints").rename(tmp_path / "lost")
    make_run(tmp_path / "runs", "lost-none")
    groups = facts.groups_of(gather(f"{tmp_path / 'runs'}/**", metas=True)[0])
    before = torch.get_rng_state()
    found, (note,) = films(groups, options(tmp_path / "runs", episodes=2))
    assert torch.equal(torch.get_rng_state(), before)
    assert [film.about.split(" at ")[0] for film in found] == ["seed 1"] * 2
    assert [film.about.rpartition(", ")[2] for film in found] == ["episode 1 of 2", "episode 2 of 2"]
    film = found[0]
    assert len(film.frames) == film.steps + 1 and decoded(film.frames[0]).shape == (film.height, film.width, 3)
    assert f"{film.steps} steps" in film.outcome
    assert note.startswith("No recording of study lost in toy-corridor: seed 0: ") and "has no checkpoint" in note
    assert films(groups, options(tmp_path / "runs")) == ([], [])


def test_films_may_be_under_attack_but_not_under_one_that_has_learnt_nothing(tmp_path: Path) -> None:
    train(tmp_path / "runs" / "here", "algo=vdn", "train.total_steps=50")
    groups = facts.groups_of(gather(f"{tmp_path / 'runs'}/**", metas=True)[0])
    asked = options(tmp_path / "runs", episodes=1, attack=option("attack", "random"))
    asked.attack.p = 1.0
    (film,), notes = films(groups, asked)
    assert "of them attacked" in film.outcome and notes == []
    found, (note,) = films(groups, options(tmp_path / "runs", episodes=1, attack=option("attack", "wolfpack")))
    assert found == [] and note.startswith("No recording of ")


def test_a_game_without_pictures_has_no_film_and_the_others_keep_theirs(tmp_path: Path) -> None:
    train(tmp_path / "runs" / "here", "algo=vdn", "train.total_steps=50")
    train(tmp_path / "runs" / "unseen", "algo=iql", "train.total_steps=50",
          "env._target_=tests.marl.show.test_overlay.Unseen")  # fmt: skip
    groups = facts.groups_of(gather(f"{tmp_path / 'runs'}/**", metas=True)[0])
    (film,), (note,) = films(groups, options(tmp_path / "runs", episodes=1))
    assert film.frames and note.startswith("No recording of ")
    assert note.endswith(": seed 0: Unseen draws no pictures: it has no render.")
