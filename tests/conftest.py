"""One thread: the tests' networks are tiny, and two threads that wait for each other on a busy machine crawl. And the
CPU: what is compared bit by bit does not depend on whether this machine has a GPU."""

import gc
import os
from collections.abc import Iterator

import numba
import pytest
import torch

from tests.support.composing import compose_quickly

compose_quickly()
numba.set_num_threads(1)
torch.set_num_threads(1)  # after numba's, which would set it back: marl.run.build.use_threads


def pytest_configure(config: pytest.Config) -> None:
    """Hide the machine's GPUs from this process and from those that tests start, unless tests that need one are asked
    for (``-m cuda``)."""
    if config.option.markexpr != "cuda":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_finish() -> None:
    """Leave what is imported, which stays, out of the collections of garbage: a million objects, half a second each
    time."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda") is not None and not torch.cuda.is_available():
        pytest.skip("no GPU is visible here: tests that need one are asked for by -m cuda")


@pytest.fixture(scope="session", autouse=True)
def what_no_test_sees() -> Iterator[None]:
    """Do not wait for the disk, which only a loss of power would tell. tests/marl/run/test_checkpoint.py lets ``fsync``
    fail."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


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
