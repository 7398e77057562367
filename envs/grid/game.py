"""What the small grid games share: the board and its picture.

A game is a module with the rules of one lane, the kernels built from them and a spec (``pushbox``, ``spread``,
``staghunt``, ``foraging``, ``mds``). A game whose lanes hold more than cells is a ``LaneGame`` with records of its own
(``overcooked``, ``skirmish``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from envs.kernels.compiled import rule
from envs.kernels.game import LaneGame
from envs.kernels.lanes import LANE, Kernels, Outputs, allocate_outputs, begin_episode
from marl.core.checks import require_at_least
from marl.core.types import ConfigError, EnvSpec, Obs

STAY = 0
DX = (0, 1, -1, 0, 0)  # of the first five actions
DY = (0, 0, 0, 1, -1)
MOVES = ("stay", "+x", "-x", "+y", "-y")
CELL_PIXELS = 24


class Board(NamedTuple):
    """The entities of all lanes: the agents first, then everything else on the grid."""

    lanes: np.ndarray  # LANE [B]
    cell: np.ndarray  # int64 [B, E, 2]; x and y
    present: np.ndarray  # bool [B, E]
    before: np.ndarray  # int64 [B, E, 2]; the cells before the step, for games that need them
    mark: np.ndarray  # int64 [B, E]; scratch, one number per entity


# --- compiled --------------------------------------------------------------------------------------------------------


@rule
def begin_lane(board: Board, out: Outputs, seed: np.uint64, reseed: bool, b: int) -> None:
    """Begin the next episode of lane ``b``: everybody present and alive, time 0. The game places them."""
    begin_episode(board.lanes[b], out, seed, reseed, b)
    board.present[b] = True


@rule
def remember_cells(board: Board, b: int) -> None:
    """Copy the cells of lane ``b`` to ``before``; assigning a slice would allocate."""
    for e in range(board.cell.shape[1]):
        board.before[b, e, 0] = board.cell[b, e, 0]
        board.before[b, e, 1] = board.cell[b, e, 1]


# --- outside the kernels ---------------------------------------------------------------------------------------------


class GridGame(LaneGame):
    """A game of entities on the cells of a square grid; ``events`` names the columns that it adds to ``Step.info``."""

    def __init__(
        self, spec: EnvSpec, rules: Any, kernels: Kernels, size: int, entities: int, events: Sequence[str],
        n_envs: int, seed: int,
    ) -> None:  # fmt: skip
        require_at_least("", 1, n_envs=n_envs)
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
        out = Outputs(**allocate_outputs(spec, n_envs), events=happened)
        super().__init__(spec, rules, kernels, board, out, info, n_envs, seed)

    def cells(self, lane: int = 0) -> list[tuple[int, int] | None]:
        """Return the cells of a lane's entities, agents first; None for those that are gone."""
        where, present = self._board.cell[lane].tolist(), self._board.present[lane].tolist()
        return [(x, y) if here else None for (x, y), here in zip(where, present, strict=True)]

    def place(self, cells: Sequence[Sequence[int]], lane: int = 0) -> Obs:
        """Put all entities of a running lane on these cells, agents first, and recompute the observations."""
        where = np.array(cells)
        if where.shape != self._board.cell[lane].shape or where.min() < 0 or where.max() >= self.size:
            room = f"{len(self._board.cell[lane])} cells with coordinates in 0..{self.size - 1}"
            raise ConfigError(f"cells {where.tolist()} do not fit: the game has {room}")
        self._board.cell[lane], self._board.present[lane] = where, True
        self._kernels.observe(self._rules, self._board, self._out, lane)
        return self._obs

    def render(self, lane: int = 0) -> np.ndarray:
        """Draw a lane, uint8 [height, width, 3]: agents are discs, everything else squares; y points down."""
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
