"""``train.env``: options of the game while a run trains; it is tested in the game as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from marl.core.types import ConfigError
from marl.run.teams import load_trained
from marl.run.trainer import open_run
from tests.marl.run.test_run import assert_resumes_exactly
from tests.scripts.test_cli import refused
from tests.support.helpers import TINY, compose_train, differences, newest_state, train

pytestmark = pytest.mark.usefixtures("no_drawing")


def test_a_run_trains_in_the_changed_game_and_is_tested_in_the_plain_one(tmp_path: Path) -> None:
    run = open_run(compose_train(tmp_path, *TINY, "+train.env.length=2", "+train.env.fatal=true"), tmp_path, {}, None)
    try:
        assert (run.parts.env.length, run.parts.env.fatal) == (2, True)
        assert (run.eval_env.length, run.eval_env.fatal) == (4, False)
    finally:
        run.close()


def test_a_trained_team_is_opened_in_the_plain_game(tmp_path: Path) -> None:
    train(tmp_path / "run", "train.total_steps=100", "+train.env.length=2")
    parts, _ = load_trained(tmp_path / "run", {}, 4)
    assert parts.env.length == 4
    parts.env.close()


def test_no_options_are_the_same_run_and_equal_ones_too(tmp_path: Path) -> None:
    """In the game's own numbers nothing changes, bit for bit."""
    for name, options in (("plain", ()), ("same", ("+train.env.length=4",)), ("other", ("+train.env.length=3",))):
        train(tmp_path / name, "train.total_steps=100", *options)
    plain, same, other = (newest_state(tmp_path / name)[0]["algo"] for name in ("plain", "same", "other"))
    assert differences(plain, same) == [] and differences(plain, other)


def test_it_resumes_exactly_and_other_options_are_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_resumes_exactly(tmp_path, monkeypatch, "+train.env.spread=1")
    train(tmp_path / "run", "train.total_steps=100", "+train.env.length=2")
    with pytest.raises(ConfigError, match=r"train\.env\.length"):
        train(tmp_path / "run", "train.total_steps=200", "+train.env.length=3")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("+train.env.lenght=2", "train.env.lenght is not an option of Corridor, which takes n_agents, length, spread"),
        ("+train.env.length=two", "train.env.length=two has the wrong type; it must be int"),
        ("+train.env.length=0", "length=0 must be"),
        ("+train.env.n_agents=3", "changes the game's n_agents from 2 to 3"),
        ("train.env=2", "train.env"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_before_anything_is_written(
    option: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, "train", *TINY, option, f"runs_dir={tmp_path / 'runs'}")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
