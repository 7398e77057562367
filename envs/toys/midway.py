"""What small games share: saving them in the middle of episodes, and drawing nothing in it."""

from __future__ import annotations

from typing import Any, ClassVar

from marl.core.types import Obs


class Midway:
    """Saves and restores the tensors ``in_hand`` of a game, which lead with the lane, and its random streams."""

    in_hand: ClassVar[tuple[str, ...]]

    def midway_state(self: Any) -> dict[str, Any]:
        """Return all that the games in hand are made of."""
        return {"streams": self.state_dict()} | {name: getattr(self, name).clone() for name in self.in_hand}

    def load_midway_state(self: Any, state: dict[str, Any]) -> Obs:
        """Go on with saved games; return what their agents see."""
        self.load_state_dict(state["streams"])
        for name in self.in_hand:
            setattr(self, name, state[name].clone())
        return self._observe()


class Settled:
    """A game that draws nothing once an episode has begun: with other random numbers it would be the same."""

    def redraw(self, seed: int) -> None:
        return None

    def has_drawn(self) -> bool:
        return False
