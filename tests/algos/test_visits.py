"""Counts of step information: by hand, through collecting, and without an effect on training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from algos.visits import Visits
from envs.toys.games import Corridor
from marl.core.types import ConfigError, EpisodeBatch, Step
from tests.support.helpers import differences, make_spec, newest_state, random_batch, rows, train

SPEC = replace(make_spec(n=2, A=3, O=4, S=3, limit=4), info_names=("place", "pushes"))


class Telling(Corridor):
    """The corridor, whose step information has the agents' cells as one number and how many agents walked right."""

    def __init__(
        self, n_agents: int, length: int, spread: int, fatal: bool, episode_limit: int, *, n_envs: int, seed: int = 0
    ) -> None:
        super().__init__(n_agents, length, spread, fatal, episode_limit, n_envs=n_envs, seed=seed)
        self.spec = replace(self.spec, info_names=("place", "rights"))

    def step(self, actions: Tensor) -> Step:
        step = super().step(actions)
        place = (self.cell * self.length ** torch.arange(self.spec.n_agents)).sum(1)
        return replace(step, info={**step.info, "place": place, "rights": (actions == 2).sum(1)})


def walks() -> EpisodeBatch:
    """In two episodes of 3 and 1 steps the information on padding must not count."""
    batch = random_batch(SPEC, 2)
    batch.data["filled"] = torch.tensor([[True, True, True, False, False], [True, False, False, False, False]])
    batch.data["place"] = torch.tensor([[7, 8, 7, 99, 99], [8, 99, 99, 99, 99]])
    batch.data["pushes"] = torch.tensor([[2, 0, 1, 50, 50], [1, 50, 50, 50, 50]])
    return batch


def test_values_and_sums_by_hand_and_after_a_checkpoint() -> None:
    hook, batch = Visits(SPEC, distinct=["place"], totals=["pushes"]), walks()
    hook.annotate(batch)
    found = hook.update(batch, None)  # type: ignore[arg-type]
    assert {name: value.item() for name, value in found.items()} == {"visits/place": 2.0, "visits/pushes": 4.0}
    new = Visits(SPEC, distinct=["place"], totals=["pushes"])
    new.load_state_dict(hook.state_dict())
    batch.place[1, 0] = 9
    for one in (hook, new):
        one.annotate(batch)
        found = one.update(batch, None)  # type: ignore[arg-type]
        assert {name: value.item() for name, value in found.items()} == {"visits/place": 3.0, "visits/pushes": 8.0}
    assert differences(hook.state_dict(), new.state_dict()) == []


def test_a_name_that_the_environment_does_not_tell_is_refused() -> None:
    with pytest.raises(ConfigError, match="visits: 'box' is not told by this environment; it tells place, pushes"):
        Visits(SPEC, distinct=["place"], totals=["box"])
    with pytest.raises(ConfigError, match="it tells nothing"):
        Visits(make_spec(), distinct=["place"], totals=[])


def test_a_run_counts_and_learns_the_same_as_without(tmp_path: Path) -> None:
    hook = "{_target_: algos.visits.Visits, _partial_: true, distinct: [place], totals: [rights]}"
    env = f"env._target_={Telling.__module__}.Telling"
    plain, counted = tmp_path / "plain", tmp_path / "counted"
    assert train(plain, env) == train(counted, env, f"+algo.hooks.visits={hook}")
    told = [{k: v for k, v in row.items() if k.startswith("visits/")} for row in rows(counted, "metrics")]
    last, corridor_cells = told[-1], 4
    assert 1 < last["visits/place"] <= corridor_cells**2 and last["visits/rights"] > last["visits/place"]
    assert [row["visits/rights"] for row in told] == sorted(row["visits/rights"] for row in told)
    stripped = [{k: v for k, v in row.items() if not k.startswith("visits/")} for row in rows(counted, "metrics")]
    assert stripped == rows(plain, "metrics")
    (a, _), (b, _) = newest_state(plain), newest_state(counted)
    assert b["algo"]["learner"].pop("hooks") != a["algo"]["learner"].pop("hooks")
    newest = b["metrics"]  # a checkpoint holds the newest value of every metric
    b["metrics"] = {k: v for k, v in newest.items() if not k.startswith("visits/")}
    assert newest.keys() - b["metrics"].keys() == {"visits/place", "visits/rights"}
    assert differences(a, b) == []
