"""What a film shows of an attack: rings around those who are hit, and what they wanted and did. What cannot be
filmed."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attacks.random import RandomActions
from envs.toys.games import Corridor, MatrixGame
from marl.core.games import NEEDED
from marl.core.types import ConfigError, core_fields
from marl.run.collect import Moment, collect
from marl.run.compose import compose
from marl.run.teams import open_team
from marl.show import record
from marl.show.overlay import ALARM, LEAST_PICTURE, LEAST_WIDTH, LINE_HEIGHT, LINES, describe, mark, status
from tests.scripts.test_cli import refused
from tests.support.attack_parts import AGENTS, LANES, corridor, corridor_victim


def moment(env: Any, hit: list[int], t: int = 12, wanted: int = 2, done: int = 0) -> Moment:
    n = env.spec.n_agents
    hits = torch.zeros(env.n_envs, n, dtype=torch.bool)
    hits[0, hit] = True
    intended = torch.full((env.n_envs, n), wanted)
    running = torch.ones(env.n_envs, dtype=torch.bool)
    return Moment(t, env, intended, torch.where(hits, done, intended), hits, running, torch.zeros(env.n_envs))


def alarm(frame: np.ndarray) -> np.ndarray:
    """Pixels in the colour of the rings, bool [height, width]."""
    return (frame == np.array(ALARM)).all(-1)


def test_the_words() -> None:
    env = corridor()
    assert describe(moment(env, [1, 3])) == ["agent 1 (right -> stay)", "agent 3 (right -> stay)"]
    assert describe(moment(env, [4], done=2)) == ["agent 4"], "only what it sees is false"
    assert describe(moment(env, [])) == []
    assert describe(moment(MatrixGame("climb", n_envs=1), [0], wanted=1))[0] == "agent 0 (action 1 -> action 0)"


def test_rings_are_where_the_agents_are() -> None:
    env = corridor()
    env.reset()
    picture = env.render(0)
    frame = mark(picture, env, moment(env, [1, 4]), "", attacked=True)
    zoom = -(-LEAST_PICTURE // picture.shape[1])
    cell, height, width = 24 * zoom, picture.shape[0] * zoom, picture.shape[1] * zoom
    left = (LEAST_WIDTH - width) // 2
    assert zoom > 1 and frame.shape == (height + (1 + LINES) * LINE_HEIGHT + 4, LEAST_WIDTH, 3)
    ring = alarm(frame)[:height, left : left + width]
    for agent in range(AGENTS):
        around = ring[cell * agent : cell * (agent + 1)]
        column = cell * int(env.cell[0, agent])
        assert around[:, column : column + cell].any() == (agent in (1, 4))
        assert not np.delete(around, range(column, column + cell), axis=1).any()
    assert env.agent_places(0)[1].tolist() == [24 * int(env.cell[0, 1]) + 11.5, 35.5, 7.5]


def test_frames_of_a_film_have_one_size() -> None:
    env = MatrixGame("climb", n_envs=1)
    env.reset()
    moments = (moment(env, []), moment(env, [0, 1], wanted=1), None)
    frames = [mark(env.render(), env, m, "step", attacked=True) for m in moments]
    assert len({frame.shape for frame in frames}) == 1
    assert [alarm(frame).any() for frame in frames] == [False, True, False], "who has no places has the words alone"


@pytest.mark.parametrize(("hit", "rows"), [([0], 1), ([0, 1], 1), ([0, 1, 2], 2), ([0, 1, 2, 3, 4], 2)])
def test_words_that_do_not_fit_are_counted(hit: list[int], rows: int) -> None:
    from PIL import Image, ImageDraw

    from marl.show.overlay import FONT, _lines

    pen = ImageDraw.Draw(Image.new("RGB", (9, 9)))
    lines = _lines(pen, describe(moment(corridor(), hit)), LEAST_WIDTH)
    assert len(lines) == rows and all(pen.textlength(line, font_size=FONT) <= LEAST_WIDTH for line in lines)
    told = " ".join(lines).count("agent ")
    assert told == len(hit) or lines[-1].endswith(f", and {len(hit) - told} more")


def test_every_game_shows_the_step_and_what_was_earned() -> None:
    env = corridor()
    env.reset()
    without, with_words = (mark(env.render(), env, None, text, attacked=False) for text in ("", "step 1 of 3"))
    assert (without != with_words).any() and not (without != with_words)[: -LINE_HEIGHT - 4].any(), "below the picture"
    assert status(12, 60, 3.5) == "step 12 of 60   return 3.5" and status(0, 9, 0.0).endswith("return 0")


def test_watchers_are_told_what_was_wanted_done_and_hit() -> None:
    env, seen = corridor(), []
    attack = RandomActions(env.spec, "cpu", p=0.5, budget=None, budget_unit="step")
    batch = collect(
        env, corridor_victim(env.spec), attack, core_fields(env.spec) | attack.fields(), explore=False,
        attacked=torch.ones(LANES, dtype=torch.bool), policy_gen=torch.Generator(), attack_gen=torch.Generator(),
        device="cpu", watch=seen.append,
    )  # fmt: skip
    assert [m.t for m in seen] == list(range(batch.horizon))
    assert torch.equal(torch.stack([m.earned for m in seen], 1), batch["reward"].cumsum(1).roll(1, 1)[:, :-1])
    for name, field in (("intended", "intended"), ("executed", "actions"), ("hit", "hit"), ("running", "filled")):
        stored = torch.stack([getattr(m, name) for m in seen], 1)
        assert torch.equal(stored.long(), batch[field][:, :-1].long()), name


def test_a_film_writes_what_was_earned_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Games of one step: the first frame has no return yet, the last one that of the step."""
    told: list[str] = []

    def keep(frame: np.ndarray, env: Any, at: Moment | None, text: str, *, attacked: bool) -> np.ndarray:
        told.append(text)
        return frame

    monkeypatch.setattr(record, "mark", keep)
    cfg = compose("policy=random", "env=toy/matrix", "seed=3", config="record")
    team = open_team(cfg, 1)
    with closing(team.env):
        _, results = record.film(team, 6)
    final = [status(1, 1, result["return"]) for result in results]
    assert told[1::2] == final and set(told[::2]) == {status(0, 1, 0.0)}
    assert len(set(final)) > 1, "some of the payoffs are not 0"


