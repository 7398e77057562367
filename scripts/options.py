"""The options of the configuration tree with their comments, read from the YAML files: for ``--help``, since Hydra
leaves the comments out, and for the page of all options in the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from hydra.plugins.config_source import ConfigLoadError
from omegaconf import OmegaConf

from marl.run.compose import register_configs
from marl.run.trees import find, tree_folder

HIDDEN = ("_target_", "_partial_", "_convert_", "_recursive_")  # for Hydra, not for users
ENTRY = re.compile(r"(?:(override|optional) )?(/?)([\w/]+)(?:@([\w.]+))?$")  # of a defaults list


@dataclass(frozen=True)
class Option:
    """A dotted key, its value as YAML, and the comment next to it; ``value`` is empty for a section."""

    key: str
    value: str
    comment: str

    def below(self, package: str) -> Option:
        """Return the same option under a prefix."""
        return Option(f"{package}.{self.key}" if package else self.key, self.value, self.comment)


def about(text: str) -> str:
    """Return the comment at the top of a YAML file, without lines for Hydra."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.removeprefix("#").removeprefix(" "))
    return "\n".join(lines)


def options(text: str) -> list[Option]:
    """Return the options of a YAML file in their order; ``hydra`` and ``defaults`` are left out."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        return []
    pairs = [(key, node) for key, node in root.value if key.value not in ("hydra", "defaults")]
    return [option for key, node in pairs for option in _walk(text.splitlines(), key, node, "")]


def _walk(lines: list[str], key: yaml.Node, node: yaml.Node, above: str) -> Iterator[Option]:
    """Yield the options under a key of a mapping. The comment of a section is next to its key, that of a value next to
    its end, and it continues in the lines below as long as these hold a comment in the same column and nothing else."""
    path = f"{above}.{key.value}" if above else str(key.value)
    if isinstance(node, yaml.MappingNode) and node.value:
        if not node.flow_style and (said := _comment(lines, key.end_mark.line, key.end_mark.column)):
            yield Option(path, "", said)
        inner = [option for name, below in node.value for option in _walk(lines, name, below, path)]
        said = _comment(lines, node.end_mark.line, node.end_mark.column) if node.flow_style else ""
        for k, option in enumerate(inner):
            outer = said if k == len(inner) - 1 and not option.comment else option.comment
            yield Option(option.key, option.value, outer)
        return
    block = getattr(node, "style", None) in ("|", ">") or (isinstance(node, yaml.SequenceNode) and not node.flow_style)
    start, end = node.start_mark, node.end_mark
    raw = (
        "..." if block or (isinstance(node, yaml.SequenceNode) and not node.flow_style) else _between(lines, start, end)
    )
    yield Option(path, raw, "" if raw == "..." else _comment(lines, end.line, end.column))


def _between(lines: list[str], start: yaml.Mark, end: yaml.Mark) -> str:
    """Return the text of a value, on one line."""
    if start.line == end.line:
        return lines[start.line][start.column : end.column]
    parts = [lines[start.line][start.column :], *lines[start.line + 1 : end.line], lines[end.line][: end.column]]
    return " ".join(part.partition(" #")[0].strip() for part in parts)


def _comment(lines: list[str], number: int, column: int) -> str:
    """Return the comment after a column of a line, with its continuation in the lines below."""
    if number >= len(lines) or not (found := re.match(r"[\s,}\]:]*(?<=\s)#\s*(.*)", lines[number][column:])):
        return ""
    said, at = [found[1].rstrip()], column + found[0].index("#")
    for line in lines[number + 1 :]:
        if line.find("#") != at or line[:at].strip():
            break
        said.append(line[at:].lstrip("# ").rstrip())
    return " ".join(said)


def source(group: str, name: str) -> tuple[str, list[Any]] | None:
    """Return the text that defines ``group=name``, and its defaults list; None if there is no such option. For options
    that share a file (``conf/shared.py``) the text is their part of it, for those made by code the resulting YAML."""
    register_configs()
    if (file := find(group, name)) is not None:
        text = file.read_text(encoding="utf8")
        return text, (yaml.safe_load(text) or {}).get("defaults", [])
    try:
        node = ConfigStore.instance().load(f"{group}/{name}.yaml").node
    except (ConfigLoadError, KeyError):
        return None
    made = OmegaConf.to_container(node, resolve=False)
    defaults = made.get("defaults", []) if isinstance(made, dict) else []
    above, _, key = f"{group}/{name}".rpartition("/")
    shared = Path(tree_folder(), "options", above).with_suffix(".yaml")
    if shared.is_file() and (part := shared_part(shared.read_text(encoding="utf8"), key)):
        return part, defaults
    return OmegaConf.to_yaml(node), defaults


def shared_part(text: str, key: str) -> str:
    """Return the part of a file of several options that belongs to one of them; empty if it has none."""
    found = re.search(rf"^{re.escape(key)}:.*(?:\n+ .*)*", text, re.MULTILINE)
    return found[0].rstrip() if found else ""


def composed(group: str, name: str) -> dict[str, Option]:
    """Return the options of ``group=name`` by key, relative to the group, including those of its defaults, whose values
    it changes and whose comments it keeps. Empty if there is no such option."""
    found = source(group, name)
    if found is None:
        return {}
    text, defaults = found
    merged: dict[str, Option] = {}
    parts: dict[str, tuple[str, str]] = {}  # what stands below this option, by package: group and name
    for entry in [entry for entry in defaults if entry != "_self_"]:
        if isinstance(entry, str):
            path = entry.partition("@")[0]
            inner_group, _, inner = (path[1:] if path.startswith("/") else f"{group}/{path}").rpartition("/")
            if inner != "open_keys":
                merged |= composed(inner_group, inner)
            continue
        for key, value in entry.items():
            match = ENTRY.match(key)
            if match and value is not None and match[3] != "open_keys":
                parts[match[4] or match[3].replace("/", ".")] = (match[3], str(value))
    for package, (part_group, part) in parts.items():
        for key in [key for key in merged if key.startswith(f"{package}.")]:
            del merged[key]  # of the choice that this one replaces
        merged |= {option.key: option for option in (o.below(package) for o in composed(part_group, part).values())}
    key = name.rpartition("/")[2]
    own = options(text)
    if own and all(option.key.partition(".")[0] == key for option in own) and _is_shared(group, name):
        own = [Option(option.key.partition(".")[2], option.value, option.comment) for option in own]
    for option in [option for option in own if option.key and option.key.partition(".")[0] != "defaults"]:
        before = merged.get(option.key)
        comment = option.comment or (before.comment if before else "")
        merged[option.key] = Option(option.key, option.value, comment)
    return merged


def _is_shared(group: str, name: str) -> bool:
    """Return whether an option is part of a file that several share."""
    return find(group, name) is None


def listed(found: list[Option]) -> str:
    """Return options as lines of a table: key and value, and the comment in a column of its own."""
    shown = [option for option in found if option.key.rpartition(".")[2] not in HIDDEN]
    heads = [f"{option.key}: {option.value}".rstrip() for option in shown]
    width = min(max(map(len, heads), default=0), 50)
    return "\n".join(
        f"{head:{width}}  # {option.comment}" if option.comment else head
        for head, option in zip(heads, shown, strict=True)
    )
