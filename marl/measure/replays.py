"""Replays of the baseline column: what chance alone makes of episodes with the same start, without any attack.

The share won in all of k columns falls with k even where the attacks do nothing. So the baseline's episodes are played
k - 1 more times, with different random numbers after their start: those of the game, of the policy, and of the
baseline's attack if it has one. A replay is a cell like any other, identified by the baseline's key and its number. All
columns share it, and so do all suites with this baseline and setting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Generator

from marl.core.seeding import derive
from marl.measure import matrix
from marl.measure.matrix import Results, Tell
from marl.run.evaluate import evaluate
from marl.run.rollout import Redrawing
from marl.run.teams import Team

CHANCE = "chance"  # whether anything in a replay was drawn after its episodes had begun


def play(team: Team, episodes: int, seed: int, replay: int, tell: Tell) -> Results:
    """Play a team's episodes (0), or their replay of that number, which also says whether anything was sampled.
    Raise ConfigError where the game cannot be replayed."""
    policy_gen, attack_gen = (other(team.streams[name], replay) for name in ("eval", "eval_attack"))
    before = [gen.get_state() for gen in (policy_gen, attack_gen)]
    drawn = []

    def on_round(done: int) -> None:
        tell(done / episodes)
        drawn.append(replay > 0 and cast(Redrawing, team.env).has_drawn())

    results = evaluate(
        team.env, team.policy, team.attack, team.fields, episodes=episodes, policy_gen=policy_gen,
        attack_gen=attack_gen, device=team.device, on_round=on_round, seed=seed, replay=replay,
    )  # fmt: skip
    if replay > 0:
        after = [gen.get_state() for gen in (policy_gen, attack_gen)]
        moved = not all(torch.equal(*states) for states in zip(before, after, strict=True))
        results[CHANCE] = np.full(episodes, moved or any(drawn))
    return results


def other(gen: Generator, replay: int) -> Generator:
    """Return the generator that takes the place of ``gen`` in a replay; in the first play, ``gen`` itself."""
    if replay == 0:
        return gen
    return Generator(gen.device).manual_seed(derive(gen.initial_seed() % 2**63, f"replay {replay}"))


def again(cell: Any, replay: int) -> Any:
    """Return the cell of replay number ``replay``, from 1, of a cell of the baseline."""
    key = matrix.digest({"replay": replay, "of": cell.key})
    path = cell.path.with_name(f"{key}{cell.path.suffix}")
    return replace(cell, title=f"{cell.title}, replay {replay}", key=key, path=path, replay=replay)


def measure(
    cells: Sequence[Any], found: Sequence[dict[str, Results | str]], baseline: str, processes: int | str, *, more: bool
) -> tuple[list[list[Results | str]], list[Any], bool]:
    """Replay each entrant's cell of the baseline, ``cells``, once for every other column that was ``found`` possible.
    Return the replays' results, their cells, and whether nothing is left to do. With ``more`` false, only
    read what is kept.

    Where nothing is sampled after the start of episodes, one replay shows it: the others would be the same.
    """
    wanted = [_wanted(results, baseline) for results in found]
    rounds: list[list[Any]] = [[again(cell, 1)] if k else [] for cell, k in zip(cells, wanted, strict=True)]
    results, complete = _pass(rounds, processes, more)
    further = [
        [again(cell, i) for i in range(2, k + 1)] if one and chancy(one[0]) else []
        for cell, k, one in zip(cells, wanted, results, strict=True)
    ]
    rest, complete = _pass(further, processes, more and complete)
    every = [cell for row in (*rounds, *further) for cell in row]
    return [a + b for a, b in zip(results, rest, strict=True)], every, complete


def chancy(results: Results | str) -> bool:
    """Return whether a replay sampled anything, so that another one may differ."""
    return not isinstance(results, str) and bool(results[CHANCE].any())


def _wanted(results: dict[str, Results | str], baseline: str) -> int:
    """Return how many replays the measured columns call for; 0 without the baseline."""
    measured = [name for name, value in results.items() if not isinstance(value, str)]
    return len(measured) - 1 if baseline in measured else 0


def _pass(rows: list[list[Any]], processes: int | str, more: bool) -> tuple[list[list[Results | str]], bool]:
    cells = [cell for row in rows for cell in row]
    if more and cells:
        outcome = matrix.measure(cells, processes)
    else:
        outcome = matrix.Outcome({}, complete=more and not cells)
    return [[matrix.read_cell(cell, outcome) for cell in row] for row in rows], outcome.complete
