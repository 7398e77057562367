"""Benchmarks: environment (and another simulator of the same game next to it), rollout, the attack's own work, update,
whole training loop and where its time goes, memory. Each row is one dict."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from marl.core.checks import require_at_least, require_choice, require_positive
from marl.core.config import pick_device, resolved
from marl.core.protocols import Measured, VectorEnv, View, Yardstick, attacks_within
from marl.core.seeding import Streams
from marl.core.types import Clock
from marl.learn.policy import random_available
from marl.measure.shares import Shares, parts_of
from marl.run.build import call, factory, learns_from_newest, make_env, use_threads
from marl.run.rollout import compiled_form
from marl.run.trainer import Run, open_run

ROWS = ("env_random", "rollout", "attack", "update", "train", "shares", "memory")
LOOP = ("rollout", "attack", "update", "train", "shares")
ENV_LANES = (1, 32, 1024)
Row = dict[str, Any]  # name, lanes, threads, value, unit, and extras of the row; or only a name and a note


def named(device: torch.device) -> str:
    """Return the device as results should name it: ``cpu``, or the GPU with its model."""
    return f"cuda, {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type


def settle(device: torch.device) -> None:
    """Wait until the device has finished its work; calls to a GPU return before it is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def repeat(seconds: float, once: Callable[[], float], device: torch.device) -> tuple[float, float, float]:
    """Call ``once``, which returns the work it did on ``device``, for about ``seconds``; return (work, wall seconds,
    CPU seconds)."""
    settle(device)
    work, wall, cpu = 0.0, time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < seconds:
        work += once()
    settle(device)
    return work, time.perf_counter() - wall, time.process_time() - cpu


def env_speed(env: VectorEnv, seconds: float) -> tuple[float, float, float]:
    """Time ``reset`` and ``step`` for about ``seconds``; finished lanes restart at once. Return (steps of all lanes,
    wall seconds, CPU seconds). Actions are uniform over the available ones; sampling them is not timed."""
    gen = torch.Generator().manual_seed(0)
    now, steps, wall, cpu = env.reset(), 0, 0.0, 0.0
    warm_up = 3
    while wall < seconds:
        actions = random_available(now.avail, gen)
        cpu_before, wall_before = time.process_time(), time.perf_counter()
        step = env.step(actions)
        now = step.next
        done = step.terminated | step.truncated
        if done.any():
            now = env.reset(mask=done)
        if warm_up:
            warm_up -= 1
        else:
            wall += time.perf_counter() - wall_before
            cpu += time.process_time() - cpu_before
            steps += env.n_envs
    return steps, wall, cpu


def speed_row(name: str, lanes: int, threads: int, speed: tuple[float, float, float]) -> Row:
    steps, wall, cpu = speed
    return {"name": name, "lanes": lanes, "threads": threads, "value": steps / wall, "unit": "steps/s",
            "per_cpu_s": steps / cpu}  # fmt: skip


def peak_memory() -> float:
    """Return the most memory that this process has held, in MiB (Linux counts KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def env_rows(cfg: DictConfig, threads: int) -> Iterator[Row]:
    for lanes in ENV_LANES:
        with closing(make_env(cfg, lanes, Streams(cfg.seed).env_seed("env"))) as env:
            yield speed_row("env_random", lanes, threads, env_speed(env, cfg.seconds))


def yardstick_rows(cfg: DictConfig, threads: int) -> Iterator[Row]:
    """Measure the other simulator that ``cfg.yardstick`` names; yield a note where there is nothing to measure."""
    if cfg.yardstick is None:
        return
    yardstick: Yardstick | None = call(factory(cfg.yardstick, "yardstick"), "yardstick", env=cfg.env)
    if yardstick is None:  # it has no game like this environment
        return
    name = f"env_random {yardstick.name}"
    if reason := yardstick.absent():
        yield {"name": name, "note": f"{yardstick.name}: {reason}"}
        return
    try:
        for lanes in ENV_LANES:
            yield speed_row(name, lanes, threads, yardstick.measure(lanes, threads, cfg.seconds))
    except RuntimeError as error:
        yield {"name": name, "note": f"{yardstick.name}: {error}"}


def chore_rows(run: Run, seconds: float, base: Row) -> Iterator[Row]:
    """Time the parts of an attack that are worth timing on their own, at the first step of an episode in every lane."""
    env = run.parts.env
    for path, attack in attacks_within(run.parts.attack):
        if not isinstance(attack, Measured):
            continue
        policy = run.parts.algo.policy(run.clock)
        attack.begin(env.n_envs, policy, run.parts.streams["attack"])
        carry = policy.begin(env.n_envs, run.parts.streams["explore"])
        everywhere = torch.ones(env.n_envs, dtype=torch.bool, device=run.parts.device)
        view = View(0, env.reset().to(run.parts.device), carry, everywhere, policy)
        for name, (once, unit) in attack.chores(view).items():
            once()
            work, wall, cpu = repeat(seconds, once, run.parts.device)
            title = " ".join(("attack", path, name)).replace("  ", " ")
            yield {"name": title, **base, "value": work / wall, "unit": unit, "per_cpu_s": work / cpu}


def lockstep_rows(run: Run, seconds: float, base: Row) -> Iterator[Row]:
    """Time collecting and storing in the general loop, where the run's own collections are compiled."""
    p = run.parts
    if compiled_form(p.env, p.algo.policy(run.clock), p.attack, p.fields, explore=True) is None:
        return

    def once() -> float:
        fresh = run.collect(compiled=False)
        run.count(fresh)
        run.store(fresh)
        return float(fresh.length.sum())

    steps, wall, cpu = repeat(seconds, once, run.parts.device)
    yield {"name": "rollout lockstep", **base, "value": steps / wall, "unit": "steps/s", "per_cpu_s": steps / cpu}


