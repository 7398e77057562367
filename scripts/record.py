"""Film a trained team: ``python -m scripts.record run=runs/...`` writes an animated GIF of greedy episodes."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from omegaconf import DictConfig

from marl.record import film, save_gif
from marl.runs import open_team
from scripts.main import positive, run


def main(cfg: DictConfig) -> None:
    positive(cfg, "episodes", "fps")
    team = open_team(cfg, 1)
    out = Path(cfg.out or Path(cfg.run or ".") / "episode.gif")
    with closing(team.env):
        frames, results = film(team, cfg.episodes)
    save_gif(frames, out, cfg.fps)
    for i, result in enumerate(results):
        outcome = "won" if result["won"] else "not won"
        print(f"episode {i}: {outcome}, return {result['return']:.2f}, {result['length']} steps")
    print(f"{sum(map(len, frames))} frames written to {out}")


if __name__ == "__main__":
    run(main, "record")
