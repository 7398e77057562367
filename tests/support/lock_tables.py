"""Value tables that learn the formation lock under a count bonus: what counts can do where no network is in the way.

``python -m tests.support.lock_tables`` prints the table of docs/fox.md.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numba import njit

from envs.kernels.rng import below, uniform
from envs.toys.lock import FormationLock, reset_lane, step_lane

Bonus = Literal["none", "positions", "formation"]
OPTIONS: dict[str, Any] = {
    "depth": 8, "drift": 1, "n_actions": 4, "form": "offset", "wrong": "slip", "goal_reward": 10.0, "episode_limit": 24,
}  # fmt: skip


@njit(cache=True)
def choose(lane, values, epsilon):  # type: ignore[no-untyped-def]
    """Return the action with the largest of ``values`` [A], one of them by lot, or any action by chance."""
    best = np.flatnonzero(values == values.max())
    action = best[below(lane, len(best))]
    return below(lane, len(values)) if uniform(lane) < epsilon else action


@njit(cache=True)
def learn(rules, board, out, rates, beta, column, counts, found):  # type: ignore[no-untyped-def]
    """Play ``found`` [E] episodes with one lane and write whether each opened the lock.

    Each agent has a table over what it sees of the lock, and the tables' sum learns (VDN). ``rates``: learning rate,
    discount, epsilon. ``counts``: visits of what ``column`` of the game's events names; -1: no bonus.
    """
    lane, actions = board.lanes[0], np.zeros((1, 2), np.int64)
    lr, gamma, epsilon = rates
    n_actions, places = out.avail.shape[2], rules.key.shape[1] + 1
    q, seen, now = np.zeros((2, places, n_actions)), np.zeros(2, np.int64), np.zeros(2, np.int64)
    for episode in range(len(found)):
        reset_lane(rules, board, out, np.uint64(0), False, 0)
        while not lane.finished:
            for i in range(2):
                seen[i] = board.place[0, i if rules.chains else 1]
                actions[0, i] = choose(lane, q[i, seen[i]], epsilon)
            step_lane(rules, board, out, actions, 0)
            reward = np.float64(out.reward[0])
            if column >= 0:
                cell = out.events[0, column] + (places if column == 0 else 0)
                counts[cell] += 1
                reward += beta / np.sqrt(counts[cell])
            target = reward
            if not out.terminated[0]:
                for i in range(2):
                    now[i] = board.place[0, i if rules.chains else 1]
                    target += gamma * q[i, now[i]].max()
            error = target - q[0, seen[0], actions[0, 0]] - q[1, seen[1], actions[0, 1]]
            for i in range(2):
                q[i, seen[i], actions[0, i]] += lr * error
            if out.won[0]:
                found[episode] = True


def opened(
    bonus: Bonus, seed: int, cells: int, episodes: int = 4000, beta: float = 0.1, lr: float = 0.2, gamma: float = 0.97,
    epsilon: float = 0.1, **changes: Any,
) -> np.ndarray:  # fmt: skip
    """Return which of the episodes opened the lock, bool [episodes]. ``changes`` are options of the game, whose
    right actions are other ones for every seed."""
    game = FormationLock(**{**OPTIONS, "key": seed, **changes}, cells=cells, n_envs=1, seed=seed)
    column = {"none": -1, "positions": 1, "formation": 0}[bonus]
    found = np.zeros(episodes, np.bool_)
    counts = np.zeros(cells * (game.depth + 1) ** 2 + game.depth + 1, np.int64)
    learn(game._rules, game._board, game._out, (lr, gamma, epsilon), beta, column, counts, found)
    return found


def row(bonus: Bonus, cells: int, seeds: int = 20, **changes: Any) -> tuple[int, float]:
    """Return how many seeds open the lock in more than half of the last quarter of their episodes, and the median over
    seeds of the first episode that opens it (the number of episodes where none does)."""
    runs = [opened(bonus, seed, cells, **changes) for seed in range(seeds)]
    solved = sum(bool(run[-len(run) // 4 :].mean() > 0.5) for run in runs)
    return solved, float(np.median([run.argmax() if run.any() else len(run) for run in runs]))


if __name__ == "__main__":
    for form, changes in (("offset", {}), ("chains", {"form": "chains", "wrong": "reset", "depth": 12})):
        for cells in (1, 1024, 16384):
            print(form, cells, {bonus: row(bonus, cells, **changes) for bonus in get_args(Bonus)})
