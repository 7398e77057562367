"""Test trained teams against attacks, with the same episodes in every cell:
``python -m scripts.robustness runs=['runs/study/**'] suite=paper episodes=200``."""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from marl.measure import robustness
from marl.measure.matrix import check_outputs
from marl.run.compose import option
from marl.run.lock import held
from marl.show.robustness_report import publish, show, write
from scripts.main import run


def main(cfg: DictConfig) -> None:
    choices = HydraConfig.get().runtime.choices
    check_outputs(cfg)
    with held(Path(cfg.out), "out"):
        matrix = robustness.run(cfg, choices["suite"], choices.get("env"), option)
        show(matrix)
        print(f"written to {write(matrix, Path(cfg.out))}")
        if cfg.results is not None:
            print(f"written to {publish(matrix, Path(cfg.results))}")


if __name__ == "__main__":
    run(main, "robustness")
