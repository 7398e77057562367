"""Cross-play: pairs by hand, who sits where, what is measured once and what again, and the numbers of a matrix."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from marl.core.protocols import NoAttack
from marl.core.seeding import Streams, derive
from marl.core.types import core_fields
from marl.measure import matrix
from marl.measure.crossplay import seat
from marl.measure.crossplay_scores import Pair, Sheet, find_limits, interquartile, jackknife, methods
from marl.measure.matrix import measure
from marl.run.build import make_env
from marl.run.evaluate import evaluate
from marl.run.teams import load_policy
from marl.show.crossplay_report import facts
from tests.support.crossplay_parts import CALLS, STARTS, THREE, by_hand, mean, pairs, player, scored, setting
from tests.support.robustness_parts import CORRIDOR, entrant

ZERO, ONE = player(0), player(1)

# pairs


def test_a_matrix_by_hand(tmp_path: Path) -> None:
    """Payoffs [[8, 2], [4, 0]]: who plays 0 in the first seat with a partner that plays 1 gets 2, in the second 4."""
    cells, outcome = scored(pairs([ZERO, ONE], [ZERO, ONE], setting(tmp_path)))
    assert outcome.complete and not outcome.impossible
    assert [[mean(cell) for cell in row] for row in cells] == [[8, 3], [3, 0]]
    first, second = cells[0][1], cells[1][0]
    assert isinstance(first, Pair) and isinstance(second, Pair)
    assert first.seats == (2, 4) and second.seats == (4, 2) and first.n == 12
    assert first.std == pytest.approx(math.sqrt(12 / 11))
    assert isinstance(cells[0][0], Pair) and cells[0][0].n == 6 and cells[0][0].std == 0
    assert len(list((tmp_path / "cells").iterdir())) == 4, "the pairs share their two seatings"


def test_with_three_agents_one_seat_meets_the_rest(tmp_path: Path) -> None:
    """The payoff is the number whose binary digits are the actions: one 1 makes 4, 2 or 1; one 0 makes 3, 5 or 6."""
    players = [player(0, env=THREE), player(1, env=THREE)]
    cells, _ = scored(pairs(players, players, setting(tmp_path)))
    zero_with_ones, one_with_zeros = cells[0][1], cells[1][0]
    assert isinstance(zero_with_ones, Pair) and isinstance(one_with_zeros, Pair)
    assert zero_with_ones.seats == (3, 5, 6) and one_with_zeros.seats == (4, 2, 1)
    assert (mean(cells[0][0]), mean(cells[1][1])) == (0, 7)


def test_win_rates(tmp_path: Path) -> None:
    cells, _ = scored(pairs([ZERO], [ZERO, ONE], setting(tmp_path)), "win_rate")
    assert [mean(cell) for cell in cells[0]] == [1.0, 0.0]


def test_a_team_alone_plays_as_it_is_evaluated(tmp_path: Path) -> None:
    """The diagonal is self-play under the same random numbers: starts of the corridor differ from lane to lane."""
    runner = entrant(None, env=CORRIDOR)
    where = setting(tmp_path, episodes=9)
    cell = seat([runner, runner], where).play(lambda done: None)
    env, streams = make_env(OmegaConf.create({"env": CORRIDOR}), 4, 0), Streams(0)
    policy = load_policy(runner.opens, env.spec, torch.device("cpu"), streams)
    alone = evaluate(
        env, policy, NoAttack(env.spec, "cpu"), core_fields(env.spec), episodes=9, policy_gen=streams["eval"],
        attack_gen=streams["eval_attack"], device="cpu", seed=derive(0, "crossplay"),
    )  # fmt: skip
    assert cell["length"] == alone["length"].tolist() and len(set(cell["length"])) > 1
    assert cell["won"] == alone["won"].tolist()


def test_swapping_rows_and_columns_transposes_the_matrix(tmp_path: Path) -> None:
    """Also with random play: a table draws the same numbers whoever is called the row."""
    rows, columns = [player(0), player(1)], [player(-1, "random"), player(-1, "wild")]
    one, _ = scored(pairs(rows, columns, setting(tmp_path / "a")))
    other, _ = scored(pairs(columns, rows, setting(tmp_path / "b")))
    assert [[mean(c) for c in row] for row in one] == [[mean(other[j][i]) for j in range(2)] for i in range(2)]
    assert mean(one[0][0]) not in (2, 3, 8), "random play is random"


def test_every_table_begins_the_same_episodes(tmp_path: Path) -> None:
    STARTS.clear()
    players = [player(0, env=CORRIDOR), player(-1, "random", env=CORRIDOR)]
    scored(pairs(players, players, setting(tmp_path, episodes=8)))
    begun = {tuple(start.flatten().tolist()) for start in STARTS}
    assert len(STARTS) == 2 * (1 + 1 + 2 + 2) and len(begun) == 2, "two rounds a table, two players at mixed ones"


def test_slips_are_as_frequent_as_asked(tmp_path: Path) -> None:
    """Always slipping is random play; never slipping draws nothing."""
    cells = []
    for epsilon in (0.0, 0.5, 1.0):
        found, _ = scored(pairs([ZERO], [ZERO], setting(tmp_path, episodes=400, n_envs=400, epsilon=epsilon)))
        cells.append(mean(found[0][0]))
    assert cells[0] == 8 and cells[2] == pytest.approx(3.5, abs=0.5)
    assert cells[1] == pytest.approx((9 * 8 + 3 * 2 + 3 * 4 + 0) / 16, abs=0.5), "half of the slips change nothing"


# what is measured once and what again


def test_a_new_version_of_the_measurement_changes_keys_and_no_seats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Players draw from one stream in the order of ``opens``: were it to change, so would their episodes."""
    tables = [[player(-1), player(-1, seed=k, label=f"other {k}")] for k in range(12)]
    before = [seat(table, setting(tmp_path)) for table in tables]
    monkeypatch.setattr(matrix, "MEASUREMENT", matrix.MEASUREMENT + 1)
    after = [seat(table, setting(tmp_path)) for table in tables]
    assert [(one.opens, one.assign) for one in before] == [(one.opens, one.assign) for one in after]
    assert not {one.key for one in before} & {one.key for one in after}


