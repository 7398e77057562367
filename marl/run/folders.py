"""Run folders: find them, read their configurations, and pick their checkpoints."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from glob import glob
from pathlib import Path, PurePosixPath
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from marl.core.checks import require_name
from marl.core.types import ConfigError
from marl.run import checkpoint
from marl.run.renames import current

TESTED, TRAINED = "eval.jsonl", "checkpoints"  # in a folder once its run has been evaluated, or has saved a checkpoint
ZOO = Path(__file__).resolve().parents[2] / "zoo"  # trained teams, in the repository
PREFIX = "zoo:"  # of their names
KINDS = {dict: "a group of options", str: "a text", int: "a whole number"}
HOLDS = {
    "algo": dict,
    "env": dict,
    "attack": dict,
    "train": dict,
    "replay": dict,
    "checkpoint": dict,
    "run_path": str,
    "seed": int,
}  # in the configuration of a run, if it is there at all


def run_folder(name: str | Path) -> Path:
    """Return the folder of a run: a path unchanged, ``zoo:NAME`` as the folder of that team. Raise ConfigError, listing
    the teams there are, if there is no such team."""
    if not str(name).startswith(PREFIX):
        return Path(name)
    team = str(name).removeprefix(PREFIX)
    there = sorted(path.parent.name for path in ZOO.glob("*/config.json"))
    if team not in there:
        raise ConfigError(f"{name} is not in {ZOO}; there are {', '.join(there) or 'no teams'}")
    return ZOO / team


def find_runs(pattern: str, holding: str, known_by: str = "config.json") -> list[Path]:
    """Return the run folders that hold ``holding`` at or below every path that ``pattern`` matches, each once, sorted.
    A run folder is recognised by the file ``known_by`` in it.

    ``pattern`` is a folder, a file in it, a glob (``**`` allowed), or ``zoo:NAME`` (``run_folder``). Runs that were set
    aside are left out.
    """
    pattern = str(run_folder(pattern))
    named = [pattern] if Path(pattern).exists() else glob(pattern, recursive=True)  # names may contain [ ]
    matches = list(map(Path, named))
    known = {path / known_by for path in matches if path.is_dir()}
    known |= {path.parent / known_by for path in matches if path.is_file()}
    known |= {file for path in matches if path.is_dir() for file in path.rglob(known_by)}
    found = {f.parent.resolve(): f.parent for f in known if f.exists() and (f.parent / holding).exists()}
    return [folder for real, folder in sorted(found.items()) if not _was_set_aside(real, known_by)]


def _was_set_aside(run_dir: Path, known_by: str) -> bool:
    """Return whether a folder is ``previous/<k>`` of a run folder (``marl.run.resume.set_aside``)."""
    above = run_dir.parent
    numbered = above.name == "previous" and run_dir.name.isdigit()
    return numbered and any((above.parent / name).exists() for name in ("config.json", known_by))


def trained_runs(pattern: str, key: str) -> list[Path]:
    """Return the run folders with checkpoints that ``pattern`` matches (``find_runs``). Raise ConfigError if there are
    none; ``key`` is the option that gave the pattern."""
    require_name(**{key: pattern})
    found = find_runs(pattern, TRAINED)
    if not found:
        raise ConfigError(f"{key}={pattern} matches no run folder with checkpoints")
    return found


def read_config(run_dir: Path, key: str = "run") -> DictConfig:
    """Return the resolved configuration that a run was trained with, in present names. Raise ConfigError if there is
    none; ``key`` is the option that named the folder."""
    path = run_dir / "config.json"
    if not path.exists():
        raise ConfigError(f"{key}={run_dir} is not a run folder: it has no config.json")
    options = _options(path)
    if (fault := _foreign(options)) is not None:
        raise _is_foreign(run_dir, key, fault)
    found = OmegaConf.create(current(options))
    assert isinstance(found, DictConfig)
    return found


def _is_foreign(run_dir: Path, key: str, fault: str) -> ConfigError:
    return ConfigError(f"{key}={run_dir} is not a run folder of this project: its config.json has {fault}")


def _foreign(options: dict[str, Any]) -> str | None:
    """Return what a configuration has that no run of this project has, or lacks; None if there is nothing."""
    given = {name: (options[name], kind) for name, kind in HOLDS.items() if name in options}
    if isinstance(train := options.get("train"), dict):
        if "n_envs" not in train:
            return "no train.n_envs"
        given["train.n_envs"] = (train["n_envs"], int)
    for name, (value, kind) in given.items():
        if not isinstance(value, kind) or isinstance(value, bool):
            return f"{name}={value!r:.40}; it must be {KINDS[kind]}"
    return None


def read_team(run_dir: Path, key: str = "run") -> DictConfig:
    """Return ``read_config`` of a run that is about to be built. Runs that its algorithm plays with (``algo.run``,
    ``algo.runs``) are looked for below this working directory and below that of the training."""
    config = read_config(run_dir, key)
    for name in ("algo", "env"):
        if name not in config:
            raise _is_foreign(run_dir, key, f"no {name}")
    for name in ("run", "runs"):
        given = config.algo.get(name)
        if isinstance(given, str):
            config.algo[name] = _from_there(given, run_dir, config)
        elif isinstance(given, ListConfig):
            config.algo[name] = [_from_there(one, run_dir, config) if isinstance(one, str) else one for one in given]
    return config


def _from_there(pattern: str, run_dir: Path, config: DictConfig) -> str:
    """Rewrite a relative path of a run's configuration so that it is found from here; unchanged if it is not found."""
    places = [Path(), *_working_directories(run_dir, config)]
    found = (place / pattern for place in places if (place / pattern).exists() or glob(str(place / pattern)))
    return str(next(found, pattern))


