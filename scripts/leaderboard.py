"""Show a file of teams ranked by robustness to attacks, add to it, or check it by measuring again:
``python -m scripts.leaderboard file=leaderboard.json runs=['runs/ours/**'] by="Our group"``."""

from __future__ import annotations

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from marl.measure import board
from marl.measure.board import Board
from marl.run.compose import option
from marl.show import leaderboard as pictures
from marl.show import robustness_report
from scripts.main import fail, run


def show_added(made: Board) -> None:
    """Print what was measured and added; exit with code 1 if no method could be measured."""
    assert made.matrix is not None
    robustness_report.show(made.matrix)
    if not made.matrix.complete:
        print(f"nothing added to {made.file}: not all of it is measured yet; the same command continues")
        return
    for why in made.left_out:
        print(f"not added: {why}")
    if not made.added:
        fail(f"nothing added to {made.file}: no method could be measured", 1)
    for old in made.replaced:
        print(f"replaced: {old.name} by {old.by} on {old.task}, of {old.date}")
    pictures.show(list(made.entries))
    print(f"written to {made.file}")


def show_checked(made: Board) -> None:
    """Print what a check found; exit with code 1 if an entry does not agree."""
    pictures.show_check(list(made.checks))
    if wrong := len(made.wrong):
        verb = "do" if wrong > 1 else "does"
        fail(f"{wrong} of {len(made.checks)} entries of {made.file} {verb} not agree", 1)


def main(cfg: DictConfig) -> None:
    made = board.run(cfg, HydraConfig.get().runtime.choices["suite"], option)
    if made.matrix is not None:
        show_added(made)
    elif cfg.check:
        show_checked(made)
    else:
        pictures.show(list(made.entries))


if __name__ == "__main__":
    run(main, "leaderboard")