def test_the_order_of_players_is_that_of_earlier_versions(tmp_path: Path) -> None:
    """Digests of the contents alone, computed by hand: sha256 of the sorted JSON with the layout."""
    for table in ([ZERO, ONE], [ONE, player(-1)], [player(-1), ZERO]):
        texts = [json.dumps({"layout": 1, **one.content}, sort_keys=True) for one in table]
        wanted = sorted(table, key=lambda one: hashlib.sha256(texts[table.index(one)].encode()).hexdigest())
        assert seat(table, setting(tmp_path)).opens == tuple(one.opens for one in wanted)


def test_seatings_are_measured_once(tmp_path: Path) -> None:
    CALLS.clear()
    plan = pairs([ZERO, ONE], [ZERO, ONE], setting(tmp_path))
    scored(plan)
    begun = dict(CALLS)
    assert begun == {"plays 0": 6, "plays 1": 6}, "two rounds at three tables each"
    renamed = [replace(ZERO, label="another name", seed=5), ONE]
    cells, _ = scored(pairs(renamed, [ONE], setting(tmp_path)))
    assert dict(CALLS) == begun and mean(cells[0][0]) == 3
    for changed in (setting(tmp_path, seed=1), setting(tmp_path, episodes=7), setting(tmp_path, epsilon=0.1)):
        before = CALLS["plays 0"]
        scored(pairs([ZERO], [ZERO], changed))
        assert CALLS["plays 0"] > before
    before = CALLS["plays 0"]
    scored(pairs([replace(ZERO, env=THREE)], [replace(ZERO, env=THREE)], setting(tmp_path)))
    assert CALLS["plays 0"] > before, "another game, another cell"


def test_ctrl_c_keeps_what_is_finished_and_the_same_command_goes_on(tmp_path: Path) -> None:
    CALLS.clear()
    stopper = player(1, "stopper", trick="interrupt")
    plan = pairs([ZERO], [ZERO, stopper], setting(tmp_path))
    cells, outcome = scored(plan)
    assert not outcome.complete and mean(cells[0][0]) == 8 and cells[0][1] == "not measured yet"
    calm = replace(stopper, opens=stopper.opens | {"policy": stopper.opens["policy"] | {"trick": None}})
    begun = CALLS["plays 0"]
    cells, outcome = scored(pairs([ZERO], [ZERO, calm], setting(tmp_path)))
    assert outcome.complete and [mean(cell) for cell in cells[0]] == [8, 3]
    assert CALLS["plays 0"] == begun + 4, "self-play was not measured again"


def test_a_pair_that_is_not_possible_says_why_and_the_rest_is_measured(tmp_path: Path) -> None:
    picky = player(1, "picky", trick=3)
    cells, outcome = scored(pairs([ZERO], [picky, ONE], setting(tmp_path)))
    assert outcome.complete and len(outcome.impossible) == 2
    assert cells[0][0] == "not possible: picky plays with 3 agents only" and mean(cells[0][1]) == 3
    cell = seat([ZERO, picky], setting(tmp_path))
    assert measure([cell], 1).impossible == {cell.key: "picky plays with 3 agents only"}