def _working_directories(run_dir: Path, config: DictConfig) -> Iterator[Path]:
    """Yield the directories a run may have been trained in: the one above its ``runs_dir``, even if that has been
    moved, and the one that its metadata names."""
    place = home(run_dir, {"run_path": str(config.get("run_path", ""))})
    parts = Path(str(config.get("runs_dir", ""))).parts
    if place.parts[len(place.parts) - len(parts) :] == parts:
        yield Path(*place.parts[: len(place.parts) - len(parts)])
    meta = run_dir / "meta.json"
    if meta.exists() and isinstance(folder := _options(meta).get("folder"), str):
        yield Path(folder)


def read_meta(run_dir: Path) -> dict[str, Any]:
    """Return a run's record of its origin: commit, command, versions. Raise ConfigError if it is missing."""
    path = run_dir / "meta.json"
    if not path.exists():
        raise ConfigError(f"{run_dir} does not say where it comes from: it has no meta.json")
    return _options(path)


def _options(path: Path) -> dict[str, Any]:
    return read_object(path, str(path), "options")


def read_object(path: Path, name: str, kind: str) -> dict[str, Any]:
    """Read a file that holds one JSON object. Raise ConfigError if it does not, with the ``name`` of the file and the
    ``kind`` of contents that it should hold."""
    try:
        found = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{name} is damaged: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{name} is damaged: it holds no {kind}")
    return found


def identify(config: dict[str, Any]) -> tuple[str, str, int]:
    """Return (environment, everything else except the seed, seed) of a run, read from the path in its configuration.
    The name of its study may contain slashes."""
    *study, task, team, leaf = [""] * 3 + config["run_path"].split("/")
    name, seed = "/".join(part for part in study if part), int(config["seed"])
    variant = leaf.removesuffix(f"seed{seed}").rstrip("-")
    parts = (name if name != "default" else "", team.removesuffix("-none"), variant)
    return task, " ".join(part for part in parts if part), seed


def home(folder: Path, config: dict[str, Any]) -> Path:
    """Return the folder that a run's path starts from: its ``runs_dir``, wherever the run was moved to."""
    place, path = folder.resolve().parent, PurePosixPath(config["run_path"]).parent
    while path.name and path.name == place.name:
        place, path = place.parent, path.parent
    return place


def names(runs: Sequence[tuple[Path, dict[str, Any]]]) -> list[tuple[str, str, int]]:
    """Return ``identify`` of runs (folder, configuration). Groups with equal names that lie in different folders are
    told apart by the folder."""
    named = [(home(folder, config), *identify(config)) for folder, config in runs]
    homes: dict[tuple[str, str], set[Path]] = {}
    for place, task, label, _ in named:
        homes.setdefault((task, label), set()).add(place)
    equal = {label for (_, label), places in homes.items() if len(places) > 1}
    places = {place for place, _, label, _ in named if label in equal}
    above = Path(os.path.commonpath(places)) if places else Path()
    above = above.parent if above in places else above
    return [
        (task, f"{place.relative_to(above)}: {label}" if label in equal else label, seed)
        for place, task, label, seed in named
    ]


def refuse_equal_seeds(runs: Iterable[tuple[Path, str, str, int]], key: str) -> None:
    """Refuse two runs (folder, environment, group, seed) with the same group and seed, since they would count as two.
    Raise ConfigError naming both; ``key`` is the option that gave the runs."""
    seen: dict[tuple[str, str, int], Path] = {}
    for folder, task, group, seed in runs:
        other = seen.setdefault((task, group, seed), folder)
        if other != folder:
            raise ConfigError(f"{key}: {other} and {folder} are both seed {seed} of {group} in {task}")


def saved_steps(run_dir: Path) -> list[int]:
    """Return the environment steps of the checkpoints in a run folder, in order, damaged ones included."""
    return sorted(int(folder.name.removeprefix("step_")) for folder in checkpoint.folders(run_dir / TRAINED))


def nearest_steps(run_dir: Path, shares: Sequence[float], key: str) -> list[int]:
    """Return the steps of the checkpoints nearest to ``shares`` (0 to 1) of the newest one's step, each once, in order.
    Raise ConfigError if there is no checkpoint."""
    steps = saved_steps(run_dir)
    if not steps:
        raise ConfigError(f"{key}: {run_dir} has no usable checkpoint")
    return sorted({min(steps, key=lambda step: abs(step - share * steps[-1])) for share in shares})


def pick_checkpoint(run_dir: Path, step: int | None, key: str = "run") -> Path:
    """Return the folder of the newest intact checkpoint, or of the one at environment step ``step``. Raise ConfigError
    if there is none, CheckpointError if the requested one is damaged."""
    if step is None:
        found = checkpoint.newest(run_dir / TRAINED)
        if found is None:
            raise ConfigError(f"{key}={run_dir} has no usable checkpoint")
        return found[0]
    steps = saved_steps(run_dir)
    if step not in steps:
        raise ConfigError(f"checkpoint={step} is not in {run_dir / TRAINED}; there are {', '.join(map(str, steps))}")
    folder = run_dir / TRAINED / f"step_{step:012d}"
    checkpoint.verify(folder)
    return folder
