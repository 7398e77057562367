"""``LaneGame``: the ``VectorEnv`` interface around a game's kernels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs.base import refuse_unavailable
from envs.kernels.harm import LOT
from envs.kernels.lanes import Kernels, find_unavailable, seed_lanes
from envs.kernels.rollout import Arrays, Book
from marl.core.rolling import Choice, Harm, Span
from marl.core.types import EnvSpec, Obs, Step


def copies(given: dict[str, Tensor], kept: dict[str, Tensor]) -> tuple[Arrays, np.ndarray, Arrays]:
    """Pair each tensor of ``given`` [B, ...] with its copy's target, ``kept`` [M, T+1, ...] of the same name if there
    is one, as ``copy_slot`` takes them. Each lane of ``given`` must be contiguous."""
    memory, places, rows = [], [], []
    for name, tensor in given.items():
        assert tensor[0].is_contiguous(), name
        memory.append(torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage()).numpy())
        places.append((tensor.storage_offset() * tensor.itemsize, tensor.stride(0) * tensor.itemsize))
        field = kept.get(name, torch.zeros(0, 0, 0))
        rows.append(field.view(*field.shape[:2], math.prod(field.shape[2:])).numpy().view(np.uint8))
    return tuple(memory), np.array(places, np.int64), tuple(rows)


def as_given(given: dict[str, Tensor], data: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the fields of ``data`` [M, T+1, ...] that ``given`` [B, ...] fills; zeros where dtype or shape differs."""
    found = {}
    for name in given.keys() & data.keys():
        one, field = given[name], data[name]
        same = field.dtype == one.dtype and field.shape[2:] == one.shape[1:]
        found[name] = field if same else torch.zeros(*field.shape[:2], *one.shape[1:], dtype=one.dtype)
    return found


