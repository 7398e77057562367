"""Compiled code is kept for the next process, and dropped when a file that it was compiled from changes."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numba
import numpy as np
import pytest
import torch

from envs.kernels import game, lanes
from envs.kernels.compiled import _imports, sources_of
from envs.kernels.rng import seed_lane
from envs.overcooked import env as overcooked
from envs.skirmish import Skirmish, battle

ROOT = Path(__file__).resolve().parents[3]
PRICES = "PRICE = {}\n"
GAME = """
import numpy as np
from envs.kernels.compiled import rule
from envs.kernels.lanes import lane_kernels
from toy.prices import PRICE

@rule
def observe_lane(rules, board, out, b):
    out[b] = board[b]

@rule
def reset_lane(rules, board, out, seed, reseed, b):
    board[b] = 0

@rule
def step_lane(rules, board, out, actions, b):
    board[b] += PRICE * actions[b]
    observe_lane(rules, board, out, b)

KERNELS = lane_kernels(reset_lane, step_lane, observe_lane)
"""
PLAY = """
import numba
import numpy as np
from toy.game import KERNELS, step_lane
numba.set_num_threads(THREADS)
board, out = np.zeros(3), np.zeros(3)
KERNELS.reset((), board, out, np.ones(3, np.bool_), np.uint64(0), False)
KERNELS.step((), board, out, np.arange(3.0))
kernels = (KERNELS.reset, KERNELS.step.plain, KERNELS.step.threaded)
print(out.tolist(), [sum(kernel.stats.cache_hits.values()) for kernel in kernels], len(step_lane.overloads))
"""

MAKE = """
import marl
from numba.core.dispatcher import Dispatcher
compiled = []
Dispatcher.compile = lambda self, signature: compiled.append(self.py_func.__name__)
for name in "overcooked/cramped_room foraging pushbox spread staghunt posts lock mds".split():
    marl.make_env(name, n_envs=2, seed=3)
print(compiled)
"""


def play(folder: Path, threads: int = 1) -> str:
    """Play a step in a fresh process; return what the lanes show and the cache hits of reset and of both forms of
    step."""
    env = {"PYTHONPATH": f"{folder}:{ROOT}", "PATH": "/usr/bin:/bin", "HOME": str(folder), "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", PLAY.replace("THREADS", str(threads))],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_next_process_loads_what_this_one_compiled_until_an_imported_file_changes(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "__init__.py").touch()
    (tmp_path / "toy" / "prices.py").write_text(PRICES.format(2.0))
    (tmp_path / "toy" / "game.py").write_text(GAME)
    assert play(tmp_path) == "[0.0, 2.0, 4.0] [0, 0, 0] 1"
    assert play(tmp_path) == "[0.0, 2.0, 4.0] [1, 1, 0] 0"
    assert play(tmp_path, threads=2) == "[0.0, 2.0, 4.0] [1, 0, 0] 1", "threads have code of their own"
    assert play(tmp_path, threads=2) == "[0.0, 2.0, 4.0] [1, 0, 1] 0"
    (tmp_path / "toy" / "prices.py").write_text(PRICES.format(3.0))
    assert play(tmp_path) == "[0.0, 3.0, 6.0] [0, 0, 0] 1"


@pytest.mark.parametrize(
    ("module", "parts"),
    [
        (battle, ("kernels/compiled", "kernels/lanes", "kernels/rng", "skirmish/spawn", "skirmish/units")),
        (overcooked, ("kernels/compiled", "kernels/lanes", "overcooked/cooking", "overcooked/layout")),
    ],
)
def test_sources_are_found_by_imports(module: ModuleType, parts: tuple[str, ...]) -> None:
    found = sources_of(module.__name__)
    names = {str(path.relative_to(ROOT).with_suffix("")).removeprefix("envs/") for path in found}
    assert {"marl/core/rolling", "marl/learn/acting", "marl/learn/gru"} <= names, "networks are compiled into rollouts"
    assert names >= set(parts)
    assert "skirmish/env" not in names, "what is not compiled should not drop the battle's cache"


def test_no_import_is_overlooked() -> None:
    """One that is would leave old code in use after a rule has changed."""
    for path in [*(ROOT / "envs").rglob("*.py"), *(ROOT / "marl").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            if isinstance(node, ast.Import):
                assert {alias.name for alias in node.names} <= _imports(path), path
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                assert {node.module} | names <= _imports(path), path


def test_to_make_a_game_compiles_nothing() -> None:
    """Otherwise options of algorithms and attacks, which are made after the game, are refused after a wait. The battle
    is left out: it lines up its teams by rules, which takes a second to compile."""
    done = subprocess.run([sys.executable, "-c", MAKE], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_lanes_are_seeded_as_rules_seed_them() -> None:
    @numba.njit
    def seed_by_rule(board: np.ndarray, seed: np.uint64) -> None:
        for b in range(board.shape[0]):
            seed_lane(board[b], seed, b)

    given, expected = np.zeros(5, lanes.LANE), np.zeros(5, lanes.LANE)
    for seed in (0, 7, -1, 2**64 + 7):
        lanes.seed_lanes(given, seed)
        seed_by_rule(expected, np.uint64(seed % 2**64))
        assert given["rng"].tolist() == expected["rng"].tolist() and len(set(given["rng"].tolist())) == 5


@pytest.mark.parametrize("module", [lanes, game])
def test_kernels_import_no_game(module: ModuleType) -> None:
    found = {str(path.relative_to(ROOT)) for path in sources_of(module.__name__)}
    outside = {"envs/base.py", "marl/core/rolling.py", "marl/learn/acting.py", "marl/learn/gru.py"}
    assert {name for name in found if not name.startswith("envs/kernels/")} <= outside


@pytest.mark.parametrize("mask", [torch.ones(5, dtype=torch.bool), torch.ones(1, dtype=torch.bool), torch.ones(2)])
def test_a_mask_of_another_form_is_refused(mask: torch.Tensor) -> None:
    """A kernel would read and write beyond the lanes."""
    env = Skirmish("3m", 2)
    env.reset(seed=np.int64(3))
    with pytest.raises(ValueError, match=r"mask is (bool|float32) \[\d\], expected bool \[2\]"):
        env.reset(mask=mask)
