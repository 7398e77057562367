"""The configuration tree as a package: Hydra composes its YAML files, ``register`` adds options without a file."""

from __future__ import annotations


def register() -> None:
    """Make the options that share a file, and the maps of the embedded battle, known to Hydra; safe to call twice."""
    import envs.configs
    from conf import shared

    envs.configs.register()
    shared.register()
