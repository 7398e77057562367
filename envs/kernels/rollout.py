"""An episode per lane, or a part of it, as one compiled loop: networks, action choice, attack, game step and storage.

Lanes do not wait for each other, and each draws from streams of its own. ``lanes.lane_kernels`` compiles the loop
around the rules of a game; ``game.LaneGame.rollout`` calls it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import prange

from envs.kernels.compiled import Record, part
from envs.kernels.harm import begin_harm, do_harm, draw_available
from envs.kernels.rng import seed_lane, uniform
from marl.core.rolling import Choice, Harm, Span
from marl.learn.acting import Network, best, forward_step, make_scratch


class Book(NamedTuple):
    """What is stored, as arrays that share the memory of an episode batch's fields."""

    actions: np.ndarray  # int16 [M, T+1, n]
    intended: np.ndarray  # int16 [M, T+1, n]
    filled: np.ndarray  # bool [M, T+1]
    won: np.ndarray  # bool [M]
    length: np.ndarray  # int32 [M]
    hit: np.ndarray  # bool [M, T+1, n]; T = -1: not requested


Arrays = tuple[np.ndarray, ...]  # all of one type, so that one loop can read them


@part
def copy_slot(given: Arrays, places: np.ndarray, kept: Arrays, b: int, row: int, t: int) -> None:
    """Copy the tensors of lane ``b`` to slot ``t`` of ``row``, byte by byte: field k from given[k] [any], where
    places[k, 0] is the offset of the first lane and places[k, 1] the stride between lanes, to kept[k] [M, T+1, K_k],
    with T = -1 if the field is not requested."""
    for field in range(len(kept)):
        source, target = given[field], kept[field]
        if target.shape[1] > 0:
            first = places[field, 0] + b * places[field, 1]
            for k in range(target.shape[2]):
                target[row, t, k] = source[first + k]


@part
def note_step(out: Any, book: Book, actions: np.ndarray, b: int, row: int, t: int) -> None:
    """Store the step that lane ``b`` has taken from slot ``t``."""
    for i in range(actions.shape[1]):
        book.actions[row, t, i] = actions[b, i]
    book.filled[row, t] = True
    book.won[row] |= out.won[b]
    book.length[row] = t + 1


@part
def note_intended(book: Book, actions: np.ndarray, last: np.ndarray, row: int, t: int) -> None:
    """Store a lane's intended actions, which its networks see next unless an attack intervenes."""
    for i in range(len(last)):
        book.intended[row, t, i] = actions[i]
        last[i] = actions[i]


@part
def note_harm(
    choice: Choice, book: Book, actions: np.ndarray, last: np.ndarray, hit: np.ndarray, row: int, t: int
) -> None:
    """Store whom an attack has hit and, if networks see executed actions, what was executed."""
    for i in range(len(last)):
        if choice.executed:
            last[i] = actions[i]
        if book.hit.shape[1] > 0:
            book.hit[row, t, i] = hit[i]


@part
def draw_by_score(lot: Record, q: np.ndarray, avail: np.ndarray) -> int:
    """Sample an available action from the softmax of the scores q [A]; return 0 if none is available."""
    found = best(q, avail)
    top, total = q[found], 0.0
    for a in range(len(q)):
        if avail[a]:
            total += np.exp(q[a] - top)
    left = uniform(lot) * total
    for a in range(len(q)):
        if avail[a]:
            left -= np.exp(q[a] - top)
            if left < 0.0:
                return a
    return found


@part
def choose(choice: Choice, b: int, lot: Record, q: np.ndarray, avail: np.ndarray, actions: np.ndarray) -> None:
    """Choose the action of each agent of lane ``b`` by its scores, q [n, A] -> [n]: a sample from their softmax, or the
    best one. With probability epsilon a random available action takes its place."""
    for i in range(len(actions)):
        actions[i] = draw_by_score(lot, q[i], avail[i]) if choice.sampled[b, i] else best(q[i], avail[i])
        if choice.epsilon[b, i] > 0 and uniform(lot) < choice.epsilon[b, i]:
            actions[i] = draw_available(lot, avail[i])


step_lane: Any = None  # placeholder for a game's own rule


def rollout_lanes(
    rules: Any, board: Any, out: Any, net: Network, choice: Choice, harm: Harm, attacked: np.ndarray,
    harm_seed: np.uint64, lots: np.ndarray, actions: np.ndarray, span: Span, book: Book,
    seen: Arrays, seen_at: np.ndarray, seen_to: Arrays, done: Arrays, done_at: np.ndarray, done_to: Arrays,
) -> None:  # fmt: skip
    B, n = actions.shape
    for index in prange(B):
        b = np.int64(index)  # see ``lanes.reset_lanes``
        if span.limit[b] == 0:
            continue
        row, last, h = span.row[b], span.last[b], span.h[b]
        scratch, missing = make_scratch(n, h.shape[1], out.avail.shape[2]), np.zeros(n, np.bool_)
        forced, hit, lot, blow = np.zeros(n, np.int64), np.zeros(n, np.bool_), lots[b, 0], lots[b, 1]
        seed_lane(lot, choice.seed, b)
        seed_lane(blow, harm_seed, b)
        begin_harm(harm, blow, out.alive[b], missing)
        copy_slot(seen, seen_at, seen_to, b, row, 0)
        t = 0
        while board.lanes[b].finished == 0 and t < span.limit[b]:
            forward_step(net, scratch, out.obs[b], last, h, choice.network[b], choice.shift[b])
            choose(choice, b, lot, scratch.q, out.avail[b], actions[b])
            note_intended(book, actions[b], last, row, t)
            if attacked[b]:
                do_harm(harm, blow, missing, scratch.q, out.avail[b], out.alive[b], actions[b], hit, forced)
                note_harm(choice, book, actions[b], last, hit, row, t)
            step_lane(rules, board, out, actions, b)
            note_step(out, book, actions, b, row, t)
            copy_slot(done, done_at, done_to, b, row, t)
            t += 1
            copy_slot(seen, seen_at, seen_to, b, row, t)
