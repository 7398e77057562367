"""Replays without attack: the same beginnings and another rest, counted by hand; measured once, where they can be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from envs.streams import LaneStreams
from envs.toys.games import MatrixGame
from envs.toys.posts import GO_IDLE, Posts
from marl.core.seeding import derive
from marl.core.types import Obs, Step
from marl.measure import replays
from marl.measure.matrix import measure, read_cell
from marl.measure.robustness_scores import Replayed, luck_together, score_rows, won_again
from tests.marl.run.test_rollout import GAMES, play, require_same
from tests.support.builders import make_victim
from tests.support.robustness_parts import BOTH, CALLS, MATRIX, NATURAL, TRIP, Scripted, entrant, plan, setting

HERE = "tests.marl.measure.test_replays."


class Coin(MatrixGame):
    """A matrix game that is won by drawing anything but a multiple of four, whatever is played."""

    resumable = False

    def __init__(self, payoff: Any, *, n_envs: int, seed: int = 0) -> None:
        super().__init__(payoff, n_envs=n_envs, seed=seed)
        self.streams = LaneStreams(n_envs, seed)

    def reset(self, seed: int | None = None, mask: Tensor | None = None) -> Obs:
        self.streams.restart(np.ones(self.n_envs, bool) if mask is None else mask.numpy(), seed)
        return super().reset(seed, mask)

    def redraw(self, seed: int) -> None:
        self.streams.redraw(seed)

    def has_drawn(self) -> bool:
        return True

    def step(self, actions: Tensor) -> Step:
        step, won = super().step(actions), torch.from_numpy(wins(self.streams))
        return Step(step.next, step.reward, step.terminated, step.truncated, {"won": won})


class Shut:
    """A matrix game that does not say how it could go on with other random numbers."""

    def __init__(self, payoff: Any, *, n_envs: int, seed: int = 0) -> None:
        self.game = MatrixGame(payoff, n_envs=n_envs, seed=seed)

    def __getattr__(self, name: str) -> Any:
        if name in ("game", "redraw"):
            raise AttributeError(name)
        return getattr(self.game, name)


class Dicey(Scripted):
    """Plays 0 or 1, drawn for each lane and agent."""

    def act(
        self, obs: Obs, carry: Any, *, explore: bool, gen: torch.Generator
    ) -> tuple[Tensor, Any, dict[str, Tensor]]:
        return torch.randint(2, (len(obs.state), 2), generator=gen), carry, {}


def wins(streams: LaneStreams) -> np.ndarray:
    return streams.draw(7) % np.uint64(4) != 0


def results(*won: int, **more: bool) -> dict[str, np.ndarray]:
    n = len(won)
    zeros = {name: np.zeros(n) for name in ("return", "length", "hits", "hit_actions")}
    return {"won": np.array(won, dtype=bool), **zeros, **{name: np.full(n, value) for name, value in more.items()}}


def replayed(
    env: dict[str, Any], out: Path, columns: Any = (NATURAL, TRIP, BOTH), more: bool = True, jobs: int = 1
) -> tuple[list[Any], list[Any], bool, list[dict[str, Any]]]:
    """Return one team's replays, their cells, whether all are there, and what its columns gave."""
    cells = plan([entrant([0, 0], env=env)], list(columns), setting(out))
    outcome = measure(cells[0], jobs)
    found = [{c.name: read_cell(cell, outcome) for c, cell in zip(columns, cells[0], strict=True)}]
    return *replays.measure([cells[0][0]], found, "natural", jobs, more=more), found


# numbers


def test_by_hand() -> None:
    """Of four episodes, the first and the third are won in all three plays."""
    natural, first, second = results(1, 1, 1, 0), results(1, 0, 1, 1, chance=True), results(1, 1, 1, 0, chance=True)
    luck = won_again(natural, [first, second], 3)
    assert isinstance(luck, Replayed) and (luck.replays, luck.alike) == (2, False)
    assert (luck.share.mean, luck.share.low, luck.share.high) == pytest.approx((0.5, 0.15004, 0.84996), abs=1e-5)
    assert luck.share.mean > 0.75**3, "the twin that takes plays of one episode for independent ones"
    assert won_again(natural, [first], 3) == won_again(natural, [], 3) == "not measured yet"
    assert won_again(natural, ["not possible: no"], 3) == "not possible: no"
    settled = won_again(natural, [results(1, 1, 1, 0, chance=False)], 3)
    assert isinstance(settled, Replayed) and settled.alike and (settled.share.mean, settled.replays) == (0.75, 2)


