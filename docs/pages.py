"""Make the pages of the site that are not written by hand: options with their comments, experiments, and the pages that
lie outside ``docs/``. MkDocs runs this at every build (mkdocs.yml); nothing of it is committed."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import mkdocs_gen_files

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from marl.core.config import SCHEMAS  # noqa: E402
from scripts.options import HIDDEN, Option, about, options  # noqa: E402

CONF = ROOT / "conf"
OUTSIDE = {"CONTRIBUTING.md": "contributing.md", "zoo/README.md": "zoo.md"}  # pages of the repository, on the site
GROUPS = {
    "algo": "Algorithms", "agent": "Agent networks", "mixer": "Mixers", "sampler": "Replay samplers",
    "env": "Environments", "attack": "Attacks", "policy": "Policies that are no run",
    "partners": "Populations of partners", "hook": "Hooks",
    "demos": "Demonstrations", "logs": "Published logs", "launch": "Where sweeps run",
}  # fmt: skip
COMMAND = re.compile(r"python -m scripts\.[^()]*[^()\s]")
BUNDLES = {
    "experiment": "Experiments", "suite": "Suites of attacks", "study": "Whole matrices", "table": "Published tables",
}  # fmt: skip


def cell(text: str, up: str = "../") -> str:
    """Return a comment as Markdown for a cell of a table, with links to the pages that it names."""
    if "`" not in text:
        text = COMMAND.sub(r"`\g<0>`", text)
    parts = text.split("`")
    for k in range(0, len(parts), 2):  # outside of backticks
        for sign in "|*{[<_":
            parts[k] = parts[k].replace(sign, f"&#{ord(sign)};")
        parts[k] = re.sub(r"\bdocs/([\w&#;]+\.md)", lambda page: _page(page[1].replace("&#95;", "_"), up), parts[k])
    return "`".join(parts)


def _page(name: str, up: str) -> str:
    return f"[{name.removesuffix('.md')}]({up}{name})" if (ROOT / "docs" / name).is_file() else name


def code(value: str) -> str:
    """Return a value as code for a cell of a table."""
    return f"<code>{value.replace('&', '&amp;').replace('<', '&lt;').replace('|', '&#124;')}</code>" if value else ""


def table(found: list[Option], package: str = "") -> str:
    """Return options as a table of keys, defaults and comments."""
    shown = [option.below(package) for option in found if option.key.rpartition(".")[2] not in HIDDEN]
    if not shown:
        return ""
    rows = [f"| {code(option.key)} | {code(option.value)} | {cell(option.comment)} |" for option in shown]
    return "\n".join(["| option | default | meaning |", "| --- | --- | --- |", *rows]) + "\n"


def scripts() -> Iterator[str]:
    """Yield the page of the scripts' own options."""
    yield "# Options of the scripts\n"
    yield (
        "Every option below is given as `key=value`. The tables are made from the YAML files in `conf/`, "
        "comments included; `python -m scripts.NAME --help` prints the same.\n"
    )
    for name in SCHEMAS:
        text = (CONF / f"{name}.yaml").read_text(encoding="utf8")
        yield f"## scripts.{name}\n"
        yield _prose(about(text))
        yield table(options(text))


def _prose(said: str) -> str:
    """Return a comment as paragraphs; its indented lines are commands."""
    out: list[str] = []
    for line in said.splitlines():
        if line.startswith("  "):
            out += ["", f"    {line.strip()}", ""]
        else:
            out.append(cell(line))
    return "\n".join(out) + "\n"


def files(group: str) -> list[Path]:
    """Return the files that hold the options of a group, those of several options first."""
    shared = [CONF / "options" / f"{group}.yaml", *sorted((CONF / "options" / group).rglob("*.yaml"))]
    return [path for path in [*sorted((CONF / group).rglob("*.yaml")), *shared] if path.is_file()]


def choices() -> Iterator[str]:
    """Yield the page of the groups of options, file by file."""
    yield "# Options of the choices\n"
    yield (
        "What `algo=`, `env=`, `attack=` and the other groups can be, file by file. A choice is written `GROUP=NAME`; "
        "its own options begin with the name of the group, as in `algo.learner.lr=0.001`. A file that builds on "
        "another one lists only what it changes: `python -m scripts.train --help algo=NAME` shows the whole.\n"
    )
    for group, title in GROUPS.items():
        yield f"## {title} ({group}=)\n"
        for path in files(group):
            text = path.read_text(encoding="utf8")
            shared = path.is_relative_to(CONF / "options")
            home = CONF / "options" if shared else CONF
            name = path.relative_to(home).with_suffix("").as_posix()
            yield f"### {_title(name, group, shared)}\n"
            yield _prose(about(text))
            if shared or group in ("launch", "partners"):
                yield fenced(text)
            else:
                yield table(options(text), group) or "It has no options of its own.\n"


def _title(name: str, group: str, shared: bool) -> str:
    if name.endswith("/base"):
        return f"{group}: what others are made of ({name}.yaml)"
    if not shared:
        return f"{group}={name.removeprefix(f'{group}/')}"
    return f"{group}={name.removeprefix(group).strip('/')}/KEY" if "/" in name else f"{group}=KEY, variants"


def fenced(text: str) -> str:
    """Return the body of a YAML file as a block of code."""
    body = text.splitlines()
    while body and (not body[0].strip() or body[0].startswith("#")):
        body.pop(0)
    return "\n".join(["```yaml", *body, "```", ""])


def bundles() -> Iterator[str]:
    """Yield the page of experiments, suites, studies and tables, each as its file."""
    yield "# Experiments and tables\n"
    yield (
        "Files that set many options at once. They are shown as they are; open one to read it. `experiment=NAME` "
        "belongs to `scripts.train`, `suite=` and `study=` to the matrices, `table=` to `scripts.reproduce`.\n"
    )
    for group, title in BUNDLES.items():
        yield f"## {title} ({group}=)\n"
        for path in files(group):
            shared = path.is_relative_to(CONF / "options")
            name = path.relative_to(CONF / "options" if shared else CONF).with_suffix("").as_posix()
            text = path.read_text(encoding="utf8")
            inside = "\n".join(f"    {line}".rstrip() for line in ["```yaml", *text.splitlines(), "```"])
            yield f'??? note "{_title(name, group, shared)}"\n\n{inside}\n'


def write(page: str, parts: Iterator[str]) -> None:
    """Write a page that is made."""
    with mkdocs_gen_files.open(page, "w") as file:
        file.write("\n".join(parts))


def outside() -> None:
    """Copy the pages that lie outside ``docs/``, and lead links to them to the copies."""
    for source, page in OUTSIDE.items():
        text = (ROOT / source).read_text(encoding="utf8").replace("](docs/", "](")
        write(page, iter([text]))
    for path in sorted((ROOT / "docs").rglob("*.md")):
        text = was = path.read_text(encoding="utf8")
        up = "../" * len(path.relative_to(ROOT / "docs").parts)
        for source, page in OUTSIDE.items():
            text = text.replace(f"]({up}{source}", f"]({up[3:]}{page}")
        if text != was:
            write(path.relative_to(ROOT / "docs").as_posix(), iter([text]))


write("reference/options.md", scripts())
write("reference/choices.md", choices())
write("reference/experiments.md", bundles())
outside()
