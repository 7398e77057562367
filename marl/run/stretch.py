"""Collect stretches of a fixed number of steps from every lane (``train.rollout``), without waiting for whole episodes.

An episode that is in hand at the end of a stretch goes on in the next. What is returned are pieces of episodes: each
row of a batch is one, with a slot more to bootstrap from, so that flags and masks mean what they mean for whole ones.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from marl.core.protocols import Algorithm, Attack, NoAttack, Policy, VectorEnv
from marl.core.types import Carry, ConfigError, EpisodeBatch, Field, Obs, Step
from marl.run.collect import empty_batch
from marl.run.incoming import Incoming


@runtime_checkable
class Pausing(Protocol):
    """A game whose episodes in hand can be saved and restored."""

    def midway_state(self) -> dict[str, Any]: ...

    def load_midway_state(self, state: dict[str, Any]) -> Obs: ...  # what agents see


def require_pieces(rollout: int | None, algo: Algorithm, attack: Attack) -> None:
    """Raise ConfigError where stretches are asked for and the algorithm, or the attack, needs whole episodes."""
    if rollout is None:
        return
    if not getattr(algo, "takes_pieces", False):
        raise ConfigError(
            f"train.rollout={rollout} collects parts of episodes; {type(algo).__name__} learns from whole ones: use "
            "algo=ippo or algo=mappo, or train.rollout=null"
        )
    if type(attack) is not NoAttack:
        raise ConfigError(
            f"train.rollout={rollout}: {type(attack).__name__} begins its episodes in all lanes at once, and stretches "
            "do not; use train.rollout=null"
        )


def begin_fields(carry: Carry) -> dict[str, Field]:
    """Return the fields that hold what a policy remembers before a piece."""
    return {f"begin_{name}": Field(tuple(value.shape[1:]), value.dtype, "episode") for name, value in carry.items()}


class Stretches:
    """Collects ``steps`` steps per lane at a time; ``ended`` holds the results of the episodes that the newest stretch
    has ended: ``return``, ``length`` and ``won``, each [K]. ``fields`` are those of the run."""

    def __init__(self, env: VectorEnv, fields: dict[str, Field], steps: int, device: torch.device) -> None:
        self.env, self.fields, self.steps, self.device = env, fields, steps, device
        self.incoming = Incoming(env)
        self.now: Obs | None = None
        self.pieces: Pieces | None = None  # the newest; the next stretch uses their memory
        self.carry: Carry = {}
        self.totals = {"return": torch.zeros(env.n_envs), "length": torch.zeros(env.n_envs, dtype=torch.long),
                       "won": torch.zeros(env.n_envs, dtype=torch.bool)}  # fmt: skip
        self.ended: dict[str, Tensor] = {}

    def collect(self, policy: Policy, gen: Generator) -> EpisodeBatch:
        """Play a stretch with exploration; return its pieces, those of a lane in order of time where all lanes' first
        ones come first. Pieces of games that have died are left out."""
        env, B = self.env, self.env.n_envs
        if self.now is None:
            self.now, self.carry = env.reset(), policy.begin(B, gen)
            self.incoming.observation(0, self.now)
        if self.pieces is None:
            self.pieces = Pieces(self.fields | begin_fields(self.carry), B, self.steps, env.device)
        pieces = self.pieces
        pieces.clear()
        pieces.begin(torch.arange(B, device=env.device), self.now, self.carry)
        fresh = policy.begin(B, gen)
        ended: list[dict[str, Tensor]] = []
        for t in range(self.steps):
            actions, carry, extras = policy.act(self.now.to(self.device), self.carry, explore=True, gen=gen)
            self.carry = policy.after(carry, actions, actions)
            chosen = actions.to(env.device)
            step = env.step(chosen)
            self.incoming.step(t, step)
            pieces.add(step, {"actions": chosen, "intended": chosen, **extras})
            over, lost = step.terminated | step.truncated, step.info.get("lost")
            self.now = step.next
            self._tally(step)
            if lost is not None and lost.any():
                pieces.drop(lost)
                over = over | lost
            if over.any():
                done = over if lost is None else over & ~lost
                ended.append({name: value[done] for name, value in self.totals.items()})
                for value in self.totals.values():
                    value[over] = 0
                self.now = env.reset(mask=over)
                self.incoming.observation(0, self.now)
                where = over.to(self.device)
                for name, value in self.carry.items():
                    self.carry[name] = torch.where(where.view(-1, *[1] * (value.dim() - 1)), fresh[name], value)
                if t + 1 < self.steps:
                    pieces.begin(over.nonzero()[:, 0], self.now, self.carry)
        self.ended = {
            name: torch.cat([one[name] for one in ended] or [value[:0]]) for name, value in self.totals.items()
        }
        return pieces.batch()

    @property
    def pausing(self) -> bool:
        """Return whether the episodes in hand can be saved."""
        return isinstance(self.env, Pausing)

    def _tally(self, step: Step) -> None:
        self.totals["return"] += step.reward.cpu()
        self.totals["length"] += 1
        self.totals["won"] |= step.info["won"].cpu()

    def state_dict(self) -> dict[str, Any] | None:
        """Return the episodes in hand; None before the first stretch, or where the game cannot be saved in the middle
        of episodes."""
        if self.now is None or not isinstance(self.env, Pausing):
            return None
        return {"game": self.env.midway_state(), "carry": dict(self.carry), "totals": dict(self.totals)}

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Go on with the episodes that were in hand; begin new ones where they were not saved."""
        if state is None or not isinstance(self.env, Pausing):
            return
        self.now = self.env.load_midway_state(state["game"])
        self.carry = {name: value.to(self.device) for name, value in state["carry"].items()}
        self.totals = {name: value.clone() for name, value in state["totals"].items()}


