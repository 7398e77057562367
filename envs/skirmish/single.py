"""One battle for other frameworks: a PettingZoo ``ParallelEnv``, and a Gymnasium environment with joint actions.

    env = parallel_env("3m")                          # every agent sees {"observation", "action_mask"}
    env = gymnasium.make("skirmish/3m-v0")            # observation [n, O], action [n]; info has "avail" and "state"

Options are those of ``Skirmish``. Dead agents stay until the battle ends and have only the no-op, action 0.
With ``render_mode="human"`` a window shows the battle (``pip install -e .[window]``); closing the window does not
end the battle.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from pettingzoo import ParallelEnv

from envs.skirmish.env import RENDER_FPS, Skirmish
from marl.core.types import ConfigError, Obs
from marl.show.window import load_pygame

NOOP, STOP = 0, 1
RENDER_MODES = ["human", "rgb_array"]


def _box(low: Any, high: Any) -> spaces.Box:
    return spaces.Box(np.asarray(low, np.float32), np.asarray(high, np.float32), dtype=np.float32)


def _state_box(battle: Skirmish) -> spaces.Box:
    """Return an unbounded box: states lie in [-1, 1] except for cooldowns, which may exceed their published norm."""
    return _box(np.full(battle.spec.state_dim, -np.inf), np.full(battle.spec.state_dim, np.inf))


def _entropy() -> int:
    """Return a random seed from the operating system."""
    return int(np.random.SeedSequence().generate_state(1, np.uint64)[0] >> 1)


def _check_render_mode(mode: str | None) -> None:
    if mode not in (None, *RENDER_MODES):
        raise ConfigError(f"render_mode '{mode}' is unknown; choose {', '.join(RENDER_MODES)} or None")
    if mode == "human":
        load_pygame()


def _render(battle: Skirmish, mode: str | None) -> np.ndarray | None:
    """Return the picture for ``rgb_array``; for ``human`` show it in the window, which reset and step also update."""
    if mode == "human":
        battle.render_window(0)
    return battle.render(0) if mode == "rgb_array" else None


def _allowed(battle: Skirmish, joint: torch.Tensor) -> torch.Tensor:
    """Return ``joint`` long [1, n] with unavailable actions replaced by stop, or by the no-op for the dead."""
    avail = battle.observe().avail
    idle = torch.where(avail[..., NOOP], NOOP, STOP)
    return torch.where(avail.gather(2, joint[..., None]).squeeze(2), joint, idle)


class SkirmishParallel(ParallelEnv):
    """Agents ``agent_0`` ...; all get the team's reward. An action outside an agent's mask raises ValueError.

    ``replace_unavailable``: it becomes stop (no-op for the dead) instead, for frameworks that ignore masks.
    """

    metadata = {  # noqa: RUF012
        "name": "skirmish_v0",
        "render_modes": RENDER_MODES,
        "render_fps": RENDER_FPS,
        "is_parallelizable": True,
    }

    def __init__(
        self, map: str, render_mode: str | None = None, replace_unavailable: bool = False, **options: Any
    ) -> None:
        _check_render_mode(render_mode)
        self.battle = Skirmish(map, 1, **options)
        self.unseeded = "seed" not in options
        self.render_mode, self.replace_unavailable = render_mode, replace_unavailable
        spec = self.battle.spec
        self.possible_agents = [f"agent_{i}" for i in range(spec.n_agents)]
        self.agents: list[str] = []
        seen = spaces.Dict({
            "observation": _box(spec.obs_low, spec.obs_high),
            "action_mask": spaces.Box(0, 1, (spec.n_actions,), np.int8),
        })  # fmt: skip
        self.observation_spaces = {agent: seen for agent in self.possible_agents}
        self.action_spaces = {agent: spaces.Discrete(spec.n_actions) for agent in self.possible_agents}
        self.state_space = _state_box(self.battle)

    def observation_space(self, agent: str) -> spaces.Space:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space:
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Begin a battle; a seed restarts the random stream, as in a fresh environment with that seed. If none was
        given, the first battle takes one from the operating system, so that parallel environments differ."""
        self.agents = list(self.possible_agents)
        obs = self.battle.reset(_entropy() if seed is None and self.unseeded else seed)
        self.unseeded = False
        if self.render_mode == "human":
            self.render()
        return self._seen(obs), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, int]) -> tuple[dict, dict, dict, dict, dict]:
        joint = torch.tensor([[int(actions.get(agent, NOOP)) for agent in self.possible_agents]])
        step = self.battle.step(_allowed(self.battle, joint) if self.replace_unavailable else joint)
        if self.render_mode == "human":
            self.render()
        agents, reward = self.agents, float(step.reward[0])
        terminated, truncated = bool(step.terminated[0]), bool(step.truncated[0])
        info = {name: value[0].item() for name, value in step.info.items()}
        if terminated or truncated:
            self.agents = []
        return (
            self._seen(step.next),
            {agent: reward for agent in agents},
            {agent: terminated for agent in agents},
            {agent: truncated for agent in agents},
            {agent: dict(info) for agent in agents},
        )

    def _seen(self, obs: Obs) -> dict[str, dict[str, np.ndarray]]:
        """Return copies, because the battle overwrites its last observation with the next."""
        rows, masks = obs.obs[0].numpy().copy(), obs.avail[0].numpy().astype(np.int8)
        return {f"agent_{i}": {"observation": row, "action_mask": masks[i]} for i, row in enumerate(rows)}

    def state(self) -> np.ndarray:
        return self.battle.observe().state[0].numpy().copy()

    def capabilities(self) -> np.ndarray:
        """Return ``Skirmish.capabilities`` of the one battle, f32 [n * cap_size]."""
        return self.battle.capabilities()[0].numpy()

    def render(self) -> np.ndarray | None:
        return _render(self.battle, self.render_mode)

    def close(self) -> None:
        self.battle.close()


