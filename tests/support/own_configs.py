"""A folder of somebody's own configurations: a game, an attack, an algorithm and a suite with names of their own."""

from __future__ import annotations

from pathlib import Path

FILES = {
    "env/meet": "# Two meet.\ndefaults: [toy/corridor@_here_, _self_]\nlength: 6\n",
    "attack/flip": "defaults: [random, _self_]\nbudget: 2\n",
    "algo/own": "defaults: [vdn, _self_]\nbatch_size: 8   # of one's own\n",
    "suite/mine": "defaults:\n  - /attack@columns.natural.attack: none\n  - /attack@columns.flip.attack: flip\n"
    "  - _self_\nbaseline: natural\n",
}


def write_configs(folder: Path) -> Path:
    """Write the configurations below a folder and return it."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.yaml").write_text(text, encoding="utf8")
    return folder
