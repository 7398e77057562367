"""What is refused of a training before anything is built."""

from __future__ import annotations

from pathlib import Path

import pytest

from marl.core import validation
from marl.core.types import ConfigError
from marl.core.validation import validate
from tests.support.helpers import compose_train


def test_lanes_are_shared_evenly_by_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "world", lambda: (0, 2))
    validate(compose_train(Path("x"), "train.n_envs=4"))
    with pytest.raises(ConfigError, match=r"train.n_envs=3 lanes must be a multiple of the 2 processes"):
        validate(compose_train(Path("x"), "train.n_envs=3"))
