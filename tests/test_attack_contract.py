"""The contract that every attack in conf/attack keeps (``tests/attack_parts.py``), and that it catches who does not."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from attacks.base import Attack
from marl.build import factory
from marl.types import EnvSpec
from scripts.main import choices
from tests.attack_parts import RULES, Make
from tests.broken_attacks import BROKEN_ATTACKS, Sound
from tests.helpers import compose_train

ATTACKS = [name for name in choices("attack") if name != "none"]
MORE: dict[str, tuple[str, ...]] = {  # so that a dozen steps show something
    "random": ("attack.p=0.4",),
    "rand_act": ("attack.p=0.4",),
    "single": ("attack.start_p=0.5", "attack.duration=2"),
    "mixture": ("attack.attacks.random.p=0.4",),
}


def limit(node: Any, budget: int | None, unit: str) -> int:
    """Set the budget of an attack and of those inside it; how many were set."""
    if not isinstance(node, DictConfig):
        return 0
    found = sum(limit(part, budget, unit) for part in node.values())
    if "budget" in node:
        node.budget, node.budget_unit = budget, unit
        found += 1
    return found


@functools.cache
def configuration(name: str) -> DictConfig:
    return compose_train(Path("runs"), "env=toy/corridor", f"attack={name}", *MORE.get(name, ())).attack


@pytest.fixture
def make(name: str) -> Make:
    def build(spec: EnvSpec, budget: int | None = None, unit: str = "step") -> Attack:
        node = copy.deepcopy(configuration(name))
        assert limit(node, budget, unit), f"attack={name} has no budget"
        return factory(node, "attack")(spec, "cpu")

    return build


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_keep_the_contract(rule: str, make: Make) -> None:
    RULES[rule](make)


@pytest.mark.parametrize(("rule", "broken"), BROKEN_ATTACKS, ids=lambda x: x if isinstance(x, str) else x.__name__)
def test_the_contract_catches(rule: str, broken: Any) -> None:
    with pytest.raises((AssertionError, ValueError)):
        RULES[rule](lambda spec, budget=None, unit="step": broken(spec, budget, unit))


@pytest.mark.parametrize("rule", RULES)
def test_the_sound_twin_passes(rule: str) -> None:
    RULES[rule](lambda spec, budget=None, unit="step": Sound(spec, budget, unit))


def test_every_rule_has_a_broken_twin() -> None:
    assert {rule for rule, _ in BROKEN_ATTACKS} == set(RULES)
