"""Configurations that a table writes: ``env=skirmish/<map>`` for every map of the embedded battle.

One file per map would be two dozen near-twins; each is ``conf/env/skirmish/base.yaml`` with another ``map``.
"""

from __future__ import annotations

from hydra.core.config_store import ConfigStore

from envs.skirmish.map_table import MAPS


def register() -> None:
    """Register the generated configurations with Hydra; safe to call twice."""
    for name in MAPS:
        ConfigStore.instance().store(
            group="env/skirmish",
            name=name,
            node={"defaults": ["skirmish/base@_here_", "_self_"], "map": name},
            provider="envs.configs",
        )
