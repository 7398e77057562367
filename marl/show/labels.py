"""Names in the figures of matplotlib, which reads two dollars as mathematics and leaves out of legends what begins with
an underscore."""

from __future__ import annotations

from textwrap import fill


def plain(name: str, width: int = 0) -> str:
    """Return a name so that matplotlib shows it letter by letter, everywhere; in lines of at most ``width`` characters
    (0: as it is)."""
    lines = fill(name, width) if width else name
    return ("\u200b" if lines.startswith("_") else "") + lines.replace("$", r"\$")
