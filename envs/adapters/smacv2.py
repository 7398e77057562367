"""The original SMACv2 (Ellis et al. 2023) on StarCraft II as lanes of the process pool.

Needs the smacv2 package, the game and its maps; the constructor says what is missing. The package draws scenarios
from unseeded generators, which are reseeded here in every episode. The game engine itself cannot be saved or replayed.
"""

from __future__ import annotations

import importlib
import os
import random
import sys
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from envs.adapters.worker import GameSpec, Outcome, View

if TYPE_CHECKING:
    from envs.adapters.pool import Pool


def SMACv2(
    map_name: str,
    capability_config: dict[str, Any],
    options: dict[str, Any],
    timeout_is_terminal: bool,
    workers: int | None,
    timeout: float | None = 300.0,
    *,
    n_envs: int,
    seed: int = 0,
) -> Pool:
    """Make ``n_envs`` StarCraft II games; ``workers`` None: a process for every lane, since each waits for its game.

    ``capability_config`` (team and position samplers) and ``options`` are passed to the package's
    ``StarCraftCapabilityEnvWrapper`` unchanged, except ``seed`` (per lane) and ``continuing_episode`` (how the
    package marks time-outs). A time-out is ``truncated`` unless ``timeout_is_terminal``, the published setting.
    A game that is silent for ``timeout`` seconds counts as dead; None waits for ever.
    Observations are within [-1, 1] unless ``options.fully_observable``. Raises ConfigError when something is missing.
    """
    from envs.adapters.pool import Pool  # not above: workers import this module and must not pay for torch

    require_starcraft()
    make = _MakeSMACv2(map_name, dict(capability_config), dict(options), timeout_is_terminal)
    return Pool(make, n_envs=n_envs, seed=seed, workers=workers or n_envs, resumable=False, timeout=timeout)


def require_starcraft() -> None:
    """Raise a ConfigError that says what to install, and where, if package, game or maps are missing."""
    from envs.adapters.pool import require_package
    from marl.core.types import ConfigError

    require_package("smacv2")
    if "SC2PATH" not in os.environ and sys.platform != "linux":
        return  # the installer's default folder, which the package finds
    game = Path(os.environ.get("SC2PATH", "~/StarCraftII")).expanduser()
    if not (game / "Versions").is_dir():
        raise ConfigError(
            f"StarCraft II is not at {game}: unpack Blizzard's Linux package 4.10 (linked from the README of "
            "github.com/Blizzard/s2client-proto) to ~/StarCraftII, or set SC2PATH to where it is"
        )
    if not any((game / "Maps").rglob("*.SC2Map")):
        raise ConfigError(
            f"no maps under {game / 'Maps'}: copy the folder smacv2/env/starcraft2/maps/SMAC_Maps of "
            f"github.com/oxwhirl/smacv2 to {game / 'Maps' / 'SMAC_Maps'}"
        )


@dataclass
class _MakeSMACv2:
    """Picklable constructor call of ``SMACv2Game``."""

    map_name: str
    capability_config: dict[str, Any]
    options: dict[str, Any]
    timeout_is_terminal: bool

    def __call__(self) -> SMACv2Game:
        return SMACv2Game(self, self.timeout_is_terminal)

    def env(self, seed: int) -> Any:
        package = importlib.import_module("smacv2.env.starcraft2.wrapper")
        return package.StarCraftCapabilityEnvWrapper(
            map_name=self.map_name,
            capability_config=deepcopy(self.capability_config),  # the package writes into it
            seed=seed,
            **{**self.options, "continuing_episode": True},
        )


class SMACv2Game:
    """One lane; implements ``envs.adapters.worker.Game``."""

    def __init__(self, make: _MakeSMACv2, timeout_is_terminal: bool) -> None:
        self.make, self.timeout_is_terminal = make, timeout_is_terminal
        self.env, self.launched = make.env(0), False
        info = self.env.get_env_info()
        n, width, state_dim = info["n_agents"], info["obs_shape"], info["state_shape"]
        bound = np.full(width, np.inf if make.options.get("fully_observable") else 1.0, np.float32)
        obs_names, state_names = self.env.get_obs_feature_names(), self.env.get_state_feature_names()
        self.spec = GameSpec(
            n, info["n_actions"], width, state_dim, info["episode_limit"], -bound, bound,
            noop_action=0,
            idle_action=1,  # stop
            about=_about(self.env, n, width),
            obs_names=tuple(obs_names) if len(obs_names) == width else (),
            state_names=tuple(state_names) if len(state_names) == state_dim else (),
            action_names=_action_names(info["n_actions"], getattr(self.env, "n_fov_actions", 0)),
        )  # fmt: skip

    def reset(self, seed: int, view: View) -> None:
        if not self.launched:  # the engine's seed is read when the game starts, at the first reset
            self.env.close()
            self.env, self.launched = self.make.env(seed), True
        random.seed(seed)
        for i, sampler in enumerate(self.env.env_key_to_distribution_map.values()):
            reseed(sampler, np.random.SeedSequence([seed, i]))
        observations, state = self.env.reset()
        self._write(view, observations, state)

    def step(self, actions: np.ndarray, view: View) -> Outcome:
        reward, ended, info = self.env.step(actions.tolist())
        self._write(view, self.env.get_obs(), self.env.get_state())
        crashed = ended and "battle_won" not in info  # the package restarted the game, so nobody lost
        timeout = ended and bool(info.get("episode_limit", False))
        truncated = crashed or (timeout and not self.timeout_is_terminal)
        return Outcome(float(reward), ended and not truncated, truncated, bool(info.get("battle_won", False)))

    def render(self) -> None:
        return None  # the package only draws to a window

    def close(self) -> None:
        self.env.close()

    def _write(self, view: View, observations: list[Any], state: Any) -> None:
        for i, observation in enumerate(observations):
            mask = self.env.get_avail_agent_actions(i)
            view.obs[i] = observation
            # Releases with the option action_mask=False return the true availability as a second list.
            view.avail[i] = np.asarray(mask[0] if isinstance(mask, tuple) else mask, bool)
        view.alive[:] = ~view.avail[:, 0]  # only the dead may play the no-op
        view.state[:] = state


def reseed(sampler: Any, sequence: np.random.SeedSequence) -> None:
    """Replace every numpy generator inside a scenario sampler, and inside the samplers that it holds."""
    for name, value in sorted(vars(sampler).items()):
        if isinstance(value, np.random.Generator):
            setattr(sampler, name, np.random.default_rng(sequence.spawn(1)[0]))
        elif hasattr(value, "generate"):
            reseed(value, sequence.spawn(1)[0])


def _action_names(n_actions: int, n_look: int) -> tuple[str, ...]:
    first = ["no-op", "stop", "north", "south", "east", "west", *(f"look {f}" for f in range(n_look))]
    return (*first, *(f"target {j}" for j in range(n_actions - len(first))))


def _about(env: Any, n: int, width: int) -> np.ndarray:
    """Return bool [n, n, O] from the block sizes: movement, enemies, other agents in increasing index, own, time."""
    move, (n_allies, ally_width) = env.get_obs_move_feats_size(), env.get_obs_ally_feats_size()
    allies = move + int(np.prod(env.get_obs_enemy_feats_size()))
    own = allies + n_allies * ally_width
    about = np.zeros((n, n, width), bool)
    for i in range(n):
        about[i, i, :move] = about[i, i, own : own + env.get_obs_own_feats_size()] = True
        for slot, j in enumerate(j for j in range(n) if j != i):
            about[i, j, allies + slot * ally_width : allies + (slot + 1) * ally_width] = True
    return about
