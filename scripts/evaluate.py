"""Test a trained team: ``python -m scripts.evaluate run=runs/... episodes=200 out=result.json``."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

from omegaconf import DictConfig

from marl.checkpoint import write_atomic
from marl.evaluate import evaluate, summarise
from marl.progress import EpisodeProgress
from marl.report import final_lines
from marl.runs import load_trained
from scripts.main import chosen, positive, run


def main(cfg: DictConfig) -> None:
    positive(cfg, "episodes", "n_envs")
    parts, clock = load_trained(Path(cfg.run), chosen(cfg), min(cfg.n_envs, cfg.episodes), cfg.checkpoint)
    with closing(parts.env), EpisodeProgress(cfg.episodes) as progress:
        results = evaluate(
            parts.env, parts.algo.policy(clock), parts.attack, parts.fields, episodes=cfg.episodes,
            policy_gen=parts.streams["eval"], attack_gen=parts.streams["eval_attack"], device=parts.device,
            on_round=progress.show,
        )  # fmt: skip
    summary = {name: interval.as_dict() for name, interval in summarise(results).items()}
    for line in final_lines(summary):
        print(line)
    if cfg.out is not None:
        episodes = {name: values.tolist() for name, values in results.items()}
        document = {"run": str(cfg.run), "env_steps": clock.env_steps, "seed": cfg.seed, "n": cfg.episodes, **summary}
        Path(cfg.out).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(Path(cfg.out), json.dumps({**document, "episodes": episodes}, indent=1))
        print(f"written to {cfg.out}")


if __name__ == "__main__":
    run(main, "evaluate")