def loop_rows(cfg: DictConfig, run: Run, threads: int, only: str | None) -> Iterator[Row]:
    """Time rollout, the attack's own work, update and train on one warm run; ``train`` also reports peak memory."""
    base = {"lanes": run.parts.env.n_envs, "threads": threads}

    def collect_once() -> float:
        fresh = run.collect()
        run.count(fresh)
        run.store(fresh)
        return float(fresh.length.sum())

    def train_once() -> float:
        fresh = run.collect()
        run.count(fresh)
        run.learn(fresh)
        return float(fresh.length.sum())

    batch_size = int(cfg.algo.get("batch_size", 32))
    newest = learns_from_newest(run.parts)
    while (len(run.replay) < batch_size and not newest) or run.clock.env_steps < cfg.warmup_steps:
        fresh = run.collect()
        run.count(fresh)
        run.parts.algo.annotate(fresh)
        run.store(fresh)
    if only in (None, "rollout"):
        steps, wall, cpu = repeat(cfg.seconds, collect_once, run.parts.device)
        yield {"name": "rollout", **base, "value": steps / wall, "unit": "steps/s", "per_cpu_s": steps / cpu}
        yield from lockstep_rows(run, cfg.seconds, base)
    if only in (None, "attack"):
        yield from chore_rows(run, cfg.seconds, base)
    learner = getattr(run.parts.algo, "learner", None)
    if only in (None, "update") and learner is not None:
        gen, last = torch.Generator().manual_seed(0), run.collect()

        def update_once() -> float:
            if newest:  # all passes over a collection are one update
                run.parts.algo.update(run.replay, last, Clock())
            else:
                learner.update(run.replay.sample(batch_size, gen, run.parts.device))
            return 1.0

        update_once()
        updates, wall, cpu = repeat(cfg.seconds, update_once, run.parts.device)
        of = (len(last), last.horizon) if newest else (batch_size, int(run.replay.longest))
        yield {"name": "update", **base, "value": updates / wall, "unit": "updates/s", "per_cpu_s": updates / cpu,
               "episodes": of[0], "horizon": of[1]}  # fmt: skip
    if only in (None, "train"):
        train_once()
        before = run.clock.updates
        steps, wall, cpu = repeat(2 * cfg.seconds, train_once, run.parts.device)
        updates = run.clock.updates - before
        yield {"name": "train", **base, "value": steps / wall, "unit": "steps/s", "per_cpu_s": steps / cpu,
               "updates_per_s": updates / wall, "updates_per_cpu_s": updates / cpu,
               "peak_mib": peak_memory()}  # fmt: skip
    if only in (None, "shares"):
        train_once()
        before = run.clock.updates
        shares = Shares()
        with shares.watch(parts_of(run)):
            repeat(2 * cfg.seconds, train_once, run.parts.device)
        yield from share_rows(shares, run.clock.updates - before, base)


def share_rows(shares: Shares, updates: int, base: Row) -> Iterator[Row]:
    total = sum(shares.seconds.values())
    for part, seconds in ((part, seconds) for part, seconds in shares.seconds.items() if seconds):
        more = {"ms_per_update": 1000.0 * seconds / updates} if updates else {}
        yield {"name": f"shares: {part}", **base, "value": 100.0 * seconds / total, "unit": "% of CPU time", **more}


def check_rows(cfg: DictConfig) -> None:
    """Raise ConfigError for options that no row can be measured with."""
    require_choice("", ROWS, only=cfg.only, or_null=True)
    require_positive("", seconds=cfg.seconds)
    require_at_least("", 0, warmup_steps=cfg.warmup_steps)
    pick_device(cfg.device)
    if cfg.yardstick is not None:
        factory(cfg.yardstick, "yardstick")


def rows(cfg: DictConfig) -> Iterator[Row]:
    """Measure every row that ``cfg`` asks for, for one thread and for all, or for ``cfg.threads``."""
    check_rows(cfg)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for threads in dict.fromkeys([cfg.threads] if cfg.threads else [1, cores]):
        use_threads(threads)
        if cfg.only in (None, "env_random"):
            yield from env_rows(cfg, threads)
            yield from yardstick_rows(cfg, threads)
        if cfg.only is None or cfg.only in LOOP:
            run_cfg = cfg.copy()
            run_cfg.threads = threads
            with tempfile.TemporaryDirectory() as folder:
                run = open_run(run_cfg, Path(folder), resolved(run_cfg), None)
                with closing(run):
                    yield from loop_rows(run_cfg, run, threads, cfg.only)
    if cfg.only in (None, "memory"):
        yield {
            "name": "memory", "lanes": cfg.train.n_envs, "threads": threads, "value": peak_memory(), "unit": "MiB peak",
        }  # fmt: skip
