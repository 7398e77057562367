"""The Wolfpack attack (docs/wolfpack.md); training against it is WALL."""

from attacks.wolfpack.attack import Wolfpack

__all__ = ["Wolfpack"]
