"""Train a team: ``python -m scripts.train algo=qmix env=skirmish/3m seed=0``; add ``-m`` to sweep over lists."""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from marl.trainer import fit
from scripts.main import run


def train(cfg: DictConfig) -> None:
    fit(cfg, Path(HydraConfig.get().runtime.output_dir))


if __name__ == "__main__":
    run(train, "train")
