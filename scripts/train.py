"""Train a team: ``python -m scripts.train algo=qmix env=skirmish/3m seed=0``; add ``-m`` to sweep over lists."""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from marl.run.signals import StopRequest
from marl.run.sweep import Here
from marl.run.trainer import fit
from marl.show.plot import run_curve
from scripts.main import run


def train(cfg: DictConfig) -> float | None:
    """Train, and return the score that ``objective`` names, for a search; None if a signal stopped the run. A signal
    during the final test stops only the sweep."""
    StopRequest.heard = False
    final = fit(cfg, Path(HydraConfig.get().runtime.output_dir), run_curve)
    if not final or StopRequest.heard:
        Here.stopped = True  # the remaining runs of a sweep are not started
    if not final:
        return None
    return float(final[cfg.objective.removeprefix("eval/")]["mean"])


if __name__ == "__main__":
    run(train, "train")
