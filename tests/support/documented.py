"""Commands that the documentation and the comments of configurations show, as a shell reads them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMENTED = sorted((ROOT / "conf").rglob("*.yaml"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TICKS = re.compile(r"`([^`]+)`")
BEGINS = re.compile(r"(?:python -m scripts\.|make |torchrun )")
SHELL = 'say() { printf "%s\\0" "$@"; printf "\\n"; }; python() { say python "$@"; }; make() { say make "$@"; }; ' \
    'torchrun() { say torchrun "$@"; }\n'  # fmt: skip


@dataclass(frozen=True)
class Shown:
    """One command line as it stands in a file. ``text`` may hold several commands, divided by ``;``."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"

    def commands(self, folder: Path) -> list[list[str]]:
        """Return the words of its commands, as a shell makes them in ``folder``. Raise ValueError where the shell
        refuses the line, or starts anything but these commands."""
        done = subprocess.run(
            ["/bin/sh", "-c", SHELL + self.text], cwd=folder, env={"PATH": ""}, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        if done.returncode or done.stderr or list(folder.iterdir()):
            raise ValueError(f"{self}: {done.stderr or 'the shell did something else'}")
        return [line.split("\0")[:-1] for line in done.stdout.splitlines()]


def on_page(page: Path) -> Iterator[Shown]:
    """Yield the commands of a page: lines of code blocks that begin like one, or with ``...`` in place of the script of
    the one before; and code between backticks."""
    text, name = page.read_text(encoding="utf8"), page.relative_to(ROOT).as_posix()
    before = ""
    for block in FENCE.finditer(text):
        if block[1] not in ("", "sh", "bash", "console"):
            continue
        first = text.count("\n", 0, block.start(2)) + 1
        for number, line in joined(block[2].splitlines()):
            if line.startswith("... "):
                line = " ".join([*before.split()[:3], line.removeprefix("... ")])
            if BEGINS.match(line):
                yield Shown(name, first + number, before := line)
    prose = FENCE.sub(lambda block: "\n" * block[0].count("\n"), text)
    for tick in TICKS.finditer(prose):
        line = " ".join(tick[1].split())
        if BEGINS.match(line):
            yield Shown(name, prose.count("\n", 0, tick.start()) + 1, line)


def in_comments(path: Path) -> Iterator[Shown]:
    """Yield the commands in the comments of a YAML file: from their first word to the end of the line or backtick."""
    comments = [line.partition("# ")[2] if "#" in line else "" for line in path.read_text(encoding="utf8").splitlines()]
    for number, line in joined(comments):
        if (found := BEGINS.search(line)) and "scripts." in line:
            yield Shown(path.relative_to(ROOT).as_posix(), number + 1, line[found.start() :].partition("`")[0])


def joined(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Yield lines with their numbers, from 0; those that end in a backslash together with the next, as a shell does."""
    begun: tuple[int, str] | None = None
    for number, line in enumerate(lines):
        first, text = (number, line.lstrip()) if begun is None else (begun[0], begun[1] + line)
        begun = (first, text.rstrip()[:-1]) if text.rstrip().endswith("\\") else None
        if begun is None:
            yield first, text.rstrip()