@pytest.mark.parametrize("attack", ["atla", "ibal", "wolfpack"])
def test_nobody_films_an_attack_that_has_learnt_nothing(attack: str) -> None:
    team = open_team(compose("policy=random", "env=toy/corridor", f"attack={attack}", config="record"), 1)
    with closing(team.env), pytest.raises(ConfigError, match="must first be fitted to the team"):
        record.film(team, 1)


class Unseen:
    """A corridor with no more than a training needs; it draws no pictures."""

    def __init__(self, *, n_envs: int, seed: int = 0, **options: Any) -> None:
        game = Corridor(n_envs=n_envs, seed=seed, **options)
        for name in (*NEEDED, "state_dict", "load_state_dict"):
            setattr(self, name, getattr(game, name))


class Behind(Unseen):
    """It has a picture if the game behind it has one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.game: Any = Unseen(**options)

    def render(self, lane: int = 0) -> np.ndarray:
        picture: np.ndarray = self.game.render(lane)
        return picture


class Blank(Unseen):
    """It has the method of the protocol, which returns nothing."""

    def render(self, lane: int = 0) -> None:
        return None


class Faulty(Unseen):
    """A fault of its own keeps it from drawing."""

    def render(self, lane: int = 0) -> None:
        self.brush.render(lane)  # type: ignore[attr-defined]

    brush = "a brush"


@pytest.mark.parametrize(
    ("game", "words"),
    [(Unseen, "Unseen draws no pictures: it has no render"), (Behind, "Unseen draws no pictures: it has no render"),
     (Blank, "Blank draws no pictures: its render returns None")],
)  # fmt: skip
def test_a_game_without_pictures_cannot_be_recorded(
    game: type, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = f"env._target_={__name__}.{game.__name__}"
    line = refused(capsys, "record", "policy=random", "env=toy/corridor", target, f"out={tmp_path / 'film.gif'}")
    assert line == f"error: {words}\n" and list(tmp_path.iterdir()) == []


def test_a_fault_of_a_game_that_draws_is_not_taken_for_a_game_without_pictures() -> None:
    with pytest.raises(AttributeError, match="'str' object has no attribute 'render'"):
        record.drawn(Faulty(n_envs=1, n_agents=2, length=4, spread=2, fatal=False, episode_limit=9))  # type: ignore[arg-type]
