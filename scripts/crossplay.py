"""Play trained teams with each other and with partners that they have never met:
``python -m scripts.crossplay runs=['runs/study/**'] env=mds_mini partners=mds_mini``."""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from marl.measure import crossplay
from marl.measure.matrix import check_outputs
from marl.run.lock import held
from marl.show.crossplay_report import publish, show, write
from scripts.main import run


def main(cfg: DictConfig) -> None:
    check_outputs(cfg)
    with held(Path(cfg.out), "out"):
        matrix = crossplay.run(cfg, HydraConfig.get().runtime.choices.get("env"))
        show(matrix)
        print(f"written to {write(matrix, Path(cfg.out))}")
        if cfg.results is not None:
            print(f"written to {publish(matrix, Path(cfg.results))}")


if __name__ == "__main__":
    run(main, "crossplay")
