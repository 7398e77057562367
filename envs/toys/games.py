"""Three games small enough to solve by hand: a one-step matrix game, a chain of matrix games, and a corridor.

They serve tests and first experiments. All lanes advance together in a few tensor operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from envs.base import refuse_unavailable
from envs.streams import LaneStreams
from envs.toys.midway import Midway, Settled
from marl.core.checks import require_at_least, require_within
from marl.core.types import ConfigError, EnvSpec, Obs, Step

PAYOFFS: dict[str, list[list[float]]] = {
    "nonmonotonic": [[8, -12, -12], [-12, 0, 0], [-12, 0, 0]],  # Son et al. 2019: QMIX and VDN cannot represent it
    "climb": [[11, -30, 0], [-30, 7, 6], [0, 0, 5]],  # Claus and Boutilier 1998: the optimum is next to the worst
    "monotonic": [[0, 1], [1, 8]],  # second stage of Rashid et al. 2018: QMIX can represent it, VDN cannot
    "additive": [[0, 1, 2], [2, 3, 4], [4, 5, 6]],  # 2 a_0 + a_1: every mixer can represent it
    "diagonal": [[1.0, 0.0, 0.0], [0.0, 0.9, 0.0], [0.0, 0.0, 0.8]],  # several local optima
}


def read_payoff(payoff: str | Sequence[Any]) -> Tensor:
    """Return an f32 tensor with one axis per agent, from a name in ``PAYOFFS`` or nested lists. Raise ConfigError."""
    if isinstance(payoff, str):
        if payoff not in PAYOFFS:
            raise ConfigError(f"payoff '{payoff}' is unknown; choose one of {', '.join(PAYOFFS)} or give nested lists")
        payoff = PAYOFFS[payoff]
    try:
        table = torch.from_numpy(np.array(payoff, dtype=np.float32))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"payoff must be nested lists of numbers with equal lengths, got {payoff}") from error
    if table.dim() < 2 or table.numel() == 0:
        raise ConfigError(f"payoff needs one non-empty axis per agent, at least two; it has shape {list(table.shape)}")
    return table


class KStepMatrixGame(Settled, Midway):
    """A chain of ``steps`` matrix games; joint action ``advance`` leads to the next stage, any other ends the episode.

    Stages before the last pay ``payoff``, the last one pays ``final`` and always ends the episode; both have one axis
    per agent and the same shape. An axis shorter than the longest leaves that agent's surplus actions unavailable.
    Observations and state are the one-hot stage. ``won``: the episode's return was the best possible.
    """

    device = torch.device("cpu")
    resumable = True
    in_hand: ClassVar[tuple[str, ...]] = ("stage", "returns", "running", "over")

    def __init__(
        self,
        payoff: str | Sequence[Any],
        final: str | Sequence[Any],
        advance: Sequence[int],
        steps: int,
        *,
        n_envs: int,
        seed: int = 0,
    ) -> None:
        del seed  # nothing is random here
        first, last = read_payoff(payoff), read_payoff(final)
        if first.shape != last.shape:
            raise ConfigError(f"payoff has shape {list(first.shape)} but final has {list(last.shape)}")
        require_at_least("", 1, steps=steps, n_envs=n_envs)
        sizes = tuple(first.shape)
        if len(advance) != len(sizes) or any(not 0 <= a < size for a, size in zip(advance, sizes, strict=True)):
            raise ConfigError(f"advance must name one action for each of {len(sizes)} agents, got {list(advance)}")
        n, A = len(sizes), max(sizes)
        self.n_envs, self.steps = n_envs, steps
        self.table = torch.stack([first] * (steps - 1) + [last]).flatten(1)  # [steps, A**n]; tests may change it
        self.strides = torch.tensor(first.stride())
        self.advance = int((torch.tensor(list(advance)) * self.strides).sum())
        stages = tuple(f"stage {k}" for k in range(steps))
        self.spec = EnvSpec(
            n, A, steps, steps, steps, torch.zeros(steps), torch.ones(steps),
            obs_names=stages, state_names=stages, action_names=tuple(f"action {a}" for a in range(A)),
        )  # fmt: skip
        self.legal = torch.arange(A) < torch.tensor(sizes)[:, None]  # [n, A]
        self.stage = torch.zeros(n_envs, dtype=torch.long)
        self.returns = torch.zeros(n_envs)
        self.running = torch.zeros(n_envs, dtype=torch.bool)
        self.over = torch.zeros(n_envs, dtype=torch.bool)  # was finished before the last step

    def best_return(self) -> float:
        """Return the largest undiscounted return, computed from the last stage backwards."""
        best = 0.0
        for row in self.table.flip(0):
            going_on = row[self.advance] + best
            best = float(torch.maximum(row.max(), going_on))
        return best

    def reset(self, seed: int | None = None, mask: Tensor | None = None) -> Obs:
        mask = torch.ones(self.n_envs, dtype=torch.bool) if mask is None else mask
        self.stage[mask], self.returns[mask], self.running[mask], self.over[mask] = 0, 0.0, True, False
        return self._observe()

    def step(self, actions: Tensor) -> Step:
        refuse_unavailable(actions, self.legal.expand(self.n_envs, -1, -1), self.running, self.spec.action_names)
        was_running, last = self.running.clone(), self.stage == self.steps - 1
        joint = (actions * self.strides).sum(1)  # [B]
        joint[~was_running] = 0
        reward = self.table[self.stage, joint] * was_running
        self.returns += reward
        ended = was_running & (last | (joint != self.advance))
        self.stage += was_running & ~ended
        self.running, self.over = was_running & ~ended, ~was_running
        won = ended & (self.returns >= self.best_return() - 1e-6)
        return Step(self._observe(), reward, ended, torch.zeros_like(ended), {"won": won})

    def _observe(self) -> Obs:
        n, alive = self.spec.n_agents, ~self.over
        state = torch.nn.functional.one_hot(self.stage, self.steps).float()  # [B, S]
        avail = self.legal.expand(self.n_envs, -1, -1).clone()
        return Obs(state[:, None].repeat(1, n, 1), state, avail, alive[:, None].repeat(1, n))

    def render(self, lane: int = 0) -> np.ndarray:
        """Draw the stages as a row of squares; the current one is filled, green once the episode is over."""
        image = Image.new("RGB", (48 * self.steps, 48), "white")
        pen = ImageDraw.Draw(image)
        for k in range(self.steps):
            colour = None if k != self.stage[lane] else "orange" if self.running[lane] else "green"
            pen.rectangle((48 * k + 4, 4, 48 * k + 43, 43), outline="black", fill=colour)
        pen.text((10, 18), f"{float(self.returns[lane]):.1f}", fill="black")
        return np.array(image)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.running.fill_(False)

    def close(self) -> None:
        return None


class MatrixGame(KStepMatrixGame):
    """One joint action, one payoff: the chain of length one. ``won``: the payoff was the largest one."""

    def __init__(self, payoff: str | Sequence[Any], *, n_envs: int, seed: int = 0) -> None:
        table = read_payoff(payoff).tolist()
        axes = np.array(table).ndim
        super().__init__(table, table, [0] * axes, 1, n_envs=n_envs, seed=seed)


class Corridor(Settled, Midway):
    """``n_agents`` walk a row of ``length`` cells and must press together at its right end.

    Agents start in cells 0..``spread``-1, sampled per lane and episode. When all agents press in the same step the
    episode is won and pays 1. An agent that presses without the others wastes the step, or dies if ``fatal``; a team
    with a death can no longer win, and the episode ends when nobody is alive. The clock (``episode_limit``) truncates.

    Observations [1 + 2 (n-1) + 1]: own cell, the others' cells and lives in increasing index, time; zeros once dead.
    State [2 n + 1]: cells, lives, time. Cells and time are scaled to 0..1.
    """

    STAY, LEFT, RIGHT, PRESS = range(4)
    device = torch.device("cpu")
    resumable = True
    in_hand: ClassVar[tuple[str, ...]] = ("cell", "lives", "time", "running", "over")

    def __init__(
        self, n_agents: int, length: int, spread: int, fatal: bool, episode_limit: int, *, n_envs: int, seed: int = 0
    ) -> None:
        require_at_least("", 1, n_agents=n_agents, episode_limit=episode_limit, n_envs=n_envs)
        require_at_least("", 2, length=length)
        require_within("", 1, length, note="the length", spread=spread)
        self.n_envs, self.length, self.spread, self.fatal = n_envs, length, spread, fatal
        self.spec = _corridor_spec(n_agents, episode_limit)
        self.streams = LaneStreams(n_envs, seed)
        self.others = torch.tensor([[j for j in range(n_agents) if j != i] for i in range(n_agents)], dtype=torch.long)
        self.cell = torch.zeros(n_envs, n_agents, dtype=torch.long)
        self.lives = torch.zeros(n_envs, n_agents, dtype=torch.bool)
        self.time = torch.zeros(n_envs, dtype=torch.long)
        self.running = torch.zeros(n_envs, dtype=torch.bool)
        self.over = torch.zeros(n_envs, dtype=torch.bool)  # was finished before the last step

    def reset(self, seed: int | None = None, mask: Tensor | None = None) -> Obs:
        mask = torch.ones(self.n_envs, dtype=torch.bool) if mask is None else mask
        self.streams.restart(mask.numpy(), seed)
        self.cell[mask] = torch.from_numpy(self.streams.integers(self.spread, self.spec.n_agents))[mask]
        self.lives[mask], self.time[mask], self.running[mask], self.over[mask] = True, 0, True, False
        return self._observe()

    def step(self, actions: Tensor) -> Step:
        refuse_unavailable(actions, self._avail(), self.running, self.spec.action_names)
        was_running = self.running
        acts = self.lives & was_running[:, None]  # [B, n]
        self.cell += ((actions == self.RIGHT).long() - (actions == self.LEFT).long()) * acts
        press = (actions == self.PRESS) & acts
        won = press.all(1)
        if self.fatal:
            self.lives &= ~press | won[:, None]
        self.time += was_running
        terminated = was_running & (won | ~self.lives.any(1))
        truncated = was_running & ~terminated & (self.time == self.spec.episode_limit)
        self.running, self.over = was_running & ~terminated & ~truncated, ~was_running
        return Step(self._observe(), won.float(), terminated, truncated, {"won": won})

    def _avail(self) -> Tensor:
        """Return bool [B, n, A]: no walking through walls, pressing only at the end; dead and finished agents stay."""
        at_end = self.cell == self.length - 1
        moves = torch.stack([torch.ones_like(at_end), self.cell > 0, ~at_end, at_end], 2)
        moves[..., 1:] &= (self.lives & ~self.over[:, None])[..., None]
        return moves

    def _observe(self) -> Obs:
        n, lives = self.spec.n_agents, self.lives.float()
        cell = self.cell / (self.length - 1)  # [B, n]
        time = (self.time / self.spec.episode_limit)[:, None]  # [B, 1]
        seen = torch.stack([cell * lives, lives], 2)[:, self.others].flatten(2)  # [B, n, 2(n-1)]
        obs = torch.cat([cell[..., None], seen, time[:, None].expand(-1, n, -1)], 2) * lives[..., None]  # [B, n, O]
        state = torch.cat([cell * lives, lives, time], 1)
        return Obs(obs, state, self._avail(), self.lives & ~self.over[:, None])

    def render(self, lane: int = 0) -> np.ndarray:
        """Draw one row of cells per agent: living agents blue, dead ones grey, the end cell yellow."""
        size, n = 24, self.spec.n_agents
        image = Image.new("RGB", (size * self.length, size * n), "white")
        pen = ImageDraw.Draw(image)
        for agent, x in product(range(n), range(self.length)):
            left, top = size * x, size * agent
            floor = "khaki" if x == self.length - 1 else None
            pen.rectangle((left, top, left + size - 1, top + size - 1), outline="black", fill=floor)
            if x == self.cell[lane, agent]:
                colour = "royalblue" if self.lives[lane, agent] else "gray"
                pen.ellipse((left + 4, top + 4, left + size - 5, top + size - 5), fill=colour)
        return np.array(image)

    def agent_places(self, lane: int = 0) -> np.ndarray:
        """Return centres and radii in the picture, f64 [n, 3]."""
        size, n = 24, self.spec.n_agents
        cells = self.cell[lane].numpy()
        return np.stack([size * cells + 11.5, size * np.arange(n) + 11.5, np.full(n, 7.5)], 1)

    def state_dict(self) -> dict[str, Any]:
        return self.streams.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.streams.load_state_dict(state)
        self.running.fill_(False)

    def close(self) -> None:
        return None


def _corridor_spec(n: int, episode_limit: int) -> EnvSpec:
    agents, width = range(n), 2 * n
    about = torch.zeros(n, n, width, dtype=torch.bool)
    for i in agents:
        about[i, i, 0] = True
        for slot, j in enumerate(k for k in agents if k != i):
            about[i, j, 1 + 2 * slot : 3 + 2 * slot] = True
    return EnvSpec(
        n, 4, width, 2 * n + 1, episode_limit, torch.zeros(width), torch.ones(width),
        noop_action=Corridor.STAY, idle_action=Corridor.STAY, about=about,
        obs_names=("own cell", *(f"other {k} {what}" for k in range(n - 1) for what in ("cell", "alive")), "time"),
        state_names=(*(f"agent {i} cell" for i in agents), *(f"agent {i} alive" for i in agents), "time"),
        action_names=("stay", "left", "right", "press"),
    )  # fmt: skip
