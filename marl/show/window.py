"""A window that shows frames live, with pygame: ``pip install -e .[window]``."""

from __future__ import annotations

import contextlib
import io
from types import ModuleType
from typing import Any

import numpy as np

from marl.core.types import ConfigError


class WindowClosed(Exception):
    """The user has closed the window."""


def load_pygame() -> ModuleType:
    """Return pygame without its greeting; raise ConfigError if it is not installed."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            import pygame
    except ImportError as error:
        raise ConfigError("a window needs pygame: pip install -e .[window]") from error
    return pygame


class Window:
    """A window that shows frames, uint8 [height, width, 3], ``fps`` of them a second. It opens with the first one and
    takes on the size of every frame."""

    def __init__(self, title: str, fps: float) -> None:
        self._pygame = load_pygame()
        self.title, self.fps = title, fps
        self.closed = False
        self._clock = self._pygame.time.Clock()
        self._screen: Any = None

    def show(self, frame: np.ndarray, seconds: float = 0.0) -> None:
        """Put ``frame`` on the screen, then wait for its time, or for ``seconds``.

        Raise WindowClosed if the window was closed, including by Escape; ConfigError if there is no screen.
        """
        if self.closed:
            raise WindowClosed
        pygame, size = self._pygame, (frame.shape[1], frame.shape[0])
        if self._screen is None or self._screen.get_size() != size:
            self._open(size)
        self._screen.blit(pygame.surfarray.make_surface(frame.swapaxes(0, 1)), (0, 0))
        pygame.display.flip()
        self._look()
        for _ in range(round(seconds * self.fps)):
            self._clock.tick(self.fps)
            self._look()
        self._clock.tick(self.fps)

    def _open(self, size: tuple[int, int]) -> None:
        pygame = self._pygame
        try:
            pygame.display.init()
            pygame.display.set_caption(self.title)
            self._screen = pygame.display.set_mode(size)
        except pygame.error as error:
            raise ConfigError(f"no window can be opened here: {error}") from error

    def _look(self) -> None:
        pygame = self._pygame
        for event in pygame.event.get():
            escape = event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE
            if event.type == pygame.QUIT or escape:
                self.close()
                raise WindowClosed

    def content(self) -> np.ndarray:
        """Return what is on the screen, uint8 [height, width, 3]."""
        return self._pygame.surfarray.array3d(self._pygame.display.get_surface()).swapaxes(0, 1)

    def close(self) -> None:
        """Close the window; safe to call twice."""
        self.closed = True
        if self._screen is not None:
            self._screen = None
            self._pygame.display.quit()
