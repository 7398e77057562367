"""Play teams trained in StarCraft II and compare with their logs: ``python -m scripts.fidelity dir=... [out=FILE]``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from envs.skirmish.maps import find_map
from envs.skirmish.physics import VERSION
from envs.skirmish.setup import enemy_listing
from marl.core.checks import require_at_least, require_name, require_threads, require_writable
from marl.core.types import ConfigError
from marl.measure.fidelity import (
    SEARCH_EPISODES,
    Logs,
    Row,
    best_of,
    find_teams,
    read_logs,
    score_random_play,
    score_team,
    search_of,
)
from marl.run.files import write_atomic
from marl.run.resume import command_line, git_commit
from marl.show import scoreboard
from scripts.main import CONF, positive, run, writable_file

NAMED_ORDERS = ("creation", "reversed")


def enemy_orders(count: int) -> list[str | int]:
    """Return the first ``count`` orders of the enemies: those with a name, then permutations by seed."""
    return [*NAMED_ORDERS, *range(max(count - len(NAMED_ORDERS), 0))][:count]


def game(name: str, **options: Any) -> DictConfig:
    """Return the configuration of the battle on the map ``name``."""
    options["map"] = name
    return DictConfig(OmegaConf.merge(OmegaConf.load(CONF / "env/skirmish/base.yaml"), options))


def score(cfg: DictConfig, name: str, agent: Path, logs: Logs) -> Row:
    """Return the row of a team on its map; with more than one order, "best" holds the row of the order that suits it
    best, and with a search, "searched" holds the row of the order that the search finds, starting from that one."""
    said = logs.teams.get(agent.stem, {})
    row = {"map": name, "agent": agent.name, **score_team(cfg, game(name), agent, cfg.seed, said)}
    orders, best = enemy_orders(cfg.orders), 0
    if len(orders) > 1:
        envs = {str(order): game(name, enemy_order=order) for order in orders}
        row["best"] = best_of(cfg, envs, agent, said)
        best = list(envs).index(row["best"]["chosen"])
    enemies = find_map(name).n_enemies
    if cfg.search > 0 and enemies > 1:
        start = enemy_listing(orders[best], enemies).tolist()
        row["searched"] = search_of(cfg, lambda order: game(name, enemy_order=order), start, agent, said)
    return row


def check(cfg: DictConfig) -> None:
    """Check the options before anything is played."""
    positive(cfg, "episodes", "n_envs", "orders")
    require_at_least("", 0, seed=cfg.seed, search=cfg.search)
    require_threads(cfg.threads)
    writable_file(cfg)
    require_name(dir=cfg.dir, picture=cfg.picture)
    if cfg.picture is not None:
        if not cfg.picture.endswith(".png"):
            raise ConfigError(f"picture={cfg.picture} must end in .png")
        require_writable("", files=True, picture=Path(cfg.picture))
        if cfg.out is not None and Path(cfg.out).resolve() == Path(cfg.picture).resolve():
            raise ConfigError(f"out={cfg.out} and picture={cfg.picture} are the same file")


def main(cfg: DictConfig) -> None:
    check(cfg)
    logs, teams = read_logs(cfg.logs), find_teams(Path(cfg.dir), cfg.only)
    rows = [score(cfg, name, agent, logs) for name, agent in teams]
    maps = [name for name in logs.random if name in dict(teams)]
    board = {
        "command": command_line(), "commit": git_commit(), "physics": VERSION, "episodes": cfg.episodes,
        "seed": cfg.seed, "teams": rows,
        "random": [{"map": name, **score_random_play(cfg, game(name), logs.random[name])} for name in maps],
    }  # fmt: skip
    if cfg.out is not None:  # before anything is printed: a reader such as head may exit early
        write_atomic(Path(cfg.out), json.dumps(board, indent=1) + "\n")
    if cfg.picture is not None:
        scoreboard.draw(board, Path(cfg.picture))
    scoreboard.show(board)
    if cfg.orders > 1:
        print(f"best order: of {cfg.orders}, chosen over {cfg.episodes} other episodes, of seed {cfg.seed + 1}")
    if cfg.search > 0:
        print(
            f"searched order: of {cfg.search} more, by the return of {SEARCH_EPISODES} episodes, of seed {cfg.seed + 2}"
        )
    for made, path in (("written to", cfg.out), ("drawn as", cfg.picture)):
        if path is not None:
            print(f"{made} {path}")


if __name__ == "__main__":
    run(main, "fidelity")
