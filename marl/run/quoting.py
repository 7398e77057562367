"""Paths and texts on command lines. Names of run folders contain ``=``, ``,`` and brackets, which mean something in
Hydra's grammar; these functions quote them, in commands that are printed and in those that a user has typed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from glob import glob
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

WORDS = ("null", "true", "false", "inf", "nan")  # values of other types
# names, after the last dot, of the options whose values are folders, files, patterns or plain text
PATHS = ("run", "runs", "runs_dir", "init_from", "fit_on", "robustness", "crossplay", "out", "results", "dir",
         "file", "picture", "path")  # fmt: skip
TEXTS = ("name", "by", "title")
# in lists and sweeps: what is quoted, or what stands between the signs of the grammar, with its interpolations
PIECE = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|(?:\\.|\$\{[^}]*\}|[^\\,\[\](){}'"])+""")
FIELD = re.compile(r"(\w+)\s*:(.*)", re.DOTALL)  # of a dictionary


def quoted(value: str) -> str:
    """Return a text as a value in Hydra's grammar: as it is, or in quotes where it would mean something else."""
    plain = re.fullmatch(r"[\w./-]*[A-Za-z_/][\w./-]*", value, re.ASCII) and value.lower() not in WORDS
    if plain and not _altered(value):
        return value
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)  # backslashes count only before a quote
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"


def override(key: str, path: Path | str) -> str:
    """Return ``key=path`` as one types it in a shell."""
    word = f"{key}={quoted(str(path))}"
    return word if shlex.quote(word) == word else _in_double_quotes(word)


def shell(words: Iterable[str]) -> str:
    """Return a command line that a shell reads as these words. Hydra's quotes go inside double ones, which is easier to
    read than what ``shlex.join`` makes of them, except where a shell might take ``!`` for history expansion."""
    return " ".join(_in_double_quotes(w) if "'" in w and "!" not in w else shlex.quote(w) for w in words)


def _in_double_quotes(word: str) -> str:
    return '"' + re.sub(r'([\\"$`])', r"\\\1", word) + '"'


def repaired(words: Sequence[str]) -> list[str]:
    """Return the words of a command line with paths and texts quoted where Hydra could not read them, or would read
    something else than what is typed."""
    return [_repaired(word, sweep="-m" in words or "--multirun" in words) for word in words]


def _repaired(word: str, sweep: bool) -> str:
    key, equals, value = word.partition("=")
    last = key.lstrip("+").rpartition(".")[2]
    several = sweep or last == "name"  # a comma there is taken for a sweep, even if -m is missing
    if not equals or not (last in (*PATHS, *TEXTS) or key == "policy.mixer"):
        return word
    if _plain(word, several):
        return f"{key}={_unaltered(value)}"
    if value.startswith("[{") or value.count('"') % 2 or (value.count("'") % 2 and value[:1] == "'"):
        return word  # a list of methods; an unclosed quote
    if value.startswith("[") and value.endswith("]") and not Path(value).exists():
        return f"{key}=[{','.join(map(_element, _split(value[1:-1])))}]"
    return f"{key}={quoted(value)}"


def _plain(word: str, sweep: bool = False) -> bool:
    """Return whether Hydra reads ``key=value`` as one value (or, in a sweep, as several)."""
    try:
        read = OverridesParser.create().parse_override(word)
        return sweep or not read.is_sweep_override()
    except HydraException:
        return False


def _altered(text: str) -> bool:
    """Return whether Hydra reads a text as a number or truth value that is written otherwise: 1_0 as 10, true as True,
    but not 12."""
    if not _plain(f"key={text}"):
        return False
    value = OverridesParser.create().parse_override(f"key={text}").value()
    return isinstance(value, bool | int | float) and str(value) != text


def _unaltered(value: str) -> str:
    """Quote every text in a value, a list or a sweep that Hydra would alter. Of dictionaries, these are the values of
    ``PATHS`` and ``TEXTS``; ranges and conversions are numbers on purpose."""
    function = re.match(r"\s*(\w+)\(", value)
    if function and function[1] not in ("choice", "shuffle"):
        return value
    fields = "{" in value.replace("${", "")

    def mend(found: re.Match[str]) -> str:
        piece, field = found[0], FIELD.match(found[0].strip()) if fields else None
        if fields and (field is None or field[1] not in (*PATHS, *TEXTS)):
            return piece
        text = (field[2] if field else piece).strip()
        return piece.replace(text, quoted(text)) if _altered(text) else piece

    mended = PIECE.sub(mend, value)
    return mended if _plain(f"key={mended}", sweep=True) else value


def _element(text: str) -> str:
    return _unaltered(text) if _plain(f"key={text}") else quoted(text)


def _split(text: str) -> list[str]:
    """Split a list of paths at its commas, except where a comma belongs to the name of an existing path."""
    pieces, found = text.split(","), list[str]()
    while pieces:
        count = next((n for n in range(len(pieces), 0, -1) if _exists(",".join(pieces[:n]))), 1)
        found.append(",".join(pieces[:count]).strip())
        pieces = pieces[count:]
    return found


def _exists(pattern: str) -> bool:
    return Path(pattern).exists() or bool(glob(pattern, recursive=True))
