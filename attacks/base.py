"""What attacks are made of. ``NoAttack`` is the empty one: subclass it and override what the attack does."""

from __future__ import annotations

from marl.protocols import Attack, NoAttack, View

__all__ = ["Attack", "NoAttack", "View"]
