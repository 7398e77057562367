"""Learning curves over seeds: ``python -m scripts.plot runs='runs/default/**' out=plots [results=FILE.json]``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from marl.core.types import ConfigError
from marl.run.checkpoint import write_atomic
from marl.run.resume import command_line
from marl.show.plot import Tasks, find_runs, learning_curves, provenance, summary
from scripts.main import positive, run


def draw(tasks: Tasks, paths: dict[str, Path], metrics: tuple[str, ...] | None) -> None:
    """Draw one picture per task."""
    for task, groups in tasks.items():
        rows = {label: [rows for _, rows in members] for label, members in groups.items()}
        print(f"{task}: {learning_curves(rows, paths[task], metrics)}")


def publish(path: Path, tasks: Tasks, document: list[dict[str, Any]], cfg: DictConfig) -> None:
    """Write what ``results=FILE.json`` asks for: a table that says how it came about, and its curves beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = {**provenance(cfg.runs), "table": command_line()}
    write_atomic(
        path, json.dumps({"name": path.stem, **source, "tests_averaged": cfg.last, "groups": document}, indent=1) + "\n"
    )
    pictures = {task: path.with_name(f"{path.stem}{f'_{task}' if len(tasks) > 1 else ''}.png") for task in tasks}
    draw(tasks, pictures, tuple(cfg.metrics) if cfg.metrics else None)


def main(cfg: DictConfig) -> None:
    if cfg.results is not None and not cfg.results.endswith(".json"):
        raise ConfigError(f"results={cfg.results} must end in .json; the curves are drawn beside it")
    positive(cfg, "last")
    also = tuple(cfg.also)
    tasks = find_runs(cfg.runs, also)
    if not tasks:
        raise ConfigError(f"runs={cfg.runs} matches no run folder with test results (eval.jsonl)")
    out, document = Path(cfg.out), summary(tasks, cfg.last, also)
    draw(tasks, {task: out / f"curves_{task}.png" for task in tasks}, tuple(cfg.metrics) if cfg.metrics else None)
    write_atomic(out / "summary.json", json.dumps(document, indent=1))
    if cfg.results is not None:
        publish(Path(cfg.results), tasks, document, cfg)
    for group in document:
        for metric, r in group["metrics"].items():
            low, high = (f"{r[k]:.3f}" if r[k] is not None else "-" for k in ("low", "high"))
            print(f"{group['task']}  {group['group']}  {metric}  {r['mean']:.3f}  [{low}, {high}]  n={r['n']}")
    print(f"written to {out / 'summary.json'}{f' and {cfg.results}' if cfg.results else ''}")


if __name__ == "__main__":
    run(main, "plot")
