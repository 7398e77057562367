"""Start a run from the weights of another run (``init_from``): its networks and the state of their optimizers, without
its clock, its replay or its random streams."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from torch import Tensor

from marl.core.config import flatten, resolved
from marl.core.protocols import Algorithm
from marl.core.types import ConfigError
from marl.run import checkpoint
from marl.run.folders import pick_checkpoint, read_config, run_folder

log = logging.getLogger(__name__)
State = dict[str, Any]


def origin_of(algo: Algorithm, config: State, source: str | None, found: Path | None) -> State | None:
    """Load the run ``source``, if one is named, and return its record (``adopt``); a run that continues from the
    checkpoint ``found`` only returns its saved record."""
    if found is not None:
        return checkpoint.verify(found).get("init_from")
    return adopt(algo, config, source) if source else None


def adopt(algo: Algorithm, config: State, source: str) -> State:
    """Load the newest checkpoint of the run folder ``source`` into ``algo``; return a record of its origin.

    An algorithm made of the same classes loads everything except the counters, memory and random streams of its hooks,
    which start over as the clock does. Any other loads the networks with the same names. An optimizer comes along if
    all networks next to it do; the record and the log name the parts that were left fresh. Learning rates and other
    optimizer settings are those of the new run. Raises ConfigError if ``source`` is not a run folder, or if networks of
    the same name have different shapes.
    """
    run = run_folder(source)
    theirs = resolved(read_config(run, "init_from"))
    folder = pick_checkpoint(run, None, "init_from")
    state, meta = checkpoint.load_state(folder), checkpoint.verify(folder)
    nets, fresh = set(algo.networks()), list[str]()
    with checkpoint.that_fits(f"init_from={source} does not fit"):
        own, saved = algo.state_dict(), state["algo"]
        _check_shapes(own, saved, nets, source)
        if _classes(theirs["algo"]) != _classes(config["algo"]):
            if not _named(saved, nets):
                raise ConfigError(f"init_from={source} has no network that is named {' or '.join(sorted(nets))}")
            saved = _graft(own, saved, nets, fresh)
        else:
            saved = _with_new_hooks(own, saved, nets, fresh)
        algo.load_state_dict(_own_settings(own, saved, fresh))
    left = f"; left fresh: {', '.join(fresh)}" if fresh else ""
    log.info("starting from %s, trained for %s steps%s", source, f"{state['clock']['env_steps']:,}", left)
    facts = {key: meta.get(key) for key in ("config_hash", "commit")}
    return {"run": source, "env_steps": state["clock"]["env_steps"], **facts, "fresh": fresh}


def _classes(algo: Any) -> State:
    """Return the classes that an algorithm's configuration names, without exploration, which has no state."""
    return {k: v for k, v in flatten(algo).items() if k.endswith("_target_") and not k.startswith("epsilon")}


def _named(tree: Any, nets: set[str]) -> list[str]:
    """Return the names of the networks that occur in a state."""
    if not isinstance(tree, dict):
        return []
    return [name for key, value in tree.items() for name in ([key] if key in nets else _named(value, nets))]


def _check_shapes(own: State, saved: State, nets: set[str], source: str) -> None:
    """Refuse networks of the same name whose tensors differ in name or shape. Raise ConfigError."""
    for key, value in own.items():
        if key not in saved or not isinstance(value, dict):
            continue
        if key not in nets:
            if isinstance(saved[key], dict):
                _check_shapes(value, saved[key], nets, source)
            continue
        here, there = _shapes(value), _shapes(saved[key])
        for name in sorted(here.keys() | there.keys()):
            if here.get(name) != there.get(name):
                raise ConfigError(
                    f"init_from={source} does not fit: {key}.{name} is {there.get(name, 'absent')} there and "
                    f"{here.get(name, 'absent')} here"
                )


def _shapes(net: State) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in net.items() if isinstance(tensor, Tensor)}


def _is_optimizer(state: Any) -> bool:
    return isinstance(state, dict) and state.keys() == {"state", "param_groups"}


def _graft(own: State, saved: State, nets: set[str], fresh: list[str]) -> State:
    """Return ``own`` with the networks of ``saved`` (a target that is not there copies its online network), and with
    its optimizer if all networks next to it were found."""
    merged = dict(own)
    for key, value in own.items():
        if key in nets and key in saved:
            merged[key] = saved[key]
        elif key in nets and (online := key.removeprefix("target_")) in nets & saved.keys():
            merged[key] = saved[online]  # a target starts as a copy of its online network
        elif _is_optimizer(value):
            if key in saved and own.keys() & nets == saved.keys() & nets:
                merged[key] = saved[key]
            else:
                fresh.append(key)
        elif isinstance(value, dict) and isinstance(saved.get(key), dict) and key not in nets:
            merged[key] = _graft(value, saved[key], nets, fresh)
        elif _tensors(value):
            fresh.append(key)
    return merged


def _with_new_hooks(own: Any, saved: Any, nets: set[str], fresh: list[str]) -> Any:
    """Return ``saved`` with the hooks' states of ``own``, except for their networks."""
    if isinstance(own, list) and isinstance(saved, list) and len(own) == len(saved):
        return [_with_new_hooks(a, b, nets, fresh) for a, b in zip(own, saved, strict=True)]
    if not isinstance(own, dict) or not isinstance(saved, dict):
        return saved
    merged = {k: _with_new_hooks(own[k], v, nets, fresh) if k in own else v for k, v in saved.items()}
    if "hooks" in own and isinstance(own["hooks"], list) and len(own["hooks"]) == len(saved.get("hooks", ())):
        both = zip(own["hooks"], saved["hooks"], strict=True)
        merged["hooks"] = [_graft(a, b, nets, []) for a, b in both]
        if any(own["hooks"]):
            fresh.append("hooks")
    return merged


def _tensors(tree: Any) -> bool:
    if isinstance(tree, dict | list | tuple):
        return any(_tensors(value) for value in (tree.values() if isinstance(tree, dict) else tree))
    return isinstance(tree, Tensor)


def _own_settings(own: Any, saved: Any, fresh: list[str], name: str = "") -> Any:
    """Return ``saved`` with this run's optimizer settings; an optimizer of another kind, or over other parameters,
    stays fresh."""
    if _is_optimizer(own) and _is_optimizer(saved):
        kinds = [[(group.keys(), len(group["params"])) for group in each["param_groups"]] for each in (own, saved)]
        if kinds[0] == kinds[1]:
            return {"state": saved["state"], "param_groups": own["param_groups"]}
        if name not in fresh:
            fresh.append(name)
        return own
    if isinstance(own, dict) and isinstance(saved, dict):
        return {k: _own_settings(own[k], v, fresh, str(k)) if k in own else v for k, v in saved.items()}
    if isinstance(own, list) and isinstance(saved, list) and len(own) == len(saved):
        return [_own_settings(a, b, fresh, name) for a, b in zip(own, saved, strict=True)]
    return saved
