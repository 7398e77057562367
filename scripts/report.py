"""A study as one page of HTML: ``python -m scripts.report runs=['runs/study/**'] out=report.html``."""

from __future__ import annotations

from omegaconf import DictConfig

from marl.show.report.page import MEGABYTE, make
from scripts.main import run


def main(cfg: DictConfig) -> None:
    path = make(cfg)
    print(f"written to {path} ({path.stat().st_size / MEGABYTE:.1f} MB)")


if __name__ == "__main__":
    run(main, "report")
