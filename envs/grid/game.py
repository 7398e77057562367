"""What the small grid games share: records, the beginning and the end of a step, and the calls of ``VectorEnv``.

A game is a pair of compiled kernels over all lanes and a spec (``pushbox``, ``spread``, ``staghunt``, ``mds``); one
whose lanes hold more than cells is a ``LaneGame`` with records of its own (``overcooked``). A lane touches only its own
rows and its own random stream, so results depend neither on threads nor on the number of lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from envs.base import refuse_unavailable
from envs.kernels import compiled, rng
from envs.kernels.compiled import rule
from envs.kernels.rng import seed_lane
from envs.skirmish.battle import find_unavailable, seed_lanes
from envs.skirmish.records import Record
from marl.core.types import ConfigError, EnvSpec, Obs, Step

STAY = 0
DX = (0, 1, -1, 0, 0)  # of the first five actions
DY = (0, 0, 0, 1, -1)
MOVES = ("stay", "+x", "-x", "+y", "-y")
SOURCES = [Path(module.__file__ or "") for module in (compiled, rng)] + [Path(__file__)]
LANE = np.dtype([("rng", np.uint64), ("t", np.int64), ("finished", np.int64)])
CELL_PIXELS = 24


class Board(NamedTuple):
    """All lanes. Entities are the agents, then what else there is on the grid."""

    lanes: np.ndarray  # LANE [B]
    cell: np.ndarray  # int64 [B, E, 2]; x and y
    present: np.ndarray  # bool [B, E]
    before: np.ndarray  # int64 [B, E, 2]; room for the cells as they were
    mark: np.ndarray  # int64 [B, E]; room for one number per entity


class Outputs(NamedTuple):
    """What the kernels write and the tensors of ``Obs`` and ``Step`` share."""

    obs: np.ndarray  # f32 [B, n, O]
    state: np.ndarray  # f32 [B, S]
    avail: np.ndarray  # bool [B, n, A]
    alive: np.ndarray  # bool [B, n]
    reward: np.ndarray  # f32 [B]
    terminated: np.ndarray  # bool [B]
    truncated: np.ndarray  # bool [B]
    won: np.ndarray  # bool [B]
    events: np.ndarray  # int64 [B, K]; the game's own columns of Step.info (overcooked: bool [B, n, K])


# --- compiled --------------------------------------------------------------------------------------------------------


@rule
def begin_episode(lane: Record, out: Outputs, seed: np.uint64, reseed: bool, b: int) -> None:
    """The next episode of lane ``b``, whose record is ``lane``: everybody alive, time 0."""
    if reseed:
        seed_lane(lane, seed, b)
    lane.t = 0
    lane.finished = 0
    out.alive[b] = True
    out.events[b] = 0


@rule
def begin_lane(board: Board, out: Outputs, seed: np.uint64, reseed: bool, b: int) -> None:
    """The next episode of lane ``b``: everybody present and alive, time 0. The game places them."""
    begin_episode(board.lanes[b], out, seed, reseed, b)
    board.present[b] = True


@rule
def rests(lane: Record, out: Outputs, b: int) -> bool:
    """Clear the results of lane ``b``'s last step; True, and nobody is alive, if its episode had ended."""
    out.reward[b] = 0.0
    out.terminated[b] = False
    out.truncated[b] = False
    out.won[b] = False
    if lane.finished:
        out.alive[b] = False
        return True
    lane.t += 1
    return False


@rule
def remember_cells(board: Board, b: int) -> None:
    """Copy the cells of lane ``b`` to ``before``; a slice's assignment would allocate."""
    for e in range(board.cell.shape[1]):
        board.before[b, e, 0] = board.cell[b, e, 0]
        board.before[b, e, 1] = board.cell[b, e, 1]


@rule
def end_step(lane: Record, out: Outputs, over: bool, won: bool, limit: int, b: int) -> None:
    """The flags of a step: ``over`` terminates, otherwise the clock truncates."""
    out.won[b] = won
    out.terminated[b] = over
    out.truncated[b] = not over and lane.t >= limit
    lane.finished = over or lane.t >= limit


# --- outside the kernels ---------------------------------------------------------------------------------------------


class Kernels(NamedTuple):
    """A game's compiled functions; all begin with (rules, board, outputs)."""

    reset: Callable[..., None]  # mask bool [B], seed uint64, reseed bool
    step: Callable[..., None]  # actions int64 [B, n], available
    observe: Callable[..., None]  # lane


