"""A file of teams, ranked by how they stand attacks: shown, added to, or checked by measuring again:
``python -m scripts.leaderboard file=leaderboard.json runs=['runs/ours/**'] by="Our group"``."""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from marl.core.checks import require_name, require_writable
from marl.measure import leaderboard, leaderboard_check
from marl.measure.leaderboard import Entry
from marl.run.compose import option
from marl.run.lock import held
from marl.show import leaderboard as pictures
from marl.show import robustness_report
from scripts.main import fail, run


def add(cfg: DictConfig) -> None:
    """Measure the runs and add them to the board; leave with exit code 1 where none of them could be measured."""
    matrix, entries, reasons = leaderboard.measure(cfg, HydraConfig.get().runtime.choices["suite"], option)
    robustness_report.show(matrix)
    if not matrix.complete:
        print(f"nothing added to {cfg.file}: not all of it is measured yet; the same command continues")
        return
    for why in reasons:
        print(f"not added: {why}")
    if not entries:
        fail(f"nothing added to {cfg.file}: no method could be measured", 1)
    replaced = leaderboard.add(Path(cfg.file), entries)
    for old in replaced:
        print(f"replaced: {old.name} by {old.by} on {old.task}, of {old.date}")
    pictures.show(leaderboard.read(Path(cfg.file)))
    print(f"written to {cfg.file}")


def check(cfg: DictConfig, entries: list[Entry]) -> None:
    """Measure entries again; leave with exit code 1 where one does not agree."""
    results = leaderboard_check.check(cfg, entries, option)
    pictures.show_check(results)
    wrong = sum(not one.agrees for one in results)
    if wrong:
        fail(f"{wrong} of {len(results)} entries of {cfg.file} {'do' if wrong > 1 else 'does'} not agree", 1)


def main(cfg: DictConfig) -> None:
    entries = leaderboard.check_options(cfg)
    if not leaderboard.has_runs(cfg):
        pictures.show(entries)
        return
    require_name(out=cfg.out)
    require_writable("", out=Path(cfg.out))
    with held(Path(cfg.out), "out"):
        if cfg.check:
            check(cfg, entries)
        else:
            add(cfg)


if __name__ == "__main__":
    run(main, "leaderboard")
