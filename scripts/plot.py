"""Learning curves over seeds: ``python -m scripts.plot runs='runs/default/**' out=plots [results=FILE.json]``."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from marl.core.checks import require_choice, require_writable
from marl.core.config import plain
from marl.core.types import ConfigError
from marl.run.files import write_atomic
from marl.run.resume import command_line
from marl.show import latex, marl_eval, statistics, statistics_figures
from marl.show.gather import Tasks, gather
from marl.show.plot import learning_curves, provenance, summary
from marl.show.scores import require_bounds
from marl.show.statistics import Aggregate
from scripts.main import positive, run

log = logging.getLogger(__name__)
FORMATS, EXPORTS = ("png", "pdf", "svg"), ("marl_eval",)


def check(cfg: DictConfig) -> None:
    """Check the options before any run is read."""
    positive(cfg, "last")
    require_writable("", out=Path(cfg.out))
    if cfg.results is not None:
        if not cfg.results.endswith(".json"):
            raise ConfigError(f"results={cfg.results} must end in .json; the curves are drawn next to it")
        require_writable("", files=True, results=Path(cfg.results))
    for one in cfg.formats:
        require_choice("", FORMATS, formats=one)
    if not cfg.formats:
        raise ConfigError(f"formats=[] leaves no pictures; choose from {', '.join(FORMATS)}")
    require_choice("", EXPORTS, or_null=True, export=cfg.export)
    low, high = plain(cfg.scores.low), plain(cfg.scores.high)
    for name, value in {"scores.low": low, "scores.high": high, "versus": cfg.versus}.items():
        if value is not None and not cfg.statistics:
            raise ConfigError(f"{name}={value} needs statistics=true")
    require_bounds(low, high)
    if cfg.statistics:
        statistics.load_rliable()


def known_scalars(tasks: Tasks) -> set[str]:
    """Return the names of all scalars of the runs."""
    runs = [run for groups in tasks.values() for members in groups.values() for run in members]
    return {key for run in runs for row in run.rows for key in row if "/" in key}


def check_scalars(cfg: DictConfig, tasks: Tasks) -> None:
    """Refuse scalars that no run has."""
    known = known_scalars(tasks)
    for option in ("metrics", "also"):
        for key in cfg[option] or ():
            if key not in known:
                raise ConfigError(f"{option}: no run has the scalar {key}; there are {', '.join(sorted(known))}")


def check_tests(cfg: DictConfig, tasks: Tasks) -> None:
    """Refuse to average more tests than a run has."""
    for one in (one for groups in tasks.values() for members in groups.values() for one in members):
        tests = sum(any(key.startswith("eval/") for key in row) for row in one.rows)
        if cfg.last > max(1, tests):
            raise ConfigError(f"last={cfg.last} is more than the {tests} tests of {one.folder}")


def compared(cfg: DictConfig, tasks: Tasks) -> list[str]:
    """Return the scalars for statistics and LaTeX tables: ``metrics``, or else the win rate if there is one, or else
    the return."""
    return list(cfg.metrics or ["eval/win_rate" if "eval/win_rate" in known_scalars(tasks) else "eval/return"])


def aggregates(cfg: DictConfig, tasks: Tasks) -> list[Aggregate]:
    """Return the statistics that are asked for, and log what they lack."""
    low, high = plain(cfg.scores.low), plain(cfg.scores.high)
    found = [
        statistics.aggregate(tasks, key, last=cfg.last, low=low, high=high, versus=cfg.versus)
        for key in (compared(cfg, tasks) if cfg.statistics else ())
    ]
    for one in found:
        for note in one.notes:
            log.warning("statistics of %s: %s", one.key, note)
    return found


def draw(tasks: Tasks, paths: dict[str, Path], metrics: Sequence[str] | None, formats: Sequence[str]) -> None:
    """Draw one picture per task."""
    for task, groups in tasks.items():
        rows = {label: [run.rows for run in members] for label, members in groups.items()}
        short = {label: sum(run.unfinished is not None for run in members) for label, members in groups.items()}
        print(f"{task}: {learning_curves(rows, paths[task], tuple(metrics) if metrics else None, short, formats)}")


def publish(path: Path, tasks: Tasks, source: dict[str, Any], document: dict[str, Any], cfg: DictConfig) -> None:
    """Write what ``results=FILE.json`` asks for: a table that says how it came about, and its curves next to it."""
    table = {"name": path.stem, **source, "table": command_line(), "tests_averaged": cfg.last, **document}
    write_atomic(path, json.dumps(table, indent=1) + "\n")
    pictures = {task: path.with_name(f"{path.stem}{f'_{task}' if len(tasks) > 1 else ''}.png") for task in tasks}
    draw(tasks, pictures, cfg.metrics, cfg.formats)


def write_more(cfg: DictConfig, tasks: Tasks, groups: list[dict[str, Any]], found: list[Aggregate]) -> None:
    """Write the figures of statistics, LaTeX tables and the export, as far as they are asked for."""
    out, by_key = Path(cfg.out), {one.key: one for one in found}
    for one in found:
        for line in statistics_figures.lines(one):
            print(line)
        for path in statistics_figures.draw(one, out, cfg.formats):
            print(f"statistics: {path}")
    for key in compared(cfg, tasks) if cfg.latex else ():
        path = out / f"table_{statistics_figures.short_name(key)}.tex"
        write_atomic(path, latex.table(groups, key, by_key.get(key), command_line()))
        print(f"LaTeX: {path}")
    if cfg.export == "marl_eval":
        if why := marl_eval.uneven(tasks):
            log.warning("marl-eval will refuse %s: %s", out / "marl_eval.json", why)
        write_atomic(out / "marl_eval.json", json.dumps(marl_eval.document(tasks), indent=1))
        print(f"marl-eval: {out / 'marl_eval.json'}")


def main(cfg: DictConfig) -> None:
    check(cfg)
    also = tuple(cfg.also)
    tasks, left = gather(cfg.runs, unfinished=cfg.unfinished, also=also, metas=cfg.results is not None)
    check_scalars(cfg, tasks)
    check_tests(cfg, tasks)
    for one in left:
        log.warning("left out: %s: %s", one.folder, one.why)
    found = aggregates(cfg, tasks)
    out, groups = Path(cfg.out), summary(tasks, cfg.last, also)
    document = {"groups": groups, **({"statistics": {one.key: one.as_dict() for one in found}} if found else {})}
    draw(tasks, {task: out / f"curves_{task}.png" for task in tasks}, cfg.metrics, cfg.formats)
    write_atomic(out / "summary.json", json.dumps(document if found else groups, indent=1))
    write_more(cfg, tasks, groups, found)
    if cfg.results is not None:
        publish(Path(cfg.results), tasks, provenance(tasks, left), document, cfg)
    for group in groups:
        short = f", {len(group['unfinished'])} unfinished" if group["unfinished"] else ""
        for metric, r in group["metrics"].items():
            low, high = (f"{r[k]:.3f}" if r[k] is not None else "-" for k in ("low", "high"))
            print(f"{group['task']}  {group['group']}  {metric}  {r['mean']:.3f}  [{low}, {high}]  n={r['n']}{short}")
    print(f"written to {out / 'summary.json'}{f' and {cfg.results}' if cfg.results else ''}")


if __name__ == "__main__":
    run(main, "plot")
