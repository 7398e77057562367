"""Learning curves over seeds: ``python -m scripts.plot runs='runs/default/**' out=plots``."""

from __future__ import annotations

import json
from pathlib import Path

from omegaconf import DictConfig

from marl.checkpoint import write_atomic
from marl.plot import find_runs, learning_curves, summary
from marl.types import ConfigError
from scripts.main import run


def main(cfg: DictConfig) -> None:
    tasks = find_runs(cfg.runs)
    if not tasks:
        raise ConfigError(f"runs={cfg.runs} matches no run folder with test results (eval.jsonl)")
    out = Path(cfg.out)
    for task, groups in tasks.items():
        rows = {label: [rows for _, rows in members] for label, members in groups.items()}
        path = learning_curves(rows, out / f"curves_{task}.png", tuple(cfg.metrics) if cfg.metrics else None)
        print(f"{task}: {path}")
    document = summary(tasks)
    write_atomic(out / "summary.json", json.dumps(document, indent=1))
    for group in document:
        for metric, r in group["metrics"].items():
            low, high = (f"{r[k]:.3f}" if r[k] is not None else "-" for k in ("low", "high"))
            print(f"{group['task']}  {group['group']}  {metric}  {r['mean']:.3f}  [{low}, {high}]  n={r['n']}")
    print(f"written to {out / 'summary.json'}")


if __name__ == "__main__":
    run(main, "plot")
