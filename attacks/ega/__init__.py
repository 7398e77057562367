"""Evolving populations of attackers (docs/romance.md): EGA, ROMANCE, RARL and RAP."""

from attacks.ega.attack import EGA

__all__ = ["EGA"]
