"""Configurations generated from a table: ``env=skirmish/<map>`` for every map of the embedded battle.

One file per map would be some forty near-duplicates; each is ``conf/env/skirmish/base.yaml`` with another ``map``.
"""

from __future__ import annotations

from envs.skirmish.map_table import MAPS
from marl.core.store import store_later


def register() -> None:
    """Register the generated configurations with Hydra; safe to call twice."""
    for name in MAPS:
        content = {"defaults": ["skirmish/base@_here_", "_self_"], "map": name}
        store_later("env/skirmish", name, content, provider="envs.configs")
