"""Names in figures of matplotlib, which reads a pair of dollar signs as maths and leaves names that begin with an
underscore out of legends."""

from __future__ import annotations

from textwrap import fill


def plain(name: str, width: int = 0) -> str:
    """Return a name that matplotlib shows literally everywhere; in lines of at most ``width`` characters (0: as it
    is)."""
    lines = fill(name, width) if width else name
    return ("\u200b" if lines.startswith("_") else "") + lines.replace("$", r"\$")