class LaneGame:
    """The ``VectorEnv`` interface around a game's kernels.

    ``rules`` is a NamedTuple of what the kernels only read, ``board`` one of arrays whose first dimension is the lane,
    among them ``lanes``, records with (at least) the fields of ``LANE``. ``out`` is one with (at least) the arrays of
    ``allocate_outputs``. ``info`` names the arrays that the game adds to ``Step.info``; "won" is always there.
    """

    device = torch.device("cpu")
    resumable = True
    vouched = True  # kernels write into tensors of the right types and shapes: nothing to check at every step

    def __init__(
        self, spec: EnvSpec, rules: Any, kernels: Kernels, board: Any, out: Any, info: dict[str, np.ndarray],
        n_envs: int, seed: int,
    ) -> None:  # fmt: skip
        self.spec, self.n_envs = spec, n_envs
        self._rules, self._kernels, self._board, self._out = rules, kernels, board, out
        self._obs = Obs(*(torch.from_numpy(array) for array in (out.obs, out.state, out.avail, out.alive)))
        self._reward = torch.from_numpy(out.reward)
        self._terminated, self._truncated = torch.from_numpy(out.terminated), torch.from_numpy(out.truncated)
        self._info = {"won": torch.from_numpy(out.won), **{name: torch.from_numpy(a) for name, a in info.items()}}
        self._everywhere = np.ones(n_envs, np.bool_)
        self._started = False
        board.lanes["finished"] = 1
        seed_lanes(board.lanes, seed)

    def reset(self, seed: int | None = None, mask: Tensor | None = None) -> Obs:
        """Restart all lanes, or those of ``mask`` bool [B]; a seed restarts their random streams. Raise ValueError for
        a mask of another type or shape."""
        where = self._everywhere if mask is None else np.ascontiguousarray(mask.cpu().numpy())
        if where.shape != (self.n_envs,) or where.dtype != np.bool_:
            raise ValueError(f"mask is {where.dtype} {list(where.shape)}, expected bool [{self.n_envs}]")
        self._started = True
        word = np.uint64(int(seed or 0) % 2**64)
        self._kernels.reset(self._rules, self._board, self._out, where, word, seed is not None)
        return self._obs

    def redraw(self, seed: int) -> None:
        """Use the random streams of ``seed`` for the rest of the episodes that ``reset`` has begun."""
        seed_lanes(self._board.lanes, seed)
        self._dealt = self._board.lanes["rng"].copy()

    def has_drawn(self) -> bool:
        """Return whether any lane has drawn a random number since ``redraw``."""
        return bool((self._board.lanes["rng"] != self._dealt).any())

    def step(self, actions: Tensor) -> Step:
        """Play the joint actions long [B, n]. Raise ValueError, naming the first that is not available."""
        if not self._started:
            raise RuntimeError("reset() the game before the first step()")
        given = np.ascontiguousarray(actions.detach().cpu().numpy())
        if given.shape != (self.n_envs, self.spec.n_agents) or given.dtype != np.int64:
            expected = f"int64 [{self.n_envs}, {self.spec.n_agents}]"
            raise ValueError(f"actions are {given.dtype} {list(given.shape)}, expected {expected}")
        if find_unavailable(self._board.lanes, self._out.avail, given) >= 0:
            running = torch.from_numpy(self._board.lanes["finished"] == 0)
            refuse_unavailable(actions.cpu(), self._obs.avail, running, self.spec.action_names)
        self._kernels.step(self._rules, self._board, self._out, given)
        return Step(self._obs, self._reward, self._terminated, self._truncated, dict(self._info))

    @property
    def rolls(self) -> bool:
        """Return whether ``rollout`` plays as ``reset`` and ``step`` do: no subclass overrides them."""
        return type(self).step is LaneGame.step and type(self).reset is LaneGame.reset

    def rollout(
        self, network: Any, choice: Choice, harm: Harm, attacked: Tensor, harm_seed: np.uint64, span: Span,
        data: dict[str, Tensor],
    ) -> Tensor:  # fmt: skip
        """Play on in the lanes of ``span``, fill the fields ``data`` and return whose episodes ended (``Rolling``)."""
        B, n = self.n_envs, self.spec.n_agents
        arrays = {name: data[name].numpy() for name in Book._fields if name in data}
        arrays.setdefault("hit", np.zeros((0, 0, n), np.bool_))
        seen = vars(self._obs)
        done = {"reward": self._reward, "terminated": self._terminated}
        done |= {name: self._info[name] for name in self.spec.info_names}
        steps = as_given(done, data)
        lots, actions = np.zeros((B, 2), LOT), np.zeros((B, n), np.int64)
        self._kernels.rollout(
            self._rules, self._board, self._out, network, choice, harm, attacked.numpy(), harm_seed, lots, actions,
            span, Book(**arrays), *copies(seen, data), *copies(done, steps),
        )  # fmt: skip
        rows = torch.from_numpy(span.row[span.limit > 0])
        for name, kept in steps.items():
            if kept is not data[name]:
                data[name][rows] = kept[rows].to(data[name].dtype)
        return torch.from_numpy(self._board.lanes["finished"] != 0)

    def state_dict(self) -> dict[str, Any]:
        """Return the lanes' random streams; between episodes nothing else needs to be saved."""
        return {"rng": torch.from_numpy(self._board.lanes["rng"].view(np.int64).copy())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from saved streams; every lane must be reset next."""
        if len(state["rng"]) != self.n_envs:
            raise ValueError(f"saved with {len(state['rng'])} lanes, this environment has {self.n_envs}")
        self._board.lanes["rng"] = state["rng"].numpy().view(np.uint64)
        self._board.lanes["finished"] = 1
        self._started = True

    def midway_state(self) -> dict[str, Any]:
        """Return the complete state of the unfinished games, as bytes."""
        return {part: {name: torch.from_numpy(np.frombuffer(array.tobytes(), np.uint8).copy())
                       for name, array in getattr(self, f"_{part}")._asdict().items()}
                for part in ("board", "out")}  # fmt: skip

    def load_midway_state(self, state: dict[str, Any]) -> Obs:
        """Restore saved games; return what their agents see."""
        for part, saved in state.items():
            for name, array in getattr(self, f"_{part}")._asdict().items():
                if array.nbytes != len(saved[name]):
                    raise ValueError(
                        f"the saved games do not fit: {name} has {len(saved[name])} bytes, not {array.nbytes}"
                    )
                array[...] = np.frombuffer(saved[name].numpy().tobytes(), array.dtype).reshape(array.shape)
        self._started = True
        return self._obs

    def close(self) -> None:
        """Do nothing: the game holds only memory."""
