"""Runs that fail: losses that are no numbers, disks that are full when it is time to save, runs too short to learn,
states that a checkpoint would not give back."""

from __future__ import annotations

import errno
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from marl.core.protocols import NoHook
from marl.core.states import require_readable
from marl.core.types import ConfigError, EnvSpec, EpisodeBatch, Forward, Metrics
from marl.learn.replay import Uniform
from marl.run import checkpoint
from marl.run.files import WriteError, save_tensors
from marl.run.metrics import NonFiniteError
from tests.support.helpers import differences, newest_state, rows, train

ODD = "+algo.hooks.odd={{_target_: tests.support.broken.OddMetrics, _partial_: true, name: {name}, value: {value}}}"

pytestmark = pytest.mark.usefixtures("no_drawing")


def test_a_run_that_is_too_short_to_learn_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(tmp_path / "short", "algo.warmup_episodes=64", "algo.batch_size=64", "train.total_steps=100")
    assert newest_state(tmp_path / "short")[0]["clock"]["updates"] == 0
    assert "no update was made: 16 episodes were collected" in caplog.text
    caplog.clear()
    train(tmp_path / "long")
    assert "no update was made" not in caplog.text


def test_a_loss_that_is_not_a_number_stops_the_run_and_names_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    hook = "+algo.hooks.broken={_target_: tests.support.broken.NanLoss, _partial_: true, after: 8}"
    with pytest.raises(NonFiniteError) as stopped:
        train(folder, hook)
    message = str(stopped.value)
    assert message.endswith("or see what NanLoss paid or added to the loss")
    assert "optim/grad_norm=nan" in message and "first non-finite weights: agent.fc_in.weight" in message
    step = rows(folder, "metrics")[-1]["env_steps"]
    named = int(message.split("env step ")[1].split(",")[0])
    assert named >= step and "update 8" in message
    assert newest_state(folder)[0]["clock"]["env_steps"] < named
    values = newest_state(folder)[0]["algo"]["learner"]["agent"].values()
    assert all(bool(torch.isfinite(value).all()) for value in values)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mine/each", "[1.0, 2.0]", r"the metric mine/each is a tensor of shape \[2\]; a metric is a number"),
        ("mine/word", "many", "the metric mine/word is 'many'; a metric is a number or a tensor of one"),
        ("env_steps", "5.0", "the metric env_steps has a name that training itself uses"),
        ("train/return", "5.0", "the metric train/return has a name that training itself uses"),
    ],
)
def test_a_metric_that_is_none_is_named_at_the_first_update(
    name: str, value: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(tmp_path / "run", ODD.format(name=name, value=value))


@pytest.mark.parametrize(("name", "value"), [("mine/half", "0.5"), ("", "null")])
def test_plain_numbers_are_metrics_and_so_is_nothing(name: str, value: str, tmp_path: Path) -> None:
    train(tmp_path / "run", ODD.format(name=f"'{name}'", value=value))
    assert rows(tmp_path / "run", "metrics")[-1].get("mine/half") == (0.5 if name else None)


def test_a_full_disk_at_a_scheduled_save_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save, calls = checkpoint.save, iter(range(100))

    def full_at_first(*args: Any, **kwargs: Any) -> Path:
        if next(calls) == 0:
            raise WriteError(errno.ENOSPC, "No space left on device", "state.pt")
        return save(*args, **kwargs)

    monkeypatch.setattr(checkpoint, "save", full_at_first)
    train(tmp_path / "run")
    assert "not written: No space left on device; earlier ones are intact" in caplog.text
    assert (tmp_path / "run" / "DONE").exists()
    assert newest_state(tmp_path / "run")[0]["clock"]["env_steps"] >= 400


def test_a_full_disk_at_the_last_save_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> Path:
        raise WriteError(errno.ENOSPC, "No space left on device", "state.pt")

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(checkpoint.CheckpointError, match="could not be saved"):
        train(tmp_path / "run")
    assert not (tmp_path / "run" / "DONE").exists()


class Remembers(NoHook):
    """Has a value of some kind in its state, from its ``after``-th update on."""

    def __init__(self, spec: EnvSpec, *, kind: str, after: int) -> None:
        self.kind, self.left, self.loaded = kind, after, None

    def update(self, batch: EpisodeBatch, fwd: Forward) -> Metrics:
        self.left -= 1
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {"left": self.left, "inner": [KINDS[self.kind][0]() if self.left <= 0 else None]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.left = int(state["left"])


KINDS: dict[str, tuple[Callable[[], Any], str, Any]] = {  # value, type, what is saved of it in the middle of a run
    "array": (lambda: np.arange(3), "numpy.ndarray", torch.arange(3)),
    "array of words": (lambda: np.array(["a"]), "numpy.ndarray", ["a"]),
    "number": (lambda: np.float64(1.5), "numpy.float64", 1.5),
    "deque": (lambda: deque([1]), "collections.deque", [1]),
    "defaultdict": (lambda: defaultdict(int, a=np.int64(1)), "collections.defaultdict", {"a": 1}),
    "key": (lambda: {np.int64(3): 1}, "numpy.int64", {3: 1}),
    "object": (object, "object", None),  # nothing comes near
}


def remembering(kind: str, after: int) -> str:
    target = "{_target_: tests.marl.run.test_failures.Remembers, _partial_: true, "
    return f"+algo.hooks.x={target}kind: {kind}, after: {after}}}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_that_no_checkpoint_gives_back_is_refused_before_a_run_begins(kind: str, tmp_path: Path) -> None:
    held = rf"algo\.learner\.hooks\[0\]\.inner\[0\] holds a value of the type {KINDS[kind][1]}; a state holds tensors"
    with pytest.raises(ConfigError, match=held):
        train(tmp_path / "run", remembering(kind, 0))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_become_of_a_state_loses_no_run(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, name, saved = KINDS[kind]
    if saved is None:
        with pytest.raises(checkpoint.CheckpointError, match="could not be saved"):
            train(tmp_path / "run", remembering(kind, 8))
    else:
        train(tmp_path / "run", remembering(kind, 8))
        assert differences(newest_state(tmp_path / "run")[0]["algo"]["learner"]["hooks"][0]["inner"], [saved]) == []
    assert f"hooks[0].inner[0] holds a value of the type {name}" in caplog.text


def test_a_sampler_keeps_no_arrays_either(tmp_path: Path) -> None:
    sampler = "replay.sampler={_target_: tests.marl.run.test_failures.Weighs}"
    with pytest.raises(ConfigError, match=r"the state of replay\.sampler\.w holds a value of the type numpy\.ndarray"):
        train(tmp_path / "run", sampler)
    assert not (tmp_path / "run").exists()


class Weighs(Uniform):
    def state_dict(self) -> dict[str, Any]:
        return {"w": np.ones(3)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        return None


def test_sets_and_ordered_or_counted_dicts_are_kept_as_they_are(tmp_path: Path) -> None:
    state = {"a": {1}, "b": Counter("aab"), "c": OrderedDict(a=b"x"), "d": torch.Size([2]), "e": torch.float16}
    require_readable(state)
    save_tensors(state, tmp_path / "state.pt")
    loaded = checkpoint.load_tensors(tmp_path / "state.pt")
    assert loaded == state and list(map(type, loaded.values())) == list(map(type, state.values()))


def test_a_file_with_other_types_is_not_called_damaged(tmp_path: Path) -> None:
    torch.save({"a": np.zeros(2)}, tmp_path / "state.pt")
    with pytest.raises(
        checkpoint.CheckpointError, match=r"cannot be read: it holds a value of the type numpy\S+; a state holds"
    ) as told:
        checkpoint.load_tensors(tmp_path / "state.pt")
    assert "\n" not in str(told.value) and "\x1b" not in str(told.value)
    for content in (b"", b"garbage", b"\x80\x02."):
        (tmp_path / "state.pt").write_bytes(content)
        with pytest.raises(checkpoint.CheckpointError, match=r"is damaged: it is no file of tensors$"):
            checkpoint.load_tensors(tmp_path / "state.pt")
