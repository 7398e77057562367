"""Every attack of suite=dose has the suite's budget; those of suite=ensemble do not. By hand, what is spent of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from marl.measure.curves import own_budget
from marl.measure.suite import Column, read_suite
from marl.run.compose import compose
from tests.support.robustness_parts import CORRIDOR, NATURAL, entrant, measured, score, setting


def columns(*words: str) -> dict[str, Column]:
    found, _ = read_suite(compose(*words, config="robustness").suite, None)
    return {column.name: column for column in found}


@pytest.mark.parametrize(("words", "budget", "unit"), [((), 8, "step"),
                         (("suite.budget=5", "suite.budget_unit=agent_action"), 5, "agent_action")])  # fmt: skip
def test_every_attack_has_the_same_budget(words: tuple[str, ...], budget: int, unit: str) -> None:
    found = columns("suite=dose", *words)
    assert found.keys() == columns("suite=ensemble").keys() and len(found) == 10
    attacks = {name: column.attack for name, column in found.items() if name != "natural"}
    assert {own_budget(attack) for attack in attacks.values()} == {budget}
    assert {attack["budget_unit"] for attack in attacks.values()} == {unit}
    unlimited = {
        name for name, column in columns("suite=ensemble", *words).items() if own_budget(column.attack) is None
    }
    assert unlimited == {"natural", "fgsm", "gauss", "delay"}, "the suite that is no dose"


def test_the_dose_is_what_was_spent(tmp_path: Path) -> None:
    """Attackers of every step are stopped by the budget: each episode on the corridor has two attacked steps, whatever
    the number of agents that they hit; without a budget all of its steps."""

    def noise(budget: int | None, agents: int | None) -> Column:
        node = {
            "_target_": "attacks.noise.Noise", "_partial_": True, "epsilon": 0.1, "shape": "uniform", "rate": 1.0,
            "agents": agents, "redraw": "step", "budget": budget, "budget_unit": "step",
        }  # fmt: skip
        return Column(f"{agents} of {budget}", node, None, {})

    asked = [NATURAL, noise(2, 1), noise(2, None), noise(None, None)]
    rows, _ = measured([entrant(None, env=CORRIDOR, task="corridor")], asked, setting(tmp_path))
    one, all_of_them, free = (score(rows[0], column.name) for column in asked[1:])
    assert (one.attacked_steps, one.attacked_actions) == (2.0, 2.0)
    assert (all_of_them.attacked_steps, all_of_them.attacked_actions) == (2.0, 4.0)
    assert free.attacked_steps == free.length > 2.0
