"""Options that share a file: every key of ``conf/options/GROUP.yaml`` is an option of that group.

``experiment=mds_small/sbc`` is the key ``sbc`` of ``conf/options/experiment/mds_small.yaml``; its value is what a file
``conf/experiment/mds_small/sbc.yaml`` would hold. Two entries of its defaults list are implied: first the option
``base`` of the same file, if there is one and the list names no other configuration; and at the end ``_self_``. A first
line ``# @package`` applies to every option of the file.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from marl.core.store import store_later

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # every script reads these files; the one in C is fast
FOLDER = Path(__file__).resolve().parent / "options"


def _with_defaults(group: str, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return one option as the content of a file of its own, with its whole defaults list."""
    node = dict(options[name] or {})
    defaults = list(node.pop("defaults", []))
    starts_elsewhere = any(isinstance(entry, str) for entry in defaults)
    if "base" in options and name != "base" and not starts_elsewhere:
        defaults.insert(0, f"/{group}/base@_here_")
    return {"defaults": [*defaults, "_self_"], **node}


@functools.cache
def register() -> None:
    """Make these options known to Hydra; only the first call reads the files.

    A section with ``open_keys`` in its defaults (``/open_keys@kwargs``) accepts keys that it does not have: arguments
    of somebody else's constructor.
    """
    ConfigStore.instance().store(name="open_keys", node=OmegaConf.create({}, flags={"struct": False}), provider="conf")
    for path in sorted(FOLDER.rglob("*.yaml")):
        group = path.relative_to(FOLDER).with_suffix("").as_posix()
        text = path.read_text(encoding="utf8")
        header = text.partition("\n")[0]
        package = header.removeprefix("# @package ").strip() if header.startswith("# @package ") else None
        options: Any = yaml.load(text, Loader=LOADER)
        for name in options:
            content = _with_defaults(group, str(name), options)
            store_later(group, str(name), content, provider=f"conf/options/{group}.yaml", package=package)
