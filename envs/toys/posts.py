"""Posts: a team is rewarded for every step in which both posts are held, no matter by which agents.

The toy task for IBAL (``docs/ibal.md``): a convention in which certain agents hold certain posts earns the full return
but breaks when one of them is missing; agents that watch each other can step in.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from envs.base import refuse_unavailable
from envs.streams import LaneStreams
from envs.toys.midway import Midway
from marl.core.checks import require_at_least, require_within
from marl.core.types import EnvSpec, Obs, Step

IDLE, A, B = range(3)  # where an agent is
PLACES = ("idle", "at A", "at B")
STAY, GO_A, GO_B, GO_IDLE = range(4)
TARGET = torch.tensor([-1, A, B, IDLE])  # place that each action leads to; -1: unchanged


class Posts(Midway):
    """``n_agents`` start idle and move in one step to post A, to post B or back. Reward 1 per step iff both are held.

    Observations [n + 3 + 3 (n-1) + noise]: own index and own place (one-hots); for every other agent in increasing
    index, whether it is present, at A, at B; and ``noise`` meaningless numbers, uniform in [-1, 1]. State [4 n]: places
    of all (one-hots), who is present. In every episode ``absent_agents`` agents, chosen at random, are missing: dead,
    idle, and seen as a block of zeros by the others. The clock (``episode_limit``) truncates; ``won``: at least the
    fraction ``goal`` of the episode's steps was rewarded.
    """

    device = torch.device("cpu")
    resumable = True
    in_hand = ("place", "missing", "time", "paid", "running", "over")

    def __init__(
        self,
        n_agents: int,
        noise: int,
        goal: float,
        absent_agents: int,
        episode_limit: int,
        *,
        n_envs: int,
        seed: int = 0,
    ) -> None:
        require_at_least("", 2, n_agents=n_agents)
        require_at_least("", 0, noise=noise)
        require_at_least("", 1, episode_limit=episode_limit, n_envs=n_envs)
        require_within("", 0, 1, ends="(]", goal=goal)
        require_within("", 0, n_agents - 1, absent_agents=absent_agents)
        self.n_envs, self.noise, self.goal, self.absent = n_envs, noise, goal, absent_agents
        self.spec = _spec(n_agents, noise, episode_limit)
        self.streams = LaneStreams(n_envs, seed)
        self.others = torch.tensor([[j for j in range(n_agents) if j != i] for i in range(n_agents)])
        self.place = torch.zeros(n_envs, n_agents, dtype=torch.long)
        self.missing = torch.zeros(n_envs, n_agents, dtype=torch.bool)
        self.time = torch.zeros(n_envs, dtype=torch.long)
        self.paid = torch.zeros(n_envs)
        self.running = torch.zeros(n_envs, dtype=torch.bool)
        self.over = torch.zeros(n_envs, dtype=torch.bool)  # was finished before the last step

    def reset(self, seed: int | None = None, mask: Tensor | None = None) -> Obs:
        mask = torch.ones(self.n_envs, dtype=torch.bool) if mask is None else mask
        self.streams.restart(mask.numpy(), seed)
        lots = self.streams.draw(np.arange(-self.spec.n_agents, 0)[:, None])  # counters that the noise does not use
        self.missing[mask] = torch.from_numpy(lots.argsort(0).argsort(0).T < self.absent)[mask]
        self.place[mask], self.time[mask], self.paid[mask] = IDLE, 0, 0.0
        self.running[mask], self.over[mask] = True, False
        return self._observe()

    def redraw(self, seed: int) -> None:
        """Draw the noise of the remaining steps from another random stream."""
        self.streams.redraw(seed)

    def has_drawn(self) -> bool:
        return self.noise > 0

    def step(self, actions: Tensor) -> Step:
        refuse_unavailable(actions, self._avail(), self.running, self.spec.action_names)
        was_running = self.running
        target = TARGET[actions.long() * was_running[:, None]]  # agents of finished lanes stay
        self.place = torch.where(target >= 0, target, self.place)
        held = (self.place == A).any(1) & (self.place == B).any(1)
        reward = (held & was_running).float()
        self.time += was_running
        self.paid += reward
        truncated = was_running & (self.time == self.spec.episode_limit)
        self.running, self.over = was_running & ~truncated, ~was_running
        won = truncated & (self.paid >= self.goal * self.spec.episode_limit - 1e-6)
        return Step(self._observe(), reward, torch.zeros_like(truncated), truncated, {"won": won})

    def _avail(self) -> Tensor:
        """Return bool [B, n, A]: all actions, except that missing agents and those of finished lanes may only idle."""
        there = ~self.missing & ~self.over[:, None]
        return there[..., None] | (torch.arange(4) == GO_IDLE)

    def _observe(self) -> Obs:
        n, there = self.spec.n_agents, ~self.missing
        place = torch.nn.functional.one_hot(self.place, 3).float()  # [B, n, 3]
        seen = torch.cat([there[..., None].float(), place[..., 1:]], -1) * there[..., None]
        others = seen[:, self.others].flatten(2)  # [B, n, 3(n-1)]
        ids = torch.eye(n).expand(self.n_envs, -1, -1)
        obs = torch.cat([ids, place, others, self._noise()], -1) * there[..., None]
        state = torch.cat([place.flatten(1), there.float()], 1)
        return Obs(obs, state, self._avail(), there & ~self.over[:, None])

    def _noise(self) -> Tensor:
        """Sample f32 [B, n, noise], uniform in [-1, 1], afresh in every step."""
        size = self.spec.n_agents * self.noise
        counters = self.time.numpy() * size + np.arange(size)[:, None]  # [size, B]
        unit = (self.streams.draw(counters) >> np.uint64(40)).astype(np.float32) / 2**24
        return torch.from_numpy(2 * unit.T - 1).reshape(self.n_envs, self.spec.n_agents, self.noise)

    def render(self, lane: int = 0) -> np.ndarray:
        """Draw a row per agent with columns idle, A and B, missing agents in grey, and the paid steps so far below."""
        size, n = 32, self.spec.n_agents
        image = Image.new("RGB", (size * 3, size * (n + 1)), "white")
        pen = ImageDraw.Draw(image)
        for agent, x in product(range(n), range(3)):
            left, top = size * x, size * agent
            pen.rectangle((left, top, left + size - 1, top + size - 1), outline="black", fill="khaki" if x else None)
            if x == self.place[lane, agent]:
                colour = "gray" if self.missing[lane, agent] else "royalblue"
                pen.ellipse((left + 6, top + 6, left + size - 7, top + size - 7), fill=colour)
        pen.text((6, size * n + 10), f"{int(self.paid[lane])} / {int(self.time[lane])}", fill="black")
        return np.array(image)

    def state_dict(self) -> dict[str, Any]:
        return self.streams.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.streams.load_state_dict(state)
        self.running.fill_(False)

    def close(self) -> None:
        return None


def _spec(n: int, noise: int, episode_limit: int) -> EnvSpec:
    agents, width = range(n), n + 3 + 3 * (n - 1) + noise
    about = torch.zeros(n, n, width, dtype=torch.bool)
    for i in agents:
        about[i, i, : n + 3] = True
        for slot, j in enumerate(k for k in agents if k != i):
            about[i, j, n + 3 + 3 * slot : n + 6 + 3 * slot] = True
    low = torch.zeros(width)
    low[width - noise :] = -1.0
    places = (f"agent {i} {where}" for i in agents for where in PLACES)
    others = (f"other {k} {what}" for k in range(n - 1) for what in ("there", *PLACES[1:]))
    return EnvSpec(
        n, 4, width, 4 * n, episode_limit, low, torch.ones(width),
        noop_action=GO_IDLE, idle_action=GO_IDLE, about=about,
        obs_names=(*(f"am agent {i}" for i in agents), *PLACES, *others, *(f"noise {k}" for k in range(noise))),
        state_names=(*places, *(f"agent {i} there" for i in agents)),
        action_names=("stay", "go to A", "go to B", "go idle"),
    )  # fmt: skip
