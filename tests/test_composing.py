"""What tests leave out of composing makes no difference to what is composed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir, initialize_config_module
from hydra._internal import defaults_list
from omegaconf import OmegaConf

from marl.run.compose import register_configs
from tests.support.composing import remembering


@pytest.mark.parametrize("overrides", [["algo=s2q", "env=toy/shift"], ["experiment=mds_small/sbc", "seed=3"]])
def test_quick_and_genuine_composing_give_the_same(overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    register_configs()
    texts = []
    for genuine in (False, True):
        if genuine:
            monkeypatch.setattr(OmegaConf, "load", staticmethod(OmegaConf.load.__wrapped__))
            made = defaults_list._create_interpolation_map.__wrapped__
            monkeypatch.setattr(defaults_list, "_create_interpolation_map", made)
        with initialize_config_module("conf", version_base="1.3"):
            texts.append(OmegaConf.to_yaml(compose("train", overrides=overrides, return_hydra_config=True)))
    assert texts[0] == texts[1]


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
