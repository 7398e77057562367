"""Train a team: ``python -m scripts.train algo=qmix env=skirmish/3m seed=0``; add ``-m`` to sweep over lists."""

from __future__ import annotations

import logging
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from marl.run.trainer import fit
from marl.show.plot import run_curve
from scripts.main import Sweep, run

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> None:
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    if Sweep.stopped:
        log.info("not begun: %s", run_dir)
        return
    Sweep.stopped = not fit(cfg, run_dir, run_curve)


if __name__ == "__main__":
    run(train, "train")
