"""The contract that every attack in conf/attack keeps (tests/support/attack_parts.py), and who breaks it is caught."""

from __future__ import annotations

import copy
import functools
import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from attacks.base import Attack
from marl.core.types import EnvSpec
from marl.run.build import factory
from marl.run.compose import choices
from tests.support.attack_parts import OF_BUDGETS, RULES, Make, fit
from tests.support.broken_attacks import BROKEN_ATTACKS, Sound
from tests.support.helpers import compose_train

ROOT = Path(__file__).resolve().parents[2]
ATTACKS = [name for name in choices("attack") if name != "none"]
SMALL = ("attack.warmup_episodes=0", "attack.k_max=2", "attack.estimators.hidden_dim=16", "attack.estimators.width=8",
         "attack.estimators.group_width=8", "attack.estimators.samples=32",
         "attack.estimators.fit_rounds=10")  # fmt: skip
MORE: dict[str, tuple[str, ...]] = {  # so that a dozen steps show something
    "random": ("attack.p=0.4",),
    "rand_act": ("attack.p=0.4",),
    "single": ("attack.start_p=0.5", "attack.duration=2"),
    "mixture": ("attack.attacks.random.p=0.4",),
    "wolfpack": ("attack.foresight.window=3",),
    "curriculum": ("attack.attack.foresight.window=3",),
    "ibal": SMALL,
    "ib": SMALL,
}
VARIANTS = {"ibal with fgsm": ("ibal", "attack.fgsm=0.1")}  # an attack in another form that must keep the rules too
FITTED = ("ibal", "ib", "ibal with fgsm")  # they do nothing before they know their victim


def limit(node: Any, budget: int | None, unit: str) -> int:
    """Set the budget of an attack and of those inside it; how many have one."""
    if not isinstance(node, DictConfig):
        return 0
    found = sum(limit(part, budget, unit) for part in node.values())
    if "budget" in node:
        node.budget, node.budget_unit = budget, unit
        found += 1
    if "budgets" in node:  # of a curriculum: the first one holds, and replaces those inside
        node.budgets = [1000 if budget is None else budget]
        found += 1
    return found


@functools.cache
def configuration(name: str) -> DictConfig:
    base, *form = VARIANTS.get(name, (name,))
    return compose_train(Path("runs"), "env=toy/corridor", f"attack={base}", *MORE.get(base, ()), *form).attack


def has_budget(name: str) -> bool:
    return limit(copy.deepcopy(configuration(name)), 0, "step") > 0


@pytest.fixture
def make(name: str) -> Make:
    def build(spec: EnvSpec, budget: int | None = None, unit: str = "step") -> Attack:
        node = copy.deepcopy(configuration(name))
        found = limit(node, budget, unit)
        assert found or budget is None, f"attack={name} has no budget"
        attack: Attack = factory(node, "attack")(spec, "cpu")
        if name in FITTED:
            fit(attack)
        return attack

    return build


@pytest.mark.parametrize(
    ("name", "rule"),
    [(name, rule) for name in (*ATTACKS, *VARIANTS) for rule in RULES if rule not in OF_BUDGETS or has_budget(name)],
)
def test_attacks_keep_the_contract(rule: str, make: Make) -> None:
    RULES[rule](make)


def test_the_documentation_lists_every_attack_and_those_without_a_budget() -> None:
    """So that an attack whose configuration has forgotten its budget does not pass for one that has none."""
    said = (ROOT / "docs" / "attacks.md").read_text(encoding="utf8")
    row_heads = [line.split("|")[1] for line in said.splitlines() if line.startswith("| `")]
    assert {"none", *ATTACKS} <= {name for head in row_heads for name in re.findall(r"`(\w+)`", head)}
    (unlimited,) = re.findall(r"^Without a budget: (.*?)\.", said, re.MULTILINE | re.DOTALL)
    assert sorted(re.findall(r"`(\w+)`", unlimited)) == [name for name in sorted(ATTACKS) if not has_budget(name)]


@pytest.mark.parametrize(("rule", "broken"), BROKEN_ATTACKS, ids=lambda x: x if isinstance(x, str) else x.__name__)
def test_the_contract_catches(rule: str, broken: Any) -> None:
    with pytest.raises((AssertionError, ValueError)):
        RULES[rule](lambda spec, budget=None, unit="step": broken(spec, budget, unit))


@pytest.mark.parametrize("rule", RULES)
def test_the_sound_twin_passes(rule: str) -> None:
    RULES[rule](lambda spec, budget=None, unit="step": Sound(spec, budget, unit))


def test_every_rule_has_a_broken_twin() -> None:
    assert {rule for rule, _ in BROKEN_ATTACKS} == set(RULES)