# numbers


def test_the_jackknife_by_hand() -> None:
    """Three runs whose pairs make 1, 2 and 6: without a run 6, 2 and 1 are left, pseudo-values -3, 5 and 7."""
    square = np.array([[0, 1, 2], [1, 0, 6], [2, 6, 0]], dtype=float)

    def off(use: np.ndarray) -> float:
        part = square[np.ix_(use, use)]
        return float(part[~np.eye(len(part), dtype=bool)].mean())

    found = jackknife(off, 3)
    half = 4.302653 * math.sqrt(28) / math.sqrt(3)  # t(0.975, 2)
    assert found.mean == 3 and (found.low, found.high) == pytest.approx((3 - half, 3 + half), rel=1e-5)
    assert not jackknife(lambda use: 1.0, 2).bounded


def test_self_play_cross_play_and_their_share_by_hand() -> None:
    sheet = by_hand([[10, 1, 2, 5], [1, 8, 6, 5], [2, 6, 6, 2], [5, 5, 2, 9]], ["a", "a", "a", "b"])
    a, b = methods(sheet)
    assert a.self_play is not None and a.cross is not None and a.ratio is not None and a.worst is not None
    assert (a.seeds, a.self_play.mean, a.cross.mean) == ((0, 1, 2), 8, 3)
    assert a.self_std == 2 and a.cross_std == pytest.approx(math.sqrt(28 / 5))
    assert a.ratio.mean == pytest.approx(3 / 8) and (a.worst.value.mean, a.worst.who) == (1, "seeds 0 and 1")
    assert (a.with_others["b"].mean, a.with_others["b"].n) == (4, 3)
    half = 4.302653 * math.sqrt(3) / math.sqrt(3)
    assert a.with_others["b"].low == pytest.approx(4 - half, rel=1e-5)
    assert (b.cross, b.ratio, b.worst) == (None, None, None) and b.with_others["a"].mean == 4
    # pseudo-values of the ratio: without run 0 it is 6/7, without 1 it is 2/8, without 2 it is 1/9
    parts = 3 * 3 / 8 - 2 * np.array([6 / 7, 2 / 8, 1 / 9])
    assert a.ratio.high == pytest.approx(3 / 8 + 4.302653 * parts.std(ddof=1) / math.sqrt(3), rel=1e-5)


def test_intervals_of_win_rates_stay_within_zero_and_one() -> None:
    """Methods of two and of three runs whose rates lie far apart, met by two populations."""
    own = [[1, 0, 0, 1, 1], [0, 0, 1, 0, 1], [0, 1, 1, 1, 0], [1, 0, 1, 0, 1], [1, 1, 0, 1, 1]]
    strangers = [[1, 0.9, 1], [0.1, 0, 0], [1, 0, 1], [0, 1, 1], [1, 0.4, 0.2]]
    values: list[list[float | str | None]] = [[*a, *b] for a, b in zip(own, strangers, strict=True)]
    partners = [("script", "west"), ("script", "east"), ("human", "clone")]
    sheet = by_hand(values, ["a", "a", "a", "b", "b"], partners)
    rates = [interval for method in methods(replace(sheet, metric="win_rate")) for _, interval, _ in facts(method)]
    returns = [interval for method in methods(sheet) for _, interval, _ in facts(method)]
    assert [one.mean for one in rates] == [one.mean for one in returns], "only the ends of intervals are cut"
    assert sum(one.bounded for one in rates) == sum(one.bounded for one in returns) > 10
    for method in methods(replace(sheet, metric="win_rate")):
        for what, interval, _ in facts(method):
            most = math.inf if what == "ratio" or "br_prox" in what else 1
            assert not interval.bounded or 0 <= interval.low <= interval.mean <= interval.high <= most, what
    assert any(one.low < 0 for one in returns if one.bounded) and any(one.high > 1 for one in returns if one.bounded)


def test_a_run_without_its_number_is_left_out_of_what_needs_it() -> None:
    sheet = by_hand([[10, 1, "not measured yet"], [1, 8, 6], ["not measured yet", 6, 6]], ["a"] * 3)
    (a,) = methods(sheet)
    assert a.self_play is not None and a.self_play.mean == 8
    assert a.cross is None, "one run alone has all its numbers"
    negative = by_hand([[-1, -2], [-2, -3]], ["a", "a"])
    assert methods(negative)[0].ratio is None, "a share of a loss says nothing"


PARTNERS = [("script", "west"), ("script", "east"), ("script", "north"), ("script", "stay"), ("human", "clone")]


