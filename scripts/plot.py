"""Learning curves over seeds: ``python -m scripts.plot runs='runs/default/**' out=plots [results=FILE.json]``."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from marl.core.checks import require_writable
from marl.core.types import ConfigError
from marl.run.files import write_atomic
from marl.run.resume import command_line
from marl.show.gather import Tasks, gather
from marl.show.plot import learning_curves, provenance, summary
from scripts.main import positive, run

log = logging.getLogger(__name__)


def check(cfg: DictConfig) -> None:
    """Refuse what can be refused before any run is read."""
    positive(cfg, "last")
    require_writable("", out=Path(cfg.out))
    if cfg.results is not None:
        if not cfg.results.endswith(".json"):
            raise ConfigError(f"results={cfg.results} must end in .json; the curves are drawn beside it")
        require_writable("", files=True, results=Path(cfg.results))


def check_scalars(cfg: DictConfig, tasks: Tasks) -> None:
    """Refuse scalars that no run has."""
    runs = [run for groups in tasks.values() for members in groups.values() for run in members]
    known = {key for run in runs for row in run.rows for key in row if "/" in key}
    for option in ("metrics", "also"):
        for key in cfg[option] or ():
            if key not in known:
                raise ConfigError(f"{option}: no run has the scalar {key}; there are {', '.join(sorted(known))}")


def draw(tasks: Tasks, paths: dict[str, Path], metrics: Sequence[str] | None) -> None:
    """Draw one picture per task."""
    for task, groups in tasks.items():
        rows = {label: [run.rows for run in members] for label, members in groups.items()}
        short = {label: sum(run.unfinished is not None for run in members) for label, members in groups.items()}
        print(f"{task}: {learning_curves(rows, paths[task], tuple(metrics) if metrics else None, short)}")


def publish(path: Path, tasks: Tasks, source: dict[str, Any], document: list[dict[str, Any]], cfg: DictConfig) -> None:
    """Write what ``results=FILE.json`` asks for: a table that says how it came about, and its curves beside it."""
    table = {"name": path.stem, **source, "table": command_line(), "tests_averaged": cfg.last, "groups": document}
    write_atomic(path, json.dumps(table, indent=1) + "\n")
    pictures = {task: path.with_name(f"{path.stem}{f'_{task}' if len(tasks) > 1 else ''}.png") for task in tasks}
    draw(tasks, pictures, cfg.metrics)


def main(cfg: DictConfig) -> None:
    check(cfg)
    also = tuple(cfg.also)
    tasks, left = gather(cfg.runs, unfinished=cfg.unfinished, also=also, metas=cfg.results is not None)
    check_scalars(cfg, tasks)
    for one in left:
        log.warning("left out: %s: %s", one.folder, one.why)
    out, document = Path(cfg.out), summary(tasks, cfg.last, also)
    draw(tasks, {task: out / f"curves_{task}.png" for task in tasks}, cfg.metrics)
    write_atomic(out / "summary.json", json.dumps(document, indent=1))
    if cfg.results is not None:
        publish(Path(cfg.results), tasks, provenance(tasks, left), document, cfg)
    for group in document:
        short = f", {len(group['unfinished'])} unfinished" if group["unfinished"] else ""
        for metric, r in group["metrics"].items():
            low, high = (f"{r[k]:.3f}" if r[k] is not None else "-" for k in ("low", "high"))
            print(f"{group['task']}  {group['group']}  {metric}  {r['mean']:.3f}  [{low}, {high}]  n={r['n']}{short}")
    print(f"written to {out / 'summary.json'}{f' and {cfg.results}' if cfg.results else ''}")


if __name__ == "__main__":
    run(main, "plot")
