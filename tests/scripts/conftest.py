"""What several tests of scripts start from, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.leaderboard_parts import added, train_two


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a method of two seeds, and one of a single seed; tests only read them."""
    return train_two(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def board(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the text of a board with both methods."""
    folder = tmp_path_factory.mktemp("board")
    added(folder, trained)
    return (folder / "board.json").read_text()
