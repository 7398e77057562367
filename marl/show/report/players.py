"""The recordings in a report: episodes of each group, played as in ``scripts.record``, as pictures inside the page."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from omegaconf import DictConfig
from PIL import Image

from marl.core.seeding import globals_kept
from marl.core.types import ConfigError, GameError
from marl.run.checkpoint import CheckpointError
from marl.run.compose import compose
from marl.run.folders import saved_steps
from marl.run.teams import open_team
from marl.show.gather import Run
from marl.show.record import film
from marl.show.report.facts import Group

log = logging.getLogger(__name__)
WIDEST = 640  # pixels; wider frames are scaled down
NARROWEST = 240  # pixels; narrower frames are shown enlarged, by a whole number
QUALITY = 60  # of WebP, 0 to 100


@dataclass(frozen=True)
class Film:
    """A recorded episode: ``frames`` are pictures as data URIs, of every ``every``-th step and the last."""

    group: Group
    about: str
    outcome: str
    frames: list[str]
    width: int  # pixels
    height: int
    steps: int
    every: int = 1

    @property
    def zoom(self) -> int:
        """Return how many times larger than its frames it is shown."""
        return -(-NARROWEST // self.width)

    @property
    def size(self) -> int:
        """Return the number of characters that it adds to the page."""
        return sum(map(len, self.frames))


def picture(frame: np.ndarray) -> str:
    """Return a frame uint8 [height, width, 3] as a data URI."""
    image = Image.fromarray(frame)
    if image.width > WIDEST:
        image = image.resize((WIDEST, round(image.height * WIDEST / image.width)), Image.Resampling.LANCZOS)
    held = io.BytesIO()
    image.save(held, "WEBP", quality=QUALITY, method=6)
    return "data:image/webp;base64," + base64.b64encode(held.getvalue()).decode()


def thinned(found: Film, most: int) -> Film:
    """Return a recording of at most ``most`` characters: every second frame, or third, and so on, plus the last."""
    for every in range(1, len(found.frames) + 1):
        kept = found.frames[::every]
        kept = kept if (len(found.frames) - 1) % every == 0 else [*kept, found.frames[-1]]
        shorter = replace(found, frames=kept, every=every)
        if shorter.size <= most:
            return shorter
    return replace(found, frames=[found.frames[-1]], every=len(found.frames))


def films(groups: Sequence[Group], options: DictConfig) -> tuple[list[Film], list[str]]:
    """Record ``options.episodes`` episodes of each group, played by the first of its seeds that can be; return them,
    and why some groups have none."""
    made: list[Film] = []
    notes: list[str] = []
    for group in groups if options.episodes else ():
        whys = []
        for run in group.runs:
            try:
                made += _filmed(group, run, options)
                break
            except (ConfigError, CheckpointError, GameError, NotImplementedError) as error:
                whys.append(f"seed {run.seed}: {' '.join(str(error).split())}")
        else:
            notes.append(f"No recording of {group.label} in {group.task}: {'; '.join(whys)}.")
    return made, notes


@globals_kept()
def _filmed(group: Group, run: Run, options: DictConfig) -> list[Film]:
    """Record episodes of one run. Raise ConfigError, CheckpointError or GameError where it cannot be played."""
    if not saved_steps(run.folder):
        raise ConfigError(f"{run.folder} has no checkpoint")
    log.info("filming %s", run.folder)
    cfg = compose(config="record")
    cfg.run, cfg.attack = str(run.folder), options.attack
    for key in ("act", "seed", "device", "threads"):
        cfg[key] = options[key]
    team = open_team(cfg, 1)
    with closing(team.env):
        frames, results = film(team, options.episodes)
    about = f"seed {run.seed} at step {team.source['env_steps']:,}"
    made = []
    for k, (pictures, result) in enumerate(zip(frames, results, strict=True), 1):
        height, width = pictures[0].shape[:2]
        scale = min(1.0, WIDEST / width)
        made.append(
            Film(group, f"{about}, episode {k} of {len(frames)}", outcome(result), [picture(one) for one in pictures],
                 round(width * scale), round(height * scale), len(pictures) - 1)
        )  # fmt: skip
    return made


def outcome(result: dict[str, Any]) -> str:
    """Return how an episode ended, in words."""
    hit = f", {result['hits']} of them attacked" if result["hits"] else ""
    won = "won" if result["won"] else "not won"
    return f"{won}, return {result['return']:.2f}, {result['length']} steps{hit}"


def fitted(found: Sequence[Film], most: int) -> tuple[list[Film], list[str]]:
    """Return recordings that add at most ``most`` characters to the page, in equal shares, and what was left out."""
    if not found:
        return [], []
    if most < len(found) * max(len(one.frames[-1]) for one in found):
        return [], [f"{len(found)} films are left out: the page would grow beyond its limit (megabytes)."]
    kept = [thinned(one, most // len(found)) for one in found]
    short = [one for one in kept if one.every > 1]
    notes = [f"Films of {len(short)} of {len(kept)} episodes show only some of their steps: the page has a limit "
             "(megabytes)."] if short else []  # fmt: skip
    return kept, notes
