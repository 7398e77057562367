"""Scalars: the same rows go to ``metrics.jsonl`` / ``eval.jsonl`` and to the loggers. The x axis is always
``env_steps``."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from marl.core.distributed import world
from marl.core.intervals import Interval
from marl.core.protocols import Algorithm
from marl.core.types import Clock, ConfigError, EpisodeBatch, Metrics
from marl.run.evaluate import attack_facts
from marl.run.files import append, expendable, write_atomic
from marl.run.loggers import Loggers

# what rows always hold, whatever the algorithm, hooks and attack report
KEPT = ("env_steps", "episodes", "updates", "train/return", "train/win_rate", "train/length", "replay/episodes")


class NonFiniteError(RuntimeError):
    """A loss or a value became nan or infinite."""


class Window:
    """Means over the training episodes since the last row; ``attack/...`` are means over the attacked ones only."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.episodes = 0

    def add(self, fresh: EpisodeBatch) -> None:
        lengths = fresh.length.double()
        sums = {
            "return": fresh.reward.double().sum(),
            "win_rate": fresh.won.double().sum(),
            "length": lengths.sum(),
            "lane_use": lengths.sum() / fresh.horizon,
        }
        if "hit" in fresh:
            facts = attack_facts(fresh)
            sums |= {
                "attack/hits_per_episode": facts["hits"].sum(),
                "attack/hit_actions_per_episode": facts["hit_actions"].sum(),
                "attack/episodes": fresh.attacked.sum(),
            }
        self._sum(sums, len(fresh))

    def add_ended(self, ended: Mapping[str, Tensor], attack: bool) -> None:
        """Add the episodes that ended in a stretch (``Stretches.ended``), during which no lane waits; ``attack`` says
        whether there is an attack."""
        sums = {name: ended[name].double().sum() for name in ("return", "length")}
        sums |= {"win_rate": ended["won"].double().sum(), "lane_use": torch.tensor(float(len(ended["won"])))}
        if attack:
            sums |= {
                "attack/hits_per_episode": ended["hits"].sum(),
                "attack/hit_actions_per_episode": ended["hit_actions"].sum(),
                "attack/episodes": ended["attacked"].sum(),
            }
        self._sum(sums, len(ended["won"]))

    def _sum(self, sums: dict[str, Tensor], episodes: int) -> None:
        for key, value in sums.items():
            self.sums[key] = self.sums.get(key, 0.0) + value.item()
        self.episodes += episodes

    def take(self) -> dict[str, float]:
        """Return the means, {} if no episode has ended, and start a new window."""
        if self.episodes == 0:
            return {}
        attacked = self.sums.pop("attack/episodes", 0.0)
        means = {
            key: value / max(1, attacked if key.startswith("attack/") else self.episodes)
            for key, value in self.sums.items()
        }
        self.sums, self.episodes = {}, 0
        return means

    def state_dict(self) -> dict[str, Any]:
        return {"sums": dict(self.sums), "episodes": self.episodes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums, self.episodes = dict(state["sums"]), int(state["episodes"])


def require_numbers(metrics: Metrics) -> None:
    """Raise ConfigError if a metric is not a single number, or has a name that training itself uses."""
    for name, value in metrics.items():
        if not isinstance(value, Tensor | float | int) or (isinstance(value, Tensor) and value.numel() != 1):
            what = f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else repr(value)
            raise ConfigError(f"the metric {name} is {what}; a metric is a number or a tensor of one")
        if name in KEPT or name.startswith(("eval/", "time/")):
            raise ConfigError(f"the metric {name} has a name that training itself uses; call it PLUGIN/{name}")


def require_finite(metrics: Metrics, algo: Algorithm, clock: Clock) -> None:
    """Raise NonFiniteError if a loss, value or gradient norm is not finite; it names the metrics, the step and the
    first non-finite network parameter."""
    require_numbers(metrics)
    keys = [key for key in metrics if key.startswith(("loss/", "q/", "optim/", "ppo/"))]
    values = [torch.as_tensor(metrics[key]).detach().float().reshape(()) for key in keys]
    if not keys or bool(torch.isfinite(torch.stack(values)).all()):
        return
    bad = [f"{key}={value.item()}" for key, value in zip(keys, values, strict=True) if not math.isfinite(value.item())]
    where = [
        f"{name}.{parameter}"
        for name, network in algo.networks().items()
        for parameter, value in network.named_parameters()
        if not bool(torch.isfinite(value).all())
    ]
    hooks = [type(hook).__name__ for hook in getattr(algo, "hooks", ())]
    or_hooks = f", or see what {' and '.join(hooks)} paid or added to the loss" if hooks else ""
    broken = f"first non-finite weights: {where[0]}" if where else "all weights are still finite"
    raise NonFiniteError(
        f"{', '.join(bad)} at env step {clock.env_steps}, update {clock.updates}; {broken}. "
        "Nothing was saved since; try a smaller algo.learner.lr or algo.learner.grad_clip" + or_hooks
    )


class Writer:
    """Appends rows to the run folder, on rank 0 only (``active``) and as far as the disk allows, and passes them to the
    ``loggers``. On resume it drops rows later than the checkpoint, since they will be written again."""

    def __init__(self, run_dir: Path, clock: Clock, loggers: Callable[[], Loggers]) -> None:
        self.run_dir, self.active = run_dir, world()[0] == 0
        self._loggers: Loggers | None = None
        if not self.active:
            return
        for name in ("metrics.jsonl", "eval.jsonl"):
            self._keep(run_dir / name, lambda row: row.get("env_steps", 0) <= clock.env_steps)
        self._loggers = loggers()

    def close(self) -> None:
        """Close the loggers."""
        if self._loggers is not None:
            self._loggers.close()

    @staticmethod
    def _keep(path: Path, wanted: Callable[[dict[str, Any]], bool]) -> None:
        if path.exists():
            kept = "".join(line + "\n" for line, row in _lines(path) if wanted(row))
            if kept.encode() != path.read_bytes():
                write_atomic(path, kept)

    def _drop_final(self, env_steps: int) -> None:
        """Drop the final row at ``env_steps``, left by a run that was killed before it wrote DONE."""
        path = self.run_dir / "eval.jsonl"

        def again(row: dict[str, Any]) -> bool:
            return bool(row.get("final")) and row.get("env_steps") == env_steps

        if any(again(row) for row in read_rows(path)):
            with expendable(path):
                self._keep(path, lambda row: not again(row))

    def write(self, file: str, scalars: dict[str, float], clock: Clock, **extra: Any) -> None:
        """Write one row to ``file`` ("metrics" or "eval"), and pass the scalars to the loggers."""
        if not self.active:
            return
        row = {**clock.state_dict(), **extra, **{k: v if math.isfinite(v) else None for k, v in scalars.items()}}
        path = self.run_dir / f"{file}.jsonl"
        with expendable(path):
            append(path, f"{json.dumps(row)}\n".encode())
        if self._loggers is not None:
            self._loggers.write(file, scalars, clock.env_steps)

    def intervals(
        self, prefix: str, results: dict[str, Interval], clock: Clock, *, final: bool = False
    ) -> dict[str, float]:
        """Write test results, with their bounds in ``eval.jsonl``; return the means by scalar name. ``final`` results
        replace earlier ones of the same step."""
        means = {f"{prefix}/{name}": interval.mean for name, interval in results.items()}
        bounds = {f"{prefix}/{k}_{end}": getattr(i, end) for k, i in results.items() for end in ("low", "high")}
        finite = {key: value if math.isfinite(value) else None for key, value in bounds.items()}
        episodes = next(iter(results.values())).n
        if final and self.active:
            self._drop_final(clock.env_steps)
        self.write("eval", means, clock, test_episodes=episodes, **finite, **({"final": True} if final else {}))
        return means


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the lines of a ``.jsonl`` file with the rows they hold; skip lines that a crash cut short."""
    for line in path.read_text(encoding="utf8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("env_steps", 0), int):
            yield line, row


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a ``.jsonl`` file; ignore incomplete lines, and notes that are not rows of a run."""
    return [row for _, row in _lines(path) if "env_steps" in row] if path.exists() else []
