"""Options that become configurations when they are read."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from marl.core.store import LaterNode, SharedNode, store_later

CONTENT = {"defaults": ["_self_"], "lr": 0.5, "sizes": [1, 2], "other": "${lr}"}


@pytest.fixture(autouse=True)
def leaves_nothing_in_the_store() -> Iterator[None]:
    yield
    del ConfigStore.instance().repo["store_test"]


def kept(name: str) -> LaterNode:
    return ConfigStore.instance().repo["store_test"]["deep"][f"{name}.yaml"]


def test_an_option_is_plain_data_until_it_is_read() -> None:
    store_later("store_test/deep", "late", CONTENT, provider="tests", package="_global_")
    assert vars(kept("late"))["node"] is CONTENT
    assert ConfigStore.instance().list("store_test/deep") == ["late.yaml"]
    assert vars(kept("late"))["node"] is CONTENT, "a list of names needs no configuration"
    assert isinstance(ConfigStore.instance().load("store_test/deep/late.yaml").node, DictConfig)
    assert isinstance(vars(kept("late"))["node"], DictConfig), "it is made once"


def test_it_is_what_hydra_would_have_stored_itself() -> None:
    store_later("store_test/deep", "mine", CONTENT, provider="tests", package="_global_")
    ConfigStore.instance().store("hydras", CONTENT, "store_test/deep", "_global_", "tests")
    mine, hydras = (ConfigStore.instance().load(f"store_test/deep/{name}.yaml") for name in ("mine", "hydras"))
    assert OmegaConf.to_yaml(mine.node) == OmegaConf.to_yaml(hydras.node) and mine.node.other == 0.5
    assert [mine.group, mine.package, mine.provider] == [hydras.group, hydras.package, hydras.provider]


def test_whoever_loads_it_has_a_copy_and_copies_of_the_store_share_it() -> None:
    store_later("store_test/deep", "shared", CONTENT, provider="tests")
    ConfigStore.instance().load("store_test/deep/shared.yaml").node.lr = 9
    assert ConfigStore.instance().load("store_test/deep/shared.yaml").node.lr == 0.5
    assert copy.deepcopy(ConfigStore.instance().repo)["store_test"]["deep"]["shared.yaml"] is kept("shared")
    assert type(copy.copy(kept("shared"))) is SharedNode
