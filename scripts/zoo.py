"""Pack trained teams without what only training needs: ``python -m scripts.zoo runs=['runs/study/**'] out=zoo``."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from marl.core.checks import require_name, require_writable
from marl.core.config import plain
from marl.measure.zoo import pack
from marl.run.lock import held
from scripts.main import run


def main(cfg: DictConfig) -> None:
    require_name(out=cfg.out)
    require_writable("", out=Path(cfg.out))
    with held(Path(cfg.out), "out"):
        for folder in pack(plain(cfg.runs), Path(cfg.out), half=cfg.half):
            print(f"packed {folder}")


if __name__ == "__main__":
    run(main, "zoo")
