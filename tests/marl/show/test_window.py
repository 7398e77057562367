"""The window, on SDL's dummy screen: it shows the frames that it is given, closes cleanly, and says what is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from envs.skirmish import Skirmish, parallel_env
from marl.core.types import ConfigError
from marl.show.window import Window, WindowClosed
from tests.scripts.test_cli import refused
from tests.support.helpers import command, train

pygame = pytest.importorskip("pygame", reason="needs pip install -e .[window]")


@pytest.fixture(autouse=True)
def dummy_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """No waiting; the frames that were shown, as they were on the screen."""
    shown: list[np.ndarray] = []
    show = Window.show

    def at_once(self: Window, frame: np.ndarray, seconds: float = 0.0) -> None:
        self.fps = 10_000
        show(self, frame, 0.0)
        shown.append(self.content().copy())

    monkeypatch.setattr(Window, "show", at_once)
    return shown


def close_by_hand() -> None:
    pygame.event.post(pygame.event.Event(pygame.QUIT))


def test_it_shows_the_frame_and_takes_on_its_size() -> None:
    window, gen = Window("test", 1000), np.random.default_rng(0)
    for size in ((20, 30, 3), (40, 10, 3)):
        frame = gen.integers(0, 256, size, np.uint8)
        window.show(frame)
        np.testing.assert_array_equal(window.content(), frame)
    window.close()
    window.close()


def test_it_keeps_time() -> None:
    window, frame = Window("test", 50.0), np.zeros((8, 8, 3), np.uint8)
    window.show(frame)
    start = pygame.time.get_ticks()
    for _ in range(5):
        window.show(frame)
    assert pygame.time.get_ticks() - start >= 90, "five frames at 50 a second take 100 ms"
    window.close()


@pytest.mark.parametrize("key", [None, "escape"])
def test_closing_it(key: str | None) -> None:
    window, frame = Window("test", 1000), np.zeros((8, 8, 3), np.uint8)
    window.show(frame)
    if key:
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_ESCAPE))
    else:
        close_by_hand()
    for _ in range(2):  # and it stays closed
        with pytest.raises(WindowClosed):
            window.show(frame)
    assert not pygame.display.get_init()


def test_what_is_missing_is_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "nowhere")
    with pytest.raises(ConfigError, match="no window can be opened here"):
        Window("test", 10).show(np.zeros((8, 8, 3), np.uint8))
    monkeypatch.setitem(sys.modules, "pygame", None)
    for make in (
        lambda: Window("test", 10),
        lambda: parallel_env("3m", render_mode="human"),
        Skirmish("3m", 1).render_window,
    ):
        with pytest.raises(ConfigError, match=r"pip install -e \.\[window\]") as error:
            make()
        assert "\n" not in str(error.value)


def test_battle_in_a_window(fast: list[np.ndarray]) -> None:
    env = Skirmish("2s3z", 2)
    obs = env.reset()
    env.step(obs.avail.int().argmax(2))
    assert env.render_window(1)
    np.testing.assert_array_equal(fast[-1], env.render(1))
    close_by_hand()
    assert not env.render_window(1) and not env.render_window(1)
    env.close()


def test_gymnasium_follows_by_itself(fast: list[np.ndarray]) -> None:
    """Render mode "human": reset and step update the window, render returns nothing; closing it ends nothing."""
    env = gymnasium.make("skirmish/3m-v0", render_mode="human")
    _, info = env.reset(seed=1)
    for count in (1, 2, 3):
        assert len(fast) == count
        np.testing.assert_array_equal(fast[-1], env.unwrapped.battle.render(0))
        _, _, _, _, info = env.step(info["avail"].argmax(1))
    assert env.render() is None and {"human", "rgb_array"} == set(env.metadata["render_modes"])
    assert env.metadata["render_fps"] > 0
    close_by_hand()
    env.step(info["avail"].argmax(1))
    shown = len(fast)
    env.step(env.unwrapped.battle.observe().avail[0].int().argmax(1).numpy())
    assert len(fast) == shown
    env.close()
    assert not pygame.display.get_init()


def test_pettingzoo_follows_by_itself(fast: list[np.ndarray]) -> None:
    env = parallel_env("3m", render_mode="human")
    seen, _ = env.reset(seed=1)
    env.step({agent: int(view["action_mask"].argmax()) for agent, view in seen.items()})
    assert len(fast) == 2 and env.render() is None and env.metadata["render_fps"] > 0
    np.testing.assert_array_equal(fast[-1], env.battle.render(0))
    env.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(folder, "train.total_steps=50")
    return folder


def test_record_plays_in_a_window(run: Path, fast: list[np.ndarray], capsys: pytest.CaptureFixture[str]) -> None:
    command("record", f"run={run}", "show=true", "episodes=2")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["episode 0", "episode 1"]
    steps = [int(line.split()[-2]) for line in lines]
    assert len(fast) == sum(steps) + 2, "every step of both and both ends"
    assert not list(run.glob("*.gif")) and not pygame.display.get_init()


@pytest.mark.parametrize("attack", ["atla", "ibal"])
def test_record_refuses_an_attack_that_has_learnt_nothing(
    attack: str, run: Path, fast: list[np.ndarray], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """In a window as in a file, and before anything is shown or written."""
    for how in ("show=true", f"out={tmp_path / 'film.gif'}"):
        line = refused(capsys, "record", f"run={run}", f"attack={attack}", how)
        assert "must first be fitted to the team" in line
    assert fast == [] and list(tmp_path.iterdir()) == [] and not pygame.display.get_init()


def test_record_ends_when_the_window_is_closed(
    run: Path, fast: list[np.ndarray], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = Window.content

    def closing(self: Window) -> np.ndarray:
        if len(fast) == 2:
            close_by_hand()
        return content(self)

    monkeypatch.setattr(Window, "content", closing)
    command("record", f"run={run}", "show=true", "episodes=50")
    assert capsys.readouterr().out == "window closed\n" and len(fast) == 3
    with pytest.raises(SystemExit):
        command("record", f"run={run}", "show=true", "out=film.gif")
    assert "out=film.gif and show=true" in capsys.readouterr().err
