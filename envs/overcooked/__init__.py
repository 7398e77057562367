"""Overcooked as batched kernels: two cooks, any layout in the notation of the ``overcooked-ai`` package."""

from envs.overcooked.env import Overcooked

__all__ = ["Overcooked"]
