"""Teams trained in StarCraft II, played here: ``python -m scripts.fidelity dir=... [check=values]``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from marl.core.checks import require_at_least, require_choice, require_threads
from marl.core.types import ConfigError
from marl.measure.fidelity import best_of, check_team, find_teams
from marl.run.files import write_atomic
from scripts.main import CONF, positive, run, writable_file

NAMED_ORDERS = ("creation", "reversed")
COLUMNS = {"win_rates": ("win_rate", "return", "length"), "values": ("expected", "real", "residual", "residual_rms")}


def show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    bounds = f" [{value['low']:.3f}, {value['high']:.3f}]" if value["low"] is not None else ""
    return f"{value['mean']:.3f}{bounds}"


def enemy_orders(count: int) -> list[str | int]:
    """Return the first ``count`` orders of the enemy: those with a name, then permutations by seed."""
    return [*NAMED_ORDERS, *range(max(count - len(NAMED_ORDERS), 0))][:count]


def score(cfg: DictConfig, name: str, agent: Path) -> dict[str, Any]:
    """Return the row of a team on its map; with more than one order, under "best" that of the order that suits it."""
    plain = OmegaConf.merge(OmegaConf.load(CONF / "env/skirmish/base.yaml"), {"map": name})
    row = {"map": name, "agent": agent.name, **check_team(cfg, DictConfig(plain), agent, cfg.seed)}
    if cfg.orders > 1:
        orders = enemy_orders(cfg.orders)
        envs = {str(order): DictConfig(OmegaConf.merge(plain, {"enemy_order": order})) for order in orders}
        row["best"] = best_of(cfg, envs, agent)
    return row


def cells(cfg: DictConfig, row: dict[str, Any]) -> list[str]:
    """Return a row of the table as text."""
    found = [row["map"], row["agent"], *(show(row[column]) for column in COLUMNS[cfg.check])]
    return found + ([row["best"]["chosen"], show(row["best"]["win_rate"])] if cfg.orders > 1 else [])


def main(cfg: DictConfig) -> None:
    positive(cfg, "episodes", "n_envs", "orders")
    require_choice("", COLUMNS, check=cfg.check)
    require_at_least("", 0, seed=cfg.seed)
    require_threads(cfg.threads)
    if cfg.orders > 1 and cfg.check != "win_rates":
        raise ConfigError(f"orders={cfg.orders} chooses by the win rate; it needs check=win_rates")
    writable_file(cfg)
    rows = [score(cfg, name, agent) for name, agent in find_teams(Path(cfg.dir))]
    table = Table(title=f"{cfg.check} over {cfg.episodes} episodes, seed {cfg.seed}")
    best = ["best order", "win_rate in it"] if cfg.orders > 1 else []
    for column in ("map", "agent", *COLUMNS[cfg.check], *best):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*cells(cfg, row))
    Console().print(table)
    if cfg.orders > 1:
        print(f"best order: of {cfg.orders}, chosen over {cfg.episodes} other episodes, of seed {cfg.seed + 1}")
    if cfg.out is not None:
        write_atomic(Path(cfg.out), json.dumps(rows, indent=1))
        print(f"written to {cfg.out}")


if __name__ == "__main__":
    run(main, "fidelity")
