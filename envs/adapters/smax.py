"""SMAX, the battle game of the ``jaxmarl`` package, as the yardstick that ``scripts.bench`` measures next to ours.

Random actions, no learning. Every measurement runs in its own process, ``python -m envs.adapters.smax MAP LANES THREADS
SECONDS``: XLA reads once per process how many threads it may use, and its memory should not count as ours. Only that
process imports JAX.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
OURS = "envs.skirmish.Skirmish"
MAPS = ("3m", "8m", "25m", "2s3z", "3s5z", "5m_vs_6m", "10m_vs_11m", "27m_vs_30m", "3s5z_vs_3s6z", "3s_vs_5z",
        "6h_vs_8z")  # fmt: skip
STEPS_PER_CALL = 2048  # of all lanes: dispatching a compiled call then costs next to nothing


class Smax:
    """SMAX on the scenario of the same name as our ``map``; see ``marl.core.protocols.Yardstick``."""

    name = "SMAX"

    def __init__(self, map: str) -> None:
        self.map = map

    def absent(self) -> str | None:
        """Return why it cannot be measured: it is not installed, or has no such scenario. None: it can."""
        if self.map not in MAPS:
            return f"has no scenario {self.map}; it has {', '.join(MAPS)}"
        if importlib.util.find_spec("jaxmarl") is None:
            return "install with pip install -e .[smax]"
        return None

    def measure(self, lanes: int, threads: int, seconds: float) -> tuple[float, float, float]:
        """Return (steps of all lanes, wall seconds, CPU seconds). Raise RuntimeError with the last line of stderr if
        the process fails."""
        command = [sys.executable, "-m", "envs.adapters.smax", self.map, str(lanes), str(threads), str(seconds)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise RuntimeError(f"{' '.join(command[1:])} failed: {last}")
        measured = json.loads(done.stdout.splitlines()[-1])  # the package prints on import
        return measured["steps"], measured["wall"], measured["cpu"]


def beside(env: Mapping[str, Any]) -> Smax | None:
    """Return the yardstick of the environment with the configuration ``env``; None if SMAX has no counterpart."""
    return Smax(env["map"]) if env.get("_target_") == OURS else None


def use_threads(threads: int) -> None:
    """Limit this process to ``threads`` CPUs by XLA's flags, the size of its thread pool, and CPU affinity."""
    several = "true" if threads > 1 else "false"
    os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={several} intra_op_parallelism_threads={threads}"
    os.environ["NPROC"] = str(threads)
    os.environ["JAX_PLATFORMS"] = "cpu"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def play(name: str, lanes: int, seconds: float) -> dict[str, float]:
    """Measure steps of ``lanes`` lanes with the heuristic enemy; lanes restart on their own, as in the package.

    A step is what the package's ``step`` computes (observations, world state, reward), and the available actions.
    Actions are chosen uniformly with noise that is sampled outside the measured time, which excludes compilation too.
    Whole stretches of steps are one compiled call.
    """
    import jax
    import jax.numpy as jnp
    from jaxmarl import make
    from jaxmarl.environments.smax import map_name_to_scenario

    env = make("HeuristicEnemySMAX", scenario=map_name_to_scenario(name))
    length = max(16, STEPS_PER_CALL // lanes)
    shape = (length, lanes, env.num_agents, env.num_ally_actions)

    def step(now: tuple, draws: tuple) -> tuple[tuple, None]:
        state, (noise, keys) = now[0], draws  # noise [B, n, A]
        masks = jax.vmap(env.get_avail_actions)(state)
        avail = jnp.stack([masks[agent] for agent in env.agents], 1)  # [B, n, A]
        chosen = jnp.where(avail > 0, noise, -1.0).argmax(2)
        actions = {agent: chosen[:, i] for i, agent in enumerate(env.agents)}
        obs, state, reward, done, _ = jax.vmap(env.step)(keys, state, actions)
        return (state, obs, reward, done), None  # carried and returned whole, so that XLA drops none of it

    @jax.jit
    def stretch(now: tuple, draws: tuple) -> tuple:
        return jax.lax.scan(step, now, draws)[0]

    @jax.jit
    def draw(key: jax.Array) -> tuple:
        of_noise, of_steps = jax.random.split(key)
        return jax.random.uniform(of_noise, shape), jax.random.split(of_steps, (length, lanes))

    key = jax.random.key(0)
    obs, state = jax.jit(jax.vmap(env.reset))(jax.random.split(key, lanes))
    first = jax.tree.map(lambda draws: draws[0], draw(key))
    now, _ = jax.jit(step)((state, obs), first)
    steps, wall, cpu, warm_up = 0, 0.0, 0.0, 2
    while wall < seconds:
        key, fresh = jax.random.split(key)
        draws = jax.block_until_ready(draw(fresh))
        wall_before, cpu_before = time.perf_counter(), time.process_time()
        now = jax.block_until_ready(stretch(now, draws))
        if warm_up:
            warm_up -= 1
            continue
        wall += time.perf_counter() - wall_before
        cpu += time.process_time() - cpu_before
        steps += lanes * length
    return {"steps": steps, "wall": wall, "cpu": cpu}


if __name__ == "__main__":
    scenario, lanes, threads, seconds = sys.argv[1:]
    use_threads(int(threads))
    print(json.dumps(play(scenario, int(lanes), float(seconds))))
