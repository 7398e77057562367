"""Small pieces that several tests share: specs, random batches, configurations."""

from __future__ import annotations

import functools
import logging
import pickle
import runpy
import sys
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from marl.core.protocols import NoAttack, View
from marl.core.types import Clock, EnvSpec, EpisodeBatch, core_fields
from marl.learn.agents import RecurrentAgent
from marl.learn.learner import ValueLearner
from marl.learn.mixers import Mixer
from marl.learn.policy import random_available
from marl.run import checkpoint
from marl.run.collect import empty_batch
from marl.run.compose import register_configs
from marl.run.metrics import read_rows
from marl.run.trainer import fit

LEARNER: dict[str, Any] = {
    "lr": 0.01, "optimizer": "adam", "optimizer_eps": 1e-5, "gamma": 0.9, "td_lambda": 0.6, "double_q": True,
    "grad_clip": 10.0, "target_every": 10, "tau": None, "act_on": "intended", "last_action": "intended",
}  # fmt: skip
AGENT: dict[str, Any] = {"hidden_dim": 16, "share_parameters": True, "last_action": True, "agent_id": True}


def make_spec(n: int = 3, A: int = 5, O: int = 7, S: int = 6, limit: int = 9) -> EnvSpec:  # noqa: E741
    return EnvSpec(n, A, O, S, limit, torch.full((O,), -10.0), torch.full((O,), 10.0))


def make_agent(spec: EnvSpec, **changes: Any) -> RecurrentAgent:
    return RecurrentAgent(spec, **{**AGENT, **changes})


def make_learner(spec: EnvSpec, mixer: Mixer, hooks: list[Any] | None = None, **changes: Any) -> ValueLearner:
    return ValueLearner(spec, make_agent(spec), mixer, hooks or [], **{**LEARNER, **changes})


def clock_after(episodes: int) -> Clock:
    """Return the clock after one collection of ``episodes`` episodes."""
    clock = Clock()
    clock.count(episodes, 0)
    return clock


def random_batch(spec: EnvSpec, episodes: int, seed: int = 0) -> EpisodeBatch:
    """Make ragged episodes; half terminate, half are truncated; some actions are unavailable; padding is zero."""
    gen = torch.Generator().manual_seed(seed)
    T, n, A = spec.episode_limit, spec.n_agents, spec.n_actions
    batch = empty_batch(core_fields(spec), episodes, T, torch.device("cpu"))
    length = torch.randint(1, T + 1, (episodes,), generator=gen)
    slots = torch.arange(T + 1)
    filled = slots < length[:, None]
    seen = slots <= length[:, None]
    data = batch.data
    data["obs"] = torch.randn(episodes, T + 1, n, spec.obs_dim, generator=gen) * seen[..., None, None]
    data["state"] = torch.randn(episodes, T + 1, spec.state_dim, generator=gen) * seen[..., None]
    avail = torch.rand(episodes, T + 1, n, A, generator=gen) < 0.7
    avail[..., 0] = True
    data["avail"] = avail & seen[..., None, None]
    data["alive"] = seen[..., None].expand(-1, -1, n).clone()
    noise = torch.rand(avail.shape, generator=gen).masked_fill(~avail, -1.0)
    data["actions"] = (noise.argmax(-1) * filled[..., None]).to(torch.int16)
    data["intended"] = data["actions"].clone()
    data["reward"] = torch.randn(episodes, T + 1, generator=gen) * filled
    ends = torch.arange(episodes) % 2 == 0
    data["terminated"] = (slots == length[:, None] - 1) & ends[:, None]
    data["filled"] = filled
    data["length"] = length.to(torch.int32)
    return batch


@functools.lru_cache(maxsize=256)
def _composed(config: str, overrides: tuple[str, ...]) -> tuple[bytes, Any]:
    """Return a configuration without Hydra's part, pickled, and Hydra's part."""
    register_configs()
    with initialize_config_module("conf", version_base="1.3"):
        cfg = compose(config, overrides=[*overrides, "runs_dir=/nowhere"], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        path = cfg.run_path
        del cfg["hydra"]
        cfg.run_path = path
    return pickle.dumps(cfg), HydraConfig.instance().cfg


def compose_train(runs_dir: Path, *overrides: str, config: str = "train") -> DictConfig:
    """Return the configuration of a command line, with its run folder below ``runs_dir``. Composed once, then copied:
    composing takes most of the time of many tests."""
    pickled, hydra = _composed(config, (*overrides, "log.progress=off"))
    cfg: DictConfig = pickle.loads(pickled)
    cfg.runs_dir = str(runs_dir)
    HydraConfig.instance().cfg = hydra
    hydra.hydra._set_parent(cfg)  # as set_config does
    return cfg


TINY = (
    "env=toy/corridor", "train.total_steps=400", "train.n_envs=8", "eval.every=200", "eval.episodes=8",
    "eval.final_episodes=8", "eval.n_envs=8", "log.every=100", "checkpoint.every=200", "replay.capacity=64",
    "algo.batch_size=8", "algo.warmup_episodes=4", "algo.episodes_per_update=4", "algo.epsilon.steps=300",
    "agent@algo.agent=gru", "algo.agent.hidden_dim=16", "algo.learner.target_every=20", "algo.learner.tau=null",
    "log.to=[]",
)  # fmt: skip


def run_dir(cfg: DictConfig) -> Path:
    return Path(cfg.runs_dir) / cfg.run_path


def train(folder: Path, *overrides: str) -> dict[str, Any]:
    """Train a tiny run (``TINY``, then ``overrides``) in ``folder``; return the final test results."""
    return fit(compose_train(folder.parent, *TINY, *overrides), folder)


def newest_state(folder: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return everything that the newest checkpoint of a run holds: (state, replay)."""
    found = checkpoint.newest(folder / "checkpoints")
    assert found is not None, f"{folder} has no whole checkpoint"
    return checkpoint.load_state(found[0]), checkpoint.load_replay(found[0])


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Return the paths at which two trees of tensors and builtins differ, bit by bit; nan equals nan."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [d for key in a for d in differences(a[key], b[key], f"{where}/{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{where}/{i}")]
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
        return [] if same else [where]
    return [] if type(a) is type(b) and a == b else [where]


def rows(folder: Path, file: str) -> list[dict[str, Any]]:
    """Return the rows of ``metrics.jsonl`` or ``eval.jsonl`` without what the wall clock says."""
    return [
        {key: value for key, value in row.items() if not key.startswith("time/") or key == "time/lane_use"}
        for row in read_rows(folder / f"{file}.jsonl")
    ]


def command(script: str, *arguments: str) -> None:
    """Run ``python -m scripts.<script> <arguments>`` in this process; raise what it raises, SystemExit included."""
    root = logging.getLogger()
    handlers, level, argv = root.handlers[:], root.level, sys.argv
    sys.argv = [f"scripts/{script}.py", *arguments]
    try:
        runpy.run_module(f"scripts.{script}", run_name="__main__")
    finally:
        sys.argv = argv
        for handler in set(root.handlers) - set(handlers):
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)


class Bystander(NoAttack):
    """Draws from the attack's stream at every step and changes nothing."""

    def begin(self, n_envs: int, victim: Any, gen: torch.Generator) -> None:
        self.gen = gen

    def perturb_obs(self, view: View) -> torch.Tensor:
        torch.rand(3, generator=self.gen)
        return view.obs.obs


class Restless(Bystander):
    """Makes everybody play at random: whatever was learnt, episodes differ."""

    def perturb_actions(self, view: View, intended: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        drawn = random_available(view.obs.avail, self.gen)
        return torch.where(view.active[:, None], drawn, intended), {}
