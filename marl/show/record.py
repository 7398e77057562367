"""Recording episodes: frames of lane 0, written as an animated GIF with Pillow, or shown live in a window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from marl.core.protocols import VectorEnv
from marl.core.types import ConfigError
from marl.run.collect import Moment, collect_whole
from marl.run.evaluate import episode_results
from marl.run.files import replacing
from marl.run.teams import Team, require_fitted
from marl.show.overlay import mark, status
from marl.show.window import Window

LAST_FRAME_MS = 1500  # the outcome stays on screen
MOST_FPS = 100  # a GIF counts time in hundredths of a second


def drawn(env: VectorEnv) -> np.ndarray:
    """Draw lane 0 as it is now, uint8 [height, width, 3]. Raise ConfigError for a game that draws no pictures."""
    try:
        picture: np.ndarray | None = env.render(0)
    except AttributeError as error:
        if error.name != "render" or not hasattr(error.obj, "n_envs"):  # of something that is no game
            raise
        raise ConfigError(f"{type(error.obj).__name__} draws no pictures: it has no render") from error
    if picture is None:  # as the method of the protocol itself does
        raise ConfigError(f"{type(env).__name__} draws no pictures: its render returns None")
    return picture


def frame(team: Team, moment: Moment | None, t: int, earned: float) -> np.ndarray:
    """Draw lane 0 as it is now, uint8 [height, width, 3], with the step and the return so far, and who is hit, if the
    attack says so."""
    text = status(t, team.env.spec.episode_limit, earned)
    return mark(drawn(team.env), team.env, moment, text, attacked="hit" in team.fields)


def film(
    team: Team, episodes: int, window: Window | None = None
) -> tuple[list[list[np.ndarray]], list[dict[str, Any]]]:
    """Play test episodes in lane 0; return the frames (uint8 [height, width, 3]) and the results of each.

    ``window`` shows the frames as they are played. Raise WindowClosed where it is closed, and ConfigError, before a
    step is played, if the attack must be fitted to the team first or if the game draws no pictures.
    """
    require_fitted(team.attack)
    films: list[list[np.ndarray]] = []
    results = []
    for _ in range(episodes):
        frames: list[np.ndarray] = []

        def keep(moment: Moment, frames: list[np.ndarray] = frames) -> None:
            if moment.t == 0:
                frames.clear()  # of an episode in which the game crashed
            if moment.running[0]:
                frames.append(frame(team, moment, moment.t, moment.earned[0].item()))
                if window is not None:
                    window.show(frames[-1])

        batch = collect_whole(
            team.env, team.policy, team.attack, team.fields, explore=False,
            attacked=torch.ones(team.env.n_envs, dtype=torch.bool), policy_gen=team.streams["eval"],
            attack_gen=team.streams["eval_attack"], device=team.device, watch=keep,
        )  # fmt: skip
        frames.append(frame(team, None, int(batch.length[0]), batch["reward"][0].sum().item()))
        if window is not None:
            window.show(frames[-1], LAST_FRAME_MS / 1000)
        films.append(frames)
        results.append({name: values[0].item() for name, values in episode_results(batch).items()})
    return films, results


def save_gif(films: list[list[np.ndarray]], path: Path, fps: float) -> None:
    """Write all recordings one after another as one GIF; each pauses on its last frame."""
    images = [Image.fromarray(frame) for frames in films for frame in frames]
    step_ms = round(1000 / fps)
    durations = [step_ms] * len(images)
    end = -1
    for frames in films:
        end += len(frames)
        durations[end] = max(step_ms, LAST_FRAME_MS)
    with replacing(path) as file:
        images[0].save(
            file, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=True
        )  # fmt: skip