class Pieces:
    """Pieces of episodes under construction: room for ``steps`` + 1 slots each, which doubles when it is full."""

    def __init__(self, fields: dict[str, Field], lanes: int, steps: int, device: torch.device) -> None:
        self.fields, self.steps, self.device = fields, steps, device
        self.data = empty_batch(fields, lanes, steps, device).data
        self.used = 0
        self.place = torch.zeros(lanes, dtype=torch.long, device=device)  # each lane's present piece,
        self.at = torch.zeros(lanes, dtype=torch.long, device=device)  # and its slot in there
        self.bad: list[Tensor] = []  # numbers of pieces that are none

    def clear(self) -> None:
        """Begin anew in the same memory."""
        for value in self.data.values():
            value[: self.used] = 0
        self.used, self.bad = 0, []

    def begin(self, lanes: Tensor, now: Obs, carry: Carry) -> None:
        """Begin a piece in each of ``lanes`` long [K]."""
        count, room = len(lanes), len(self.data["filled"])
        if self.used + count > room:
            more = empty_batch(self.fields, max(room, count), self.steps, self.device).data
            self.data = {name: torch.cat([value, more[name]]) for name, value in self.data.items()}
        new = torch.arange(self.used, self.used + count, device=self.device)
        self.used += count
        self.place[lanes], self.at[lanes] = new, 0
        self._observe(lanes, now)
        for name, value in carry.items():
            self.data[f"begin_{name}"][new] = value.to(self.device)[lanes]

    def _observe(self, lanes: Tensor, now: Obs) -> None:
        where = (self.place[lanes], self.at[lanes])
        for name in ("obs", "state", "avail", "alive"):
            self.data[name][where] = getattr(now, name)[lanes]

    def add(self, step: Step, values: dict[str, Tensor]) -> None:
        """Store a step of every lane and the observation after it."""
        where = (self.place, self.at)
        values = {**step.info, **values, "reward": step.reward, "terminated": step.terminated}
        for name, value in values.items():
            if name in self.fields and self.fields[name].per == "step":
                self.data[name][where] = value.to(self.device, self.fields[name].dtype)
            elif name in self.fields and name != "won":
                self.data[name][self.place] = value.to(self.device, self.fields[name].dtype)
        self.data["filled"][where] = True
        self.data["won"][self.place] |= step.info["won"]
        self.at += 1
        self.data["length"][self.place] = self.at.to(torch.int32)
        self._observe(torch.arange(len(self.place), device=self.device), step.next)

    def drop(self, lanes: Tensor) -> None:
        """Leave out the present pieces of ``lanes`` bool [B]."""
        self.bad.append(self.place[lanes])

    def batch(self) -> EpisodeBatch:
        """Return what was collected."""
        whole = EpisodeBatch({name: value[: self.used] for name, value in self.data.items()}, self.fields)
        if not self.bad:
            return whole
        good = torch.ones(self.used, dtype=torch.bool, device=self.device)
        good[torch.cat(self.bad)] = False
        return whole.lanes(good)
