"""The site: its contents name pages that exist, and the API reference shows comments that hold shapes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.test_paths import MADE
from tests.support.documented import ROOT

SOURCE = '''
class Obs:
    obs: int  # f32 [B, n]
    plain: int
    long: int  # bool [B]; goes on
    # in the next line

    def act(self, x: int) -> int: ...  # [B] -> [B, n]

    def told(self) -> int:
        """Return it."""
        return 1  # never shown
'''


def leaves(node: Any) -> Iterator[str]:
    """Yield the pages of a table of contents."""
    if isinstance(node, str):
        yield node
    for below in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from leaves(below)


def test_the_contents_name_every_page_once() -> None:
    nav = list(leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf8"))["nav"]))
    written = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert sorted(nav) == sorted([*written, *MADE, "contributing.md", "zoo.md"])


def test_comments_are_docstrings_of_what_has_none(tmp_path: Path) -> None:
    griffe = pytest.importorskip("griffe", reason="needs the extra docs")
    (tmp_path / "shapes.py").write_text(SOURCE, encoding="utf8")
    extensions = griffe.load_extensions(str(ROOT / "docs/comments.py"))
    found = griffe.load("shapes", search_paths=[tmp_path], extensions=extensions)["Obs"]
    said = {name: member.docstring and member.docstring.value for name, member in found.members.items()}
    assert said == {
        "obs": "f32 [B, n]", "plain": None, "long": "bool [B]; goes on in the next line", "act": "[B] -> [B, n]",
        "told": "Return it.",
    }  # fmt: skip
