"""One thread: the tests' networks are tiny, and two threads that wait for each other on a busy machine crawl."""

from collections.abc import Iterator

import numba
import pytest
import torch

torch.set_num_threads(1)
numba.set_num_threads(1)


@pytest.fixture
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing the learning curve takes longer than tiny runs do; test_scripts looks at the pictures."""
    monkeypatch.setattr("marl.show.plot.learning_curves", lambda groups, path: None)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let simulators compute in one thread, whatever tests before have set."""
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)
