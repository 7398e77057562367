"""A run's messages: its header, its training rows, and the summary of its results."""

from __future__ import annotations

import json
import logging
import os
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from marl.core.intervals import Interval
from marl.core.protocols import Algorithm
from marl.core.types import Clock, Metrics
from marl.learn.replay import EpisodeReplay
from marl.learn.rhythm import Rhythm
from marl.run.build import Parts, learns_from_newest
from marl.run.files import expendable, write_atomic
from marl.run.metrics import Window
from marl.run.quoting import override

log = logging.getLogger(__name__)
Draw = Callable[[Path], Path | None]  # draws the curve of a run folder; returns None if there is nothing to draw


class Timer:
    """Measures the seconds per named section since the last ``take``."""

    def __init__(self) -> None:
        self.sections: dict[str, float] = {}
        self.since, self.step = time.perf_counter(), -1

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.sections[name] = self.sections.get(name, 0.0) + time.perf_counter() - start

    def take(self, env_steps: int) -> dict[str, float]:
        """Return the ``time/...`` scalars and start a new window; the speed includes evaluation and saving."""
        now = time.perf_counter()
        row = {f"time/{name}": seconds for name, seconds in self.sections.items()}
        if self.step >= 0:
            row["time/env_steps_per_s"] = (env_steps - self.step) / max(1e-9, now - self.since)
        self.sections, self.since, self.step = {}, now, env_steps
        return row


def training_row(
    window: Window, timer: Timer, metrics: Metrics, replay: EpisodeReplay, env_steps: int
) -> dict[str, float]:
    """Return the scalars of the episodes since the last row, of the newest update, and of wall-clock time."""
    means = window.take()
    row = {name if "/" in name else f"train/{name}": mean for name, mean in means.items() if name != "lane_use"}
    row |= {name: float(value) for name, value in metrics.items()}
    row |= timer.take(env_steps)
    if "lane_use" in means:
        row["time/lane_use"] = means["lane_use"]
    return row | {"replay/episodes": float(len(replay))}


def size_text(number: float) -> str:
    """Format a number of bytes in the largest unit that keeps it above one."""
    units = ["B", "KiB", "MiB", "GiB"]
    while number >= 1024 and len(units) > 1:
        number /= 1024
        units.pop(0)
    return f"{number:,.0f} {units[0]}" if number >= 100 else f"{number:.3g} {units[0]}"


def short(path: Path) -> str:
    """Return ``path`` relative to the working directory if it is inside."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def header(run_dir: Path, parts: Parts, replay: EpisodeReplay, n_envs: int) -> None:
    """Log the task, the networks and the replay's final size before the run starts."""
    spec = parts.spec
    parameters = sum(
        p.numel() for name, net in parts.algo.networks().items() if "target" not in name for p in net.parameters()
    )
    log.info("run folder  %s", short(run_dir))
    log.info(
        "task        %d agents, %d actions, %d observation and %d state features, at most %d steps, %d lanes",
        spec.n_agents, spec.n_actions, spec.obs_dim, spec.state_dim, spec.episode_limit, n_envs,
    )  # fmt: skip
    log.info("networks    %s parameters on %s", f"{parameters:,}", parts.device)
    if learns_from_newest(parts):
        log.info("replay      none: it learns from what was just collected")
        return
    log.info(
        "replay      grows to %s for %s episodes (%s each) on %s",
        size_text(replay.full_bytes), f"{replay.capacity:,}", size_text(replay.bytes_per_episode), replay.device,
    )  # fmt: skip
    if (rhythm := rhythm_of(parts.algo)) is not None:
        log.info("rhythm      %s", rhythm)
        published = getattr(parts.algo, "published", None)
        if published is not None and rhythm.differs(published):
            log.warning("the published rhythm is another: %s (docs/protocol.md)", published)


def rhythm_of(algo: Algorithm) -> Rhythm | None:
    """Return how often an algorithm learns; None if it does not declare a rhythm."""
    rhythm = getattr(algo, "rhythm", None)
    return rhythm if isinstance(rhythm, Rhythm) else None


def final_lines(final: dict[str, dict[str, Any]]) -> list[str]:
    """Format one line per test result."""
    lines = []
    for name, r in final.items():
        bounds = "no interval" if r["low"] is None else f"95% interval {r['low']:.3f} to {r['high']:.3f}"
        lines.append(f"{name:<11} {r['mean']:8.3f}   {bounds} over {r['n']} episodes")
    return lines


def finished(run_dir: Path, final: dict[str, Interval], clock: Clock, draw: Draw | None) -> None:
    """Draw the curve if ``draw`` is given, write DONE and log the summary. Raise WriteError if DONE is not written."""
    curve = None
    if draw is not None:
        with expendable(run_dir / "learning_curve.png"):
            curve = draw(run_dir)
    results = {name: interval.as_dict() for name, interval in final.items()}
    write_atomic(run_dir / "DONE", json.dumps({**clock.state_dict(), "final": results}, indent=1))
    say_summary(run_dir, results, clock.env_steps, curve)


def say_summary(run_dir: Path, final: dict[str, dict[str, Any]], env_steps: int, curve: Path | None) -> None:
    log.info("finished after %s environment steps; final test:", f"{env_steps:,}")
    for line in final_lines(final):
        log.info("  %s", line)
    folder = short(run_dir)
    log.info("checkpoints %s/checkpoints", folder)
    if curve is not None:
        log.info("curve       %s", short(curve))
    log.info("try next    python -m scripts.evaluate %s episodes=200", override("run", folder))
    log.info("            python -m scripts.record %s", override("run", folder))
    log.info("            tensorboard --logdir %s", shlex.quote(folder))


def read_done(run_dir: Path, total_steps: int) -> dict[str, Any] | None:
    """Return the contents of DONE if the run has already reached ``total_steps``, else None. A damaged file counts as
    missing, with a warning."""
    path = run_dir / "DONE"
    if not path.exists():
        return None
    try:
        done = json.loads(path.read_text(encoding="utf8"))
        final_lines(done["final"])
        return done if done["env_steps"] >= total_steps else None
    except (ValueError, KeyError, TypeError, AttributeError):
        log.warning("%s is damaged: the run continues from its last checkpoint", path)
        return None


def say_done(run_dir: Path, done: dict[str, Any]) -> None:
    """Log the final results of a finished run."""
    log.info("%s is finished already (resume=never starts over)", short(run_dir))
    curve = run_dir / "learning_curve.png"
    say_summary(run_dir, done["final"], done["env_steps"], curve if curve.exists() else None)
