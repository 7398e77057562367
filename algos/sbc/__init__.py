"""State-blocking coordination and the zero-shot baselines beside it (docs/sbc.md)."""

from algos.sbc.algorithm import SBC

__all__ = ["SBC"]
