"""The architecture's rules about files: who may import whom, what importing costs, and how long anything may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINES, FUNCTION_LINES = 350, 70
OURS = ("marl", "envs", "algos", "attacks", "scripts", "conf", "tests")
MAY_IMPORT = {  # of our own packages, and each its own
    "marl": set(),
    "envs": {"marl"},
    "algos": {"marl"},
    "attacks": {"marl"},
    "scripts": {"marl", "envs", "conf"},
}
HEAVY = ("matplotlib", "ray", "smacv2", "pysc2", "tensorboard", "torch.utils.tensorboard", "pettingzoo", "submitit",
         "pygame", "jax")  # fmt: skip


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


@pytest.mark.parametrize("folder", ["algos", "attacks"])
def test_plugins_do_not_import_each_other(folder: str) -> None:
    """Any algorithm works with any attack because neither knows another; they share ``attacks.base``; the
    papers that use an unrestricted value share ``algos.central``, those that pay for state features, which both must
    name, and for influence on them ``algos.influence``. A plug-in may have parts: ``s2q``, ``s2q_policy``."""
    wrong = []
    for path in sources(folder):
        for module, line in imported(path).items():
            own = module.startswith(f"{folder}.") and module.split(".")[1].split("_")[0] == path.stem.split("_")[0]
            shared = module.startswith(("attacks.base", "algos.central", "algos.influence"))
            if module.startswith(f"{folder}.") and not shared and not own:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_training_imports_nothing_heavy_or_optional() -> None:
    code = f"import sys, marl.trainer, marl.runs, marl.record; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


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
