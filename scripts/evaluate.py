"""Test a trained team: ``python -m scripts.evaluate run=runs/... episodes=200 out=result.json``."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

from omegaconf import DictConfig

from marl.core.intervals import mean_interval
from marl.run.evaluate import summarise
from marl.run.files import write_atomic
from marl.run.progress import EpisodeProgress
from marl.run.report import final_lines
from marl.run.teams import evaluate_team, open_team
from scripts.main import positive, run, writable_file


def main(cfg: DictConfig) -> None:
    positive(cfg, "episodes", "n_envs")
    writable_file(cfg)
    team = open_team(cfg, min(cfg.n_envs, cfg.episodes))
    with closing(team.env), EpisodeProgress(cfg.episodes) as progress:
        results = evaluate_team(team, cfg.episodes, progress.show)
    intervals = summarise(results)
    if "hit" in team.fields:
        intervals |= {name: mean_interval(results[name]) for name in ("hits", "hit_actions")}
    summary = {name: interval.as_dict() for name, interval in intervals.items()}
    for line in final_lines(summary):
        print(line)
    if cfg.out is not None:
        episodes = {name: values.tolist() for name, values in results.items()}
        document = {**team.source, "seed": cfg.seed, "n": cfg.episodes, **summary}
        write_atomic(Path(cfg.out), json.dumps({**document, "episodes": episodes}, indent=1))
        print(f"written to {cfg.out}")


if __name__ == "__main__":
    run(main, "evaluate")