class LaneGame:
    """The calls of ``VectorEnv`` around a game's kernels.

    ``rules`` is a NamedTuple of numbers that the kernels read, ``board`` one of arrays that lead with the lane, with
    ``lanes`` among them; ``events`` is the array of ``Outputs``, ``info`` what the game adds to ``Step.info``.
    """

    device = torch.device("cpu")
    resumable = True

    def __init__(
        self, spec: EnvSpec, rules: Any, kernels: Kernels, board: Any, events: np.ndarray, info: dict[str, np.ndarray],
        n_envs: int, seed: int,
    ) -> None:  # fmt: skip
        require_at_least(1, n_envs=n_envs)
        self.spec, self.n_envs = spec, n_envs
        self._rules, self._kernels, self._board = rules, kernels, board
        B, n = n_envs, spec.n_agents
        self._board.lanes["finished"] = 1
        self._out = Outputs(
            obs=np.zeros((B, n, spec.obs_dim), np.float32),
            state=np.zeros((B, spec.state_dim), np.float32),
            avail=np.ones((B, n, spec.n_actions), np.bool_),
            alive=np.zeros((B, n), np.bool_),
            reward=np.zeros(B, np.float32),
            terminated=np.zeros(B, np.bool_),
            truncated=np.zeros(B, np.bool_),
            won=np.zeros(B, np.bool_),
            events=events,
        )
        shared = {name: torch.from_numpy(array) for name, array in self._out._asdict().items()}
        self._obs = Obs(*(shared[name] for name in ("obs", "state", "avail", "alive")))
        self._flags = tuple(shared[name] for name in ("reward", "terminated", "truncated"))
        self._info = {"won": shared["won"], **{name: torch.from_numpy(array) for name, array in info.items()}}
        self._everywhere = np.ones(B, np.bool_)
        self._started = False
        seed_lanes(self._board.lanes, np.uint64(seed % 2**64))

    def reset(self, seed: int | None = None, mask: Tensor | None = None) -> Obs:
        """Restart all lanes, or those where ``mask`` bool [B]; a seed begins their random streams anew."""
        self._started = True
        where = self._everywhere if mask is None else mask.cpu().numpy()
        word = np.uint64((seed or 0) % 2**64)
        self._kernels.reset(self._rules, self._board, self._out, where, word, seed is not None)
        return self._obs

    def step(self, actions: Tensor) -> Step:
        """Joint actions long [B, n]. ValueError names the first that is not available."""
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
        return Step(self._obs, *self._flags, dict(self._info))

    def state_dict(self) -> dict[str, Any]:
        """The lanes' random streams: all there is to save at an episode's edge."""
        return {"rng": torch.from_numpy(self._board.lanes["rng"].view(np.int64).copy())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from saved streams; every lane must be reset next."""
        if len(state["rng"]) != self.n_envs:
            raise ValueError(f"saved with {len(state['rng'])} lanes, this environment has {self.n_envs}")
        self._board.lanes["rng"] = state["rng"].numpy().view(np.uint64)
        self._board.lanes["finished"] = 1
        self._started = True

    def close(self) -> None:
        return None


class GridGame(LaneGame):
    """A game of entities on the cells of a square grid; ``events`` names the columns that it adds to ``Step.info``."""

    def __init__(
        self, spec: EnvSpec, rules: Any, kernels: Kernels, size: int, entities: int, events: Sequence[str],
        n_envs: int, seed: int,
    ) -> None:  # fmt: skip
        require_at_least(1, n_envs=n_envs)
        self.size = size
        board = Board(
            lanes=np.zeros(n_envs, LANE),
            cell=np.zeros((n_envs, entities, 2), np.int64),
            present=np.zeros((n_envs, entities), np.bool_),
            before=np.zeros((n_envs, entities, 2), np.int64),
            mark=np.zeros((n_envs, entities), np.int64),
        )
        happened = np.zeros((n_envs, len(events)), np.int64)
        info = {name: happened[:, k] for k, name in enumerate(events)}
        super().__init__(spec, rules, kernels, board, happened, info, n_envs, seed)

    def cells(self, lane: int = 0) -> list[tuple[int, int] | None]:
        """Where the entities of a lane are, agents first; None for those that are gone."""
        where, present = self._board.cell[lane].tolist(), self._board.present[lane].tolist()
        return [(x, y) if here else None for (x, y), here in zip(where, present, strict=True)]

    def place(self, cells: Sequence[Sequence[int]], lane: int = 0) -> Obs:
        """Put all entities of a running lane on these cells, agents first, and recompute what is seen."""
        where = np.array(cells)
        if where.shape != self._board.cell[lane].shape or where.min() < 0 or where.max() >= self.size:
            room = f"{len(self._board.cell[lane])} cells with coordinates in 0..{self.size - 1}"
            raise ConfigError(f"cells {where.tolist()} do not fit: the game has {room}")
        self._board.cell[lane], self._board.present[lane] = where, True
        self._kernels.observe(self._rules, self._board, self._out, lane)
        return self._obs

    def render(self, lane: int = 0) -> np.ndarray:
        """Picture of a lane, uint8 [height, width, 3]: agents are discs, everything else squares; y points down."""
        side = CELL_PIXELS
        image = Image.new("RGB", (side * self.size + 1, side * self.size + 1), "white")
        pen = ImageDraw.Draw(image)
        for line in range(0, side * self.size + 1, side):
            pen.line((line, 0, line, side * self.size), fill="lightgray")
            pen.line((0, line, side * self.size, line), fill="lightgray")
        for index, cell in reversed(list(enumerate(self.cells(lane)))):
            if cell is not None:
                box = (cell[0] * side + 3, cell[1] * side + 3, cell[0] * side + side - 3, cell[1] * side + side - 3)
                if index < self.spec.n_agents:
                    pen.ellipse(box, fill="royalblue", outline="black")
                else:
                    pen.rectangle(box, fill="peru", outline="black")
        return np.array(image)


def require_at_least(least: int, **values: float) -> None:
    """Refuse what is smaller; ConfigError names the first."""
    for name, value in values.items():
        if value < least:
            raise ConfigError(f"{name} must be at least {least}, got {value}")


def require_share(**values: float) -> None:
    """Refuse what is no probability; ConfigError names the first."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ConfigError(f"{name} must lie in 0..1, got {value}")
