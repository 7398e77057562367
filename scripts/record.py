"""Record a trained team: ``python -m scripts.record run=runs/...`` writes an animated GIF of test episodes;
``show=true`` plays them in a window instead."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from marl.core.checks import require_name, require_within, require_writable
from marl.core.types import ConfigError
from marl.run.folders import run_folder
from marl.run.teams import open_team
from marl.show.record import MOST_FPS, film, save_gif
from marl.show.window import Window, WindowClosed
from scripts.main import positive, run


def outcome(episode: int, result: dict[str, Any]) -> str:
    won = "won" if result["won"] else "not won"
    hit = f", {result['hits']} of them attacked" if result["hits"] else ""
    return f"episode {episode}: {won}, return {result['return']:.2f}, {result['length']} steps{hit}"


def show(cfg: DictConfig) -> None:
    """Play episodes in a window, until they are over or it is closed."""
    if cfg.out is not None:
        raise ConfigError(f"out={cfg.out} and show=true are both given; a window writes nothing")
    window = Window(str(cfg.run or "team"), cfg.fps)
    team = open_team(cfg, 1)
    with closing(team.env), closing(window):
        try:
            for episode in range(cfg.episodes):
                _, results = film(team, 1, window)
                print(outcome(episode, results[0]))
        except WindowClosed:
            print("window closed")


def main(cfg: DictConfig) -> None:
    positive(cfg, "episodes")
    require_within("", 1, MOST_FPS, fps=cfg.fps)
    require_name(run=cfg.run, out=cfg.out)
    if cfg.show:
        return show(cfg)
    out = Path(cfg.out or run_folder(cfg.run or ".") / "episode.gif")
    if out.suffix.lower() != ".gif":
        raise ConfigError(f"out={cfg.out} must end in .gif")
    require_writable("", files=True, out=out)
    team = open_team(cfg, 1)
    with closing(team.env):
        frames, results = film(team, cfg.episodes)
    save_gif(frames, out, cfg.fps)
    for episode, result in enumerate(results):
        print(outcome(episode, result))
    print(f"{sum(map(len, frames))} frames written to {out}")


if __name__ == "__main__":
    run(main, "record")
