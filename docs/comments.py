"""Show the comment beside an attribute or a one-line method as its docstring in the API reference: here it holds shapes
and units. A Griffe extension (mkdocs.yml); it reads sources and imports nothing of the framework."""

from __future__ import annotations

import re
from typing import Any

import griffe

BESIDE = re.compile(r"  # (?!fmt:|noqa|type:)(.+)$")


class Comments(griffe.Extension):
    def on_attribute_instance(self, *, attr: griffe.Attribute, **kwargs: Any) -> None:
        self._read(attr)

    def on_function_instance(self, *, func: griffe.Function, **kwargs: Any) -> None:
        if func.lineno == func.endlineno:
            self._read(func)

    def _read(self, found: griffe.Attribute | griffe.Function) -> None:
        """Give an object without a docstring the comment that ends its last line."""
        if found.docstring is not None or found.endlineno is None:
            return
        lines = found.lines_collection[found.filepath]
        if beside := BESIDE.search(lines[found.endlineno - 1]):
            said = [beside[1]]
            for line in lines[found.endlineno :]:
                if not line.lstrip().startswith("# "):
                    break
                said.append(line.strip().removeprefix("# "))
            text = " ".join(said)
            found.docstring = griffe.Docstring(text, lineno=found.endlineno, parent=found)
