"""Options that have no file of their own, in Hydra's config store.

The store holds hundreds of them and a command reads a few, so an option becomes a configuration when it is first read.
"""

from __future__ import annotations

from typing import Any

from hydra.core.config_store import ConfigNode, ConfigStore
from omegaconf import DictConfig, OmegaConf


class SharedNode(ConfigNode):
    """A configuration in Hydra's store that is shared by copies of the store. Hydra copies the whole store whenever it
    composes, and once more whatever it loads from it."""

    def __deepcopy__(self, memo: dict[int, Any]) -> SharedNode:
        return self


class LaterNode(SharedNode):
    """A configuration in Hydra's store that is plain data until ``node`` is first read."""

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name == "node" and not isinstance(value, DictConfig):
            value = self.node = OmegaConf.create(value)
        return value

    def __copy__(self) -> SharedNode:
        return SharedNode(self.name, self.node, self.group, self.package, self.provider)


def store_later(group: str, name: str, content: dict[str, Any], provider: str, package: str | None = None) -> None:
    """Register ``group=name`` with Hydra, with the ``content`` that a file of that name would have."""
    level = ConfigStore.instance().repo
    for part in group.split("/"):
        level = level.setdefault(part, {})
    file = f"{name}.yaml"
    level[file] = LaterNode(name=file, node=content, group=group, package=package, provider=provider)  # type: ignore[arg-type]


def share(nodes: dict[str, Any]) -> None:
    """Replace each configuration below ``nodes``, a level of Hydra's store, by one that copies of the store share."""
    for name, node in nodes.items():
        if isinstance(node, dict):
            share(node)
        elif not isinstance(node, SharedNode):
            nodes[name] = SharedNode(**vars(node))
