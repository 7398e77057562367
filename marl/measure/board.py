"""One operation on a leaderboard: reading it, adding measured teams to it, or measuring its entries again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from marl.core.checks import require_name, require_writable
from marl.measure import leaderboard, leaderboard_check
from marl.measure.leaderboard import Entry
from marl.measure.leaderboard_check import Checked, Option
from marl.measure.robustness_scores import Matrix
from marl.run.lock import held


@dataclass(frozen=True)
class Board:
    """A leaderboard after an operation on it: the ``entries`` of its ``file``, best first within a game.

    After adding: the ``matrix`` that was measured, the entries ``added``, the older ones ``replaced`` by them, and in
    ``left_out`` a line for each method that could not be measured. A matrix that is not ``complete`` adds nothing; the
    same call continues it. After checking: the outcome for every entry (``checks``).
    """

    file: Path
    entries: tuple[Entry, ...]
    matrix: Matrix | None = None
    added: tuple[Entry, ...] = ()
    replaced: tuple[Entry, ...] = ()
    left_out: tuple[str, ...] = ()
    checks: tuple[Checked, ...] = ()

    @property
    def wrong(self) -> tuple[Checked, ...]:
        """Return the entries that were checked and do not agree."""
        return tuple(one for one in self.checks if not one.agrees)


def run(cfg: DictConfig, suite_name: str, option: Option) -> Board:
    """Do what ``cfg`` (conf/leaderboard.yaml) asks for: read the board, add the runs to it, or check its entries.

    ``suite_name`` is the name of the configuration ``cfg.suite``; ``option`` is as for
    ``marl.measure.robustness.find_entrants``. Raise ConfigError for bad options, before anything is measured.
    """
    file = Path(cfg.file)
    entries = leaderboard.check_options(cfg)
    if not leaderboard.has_runs(cfg):
        return Board(file, tuple(entries))
    require_name(out=cfg.out)
    require_writable("", out=Path(cfg.out))
    with held(Path(cfg.out), "out"):
        if cfg.check:
            return Board(file, tuple(entries), checks=tuple(leaderboard_check.check(cfg, entries, suite_name, option)))
        matrix, added, reasons, known = leaderboard.measure(cfg, suite_name, option)
        replaced = leaderboard.add(file, added, known) if added else []
        now = leaderboard.read(file, new=True)
        return Board(file, tuple(now), matrix, tuple(added), tuple(replaced), tuple(reasons))
