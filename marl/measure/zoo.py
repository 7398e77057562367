"""Trained teams to start from: run folders with only what playing needs, small enough for the repository.

A packed run is a run folder like any other (``runs=zoo/...``), with one checkpoint. It holds the networks, as they are
or rounded to 16 bits. Training that continues from it starts with fresh optimisers, and with target networks equal to
the networks themselves.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from marl.core.types import ConfigError
from marl.measure.entrants import Entrant, from_runs
from marl.run import checkpoint
from marl.run.files import write_atomic
from marl.run.folders import TRAINED, pick_checkpoint

TARGET = "target_"


def team_name(entrant: Entrant) -> str:
    """Return the name of a team in the zoo, such as ``wall-2s3z-0``: its method, game and seed."""
    words = f"{entrant.label} {entrant.task.removeprefix('skirmish-')} {entrant.seed}"
    return re.sub(r"[^a-z0-9_]+", "-", words.lower()).strip("-")


def pack(runs: Any, out: Path, *, half: bool = False) -> list[Path]:
    """Pack the newest checkpoints of the runs that ``runs`` names (as robustness does) below ``out``, replacing teams
    of the same names, and list all teams there in ``README.md``. Return the new folders. ``half`` rounds their weights
    (``rounded``). Raise ConfigError where no run is found, and for two teams of the same name."""
    entrants = from_runs(runs, None, None)
    names = [team_name(entrant) for entrant in entrants]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"runs: {names.count(name)} of them would be called {name}; give {{name: ..., path: ...}}"
            )
    folders = [
        pack_run(Path(one.source["run"]), out / name, half=half) for one, name in zip(entrants, names, strict=True)
    ]
    write_atomic(out / "README.md", overview(out))
    return folders


def pack_run(run: Path, folder: Path, *, half: bool = False) -> Path:
    """Pack the newest checkpoint of a run into ``folder``, replacing what is there: an older team may have a later
    checkpoint. Raise ConfigError where ``half`` is asked for and 16 bits cannot hold the weights."""
    picked = pick_checkpoint(run, None)
    meta = checkpoint.verify(picked)
    state = checkpoint.load_state(picked)
    record = json.loads((run / "meta.json").read_text(encoding="utf8"))
    record.pop("folder", None)  # where it was trained: of no use to others
    about = {key: value for key, value in meta.items() if key not in ("step", "digests", "folder")}
    about |= {"half": True} if half else {}
    algo = rounded(state["algo"], run) if half else state["algo"]
    small = {"algo": slim(algo), "clock": state["clock"]}
    config = (run / "config.json").read_text(encoding="utf8")
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    write_atomic(new / "config.json", config)
    write_atomic(new / "meta.json", json.dumps(record, indent=1))
    checkpoint.save(new / TRAINED, int(meta["step"]), small, None, about, keep=1, milestone=False)
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)
    return folder


def slim(state: Any) -> Any:
    """Return the state of an algorithm without that of its optimisers, and with NAME in place of every
    ``target_NAME``, so that a file stores it once."""
    if isinstance(state, list):
        return [slim(one) for one in state]
    if not isinstance(state, dict):
        return state
    if {"state", "param_groups"} <= state.keys():
        return {**state, "state": {}}
    small = {key: slim(value) for key, value in state.items()}
    return small | {
        key: small[name]
        for key in small
        if (name := str(key).removeprefix(TARGET)) != key and name in small and _alike(small[name], small[key])
    }


def rounded(state: Any, run: Path) -> Any:
    """Return a state with the weights of its networks, which are dicts of nothing but tensors, in half the bytes
    (float16: eleven significant bits, up to 65,504); counters, hooks and optimisers keep their state.
    ``checkpoint.load_state`` returns the weights as float32. Raise ConfigError, naming ``run``, where a finite value
    would become infinite."""
    if not isinstance(state, dict):
        return state
    if state and all(isinstance(value, Tensor) for value in state.values()):
        return {key: _half(value, run) for key, value in state.items()}
    return {key: value if key in ("hooks", "optimizer") else rounded(value, run) for key, value in state.items()}


def _half(state: Tensor, run: Path) -> Tensor:
    if state.dtype != torch.float32 or state.dim() == 0:
        return state
    half = state.to(torch.float16)
    if not torch.equal(half.isfinite(), state.isfinite()):
        raise ConfigError(f"half=true: {run} holds the value {state.abs().max():.3g}; 16 bits reach to 65,504")
    return half


def _alike(one: Any, other: Any) -> bool:
    """Return whether two states hold tensors of the same names and shapes."""
    return (
        isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys()
        and all(getattr(one[key], "shape", None) == getattr(other[key], "shape", None) for key in one)
    )  # fmt: skip


def overview(root: Path) -> str:
    """Return the text of ``README.md``: each team below ``root``, its game, steps, commit and digest of its weights."""
    lines = [
        "# Trained teams",
        "",
        '`runs=zoo/...` takes them like runs, `marl.load("zoo:NAME")` as a team; docs/robustness.md says how they were',
        "trained. Made by `python -m scripts.zoo`.",
        "",
        "| team | game | steps | commit | SHA-256 of the weights |",
        "| --- | --- | --- | --- | --- |",
        *(_line(path) for path in sorted(root.glob("*/config.json"))),
    ]
    return "\n".join(lines) + "\n"


def _line(path: Path) -> str:
    folder = path.parent
    (entrant,) = from_runs([str(folder)], None, None)
    meta = checkpoint.verify(pick_checkpoint(folder, None))
    run = json.loads((folder / "meta.json").read_text(encoding="utf8"))
    cells: Iterable[Any] = (
        folder.name, entrant.task, f"{int(meta['step']):,}", str(run.get("commit", ""))[:12],
        meta["digests"]["state.pt"][:16] + " (16 bits)" * bool(meta.get("half")),
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"
