"""What a gradient step of PPO reads: of a batch, or of some of its pieces, only the rows that teach something.

Agents that have died teach no actor, and slots to bootstrap from teach nobody. On the CPU neither is computed where the
networks work on every agent by itself; on a GPU the host would wait for their number.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from marl.core.rows import Rows
from marl.learn.actor import Critic
from marl.learn.agents import FeedForwardAgent, RecurrentAgent

Data = dict[str, Tensor]
ACTOR = ("x", "avail", "action", "log_p", "advantage", "played")
CRITIC = ("seen", "raw", "target", "filled")


@dataclass
class Minibatch:
    """Rows for an actor, which are sequences as ``rows`` says and begin with the states ``begin`` [S, *, H] (None:
    zeros), and rows for a critic. Both are indexed [N, n], or where some are left out [K, 1], [K]. Where the critic's
    inputs ``seen`` are fewer than its other rows, ``place`` long [K] says which of them each row has."""

    rows: Rows
    begin: Tensor | None
    actor: Data
    critic: Data


def steps_of(rows: Rows, data: Data) -> tuple[Rows, Data]:
    """Leave the slots to bootstrap from out of ``rows`` and their ``data`` [N, ...], on the CPU; on a GPU return both
    as they are."""
    if rows.start is None:
        return rows, data
    steps, index = rows.steps()
    return steps, {name: value.index_select(0, index) for name, value in data.items()}


def whole(rows: Rows, data: Data, begin: Tensor | None) -> Minibatch:
    """Return a minibatch of all rows of ``data`` [N, ...]; ``begin`` [M, n, H] is in the order of the rows."""
    actor, critic = ({name: data[name] for name in names if name in data} for names in (ACTOR, CRITIC))
    return Minibatch(rows, begin, actor, critic)


def condensed(rows: Rows, data: Data, begin: Tensor | None, agent: RecurrentAgent, critic: Critic) -> Minibatch:
    """Return a minibatch of the rows that teach ``agent`` and ``critic`` something, as far as these can do without the
    others; arguments as for ``whole``.

    A shared actor without memory reads the steps in ``played``; a recurrent one reads each agent's steps up to the last
    of these, as a sequence of its own. A critic reads the agents' steps in ``filled``, what the dead see alike only
    once, or the rows that have any.
    """
    found = whole(rows, data, begin)
    if rows.start is None:
        return found
    if critic.for_each:
        found.critic = _where(found.critic, data["filled"])
        if not torch.equal(data["played"], data["filled"]):
            index = data["filled"].flatten().nonzero()[:, 0]
            dead, whose = ~data["played"].flatten()[index], index % data["filled"].shape[1]
            found.critic["seen"], found.critic["place"] = distinct(found.critic["seen"], dead, whose)
    else:
        found.critic = _where(found.critic, data["filled"].any(1))
    if type(agent) not in (RecurrentAgent, FeedForwardAgent) or not agent.shared or not bool(data["played"].any()):
        return found
    if isinstance(agent, FeedForwardAgent):
        found.actor = _where(found.actor, data["played"])
        return found
    found.rows, index, agents = sequences(rows, data["played"])
    found.actor = {name: value.flatten(0, 1).index_select(0, index)[:, None] for name, value in found.actor.items()}
    found.begin = None if begin is None else begin.flatten(0, 1)[agents][:, None]
    return found


def _where(data: Data, mask: Tensor) -> Data:
    """Return the rows in ``mask``, bool [N], or [N, n]: those of [N n, ...]; as they are if all of them are."""
    flat = {name: value.flatten(0, mask.dim() - 1) for name, value in data.items()}
    if bool(mask.all()):
        return flat
    index = mask.flatten().nonzero()[:, 0]
    return {name: value.index_select(0, index) for name, value in flat.items()}


def distinct(seen: Tensor, dead: Tensor, agent: Tensor) -> tuple[Tensor, Tensor]:
    """Leave out of ``seen`` [K, I] what the ``dead`` bool [K] see where it is what the same ``agent`` long [K] saw when
    it was dead for the first time: nothing, in battles. Return the rest [K', I], and which of them each row has, long
    [K]."""
    rows = dead.nonzero()[:, 0]
    whose = agent[rows]
    first = torch.full((int(agent.max()) + 1 if len(agent) else 0,), len(seen)).scatter_reduce(0, whose, rows, "amin")
    again = (seen[rows] == seen[first[whose]]).all(1) & (rows != first[whose])
    place = torch.ones(len(seen), dtype=torch.long)
    place[rows[again]] = 0
    kept = place.nonzero()[:, 0]
    place = place.cumsum(0) - 1
    place[rows[again]] = place[first[whose[again]]]
    return seen[kept], place


def sequences(rows: Rows, played: Tensor) -> tuple[Rows, Tensor, Tensor]:
    """Make a sequence of each agent's steps in a piece, up to its last one in ``played`` bool [N, n]; agents that have
    none are left out. On the CPU.

    Returns the sequences as rows, the longest first, the numbers of their rows among the N n, long [K], and of their
    agents among the M n of the pieces in the order of ``rows``, long [S].
    """
    assert rows.start is not None
    n, pieces = played.shape[1], len(rows.start) - 1
    piece = torch.arange(pieces).repeat_interleave(rows.start.diff())
    step = torch.arange(len(played)) - rows.start[piece]
    steps = (step[:, None] + 1) * played  # long [N, n]
    lengths = steps.new_zeros(pieces, n).scatter_reduce_(0, piece[:, None].expand_as(steps), steps, "amax").flatten()
    some = lengths.nonzero()[:, 0]
    found = Rows(len(some), rows.shape[1], lengths[some])
    assert found.start is not None
    agents = some[found.episodes]
    first = rows.start[agents // n] * n + agents % n
    index = torch.arange(int(found.start[-1])) - found.start[:-1].repeat_interleave(found.start.diff())
    return found, index * n + first.repeat_interleave(found.start.diff()), agents