class SkirmishGym(gymnasium.Env):
    """The team as one agent; ``replace_unavailable`` as in ``SkirmishParallel``."""

    metadata = {"render_modes": RENDER_MODES, "render_fps": RENDER_FPS}  # noqa: RUF012

    def __init__(
        self, map: str, render_mode: str | None = None, replace_unavailable: bool = False, **options: Any
    ) -> None:
        _check_render_mode(render_mode)
        self.battle = Skirmish(map, 1, **options)
        self.unseeded = "seed" not in options
        self.render_mode, self.replace_unavailable = render_mode, replace_unavailable
        spec = self.battle.spec
        n = spec.n_agents
        self.observation_space = _box(spec.obs_low.expand(n, -1), spec.obs_high.expand(n, -1))
        self.action_space = spaces.MultiDiscrete(np.full(n, spec.n_actions))

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin a battle, with seeds as in ``SkirmishParallel.reset``."""
        super().reset(seed=seed)
        obs = self.battle.reset(_entropy() if seed is None and self.unseeded else seed)
        self.unseeded = False
        if self.render_mode == "human":
            self.render()
        return obs.obs[0].numpy().copy(), self._info(obs)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        joint = torch.as_tensor(np.asarray(action, np.int64))[None]  # [1, n]
        step = self.battle.step(_allowed(self.battle, joint) if self.replace_unavailable else joint)
        if self.render_mode == "human":
            self.render()
        info = self._info(step.next) | {name: value[0].item() for name, value in step.info.items()}
        flags = bool(step.terminated[0]), bool(step.truncated[0])
        return step.next.obs[0].numpy().copy(), float(step.reward[0]), *flags, info

    def _info(self, obs: Obs) -> dict[str, Any]:
        return {"avail": obs.avail[0].numpy().copy(), "state": obs.state[0].numpy().copy()}

    def render(self) -> np.ndarray | None:
        return _render(self.battle, self.render_mode)

    def close(self) -> None:
        self.battle.close()


def parallel_env(map: str, **options: Any) -> SkirmishParallel:
    """Build the PettingZoo environment of one battle on ``map``."""
    return SkirmishParallel(map, **options)
