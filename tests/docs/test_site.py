"""The site: its contents name pages that exist, the API reference shows comments that hold shapes, and search works on
pages that are opened from the disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.test_paths import MADE
from tests.support.documented import ROOT

CHROMIUM = Path("/usr/bin/chromium")
WORKER = 'addEventListener("message", ({ data }) => postMessage({ sum: data.a + data.b }))'
PAGE = """<script src="{shim}"></script><body><script>
  try {{
    const worker = new Worker(new URL("adds.js", location))
    worker.addEventListener("message", ({{ data }}) => document.title += ` ${{data.sum}}`)
    for (const b of [1, 2]) worker.postMessage({{ a: 40, b }})
  }} catch (error) {{ document.title = error.name }}
</script></body>"""
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


def test_search_from_the_disk_fetches_nothing_from_elsewhere() -> None:
    """Without a file of that name among the polyfills, the plugin `offline` fetches one from a server."""
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf8"))
    assert "offline" in config["plugins"] and config["use_directory_urls"] is False
    assert config["extra"]["polyfills"] == ["iframe-worker.js"] and (ROOT / "docs/iframe-worker.js").is_file()


@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}: make browser")
def test_a_page_from_the_disk_has_workers(tmp_path: Path) -> None:
    """Its broken twin loads no stand-in for them, and the browser refuses."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="the browser is driven by playwright: pip install -e .[dev]"
    )
    (tmp_path / "adds.js").write_text(WORKER, encoding="utf8")
    titles = []
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        for name, shim in (("with.html", (ROOT / "docs/iframe-worker.js").as_uri()), ("without.html", "none.js")):
            (tmp_path / name).write_text(PAGE.format(shim=shim), encoding="utf8")
            tab = browser.new_page()
            tab.goto((tmp_path / name).as_uri())
            tab.wait_for_function("/41 42$|Error/.test(document.title)")
            titles.append(tab.title())
        browser.close()
    assert titles == ["41 42", "SecurityError"]
