"""Trained teams against attacks, the same episodes in every cell:
``python -m scripts.robustness runs=['runs/study/**'] suite=paper episodes=200``."""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from marl.core.types import ConfigError
from marl.measure.cells import read_cell
from marl.measure.entrants import Agent, from_runs, imported
from marl.measure.robustness import Cell, Column, Setting, measure, plan_cell, provenance, read_suite
from marl.measure.robustness_scores import METRICS, add_leads, check_versus, score_rows
from marl.show.robustness_report import Matrix, publish, show, write
from scripts.main import check_matrix, option, plain, positive, run


def find_agents(cfg: DictConfig) -> tuple[list[Agent], list[Agent]]:
    """The rows, and what ``fit_on`` names; all in the game of ``env`` where one is given."""
    env, choice = plain(cfg.env), HydraConfig.get().runtime.choices.get("env")
    name = str(choice).replace("/", "-") if env is not None else None
    agents = [] if cfg.runs is None else from_runs(plain(cfg.runs), env, name)
    for item in plain(cfg.imports) or []:
        if not isinstance(item, dict) or "path" not in item or (env is None and "env" not in item):
            raise ConfigError(f"imports has {item}; an entry is {{path: FILE, env: NAME}}, and name, mixer or policy")
        game = env if env is not None else plain(option("env", item["env"]))
        task = name if name is not None else str(item["env"]).replace("/", "-")
        agents.append(imported(item, option("policy", item.get("policy", "pymarl")), game, task, agents))
    if not agents:
        raise ConfigError("runs is missing: give runs=[DIR, ...] (run folders or patterns), or imports=[...]")
    return agents, [] if cfg.fit_on is None else from_runs(plain(cfg.fit_on), env, name, "fit_on")


def read_setting(cfg: DictConfig) -> Setting:
    positive(cfg.fit, "n_envs", "replay")
    device = check_matrix(cfg, METRICS)
    return Setting(
        cfg.episodes, cfg.n_envs, cfg.seed, cfg.fit.n_envs, cfg.fit.replay, device, cfg.threads, Path(cfg.out)
    )


def note_absent(columns: list[Column], tasks: set[str]) -> None:
    """Say which tasks' options no row asks for: a suite may know more games than are measured, or a name is wrong."""
    for column in columns:
        for task in sorted(column.tasks.keys() - tasks):
            print(f"suite.columns.{column.name}.tasks.{task} changes nothing: the rows play {', '.join(sorted(tasks))}")


def main(cfg: DictConfig) -> None:
    setting = read_setting(cfg)
    columns, baseline = read_suite(cfg.suite, cfg.only)
    agents, references = find_agents(cfg)
    check_versus(cfg.versus, agents)
    note_absent(columns, {agent.task for agent in agents})
    plan: list[list[Cell]] = [[plan_cell(agent, column, setting, references) for column in columns] for agent in agents]
    every = [cell for cells in plan for cell in cells]
    outcome = measure(every, cfg.jobs)
    names = [column.name for column in columns]
    found = [{name: read_cell(cell, outcome) for name, cell in zip(names, cells, strict=True)} for cells in plan]
    rows = score_rows(agents, found, baseline, cfg.metric)
    if cfg.versus is not None:
        rows = add_leads(rows, cfg.versus, cfg.metric)
    suite, about = HydraConfig.get().runtime.choices.suite, provenance(columns, every, setting)
    matrix = Matrix(suite, rows, names, baseline, cfg.metric, cfg.episodes, outcome.complete, about, cfg.versus)
    show(matrix)
    print(f"written to {write(matrix, setting.out)}")
    if cfg.results is not None:
        print(f"written to {publish(matrix, Path(cfg.results))}")


if __name__ == "__main__":
    run(main, "robustness")
