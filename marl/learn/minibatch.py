"""What a gradient step of PPO reads: the rows of a batch, or of some of its pieces, that contribute to the loss.

Dead agents' steps do not count for the actor, and slots to bootstrap from count for neither network. On the CPU they
are left out where the networks process each agent on its own; on a GPU the host would have to wait for their number.
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
    """Rows for an actor, in sequences given by ``rows`` that begin with the hidden states ``begin`` [S, *, H] (None:
    zeros), and rows for a critic. They are indexed [N, n] or, if some are left out, [K, 1] and [K]. If the critic has
    fewer inputs ``seen`` than other rows, ``place`` long [K] says which input belongs to each row."""

    rows: Rows
    begin: Tensor | None
    actor: Data
    critic: Data


def steps_of(rows: Rows, data: Data) -> tuple[Rows, Data]:
    """Return ``rows`` and their ``data`` [N, ...], without the slots to bootstrap from on the CPU, as is on a GPU."""
    if rows.start is None:
        return rows, data
    steps, index = rows.steps()
    return steps, {name: value.index_select(0, index) for name, value in data.items()}


def whole(rows: Rows, data: Data, begin: Tensor | None) -> Minibatch:
    """Return a minibatch of all rows of ``data`` [N, ...]; ``begin`` [M, n, H] is in the order of the rows."""
    actor, critic = ({name: data[name] for name in names if name in data} for names in (ACTOR, CRITIC))
    return Minibatch(rows, begin, actor, critic)


def condensed(rows: Rows, data: Data, begin: Tensor | None, agent: RecurrentAgent, critic: Critic) -> Minibatch:
    """Return a minibatch without the rows that do not contribute to the loss, where ``agent`` and ``critic`` allow it;
    arguments as for ``whole``.

    A shared actor without memory reads the steps in ``played``; a recurrent one reads each agent's steps up to the last
    of these, as a separate sequence. A critic that is applied to each agent reads the agents' steps in ``filled``, the
    identical inputs of the dead only once; other critics read the rows with any such step.
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
    """Return the rows in ``mask``, bool [N], or bool [N, n] of rows flattened to [N n, ...]; uncopied if all are."""
    flat = {name: value.flatten(0, mask.dim() - 1) for name, value in data.items()}
    if bool(mask.all()):
        return flat
    index = mask.flatten().nonzero()[:, 0]
    return {name: value.index_select(0, index) for name, value in flat.items()}


def distinct(seen: Tensor, dead: Tensor, agent: Tensor) -> tuple[Tensor, Tensor]:
    """Drop from ``seen`` [K, I] the rows of ``dead`` agents, bool [K], that equal the first row in which the same
    ``agent``, long [K], was dead: all of them in battles, where the dead see nothing. Return the rest [K', I], and
    which of them each row has, long [K]."""
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
    none are left out. CPU only.

    Returns the sequences as ``Rows``, the longest first, the numbers of their rows among all N n, long [K], and the
    numbers of their agents among the M n of the pieces, in the order of ``rows``, long [S].
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