def test_methods_and_tasks_count_as_everywhere() -> None:
    def run(won: int, alike: bool = False) -> Any:
        return won_again(results(1, 1, 1, 1), [results(*[1] * won, *[0] * (4 - won), chance=not alike)], 2)

    one = luck_together([[run(4), run(2)]])
    assert isinstance(one, Replayed) and (one.share.mean, one.share.n) == (0.75, 2)
    assert (one.share.low, one.share.high) == (0.0, 1.0), "two seeds tell little, and no rate is beyond 0 or 1"
    both = luck_together([[run(4), run(4)], [run(2, alike=True), run(0, alike=True)]])
    assert isinstance(both, Replayed) and both.share.mean == 0.625 and not both.alike
    assert luck_together([[run(4), "not possible: no"], [None]]) == "not possible: no"
    assert luck_together([[None]]) is None
    alone = run(3)
    assert luck_together([[alone]]) is alone


def test_replays_win_no_more_than_the_least_of_them() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        found = [results(*(rng.random(20) < rng.random()).astype(int), chance=True) for _ in range(4)]
        luck = won_again(found[0], list(found[1:]), 4)
        assert isinstance(luck, Replayed) and luck.share.mean <= min(float(one["won"].mean()) for one in found)


# episodes


def test_a_replay_has_the_random_numbers_of_its_own_seed(tmp_path: Path) -> None:
    """Six episodes on four lanes: what each play draws is computed from the seeds."""
    (again,), cells, complete, found = replayed({**MATRIX, "_target_": HERE + "Coin"}, tmp_path)
    assert complete and len(again) == len(cells) == 2

    def drawn(replay: int) -> list[bool]:
        won = []
        for i in range(2):
            seed = derive(derive(0, "robustness"), f"round {i}") & 0x7FFFFFFF
            streams = LaneStreams(4, seed)
            streams.restart(np.ones(4, bool), None)
            if replay:
                streams.redraw(derive(seed, f"replay {replay}"))
            won += wins(streams).tolist()
        return won[:6]

    natural = found[0]["natural"]
    assert [natural["won"].tolist(), *(one["won"].tolist() for one in again)] == [drawn(k) for k in range(3)]
    assert len({tuple(drawn(k)) for k in range(3)}) == 3
    assert found[0]["trip"]["won"].tolist() == drawn(0), "columns share the numbers of the game"
    assert "chance" not in natural and all(one["chance"].all() for one in again)
    row = score_rows([entrant([0, 0])], found, "natural", "win_rate", [again])[1]
    luck = np.logical_and.reduce([drawn(k) for k in range(3)]).mean()
    assert isinstance(row.by_luck, Replayed) and (row.by_luck.share.mean, row.by_luck.replays) == (luck, 2)
    assert row.every is not None and row.every.share.mean == np.mean(drawn(0)) >= luck, "attacks that do nothing here"


@pytest.mark.parametrize("game", ["hunt", "skirmish", "spread"])
def test_episodes_begin_alike_and_go_on_otherwise(game: str) -> None:
    """In a compiled collection as in the general loop; where nothing is drawn after the start, nothing changes."""
    env = GAMES[game](n_envs=6, seed=4)
    policy = make_victim(env.spec, scale=3.0)
    first = play(env, policy, seed=9)
    other = play(env, policy, seed=9, redraw=1)
    assert torch.equal(first.obs[:, 0], other.obs[:, 0]) and torch.equal(first.state[:, 0], other.state[:, 0])
    draws = game != "spread"
    assert env.has_drawn() == draws
    if draws:
        assert first.state.shape != other.state.shape or not torch.equal(first.state, other.state)
    else:
        require_same(first, other)
    require_same(play(env, policy, seed=9, redraw=1, compiled=False), other)
    require_same(play(env, policy, seed=9), first)