def test_held_out_partners_by_hand() -> None:
    """Two runs of a, one of b; the best of any row with each partner is 8, 4, 10, 2 and 5."""
    values: list[list[float | str | None]] = [
        [9, 0, None, 8, 4, 5, 0, 1],
        [0, 9, None, 2, 2, 10, 2, 3],
        [None, None, 9, 4, 1, 5, 1, 5],
    ]
    a, b = methods(by_hand(values, ["a", "a", "b"], PARTNERS))
    script, human = a.held
    assert (script.population, human.population) == ("script", "human")
    assert script.mean.mean == (17 / 4 + 16 / 4) / 2 and script.mean.n == 2
    assert script.worst.value.mean == (0 + 2) / 2 and script.worst.who == "stay"
    assert script.br_prox is not None and script.br_prox_iqm is not None and not script.trained
    assert script.br_prox.mean == pytest.approx(((1 + 1 + 0.5 + 0) / 4 + (0.25 + 0.5 + 1 + 1) / 4) / 2)
    assert script.br_prox_iqm.mean == pytest.approx(((0.5 + 1) / 2 + (0.5 + 1) / 2) / 2)
    assert human.br_prox is not None and human.br_prox.mean == pytest.approx((0.2 + 0.6) / 2)
    assert b.held[1].br_prox is not None and b.held[1].br_prox.mean == 1
    assert a.held_out is not None and b.held_out is not None, "both populations count alike, by run"
    assert (a.held_out.mean, a.held_out.n) == (((17 / 4 + 1) / 2 + (16 / 4 + 3) / 2) / 2, 2)
    assert b.held_out.mean == (11 / 4 + 5) / 2
    unmet = by_hand([[*values[0][:7], None], values[1], values[2]], ["a", "a", "b"], PARTNERS)
    assert (one := methods(unmet)[0].held_out) is not None and (one.mean, one.n) == ((16 / 4 + 3) / 2, 1)
    assert methods(by_hand([[9, 3, 4]], ["a"], PARTNERS[:2]))[0].held_out is None


def test_a_convention_about_seats_shows_in_the_worst_one() -> None:
    """Two runs with 5 beside each partner on average; one of them earns 9 in one seat and 1 in the other."""
    sheet = by_hand([[9, 5, 5, 5], [5, 9, 5, 5]], ["a", "a"], PARTNERS[:2])
    sheet.cells[0][2] = Pair(5.0, 0.0, 6, (9.0, 1.0))
    (held,) = methods(sheet)[0].held
    assert held.worst.value.mean == 5 and (held.worst_seat.mean, held.worst_seat.n) == ((1 + 5) / 2, 2)


def test_a_trained_best_response_sets_the_limit() -> None:
    values: list[list[float | str | None]] = [[9, 3, 4]]
    (trained,) = methods(by_hand(values, ["a"], PARTNERS[:2], [[6, 12], [8]]))[0].held
    assert trained.trained and trained.br_prox is not None and trained.br_prox.mean == (3 / 12 + 4 / 8) / 2
    (half,) = methods(by_hand(values, ["a"], PARTNERS[:2], [[12], []]))[0].held
    assert not half.trained and half.br_prox is not None and half.br_prox.mean == (3 / 12 + 1) / 2


def test_partners_that_cannot_be_met_and_runs_that_are_partners() -> None:
    """The impossible partner counts for nobody; a run that is a partner itself counts with the other one, and its
    self-play bounds what is possible with it."""
    values: list[list[float | str | None]] = [[9, 1, "not possible: x", None, 2], [1, 6, 7, 3, 4]]
    sheet = by_hand(values, ["a", "a"], [("p", "gone"), ("p", "self"), ("p", "other")])
    same = replace(sheet.partners[1], entrant=sheet.rows[0])
    sheet = Sheet(sheet.metric, sheet.rows, [sheet.partners[0], same, sheet.partners[2]], sheet.cells,
                  [(7, False), (9, False), (4, False)])  # fmt: skip
    (held,) = methods(sheet)[0].held
    assert held.mean.mean == (2 + 3.5) / 2 and held.worst.value.mean == (2 + 3) / 2
    assert held.br_prox is not None and held.br_prox.mean == pytest.approx((2 / 4 + (3 / 9 + 4 / 4) / 2) / 2)
    assert find_limits(sheet.rows, sheet.partners, sheet.cells, [[], [], []]) == [(7, False), (9, False), (4, False)]


def test_the_middle_half() -> None:
    assert interquartile(np.array([0.0, 10, 1, 2, math.nan])) == 1.5
    assert interquartile(np.array([3.0])) == 3
