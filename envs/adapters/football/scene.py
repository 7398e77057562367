"""One moment of a match, and what agents see of it.

Positions are the engine's: x from -1 (our goal) to 1 (theirs), y from -0.42 (top) to 0.42, the height of the ball in
metres. Directions are the displacements of a player or the ball per step. Observation and state are those of the code
of FoX and S2Q, for which agent ``i`` of ``n`` is the left team's player ``i - n``, counted from the end. The engine
does not follow this: the actions of agent ``i`` move the player that the engine has assigned to it, often another one.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

Who = Literal["last", "controlled"]
NORMAL = 0  # game mode: the ball is in play
# Bounds of observations; values beyond them are clipped. Players and ball may leave the pitch a little.
FAR_X, FAR_Y, HIGH, FAST = 1.2, 0.6, 30.0, 0.2


class Scene(NamedTuple):
    """What the engine reports after a step."""

    left: np.ndarray  # f64 [L, 4]: x, y, dx, dy of our players
    right: np.ndarray  # f64 [R, 4], of the others
    ball: np.ndarray  # f64 [6]: x, y, z, dx, dy, dz
    owner_team: int  # 0: left, 1: right, -1: nobody has the ball
    owner: int  # player of that team, -1: none
    controlled: tuple[int, ...]  # [n]: the left player that each agent's actions move, -1: none
    mode: int  # NORMAL, or a kick-off, a corner, ...
    goals: tuple[int, int]  # left, right
    step: int  # of the scenario's own clock


def read_scene(info: Any, n_agents: int) -> Scene:
    """Copy the engine's ``SharedInfo``, whose values change with the next step."""
    place, way = info.ball_position, info.ball_direction
    return Scene(
        _read_team(info.left_team), _read_team(info.right_team),
        np.array([place[0], place[1], place[2], way[0], way[1], way[2]]),
        info.ball_owned_team, info.ball_owned_player,
        tuple(info.left_controllers[i].controlled_player for i in range(n_agents)),
        int(info.game_mode), (info.left_goals, info.right_goals), info.step,
    )  # fmt: skip


def _read_team(players: Any) -> np.ndarray:
    return np.array([(p.position[0], p.position[1], p.direction[0], p.direction[1]) for p in players])


def find_agents(scene: Scene, n: int, who: Who) -> np.ndarray:
    """Return the rows of ``scene.left`` that are the agents, f64 [n, 4]: the last ones, or those that they control (for
    an agent that controls nobody, the one that it would be among the last)."""
    last = range(len(scene.left) - n, len(scene.left))
    if who == "last":
        return scene.left[last.start :]
    return scene.left[[own if own >= 0 else spare for own, spare in zip(scene.controlled, last, strict=True)]]


def width(n: int, m: int) -> int:
    """Return the size of observation and state for ``n`` agents and ``m`` opponents."""
    return 4 * n + 4 * m + 6


def write_observations(team: np.ndarray, scene: Scene, m: int, scale: float, out: np.ndarray) -> None:
    """Write the observations f32 [n, O] of the agents ``team`` [n, 4]: own position; the other agents' positions
    relative to it; own and their directions; the first ``m`` opponents' relative positions and directions; the ball's
    relative position, height and direction.

    Directions are multiplied by ``scale``.
    """
    others = scene.right[:m]
    for i in range(len(team)):
        here, rest = team[i, :2], np.delete(team, i, 0)
        out[i] = np.concatenate([
            here, (rest[:, :2] - here).ravel(), scale * team[i, 2:], scale * rest[:, 2:].ravel(),
            (others[:, :2] - here).ravel(), scale * others[:, 2:].ravel(),
            scene.ball[:2] - here, scene.ball[2:3], scale * scene.ball[3:],
        ])  # fmt: skip


def write_state(team: np.ndarray, scene: Scene, m: int, scale: float, out: np.ndarray) -> None:
    """Write the state f32 [S]: positions and directions of the agents ``team`` [n, 4], of the first ``m`` opponents and
    of the ball."""
    others = scene.right[:m]
    out[:] = np.concatenate([
        team[:, :2].ravel(), scale * team[:, 2:].ravel(), others[:, :2].ravel(), scale * others[:, 2:].ravel(),
        scene.ball[:3], scale * scene.ball[3:],
    ])  # fmt: skip


def obs_names(n: int, m: int) -> tuple[str, ...]:
    """Return the names of an observation's features; the others are numbered without the agent itself."""
    others, enemies = [f"other {k}" for k in range(n - 1)], [f"enemy {k}" for k in range(m)]
    return (
        *_pairs(["own"], "x y"), *_pairs(others, "x y"), *_pairs(["own"], "dx dy"), *_pairs(others, "dx dy"),
        *_pairs(enemies, "x y"), *_pairs(enemies, "dx dy"), *_pairs(["ball"], "x y z dx dy dz"),
    )  # fmt: skip


def state_names(n: int, m: int) -> tuple[str, ...]:
    """Return the names of the state's features."""
    allies, enemies = [f"ally {i}" for i in range(n)], [f"enemy {k}" for k in range(m)]
    return (
        *_pairs(allies, "x y"), *_pairs(allies, "dx dy"), *_pairs(enemies, "x y"), *_pairs(enemies, "dx dy"),
        *_pairs(["ball"], "x y z dx dy dz"),
    )  # fmt: skip


def _pairs(who: list[str], what: str) -> list[str]:
    return [f"{name} {axis}" for name in who for axis in what.split()]


def bounds(n: int, m: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and highest value of every observation feature, f32 [O] each."""
    reach = {"x": 2 * FAR_X, "y": 2 * FAR_Y, "z": HIGH, "dx": scale * FAST, "dy": scale * FAST, "dz": scale * HIGH}
    high = np.array([reach[name.split()[-1]] for name in obs_names(n, m)], np.float32)
    high[:2] = FAR_X, FAR_Y  # own position; all others are relative to it
    low = -high
    low[obs_names(n, m).index("ball z")] = -1.0
    return low, high


def about(n: int, m: int) -> np.ndarray:
    """Return bool [n, n, O]: feature ``o`` of agent ``i``'s observation describes agent ``j``."""
    subjects = [name.rsplit(" ", 1)[0] for name in obs_names(n, m)]
    found = np.zeros((n, n, width(n, m)), bool)
    for i in range(n):
        seen = {"own": i, **{f"other {k}": j for k, j in enumerate(j for j in range(n) if j != i)}}
        for o, subject in enumerate(subjects):
            if subject in seen:
                found[i, seen[subject], o] = True
    return found
