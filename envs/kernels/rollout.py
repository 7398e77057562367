"""A whole episode per lane as one compiled loop: networks, choice, attack, the game's step, and what is stored.

Lanes do not wait for each other, and each draws from streams of its own. ``lanes.lane_kernels`` compiles the loop
around the rules of a game; ``game.LaneGame.rollout`` calls it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import literal_unroll, prange

from envs.kernels.compiled import Record, rule
from envs.kernels.harm import begin_harm, do_harm, draw_available
from envs.kernels.rng import seed_lane, uniform
from marl.core.rolling import Choice, Harm
from marl.learn.acting import Network, best, make_desk, think


class Book(NamedTuple):
    """What is stored, as arrays that share the memory of an episode batch's fields."""

    obs: np.ndarray  # f32 [B, T+1, n, O]
    state: np.ndarray  # f32 [B, T+1, S]
    avail: np.ndarray  # bool [B, T+1, n, A]
    alive: np.ndarray  # bool [B, T+1, n]
    actions: np.ndarray  # int16 [B, T+1, n]
    intended: np.ndarray  # int16 [B, T+1, n]
    reward: np.ndarray  # f32 [B, T+1]
    terminated: np.ndarray  # bool [B, T+1]
    filled: np.ndarray  # bool [B, T+1]
    won: np.ndarray  # bool [B]
    length: np.ndarray  # int32 [B]
    hit: np.ndarray  # bool [B, T+1, n]
    notes: np.ndarray  # f64 [B, T+1, K], all entries of Step.info side by side; T = -1: nobody asks for them


@rule
def note_observation(out: Any, book: Book, b: int, t: int) -> None:
    """Copy what lane ``b`` observes to slot ``t``."""
    for i in range(out.obs.shape[1]):
        for k in range(out.obs.shape[2]):
            book.obs[b, t, i, k] = out.obs[b, i, k]
        for a in range(out.avail.shape[2]):
            book.avail[b, t, i, a] = out.avail[b, i, a]
        book.alive[b, t, i] = out.alive[b, i]
    for k in range(out.state.shape[1]):
        book.state[b, t, k] = out.state[b, k]


@rule
def note_info(info: Any, book: Book, b: int, t: int) -> None:
    """Copy lane ``b``'s entries of ``Step.info``, arrays [B, K_i] of any numbers."""
    place = 0
    for array in literal_unroll(info):
        for k in range(array.shape[1]):
            book.notes[b, t, place] = array[b, k]
            place += 1


@rule
def note_step(out: Any, info: Any, book: Book, actions: np.ndarray, b: int, t: int) -> None:
    """Store the step that lane ``b`` has made from slot ``t``."""
    for i in range(actions.shape[1]):
        book.actions[b, t, i] = actions[b, i]
    book.reward[b, t], book.terminated[b, t], book.filled[b, t] = out.reward[b], out.terminated[b], True
    book.won[b] |= out.won[b]
    book.length[b] = t + 1
    if book.notes.shape[1] > 0:
        note_info(info, book, b, t)


@rule
def note_intended(book: Book, actions: np.ndarray, last: np.ndarray, b: int, t: int) -> None:
    """Store what lane ``b`` intends, which is what its networks see next, as long as no attack intervenes."""
    for i in range(len(last)):
        book.intended[b, t, i] = actions[b, i]
        last[i] = actions[b, i]


@rule
def note_harm(
    choice: Choice, book: Book, actions: np.ndarray, last: np.ndarray, hit: np.ndarray, b: int, t: int
) -> None:
    """Store what an attack has made of it."""
    for i in range(len(last)):
        if choice.executed:
            last[i] = actions[b, i]
        if book.hit.shape[1] > 0:
            book.hit[b, t, i] = hit[i]


@rule
def choose(choice: Choice, lot: Record, q: np.ndarray, avail: np.ndarray, actions: np.ndarray) -> None:
    """Choose each agent's best action, or, with probability epsilon, a random available one: q [n, A] -> [n]."""
    for i in range(len(actions)):
        actions[i] = best(q[i], avail[i])
        if choice.epsilon > 0 and uniform(lot) < choice.epsilon:
            actions[i] = draw_available(lot, avail[i])


step_lane: Any = None  # a game's own rule stands under this name


def rollout_lanes(
    rules: Any, board: Any, out: Any, info: Any, net: Network, choice: Choice, harm: Harm, attacked: np.ndarray,
    harm_seed: np.uint64, lots: np.ndarray, actions: np.ndarray, h: np.ndarray, book: Book,
) -> None:  # fmt: skip
    B, n = actions.shape
    for b in prange(B):
        desk, last, missing = make_desk(n, h.shape[2], out.avail.shape[2]), np.full(n, -1), np.zeros(n, np.bool_)
        forced, hit, lot, blow = np.zeros(n, np.int64), np.zeros(n, np.bool_), lots[b, 0], lots[b, 1]
        seed_lane(lot, choice.seed, b)
        seed_lane(blow, harm_seed, b)
        begin_harm(harm, blow, missing)
        note_observation(out, book, b, 0)
        t = 0
        while board.lanes[b].finished == 0:
            think(net, desk, out.obs[b], last, h[b])
            choose(choice, lot, desk.q, out.avail[b], actions[b])
            note_intended(book, actions, last, b, t)
            if attacked[b]:
                do_harm(harm, blow, missing, desk.q, out.avail[b], out.alive[b], actions[b], hit, forced)
                note_harm(choice, book, actions, last, hit, b, t)
            step_lane(rules, board, out, actions, b)
            note_step(out, info, book, actions, b, t)
            t += 1
            note_observation(out, book, b, t)
