"""Teams trained in StarCraft II, played here: ``python -m scripts.fidelity dir=... [check=values]``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from marl.core.checks import require_at_least, require_choice, require_threads
from marl.measure.fidelity import check_team, find_teams
from marl.run.files import write_atomic
from scripts.main import CONF, positive, run, writable_file

COLUMNS = {"win_rates": ("win_rate", "return", "length"), "values": ("expected", "real", "residual", "residual_rms")}


def show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    bounds = f" [{value['low']:.3f}, {value['high']:.3f}]" if value["low"] is not None else ""
    return f"{value['mean']:.3f}{bounds}"


def main(cfg: DictConfig) -> None:
    positive(cfg, "episodes", "n_envs")
    require_choice("", COLUMNS, check=cfg.check)
    require_at_least("", 0, seed=cfg.seed)
    require_threads(cfg.threads)
    writable_file(cfg)
    rows = []
    for name, agent in find_teams(Path(cfg.dir)):
        env = DictConfig(OmegaConf.merge(OmegaConf.load(CONF / "env/skirmish/base.yaml"), {"map": name}))
        rows.append({"map": name, "agent": agent.name, **check_team(cfg, env, agent)})
    table = Table(title=f"{cfg.check} over {cfg.episodes} episodes, seed {cfg.seed}")
    for column in ("map", "agent", *COLUMNS[cfg.check]):
        table.add_column(column)
    for row in rows:
        table.add_row(row["map"], row["agent"], *(show(row[column]) for column in COLUMNS[cfg.check]))
    Console().print(table)
    if cfg.out is not None:
        write_atomic(Path(cfg.out), json.dumps(rows, indent=1))
        print(f"written to {cfg.out}")


if __name__ == "__main__":
    run(main, "fidelity")