def test_only_the_noise_to_come_is_drawn_anew() -> None:
    """What agents see at first, and who is missing, stays."""

    def seen(redraw: int | None, noise: int = 4) -> tuple[Tensor, Tensor, bool]:
        env = Posts(3, noise, 0.5, 1, 5, n_envs=2)
        start = env.reset(9).obs.clone()
        if redraw is not None:
            env.redraw(redraw)
        return start, env.step(torch.full((2, 3), GO_IDLE)).next.obs, env.has_drawn()

    (start, after, _), (again, other, drew) = seen(None), seen(1)
    assert torch.equal(start, again) and not torch.equal(after, other) and drew
    assert torch.equal(after[..., :-4], other[..., :-4]) and not seen(1, noise=0)[2]


# cells


def test_replays_are_kept_and_shared_and_measured_in_processes(tmp_path: Path) -> None:
    CALLS.clear()
    coin = {**MATRIX, "_target_": HERE + "Coin"}
    (first,), cells, _, _ = replayed(coin, tmp_path / "one")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "one" / "cells").iterdir()}
    assert len(kept) == 5 and {cell.path for cell in cells} <= kept.keys()
    assert [cell.title for cell in cells] == [f"matrix scripted seed 0 under natural, replay {k}" for k in (1, 2)]
    _, fewer, complete, _ = replayed(coin, tmp_path / "one", (NATURAL, BOTH))
    assert complete and [cell.key for cell in fewer] == [cells[0].key], "another suite takes what is there"
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "one" / "cells").iterdir()} == kept
    (side,), _, complete, _ = replayed(coin, tmp_path / "two", jobs=2)
    assert complete and [one["won"].tolist() for one in side] == [one["won"].tolist() for one in first]


def test_where_nothing_is_drawn_one_replay_tells_it(tmp_path: Path) -> None:
    (again,), cells, complete, found = replayed(MATRIX, tmp_path)
    assert complete and len(cells) == 1 and not again[0]["chance"].any()
    assert again[0]["won"].tolist() == found[0]["natural"]["won"].tolist()
    row = score_rows([entrant([0, 0])], found, "natural", "win_rate", [again])[0]
    assert isinstance(row.by_luck, Replayed) and row.by_luck.alike and row.by_luck.share.mean == 1.0


def test_what_a_policy_draws_is_luck_as_well(tmp_path: Path) -> None:
    """The game itself draws nothing. Each play takes its numbers from a generator of its own, and does so again."""
    team = entrant([0, 0])
    opens = {**team.opens, "policy": {"_target_": HERE + "Dicey", "_partial_": True, "actions": None}}
    (cells,) = plan([replace(team, opens=opens)], [NATURAL], setting(tmp_path, episodes=40))
    found = [cell.play(lambda done: None) for cell in (cells[0], *(replays.again(cells[0], k) for k in (1, 2, 1)))]
    assert found[1] == found[3] and all(found[1]["chance"]) and "chance" not in found[0]
    assert len({tuple(one["return"]) for one in found}) == 3


def test_a_game_that_cannot_be_replayed_says_so(tmp_path: Path) -> None:
    (again,), _, complete, found = replayed({**MATRIX, "_target_": HERE + "Shut"}, tmp_path)
    assert complete and again == ["not possible: Shut cannot play an episode again with other random numbers"]
    row = score_rows([entrant([0, 0])], found, "natural", "win_rate", [again])[0]
    assert row.by_luck == again[0] and row.every is not None


def test_after_a_stop_nothing_more_is_measured(tmp_path: Path) -> None:
    (again,), _, complete, found = replayed(MATRIX, tmp_path, more=False)
    assert again == ["not measured yet"] and not complete
    assert score_rows([entrant([0, 0])], found, "natural", "win_rate", [again])[0].by_luck == "not measured yet"


def test_one_column_or_none_without_attack_needs_no_replay(tmp_path: Path) -> None:
    for columns in ([NATURAL], [TRIP, BOTH]):
        (again,), cells, complete, _ = replayed(MATRIX, tmp_path, columns)
        assert complete and not again and not cells
