"""Film a trained team: ``python -m scripts.record run=runs/...`` writes an animated GIF of greedy episodes."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from omegaconf import DictConfig

from marl.record import film, save_gif
from marl.runs import load_trained
from scripts.main import chosen, positive, run


def main(cfg: DictConfig) -> None:
    positive(cfg, "episodes", "fps")
    parts, clock = load_trained(Path(cfg.run), chosen(cfg), 1, cfg.checkpoint)
    out = Path(cfg.out or Path(cfg.run) / "episode.gif")
    with closing(parts.env):
        frames, results = film(parts, parts.algo.policy(clock), cfg.episodes)
    save_gif(frames, out, cfg.fps)
    for i, result in enumerate(results):
        outcome = "won" if result["won"] else "not won"
        print(f"episode {i}: {outcome}, return {result['return']:.2f}, {result['length']} steps")
    print(f"{sum(map(len, frames))} frames written to {out}")


if __name__ == "__main__":
    run(main, "record")
