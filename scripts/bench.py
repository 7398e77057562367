"""Speed and memory: ``python -m scripts.bench env=skirmish/2s3z [only=ROW] [threads=N] [out=FILE]``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from rich.text import Text

from marl.core.config import pick_device
from marl.core.validation import validate
from marl.measure.bench import check_rows, named, rows
from marl.run.files import write_atomic
from marl.run.progress import quiet
from scripts.main import run, writable_file


def main(cfg: DictConfig) -> None:
    validate(cfg)
    check_rows(cfg)
    writable_file(cfg)
    choices, device = HydraConfig.get().runtime.choices, named(pick_device(cfg.device))
    table = Table(title=Text(f"{choices['env']}, {choices['algo']}, {device}"))
    for column in ("row", "lanes", "threads", "value", "unit", "more"):
        table.add_column(column, justify="right" if column in ("lanes", "threads", "value") else "left")
    console = Console()
    done: list[dict[str, Any]] = []
    notes: dict[str, None] = {}
    with quiet("marl"), console.status("measuring") as status:
        for row in rows(cfg):
            if "note" in row:
                notes[row["note"]] = None  # once, not per number of threads
                continue
            done.append({**row, "env": choices["env"], "algo": choices["algo"], "device": device})
            more = ", ".join(
                f"{k} {v:,.0f}" if v >= 1000 else f"{k} {v:,.4g}"
                for k, v in row.items()
                if k not in ("name", "lanes", "threads", "value", "unit")
            )
            cells = (row["name"], row["lanes"], row["threads"], f"{row['value']:,.1f}", row["unit"], more)
            table.add_row(*(Text(str(cell)) for cell in cells))
            status.update(Text(f"measuring, {row['name']} done"))
    console.print(table)
    for note in notes:
        print(note)
    if cfg.out is not None:
        write_atomic(Path(cfg.out), json.dumps(done, indent=1))
        print(f"written to {cfg.out}")


if __name__ == "__main__":
    run(main, "bench")
