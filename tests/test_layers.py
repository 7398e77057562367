"""The architecture's rules about files: who may import whom, what importing costs, and how long anything may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINES, FUNCTION_LINES = 350, 70
OURS = ("marl", "envs", "algos", "attacks", "scripts", "conf", "hydra_plugins", "tests")
MAY_IMPORT = {  # of our own packages, and each its own
    "marl": set(),
    "envs": {"marl"},
    "algos": {"marl"},
    "attacks": {"marl"},
    "scripts": {"marl", "envs", "conf"},
}
FLOORS = ("core", "learn", "run", "measure", "show")
HEAVY = ("matplotlib", "ray", "smacv2", "pysc2", "tensorboard", "torch.utils.tensorboard", "pettingzoo", "submitit",
         "pygame", "jax", "wandb", "mlflow", "optuna", "plotly", "rliable")  # fmt: skip


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imported(path: Path) -> dict[str, int]:
    """Dotted modules that a file imports anywhere, also inside functions, with a line each."""
    found = {}
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name: node.lineno for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            stem = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (stem, node.module) if part)
            found |= {f"{module}.{alias.name}": node.lineno for alias in node.names}
    return found


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_packages_import_only_what_the_design_allows(folder: str) -> None:
    allowed = MAY_IMPORT[folder] | {folder}
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in sources(folder)
        for module, line in imported(path).items()
        if module.split(".")[0] in OURS and module.split(".")[0] not in allowed
    ]
    assert not wrong, f"{folder}/ may import only {', '.join(sorted(allowed))}:\n" + "\n".join(wrong)


def test_floors_import_downwards() -> None:
    """``core`` imports no other floor of ``marl``, ``learn`` only ``core``, and so on up to ``show``."""
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for level, floor in enumerate(FLOORS)
        for path in sources(f"marl/{floor}")
        for module, line in imported(path).items()
        if module.startswith("marl.") and module.split(".")[1] not in FLOORS[: level + 1]
    ]
    assert not wrong, f"floors from the ground up: {', '.join(FLOORS)}\n" + "\n".join(wrong)


def test_marl_is_the_five_floors() -> None:
    loose = [path.name for path in (ROOT / "marl").glob("*.py") if path.name not in ("__init__.py", "library.py")]
    assert not loose, f"files beside the floors of marl/: {', '.join(loose)}"


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def import_graph() -> dict[str, set[str]]:
    """Which of our modules each of our modules imports, by file; ``from package import module`` names the module."""
    modules = {module_of(path): path for path in sources("marl", "envs", "algos", "attacks", "scripts")}
    graph = {}
    for name, path in modules.items():
        found = set()
        for wanted in imported(path):
            hit = wanted if wanted in modules else wanted.rpartition(".")[0]
            found |= {hit} & modules.keys() - {name}
        graph[name] = found
    return graph


def test_no_file_imports_in_a_circle() -> None:
    """Also not inside functions or for type checkers: a circle means that one file belongs elsewhere."""
    circles = [" -> ".join([*circle, circle[0]]) for circle in find_circles(import_graph())]
    assert not circles, "\n".join(circles)


def test_a_circle_is_found() -> None:
    assert find_circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]
    assert find_circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def find_circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """One circle through every edge that closes one, by depth-first search."""
    circles, done = [], set()

    def visit(node: str, path: list[str]) -> None:
        if node in path:
            circles.append(path[path.index(node) :])
        elif node not in done:
            for after in sorted(graph[node]):
                visit(after, [*path, node])
            done.add(node)

    for node in sorted(graph):
        visit(node, [])
    return circles


@pytest.mark.parametrize("folder", ["algos", "attacks"])
def test_plugins_do_not_import_each_other(folder: str) -> None:
    """Any algorithm works with any attack because neither knows another. A method is a file or a package; what several
    share is in ``algos/shared``, ``attacks/shared`` and ``attacks/base``."""
    wrong = []
    for path in sources(folder):
        method = path.relative_to(ROOT / folder).with_suffix("").parts[0]
        for module, line in imported(path).items():
            theirs = module.split(".")[1] if module.startswith(f"{folder}.") else method
            if theirs not in (method, "shared", "base"):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_training_imports_nothing_heavy_or_optional() -> None:
    needed = "sys, marl, marl.run.trainer, marl.run.teams, marl.show.record"
    code = f"import {needed}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_whoever_compiles_has_a_place_for_the_code() -> None:
    """``marl.core.caching`` finds one, before numba looks for it, and in whatever order modules are imported."""
    home = ROOT / "marl" / "core" / "caching.py"
    assert [path for path in sources("marl", "envs", "algos", "attacks") if "numba.njit" in imported(path)] == [home]


def test_files_are_read_in_one_sitting() -> None:
    lengths = {path: len(path.read_text(encoding="utf8").splitlines()) for path in sources(*OURS)}
    long = [f"{path.relative_to(ROOT)} has {n} lines" for path, n in lengths.items() if n >= LINES]
    assert not long, f"split by idea what reaches {LINES} lines:\n" + "\n".join(long)


def test_functions_fit_a_screen() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for path in sources(*OURS)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8")))
        if isinstance(node, ast.FunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES
    ]
    assert not long, f"functions of more than {FUNCTION_LINES} lines:\n" + "\n".join(long)


def test_modules_say_what_they_are() -> None:
    bare = [
        str(path.relative_to(ROOT))
        for path in sources(*OURS)
        if path.read_text(encoding="utf8").strip() and not ast.get_docstring(ast.parse(path.read_text(encoding="utf8")))
    ]
    assert not bare, f"modules without a docstring: {', '.join(bare)}"
