"""Test that the files and Python names that the documentation mentions in backticks exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
TICKS = re.compile(r"`([^`]+)`")
TOP = "algos|attacks|conf|docs|envs|marl|scripts|tests"
FILE = re.compile(rf"(?<![\w./])(?:{TOP})/[\w/.*-]+\.(?:py|ya?ml|md|json)\b")
NAME = re.compile(r"(?<![\w./])(?:algos|attacks|envs|marl|scripts|tests)(?:\.\w+)+(?![\w/])")
LINK = re.compile(r"\]\(([^)#:]+)\)")
MADE = re.findall(r'write\("([\w/]+\.md)"', (ROOT / "docs/pages.py").read_text(encoding="utf8"))  # at every build
ON_SITE = {ROOT / "docs" / name for name in MADE}


def is_there(path: Path) -> bool:
    return path.exists() or path.resolve() in ON_SITE


def exists(name: str) -> bool:
    """Tell whether a dotted name is a module, or an attribute of one."""
    path = name.split(".")
    for cut in range(len(path), 0, -1):
        try:
            found = importlib.import_module(".".join(path[:cut]))
        except ModuleNotFoundError:
            continue
        for attribute in path[cut:]:
            if not hasattr(found, attribute):
                return False
            found = getattr(found, attribute)
        return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_names_only_what_exists(page: Path) -> None:
    text = BLOCK.sub("", page.read_text(encoding="utf8"))
    ticks = TICKS.findall(text)
    files = {name for tick in ticks for name in FILE.findall(tick) if "NAME" not in name}
    missing = {name for name in files if not any(ROOT.glob(name))}
    missing |= {name for tick in ticks for name in NAME.findall(tick) if not exists(name)}
    missing |= {link for link in LINK.findall(text) if not is_there(page.parent / link)}
    assert not missing, f"{page.name} names what does not exist: {', '.join(sorted(missing))}"


@pytest.mark.parametrize("published", sorted((ROOT / "docs/results").glob("*.json")), ids=lambda path: path.stem)
def test_a_published_result_names_no_folder_of_some_machine(published: Path) -> None:
    """Its commands are to be typed again elsewhere."""
    assert re.findall(r"[^\s\"]*(?:/tmp/|/home/|/root/|/work/)[^\s\"]*", published.read_text(encoding="utf8")) == []
