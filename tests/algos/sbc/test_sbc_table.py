"""Tables: values by hand, which seat learns from which reward, and the optimum of a small game."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from algos.sbc.roles import EGO, PARTNER
from algos.sbc.table import Table, TablePolicy, Tables, joint_cell, set_number
from marl.core.types import Blockable, Clock, ConfigError, EpisodeBatch, Obs, core_fields
from marl.learn.policy import LinearSchedule
from marl.run.collect import empty_batch
from marl.run.trainer import fit
from tests.support.helpers import compose_train, differences, make_spec, newest_state, rows
from tests.support.sbc_parts import make_sets

CELLS = 3
WEST, EAST = 3, 5  # in the small game
SPEC = replace(
    make_spec(n=2, A=4, S=2 * CELLS, limit=2), info_names=("cell",),
    blockable={"cells": Blockable("cell", torch.ones(2, CELLS, dtype=torch.bool))},
)  # fmt: skip
SMALL = ("env=mds_mini", "env.size=3", "env.goals=[[0,1],[2,1]]", "env.episode_limit=6", "train.n_envs=64",
         "train.total_steps=19200", "eval.every=19200", "eval.episodes=1", "eval.final_episodes=1", "eval.n_envs=1",
         "log.every=3840", "log.progress=off", "log.to=[]", "checkpoint.every=9600", "replay.capacity=64",
         "algo.lr.steps=15000", "algo.epsilon.steps=8000")  # fmt: skip


pytestmark = pytest.mark.usefixtures("no_drawing", "one_thread")


def trained(folder: Path, *overrides: str) -> dict[str, Any]:
    fit(compose_train(folder.parent, *SMALL, *overrides), folder)
    return newest_state(folder)[0]


def tables(**changes: Any) -> Tables:
    given: dict[str, Any] = {
        "p_self": 0.5, "sets": lambda spec: make_sets(spec, m_max=1), "penalty": 10.0, "noise": None, "gamma": 0.5,
        "lr": LinearSchedule(0.5, 0.5, 1), "epsilon": LinearSchedule(0.0, 0.0, 1),
    }  # fmt: skip
    return Tables(SPEC, "cpu", torch.Generator(), **given | changes)


def episodes(
    cells: list[list[list[int]]], actions: list[list[list[int]]], reward: list[list[float]], assign: list[list[int]]
) -> EpisodeBatch:
    """Make M truncated episodes of two steps from cells [M, 3, 2], actions [M, 2, 2] and rewards [M, 2]."""
    algo = tables()
    fields = core_fields(SPEC) | algo.fields()
    batch = empty_batch(fields, len(cells), 2, torch.device("cpu"))
    data = batch.data
    where = torch.tensor(cells)
    data["state"] = torch.nn.functional.one_hot(where, CELLS).flatten(2).float()
    data["cell"][:, :2] = where[:, 1:]
    data["intended"][:, :2] = torch.tensor(actions, dtype=torch.int16)
    data["reward"][:, :2] = torch.tensor(reward)
    data["filled"][:, :2], data["avail"][:] = True, True
    data["assign"], data["length"][:] = torch.tensor(assign), 2
    return batch


def test_numbers_of_states_and_sets() -> None:
    state = torch.tensor([[0.0, 0, 1, 0, 1, 0], [1, 0, 0, 0, 0, 1]])
    assert joint_cell(state, 2).tolist() == [2 * 3 + 1, 2]
    assert set_number(torch.tensor([[False] * 3, [True, False, False], [False, False, True]])).tolist() == [0, 1, 3]


def test_lanes_at_one_value_count_as_their_mean() -> None:
    table = Table(SPEC, 2)
    table.q[0, 1, 4, 3], table.q[1, 0, 4, 2] = 1.0, 7.0
    number, state = torch.tensor([[1, 0], [1, 0], [0, 0]]), torch.tensor([4, 4, 8])
    actions = torch.tensor([[3, 2], [3, 1], [3, 2]])
    target = torch.tensor([[3.0, 9.0], [7.0, 2.0], [5.0, 9.0]])
    mask = torch.tensor([[True, False], [True, True], [True, False]])
    errors = table.learn(number, state, actions, target, mask, 0.5)
    assert errors.tolist() == [[2.0, 0.0], [6.0, 2.0], [5.0, 0.0]]
    expected = torch.zeros_like(table.q)
    expected[0, 1, 4, 3], expected[1, 0, 4, 2] = 1.0 + 0.5 * (2.0 + 6.0) / 2, 7.0  # the second belongs to no role
    expected[1, 0, 4, 1], expected[0, 0, 8, 3] = 1.0, 2.5
    assert torch.equal(table.q, expected)


def test_an_episode_by_hand() -> None:
    """Seat 0 is the ego's, seat 1 that of a partner that must avoid cell 2. One episode, lr and gamma 0.5: the second
    step bootstraps from the state after the time limit, which is worth 8 to the ego and 6 to the partner."""
    algo, batch = tables(), episodes([[[1, 1], [0, 2], [0, 1]]], [[[1, 2], [3, 0]]], [[2.0, 4.0]], [[EGO, PARTNER]])
    batch.data["blocked"][0, 1, 2] = True
    assert algo.partner is not None
    after = 0 * CELLS + 1
    algo.ego.q[0, 0, after, 1], algo.partner.q[1, 3, after, 1] = 8.0, 6.0
    algo.partner.q[1, 0, after, 1] = 99.0  # belongs to another set
    algo.update(None, batch, Clock())  # type: ignore[arg-type]
    first, second = 1 * CELLS + 1, 0 * CELLS + 2
    assert algo.ego.q[0, 0, first, 1] == 0.5 * 2.0 and algo.ego.q[0, 0, second, 3] == 0.5 * (4.0 + 0.5 * 8.0)
    assert algo.partner.q[1, 3, first, 2] == 0.5 * (2.0 - 10.0), "it has come to cell 2"
    assert algo.partner.q[1, 3, second, 0] == 0.5 * (4.0 + 0.5 * 6.0)
    assert algo.ego.q[1].count_nonzero() == 0 and algo.partner.q[0].count_nonzero() == 0
    assert algo.ego.q.count_nonzero() == 3 and algo.partner.q.count_nonzero() == 4


def test_what_is_over_is_worth_nothing_and_what_is_not_filled_is_not_learnt() -> None:
    algo = tables()
    batch = episodes([[[1, 1], [0, 2], [0, 1]]] * 2, [[[1, 2], [3, 0]]] * 2, [[2.0, 4.0]] * 2, [[EGO, EGO]] * 2)
    batch.data["terminated"][0, 1] = True
    batch.data["filled"][1, 1] = False
    algo.ego.q[:, 0, 1] = 100.0
    algo.update(None, batch, Clock())  # type: ignore[arg-type]
    assert algo.ego.q[0, 0, 2, 3] == 2.0 and algo.ego.q[0, 0, 4, 1] == 1.0


def test_a_partner_acts_by_its_set_and_the_ego_never_sees_one() -> None:
    algo = tables()
    assert algo.partner is not None
    algo.partner.q[:, 2, :, 3], algo.partner.q[:, 0, :, 1] = 1.0, 1.0
    policy = algo.policy(Clock())
    batch = episodes([[[1, 1], [0, 2], [0, 1]]] * 3, [[[0, 0]] * 2] * 3, [[0.0, 0.0]] * 3, [[0, 0]] * 3)
    sets = torch.zeros(3, 2, CELLS, dtype=torch.bool)
    sets[1, :, 1] = True
    partner = TablePolicy(algo.partner, 0.0, lambda B, gen: sets)
    obs = Obs(batch.obs[:, 0], batch.state[:, 0], batch.avail[:, 0], batch.alive[:, 0])
    gen = torch.Generator().manual_seed(0)
    actions, _, fields = partner.act(obs, partner.begin(3, gen), explore=True, gen=gen)
    assert actions.tolist() == [[1, 1], [3, 3], [1, 1]] and torch.equal(fields["blocked"], sets)
    carry = {**policy.begin(3, gen), "assign": torch.tensor([[0, 1], [1, 0], [0, 0]]), "1.blocked": sets}
    assert policy.act(obs, carry, explore=True, gen=gen)[0].tolist() == [[0, 1], [3, 0], [0, 0]]
    assert policy.act(obs, carry, explore=False, gen=gen)[0].tolist() == [[0, 0]] * 3, "tested alone"


@pytest.mark.parametrize("algo", ["sp_table", "e3t_table", "sbc_table"])
def test_tables_find_the_optimum(algo: str, tmp_path: Path) -> None:
    """Each goal is one step away, so the optimum is 6 steps at 1."""
    trained(tmp_path / "run", f"algo={algo}")
    assert rows(tmp_path / "run", "eval")[-1]["eval/return"] == pytest.approx(6.0)


def test_partners_avoid_their_set(tmp_path: Path) -> None:
    """No partner steps from the start onto its blocked cell; without a penalty it goes where it is paid."""
    state = trained(tmp_path / "run", "algo=sbc_table", "algo.penalty=3")
    q, start, ways = state["algo"]["partner"]["q"], 4 * 9 + 4, {WEST: 6, EAST: 2}
    for seat in range(2):
        for cell, way in ways.items():
            assert q[seat, 1 + cell, start].argmax() != way
    written = rows(tmp_path / "run", "metrics")[-1]
    assert {"table/td_abs", "partner/td_abs", "train/lr"} <= written.keys()
    trained(tmp_path / "null", "algo=sbc_table_null")
    free = rows(tmp_path / "null", "metrics")[-1]
    assert written["sbc/pen_rate"] < 0.15 < 0.3 < free["sbc/pen_rate"]


def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    trained(tmp_path / "halves", "algo=sbc_table", "train.total_steps=3840", "checkpoint.every=3840")
    halves = trained(tmp_path / "halves", "algo=sbc_table", "train.total_steps=7680", "checkpoint.every=3840")
    whole = trained(tmp_path / "whole", "algo=sbc_table", "train.total_steps=7680", "checkpoint.every=3840")
    assert differences(halves["algo"], whole["algo"]) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("env=toy/matrix", "algo=sbc_table"), "tables need a game whose state is a cell for each agent"),
        (("env=mds", "algo=sbc_table"), "tables of 390625 joint cells and 1 sets are too large"),
        (("env=mds_mini", "algo=sbc_table", "algo.sets.m_max=2"), "m_max is 2; tables know sets of one feature only"),
        (("env=mds_mini", "algo=sbc_table", "algo.noise=0.3"), "give one of algo.sets and algo.noise"),
        (("env=mds_mini", "algo=sp_table", "algo.p_self=0.5"), "give one of algo.sets and algo.noise"),
        (("env=mds_mini", "algo=e3t_table", "algo.noise=1.5"), "algo.noise=1.5 must be within"),
    ],
)
def test_what_tables_cannot_hold_is_refused(overrides: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(compose_train(tmp_path, *overrides), tmp_path / "run")
