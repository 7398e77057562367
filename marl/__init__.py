"""A research framework for cooperative multi-agent reinforcement learning, as a library::

    import marl

    run = marl.train("algo=vdn", "env=toy/matrix", "train.total_steps=2000", dir="runs/nb")
    team = marl.load(run.dir)
    print(run.scores, team.evaluate(episodes=100))

The configurations are those of the command line (``conf/``). ``marl`` imports no algorithm, attack or simulator: their
names reach it through configuration. Importing ``marl`` loads nothing else; each function loads what it needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from marl.library import Board, Run, Team, crossplay, leaderboard, load, make_env, report, robustness, train
    from marl.run.compose import compose
    from marl.run.trees import use_configs

_LIBRARY = (
    "Board", "Run", "Team", "crossplay", "leaderboard", "load", "make_env", "report", "robustness", "train",
)  # fmt: skip
_HOMES = dict.fromkeys(_LIBRARY, "marl.library")
_HOMES |= {"compose": "marl.run.compose", "use_configs": "marl.run.trees"}
__all__ = [
    "Board", "Run", "Team", "__version__", "compose", "crossplay", "leaderboard", "load", "make_env", "report",
    "robustness", "train", "use_configs",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'marl' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
