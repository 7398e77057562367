"""What small games share: saving and restoring unfinished episodes, and having no randomness within an episode."""

from __future__ import annotations

from typing import Any, ClassVar

from marl.core.types import Obs


class Midway:
    """A game whose tensors ``in_hand``, which lead with the lane, and random streams can be saved and restored."""

    in_hand: ClassVar[tuple[str, ...]]

    def midway_state(self: Any) -> dict[str, Any]:
        """Return everything that makes up the unfinished games."""
        return {"streams": self.state_dict()} | {name: getattr(self, name).clone() for name in self.in_hand}

    def load_midway_state(self: Any, state: dict[str, Any]) -> Obs:
        """Resume saved games; return what their agents observe."""
        self.load_state_dict(state["streams"])
        for name in self.in_hand:
            setattr(self, name, state[name].clone())
        return self._observe()


class Settled:
    """A game that is deterministic once an episode has begun: other random numbers would not change it."""

    def redraw(self, seed: int) -> None:
        return None

    def has_drawn(self) -> bool:
        return False
