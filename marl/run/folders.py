"""Run folders: which there are below a path, and what a configuration says of its run."""

from __future__ import annotations

from glob import glob
from pathlib import Path
from typing import Any


def run_folders(pattern: str) -> list[Path]:
    """Run folders at or below every path that ``pattern`` (a glob, ** allowed) matches; runs set aside are left out."""
    matches = [Path(p) for p in glob(pattern, recursive=True)]
    files = {
        f.resolve() for p in matches for f in ([p / "eval.jsonl"] if p.is_dir() else [p]) if f.name == "eval.jsonl"
    }
    files |= {f.resolve() for p in matches if p.is_dir() for f in p.rglob("eval.jsonl")}
    return sorted(f.parent for f in files if f.exists() and "previous" not in f.parts)


def identify(config: dict[str, Any]) -> tuple[str, str, int]:
    """(environment, everything else but the seed, seed) of a run, from the path that its configuration names."""
    name, task, team, leaf = ([""] * 4 + config["run_path"].split("/"))[-4:]
    seed = int(config["seed"])
    variant = leaf.removesuffix(f"seed{seed}").rstrip("-")
    parts = (name if name != "default" else "", team.removesuffix("-none"), variant)
    return task, " ".join(part for part in parts if part), seed
