"""Trained teams with each other and with partners that they never met:
``python -m scripts.crossplay runs=['runs/study/**'] env=mds_mini partners=mds_mini``."""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from marl.core.types import ConfigError
from marl.measure.cells import Outcome, read_cell
from marl.measure.crossplay import Seating, Setting, game_spec, measure, pair_up, provenance
from marl.measure.crossplay_scores import Cell, Sheet, find_limits, methods, score_pair
from marl.measure.entrants import Agent, from_runs, same_game
from marl.measure.partners import read_populations
from marl.measure.robustness_scores import METRICS
from marl.show.crossplay_report import Report, publish, show, write
from scripts.main import check_matrix, plain, run


def read_setting(cfg: DictConfig) -> Setting:
    device = check_matrix(cfg, METRICS)
    if not 0.0 <= cfg.epsilon <= 1.0:
        raise ConfigError(f"epsilon={cfg.epsilon} must be within [0, 1]")
    return Setting(cfg.episodes, cfg.n_envs, cfg.seed, cfg.epsilon, device, cfg.threads, Path(cfg.out))


def find_rows(cfg: DictConfig) -> list[Agent]:
    """The runs, all in one game."""
    if cfg.runs is None:
        raise ConfigError("runs is missing: give runs=[DIR, ...] (run folders or patterns)")
    env, choice = plain(cfg.env), HydraConfig.get().runtime.choices.get("env")
    rows = from_runs(plain(cfg.runs), env, str(choice).replace("/", "-") if env is not None else None)
    for agent in rows:
        if not same_game(agent.env, rows[0].env):
            raise ConfigError(f"runs play different games, {rows[0].task} and {agent.task}; give env=NAME")
    return rows


def main(cfg: DictConfig) -> None:
    setting = read_setting(cfg)
    rows = find_rows(cfg)
    partners = read_populations(plain(cfg.partners), rows[0].env, rows[0].task)
    n = game_spec(rows[0].env).n_agents

    def pairs(one: Agent, others: list[Agent], wanted: list[bool]) -> list[list[Seating] | None]:
        return [pair_up(one, o, n, setting) if want else None for o, want in zip(others, wanted, strict=True)]

    strangers = [partner.agent for partner in partners]
    plan = [
        pairs(row, rows, [cfg.across or row.label == other.label for other in rows])
        + pairs(row, strangers, [row.content != partner.content for partner in strangers])
        for row in rows
    ]
    answers = [[pair_up(response, p.agent, n, setting) for response in p.responses] for p in partners]
    every = [seating for row in plan for pair in row if pair for seating in pair]
    every += [seating for found in answers for pair in found for seating in pair]
    outcome: Outcome = measure(every, cfg.jobs)

    def score(pair: list[Seating] | None) -> Cell:
        return None if pair is None else score_pair([read_cell(seating, outcome) for seating in pair], cfg.metric)

    cells, reached = [[score(pair) for pair in row] for row in plan], [[score(p) for p in found] for found in answers]
    sheet = Sheet(cfg.metric, rows, partners, cells, find_limits(rows, partners, cells, reached))
    about = provenance(every, setting)
    report = Report(sheet, methods(sheet), rows[0].task, cfg.episodes, outcome.complete, about)
    show(report)
    print(f"written to {write(report, setting.out)}")
    if cfg.results is not None:
        print(f"written to {publish(report, Path(cfg.results))}")


if __name__ == "__main__":
    run(main, "crossplay")
