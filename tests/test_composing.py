"""What tests leave out of composing makes no difference to what is composed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir, initialize_config_module
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError

from marl.core.config import TrainConfig
from marl.core.store import store_later
from marl.run.compose import register_configs
from tests.support.composing import remembering


def composed(*overrides: str) -> DictConfig:
    register_configs()
    with initialize_config_module("conf", version_base="1.3"):
        return compose("train", overrides=list(overrides), return_hydra_config=True)


@pytest.mark.parametrize("overrides", [["algo=s2q", "env=toy/shift"], ["experiment=mds_small/sbc", "seed=3"]])
def test_quick_and_genuine_composing_give_the_same(overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    quick = [composed(*overrides) for _ in range(2)]  # the second is of what the first has left
    monkeypatch.setattr(OmegaConf, "load", staticmethod(OmegaConf.load.__wrapped__))
    for owner, name in (
        (defaults_list, "_create_interpolation_map"),
        (ConfigLoaderImpl, "_compose_config_from_defaults_list"),
        (OverridesParser, "parse_rule"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name).__wrapped__)
    genuine = composed(*overrides)
    assert [OmegaConf.to_yaml(found) for found in quick] == [OmegaConf.to_yaml(genuine)] * 2
    for found in quick:
        with pytest.raises(ConfigAttributeError):
            found.algo.nope = 1
        assert OmegaConf.get_type(found) is OmegaConf.get_type(genuine) is TrainConfig


def test_what_is_composed_is_a_copy() -> None:
    composed("seed=5").train.n_envs = 77
    assert composed("seed=5").train.n_envs != 77


def test_options_that_have_changed_are_merged_again(tmp_path: Path) -> None:
    """In the store of configurations, under the same name, and in a folder of somebody's own."""
    for value in (1, 2):
        store_later("env", "mutable", {"_target_": "x.Y", "size": value}, "a test")
        assert composed("env=mutable").env.size == value
    del ConfigStore.instance().repo["env"]["mutable.yaml"]
    for value in (3, 4):
        (tmp_path / "own.yaml").write_text(f"size: {value}")
        with initialize_config_dir(str(tmp_path), version_base="1.3"):
            assert compose("own").size == value


def test_choices_that_refer_to_others_are_followed(tmp_path: Path) -> None:
    for name, text in {
        "top": "defaults: [{first: a}, {second: '${first}'}]", "first/a": "x: 1", "first/b": "x: 2", "second/a": "y: 1",
        "second/b": "y: 2",
    }.items():  # fmt: skip
        path = tmp_path / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{text}\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        assert compose("top", overrides=["first=b"]) == {"first": {"x": 2}, "second": {"y": 2}}


def test_a_file_is_read_again_once_it_has_changed_and_each_reader_has_a_copy(tmp_path: Path) -> None:
    read: list[str] = []

    def load(file: Path) -> object:
        read.append(file.read_text())
        return OmegaConf.create(read[-1])

    quick, path = remembering(load), tmp_path / "a.yaml"
    path.write_text("x: 1")
    os.utime(path, ns=(0, 0))
    quick(path).x = 5
    quick(path).x = 6
    assert quick(path) == {"x": 1} and read == ["x: 1"]
    path.write_text("x: 2")
    assert quick(path) == {"x": 2} and read == ["x: 1", "x: 2"]
