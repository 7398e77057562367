"""The interaction-breaking attack (docs/ibal.md)."""

from attacks.ibal.attack import IBAL

__all__ = ["IBAL"]
