"""Attackers and team in turns: whose it is, what a review does, and that training under attack resumes exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from attacks.ega.attack import EGA
from marl.core.protocols import Alternating
from marl.run.trainer import Run, open_run
from tests.marl.run.test_run import assert_resumes_exactly
from tests.support.helpers import TINY, compose_train, differences, newest_state, rows, train

pytestmark = pytest.mark.usefixtures("no_drawing")


SMALL = ("env=toy/corridor", "attack.learner.batch_size=2", "attack.learner.hidden_dim=8", "attack.budget=2",
         "attack.behaviour_rows=4")  # fmt: skip
CYCLE = ("attack=romance", "attack.attacker_episodes=16", "attack.team_episodes=8", "attack.review_episodes=8", *SMALL)


def open_small(tmp_path: Path, *overrides: str) -> Run:
    return open_run(compose_train(tmp_path, *TINY, *overrides), tmp_path / "run", {}, None)


def go_on(run: Run, collections: int) -> None:
    for _ in range(collections):
        fresh = run.collect()
        run.count(fresh)
        run.learn(fresh)


@pytest.mark.parametrize(
    ("after", "then"),
    [("every_turn", ["team"] * 4), ("own_turns", ["nobody", "nobody", "team", "nobody"])],
)
def test_turns_go_round_and_the_team_learns_only_in_its_own(after: str, then: list[str], tmp_path: Path) -> None:
    run = open_small(tmp_path, *CYCLE, "attack.freeze_after=3", f"attack.after_freeze={after}")
    attack = run.parts.attack
    assert isinstance(attack, EGA) and isinstance(attack, Alternating)
    seen = []
    for _ in range(16):
        turn, before, weights = attack.turn, run.clock.updates, attack.learner.weights
        old = weights.detach().clone()
        fresh = run.collect()
        run.count(fresh)
        run.learn(fresh)
        moved = attack.learner.weights is weights and not torch.equal(old, weights)
        seen.append((turn, run.clock.updates - before, moved))
    run.close()
    # after three generations attackers are frozen; then all turns are the team's, or only those that always were
    assert [turn for turn, _, _ in seen] == [
        *("attackers", "attackers", "team", "review") * 3, *then,
    ]  # fmt: skip
    assert all((updates > 0) == (turn == "team") for turn, updates, _ in seen)
    assert all(moved == (turn == "attackers") for turn, _, moved in seen if turn != "review")
    assert attack.generation == 4 and attack.frozen and attack.learner.replay is None


def test_a_frozen_romance_makes_as_many_updates_as_a_plain_run(tmp_path: Path) -> None:
    """Half of the turns are the team's, which makes twice the updates in each: 4 in a collection, on average 2."""
    task = (*CYCLE, "attack.team_episodes=24", "attack.freeze_after=2", "algo.episodes_per_update=2")
    made = {}
    for after in ("own_turns", "every_turn"):
        run = open_small(tmp_path, *task, f"attack.after_freeze={after}")
        go_on(run, 1)  # fills the replay
        before = run.clock.updates
        go_on(run, 24)  # two generations but for the first turn, then frozen
        made[after] = run.clock.updates - before
        run.close()
    assert made == {"own_turns": 24 * 2, "every_turn": 12 // 2 * 4 + 13 * 4}


def test_attacks_that_begin_later_let_the_team_learn_until_then(tmp_path: Path) -> None:
    run = open_small(tmp_path, *CYCLE, "train.attack_start=100000")
    go_on(run, 3)
    run.close()
    attack = run.parts.attack
    assert run.clock.updates == 6 and isinstance(attack, EGA) and attack.owed == attack.turns


def test_a_review_plays_both_and_renews_the_archives_qualities(tmp_path: Path) -> None:
    run = open_small(tmp_path, *CYCLE, "train.n_envs=32")
    attack = run.parts.attack
    assert isinstance(attack, EGA)
    while attack.generation < 1 or attack.turn != "review":
        go_on(run, 1)
    old = len(attack.archive)
    attack.archive.quality += 50.0
    before, stored = attack.archive.quality.clone(), attack.archive.weights.clone()
    fresh = run.collect()
    assert 4 < int((fresh.ega_member < old).sum()) < 28 and set(fresh.ega_member.tolist()) == set(range(old + 4))
    attack.note_returns(fresh)
    run.close()
    assert torch.equal(attack.archive.weights, stored)
    for i in range(old):
        result = fresh.reward.sum(1)[fresh.ega_member == i]
        expected = -float(result.mean()) + (0.75 ** len(result)) * (float(before[i]) + float(result.mean()))
        assert float(attack.archive.quality[i]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["romance", "rarl", "rap", "ega"])
def test_training_under_attack_runs_and_resumes_exactly(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = (f"attack={name}", *SMALL, *(f"attack.{whose}_episodes=8" for whose in ("attacker", "team", "review")))
    last = rows(assert_resumes_exactly(tmp_path, monkeypatch, *task), "metrics")[-1]
    assert last["attack/generation"] >= 1 and last["loss/attackers"] > 0 and last["updates"] > 0
    assert (last["attack/archive"] > 0) == (name in ("romance", "ega"))


def test_a_frozen_team_trains_its_attackers(tmp_path: Path) -> None:
    train(tmp_path / "team", "train.total_steps=100")
    overrides = [o for o in TINY if not o.startswith(("algo.", "agent@"))]
    cfg = compose_train(
        tmp_path, *overrides, "algo=frozen", f"algo.run={tmp_path / 'team'}", "attack=ega", *SMALL,
        "attack.attacker_episodes=8", "attack.review_episodes=0",
    )  # fmt: skip
    run = open_run(cfg, tmp_path / "run", {}, None)
    before = run.parts.algo.state_dict()
    go_on(run, 4)
    run.close()
    assert isinstance(run.parts.attack, EGA) and run.parts.attack.generation == 4
    assert differences(before, run.parts.algo.state_dict()) == []
    assert differences(before, newest_state(tmp_path / "team")[0]["algo"]) == []


@pytest.mark.parametrize("lanes", [2, 8, 32])
@pytest.mark.parametrize("lengths", [(12, 12, 4), (16, 8, 8)], ids=["ragged", "a_generation_is_32"])
def test_turns_share_the_episodes_alike_with_any_number_of_lanes(
    lengths: tuple[int, int, int], lanes: int, tmp_path: Path
) -> None:
    """Also with turns that are no multiples of the lanes, and with a generation that is one collection."""
    turns = dict(zip(("attackers", "team", "review"), lengths, strict=True))
    given = (f"attack.{turn.removesuffix('s')}_episodes={count}" for turn, count in turns.items())
    run = open_small(tmp_path, "attack=romance", *SMALL, *given, f"train.n_envs={lanes}")
    attack, played = run.parts.attack, dict.fromkeys(turns, 0)
    assert isinstance(attack, EGA)
    for _ in range(sum(lengths) * 8 // lanes):  # eight generations
        played[attack.turn] += lanes
        go_on(run, 1)
    run.close()
    assert played == {turn: 8 * count for turn, count in turns.items()}
    assert attack.generation == 8 and attack.owed == attack.turns


def test_what_a_collection_plays_ahead_is_taken_off_the_same_turn(tmp_path: Path) -> None:
    """A generation of 16, 8 and 8 episodes and collections of 32: three collections fill three generations, the
    attackers' share is half."""
    run = open_small(tmp_path, *CYCLE, "train.n_envs=32")
    attack, seen = run.parts.attack, []
    assert isinstance(attack, EGA)
    for _ in range(8):
        seen.append((attack.turn, attack.generation))
        go_on(run, 1)
    run.close()
    assert seen == [
        ("attackers", 0), ("team", 0), ("review", 0),  # owed -16, -24, -24; then 0, -16, -16; then 16, -8, -8
        ("attackers", 2),  # -16, -8, -8; then 0, 0, 0; then 16, 8, 8
        ("attackers", 4), ("team", 4), ("review", 4), ("attackers", 6),
    ]  # fmt: skip
