"""Checks of what a game returns: a part of the wrong form is rejected by name instead of being silently converted to a
truth value, broadcast or cut off. Imports no torch.

Every error is a ValueError that names the part, the agent where there is one, the value and the rule; the pool adds the
lane.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

log = logging.getLogger(__name__)
MASK_NAMES = ("action_mask", "action_masks", "avail_actions", "available_actions", "legal_actions", "legal_moves")
OBS_NAMES = ("observation", "observations", "obs")
LONGEST = 60  # characters of a value in a message


def shown(value: Any) -> str:
    """Return a value on one line, shortened."""
    text = " ".join(repr(value).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def unpack(result: Any, parts: Sequence[str], call: str) -> tuple[Any, ...]:
    """Return the ``parts`` of what ``call`` ("reset", "step") returned. Raise ValueError if their number differs."""
    if not isinstance(result, tuple) or len(result) != len(parts):
        got = f"{len(result)} values" if isinstance(result, tuple) else f"one {type(result).__name__}"
        raise ValueError(f"{call} must return ({', '.join(parts)}); this game returned {got}: an older API?")
    return result


def flag(value: Any, part: str) -> bool:
    """Return one flag. Raise ValueError for lists, dictionaries and numbers other than 0 and 1."""
    if value is True or value is False:  # what most games give, without an array
        return value
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biuf" or array.item() not in (0, 1):
        raise ValueError(f"{part} must be one flag, true or false, got {shown(value)}")
    return bool(array.item())


def number(value: Any, part: str) -> float:
    """Return one finite number; an array of one element counts. Raise ValueError for anything else."""
    if isinstance(value, float) and math.isfinite(value):  # what most games give
        return float(value)
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biuf":
        raise ValueError(f"{part} must be a number, got {shown(value)}")
    if not np.isfinite(array.item()):
        raise ValueError(f"{part} must be finite, got {array.item()}")
    return float(array.item())


def by_agent(value: Any, part: str, names: Sequence[str], whole: bool = True) -> dict[str, Any]:
    """Return a mapping from the agents to their ``part``. Raise ValueError if it is not a mapping and, if the ``whole``
    team must be in it, if an agent of ``names`` is missing."""
    if not isinstance(value, dict):
        raise ValueError(f"{part} must be a mapping with an entry for each agent, got {shown(value)}")
    missing = [name for name in names if name not in value] if whole else []
    if missing:
        raise ValueError(f"{part} must have an entry for each agent; {', '.join(map(str, missing))} is missing")
    return value


def find_mask(given: Any) -> Any:
    """Return the action mask that a mapping has under one of its usual names, or None."""
    if isinstance(given, dict):
        for name in MASK_NAMES:
            if given.get(name) is not None:
                return given[name]
    return None


def mask_row(mask: Any, size: int, part: str) -> np.ndarray:
    """Return an action mask as bool [size]. Raise ValueError for a different length, or values other than 0 and 1."""
    row = np.asarray(mask)
    if row.shape != (size,) or row.dtype.kind not in "biuf" or not np.isin(row, (0, 1)).all():
        raise ValueError(f"{part} must be {size} flags, one for each action, got {shown(mask)}")
    return row.astype(bool)


class Bounds:
    """A check that warns of values outside the bounds of an agent's space: once per process, agent and space."""

    said: ClassVar[set[tuple[int, bytes, bytes]]] = set()

    def __init__(self) -> None:
        self.unbounded: dict[int, bool] = {}  # by agent: nothing can be outside

    def check(self, agent: int, row: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
        """Check one observation, f32 [k], against its bounds [k]. Raise ValueError if a value is not finite."""
        if not np.isfinite(row).all():
            k = int(np.flatnonzero(~np.isfinite(row))[0])
            raise ValueError(f"the observation of agent {agent} must be finite, got {row[k]} in feature {k}")
        if agent not in self.unbounded:
            self.unbounded[agent] = bool(np.isneginf(low).all() and np.isposinf(high).all())
        if self.unbounded[agent]:
            return
        outside = np.flatnonzero((row < low) | (row > high))
        if len(outside) and (which := (agent, low.tobytes(), high.tobytes())) not in self.said:
            self.said.add(which)
            k = int(outside[0])
            log.warning(
                "agent %d, feature %d%s: the game shows %g, its space allows [%g, %g]; attacks on observations clip to "
                "the space", agent, k, f" and {len(outside) - 1} more" * (len(outside) > 1), row[k], low[k], high[k],
            )  # fmt: skip
