"""EGA and its relatives: what attackers see, choose and learn, and that they find a weak spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from attacks.ega.attack import EGA
from attacks.ega.learner import SoftLearner, attacker_inputs
from marl.core.protocols import Victim
from marl.core.types import ConfigError, EnvSpec, EpisodeBatch, core_fields
from tests.support.ega_parts import (
    AGENTS,
    LANES,
    STEPS,
    WEAK_AGENT,
    WEAK_STEP,
    Steadfast,
    WeakSpot,
    fit,
    learn,
    make,
    play,
)
from tests.support.helpers import make_spec

ONE = ("attack.learner.population=1", "attack.learner.batch_size=2", "attack.learner.diversity=0")


@pytest.fixture
def ega(tmp_path: Path) -> Callable[..., EGA]:
    return lambda *overrides, **more: make(tmp_path, *overrides, **more)


# what attackers learn


def two_steps(spec: EnvSpec, **data: Any) -> EpisodeBatch:
    """One episode of two steps, then padding; data by field, each [T+1]."""
    base: dict[str, Any] = {
        "state": torch.zeros(4, spec.state_dim), "reward": [1.0, 2.0, 0.0, 0.0], "terminated": [0, 1, 0, 0],
        "filled": [1, 1, 0, 0], "ega_choice": [0, 3, 3, 3], "ega_budget": [1.0, 0.5, 0.5, 0.5],
    }  # fmt: skip
    fields = core_fields(spec)
    tensors = {k: torch.as_tensor(v)[None] for k, v in (base | data).items()}
    for name in ("terminated", "filled"):
        tensors[name] = tensors[name].bool()
    return EpisodeBatch(tensors, fields)


def constant(learner: SoftLearner, online: float, target: float) -> None:
    """Networks whose values are the same everywhere, for every choice."""
    with torch.no_grad():
        for weights, value in ((learner.weights, online), (learner.targets, target)):
            weights.zero_()
            weights[:, -(AGENTS + 1) :] = value


@pytest.mark.parametrize(
    ("terminated", "expected"),
    [
        # targets: -1 - 0.5 (an attempt) + 0.9 * 2 = 0.3, and -2 at the end; both against 1
        ([0, 1, 0, 0], (0.7**2 + 3.0**2) / 2),
        # cut by the clock: the second one goes on with 0.9 * 2: -0.2
        ([0, 0, 0, 0], (0.7**2 + 1.2**2) / 2),
    ],
)
def test_soft_td_by_hand(terminated: list[int], expected: float, ega: Callable[..., EGA]) -> None:
    learner = ega(*ONE, "attack.learner.gamma=0.9").learner
    constant(learner, 1.0, 2.0)
    batch = two_steps(learner.spec, terminated=terminated, reward=[1.0, 2.0, 99.0, 99.0])
    loss = learner.td_loss(batch, learner.nets.split(learner.weights))
    assert float(loss.detach()) == pytest.approx(expected), (
        "the value of equal choices is theirs; padding counts nothing"
    )


def test_attackers_learn_from_their_own_episodes(ega: Callable[..., EGA]) -> None:
    learner = ega("attack.learner.population=2", "attack.learner.batch_size=2").learner
    batch = play(attack := ega("attack.learner.population=2"))
    episodes = attack.with_budget(batch).lanes(torch.arange(4))

    def gradient(data: EpisodeBatch) -> Tensor:
        learner.weights.grad = None
        learner.td_loss(data, learner.nets.split(learner.weights)).backward()
        assert learner.weights.grad is not None
        return learner.weights.grad.clone()

    before = gradient(episodes)
    other = EpisodeBatch({**episodes.data, "reward": episodes.reward.clone()}, episodes.fields)
    other.reward[2:] += 3.0  # of the second attacker
    after = gradient(other)
    assert torch.equal(before[0], after[0]) and not torch.equal(before[1], after[1])


def test_diversity_pushes_attackers_apart(ega: Callable[..., EGA]) -> None:
    spread = []
    for diversity in (0.0, 5.0):
        attack = ega(f"attack.learner.diversity={diversity}", "attack.learner.lr=0.01", "attack.masked=0")
        with attack.fitting():
            learn(attack, play(attack))
            for _ in range(2):
                learn(attack, play(attack))
        attack.learner.remember(attack.with_budget(play(attack)))
        spread.append(float(attack.learner.update()["attack/jsd"]))
    assert spread[1] > 1.5 * spread[0], spread


def test_the_budget_that_was_left_is_known_at_every_slot(ega: Callable[..., EGA]) -> None:
    attack = ega("attack.budget=4")
    batch = play(attack)
    batch["hit"].zero_()
    batch["hit"][0, 1, 2] = batch["hit"][0, 2, 0] = batch["hit"][1, 3, 1] = True
    share = attack.with_budget(batch)["ega_budget"]
    assert share[0].tolist() == [1.0, 1.0, 0.75, 0.5, 0.5] and share[1].tolist() == [1.0, 1.0, 1.0, 1.0, 0.75]
    assert attacker_inputs(attack.with_budget(batch)).shape == (LANES, STEPS + 1, STEPS + 1)


# how they play


def test_lanes_choose_as_their_own_attacker_does(ega: Callable[..., EGA]) -> None:
    """The batched call against one network at a time: the empirical choice rates follow each member's policy."""
    attack = ega("attack.learner.population=3", "attack.budget=1000")
    attack.learner.install(attack.learner.weights.detach() * 3)
    env = WeakSpot()
    state = env.reset().state[:1]
    counts = torch.zeros(3, AGENTS + 1)
    for seed in range(120):
        batch = play(attack, seed)
        for lane in range(LANES):
            counts[int(batch.ega_member[lane]), int(batch.ega_choice[lane, 0])] += 1
    x = torch.cat([state, torch.ones(1, 1)], 1).expand(3, 1, -1)
    expected = attack.learner.policy(attack.learner.weights.detach(), x)[:, 0]
    rate = counts / counts.sum(1, keepdim=True)
    assert float((rate - expected).abs().max()) < 0.06
    assert float((expected[0] - expected[1]).abs().max()) > 0.1, "members must differ for this to mean something"
    assert counts.sum(1).min() > 0.25 * counts.sum(), "and each plays about as often as the others"


def test_victims_do_their_worst_within_the_budget(ega: Callable[..., EGA]) -> None:
    attack = ega("attack.learner.floor=0.25", "attack.budget=2")
    batch = play(attack)
    hit = batch["hit"]
    assert bool((batch.actions[hit] == 1).all()) and bool((batch.actions[~hit] == 0).all())
    assert int(hit.any(-1).sum(1).max()) == 2 and int(hit.sum(-1).max()) == 1
    wanted = (batch.ega_choice[..., None] == torch.arange(AGENTS)) & batch.filled[..., None]
    assert torch.equal(wanted, hit), "what is out of the budget is not wanted"


def test_a_share_of_the_attackers_episodes_is_spared(ega: Callable[..., EGA]) -> None:
    spec = make_spec(limit=30)
    attack = ega(spec=spec)
    attack.begin(4000, Steadfast(), torch.Generator().manual_seed(0))
    assert not attack.spared.any(), "not in tests"
    attack.take_turn()
    attack.begin(4000, Steadfast(), torch.Generator().manual_seed(0))
    spared = attack.spared[attack.spared.any(1)]
    assert 0.4 < len(spared) / 4000 < 0.52  # half; of a beginning's 0 to 10 steps, 0 cannot be seen
    beginning = (spared[:, 1:] <= spared[:, :-1]).all(1) & spared[:, 0]
    assert set(spared[~beginning].sum(1).tolist()) == {10}
    assert set(spared[beginning].sum(1).tolist()) >= set(range(1, 11)) and int(spared.sum(1).max()) == 10
    assert float(spared[~beginning].float().mean(0).std()) < 0.03, "a third: any steps"
    assert 0.4 < float(beginning.float().mean()) < 0.55


def test_a_spared_step_is_not_attacked(ega: Callable[..., EGA]) -> None:
    attack = ega("attack.masked=1", "attack.learner.floor=0.25", "attack.budget=1000")
    attack.take_turn()
    batch = play(attack)
    assert bool(attack.spared.any())
    assert not batch["hit"].any(-1)[:, :STEPS][attack.spared].any() and bool(batch["hit"].any())


# finding a weak spot

QUICK = (
    "attack.budget=1", "attack.learner.floor=0", "attack.learner.lr=0.005", "attack.learner.optimizer=adam",
    "attack.learner.tau=0.05", "attack.learner.delta=0.3", "attack.generations=12",
    f"attack.episodes_per_update={LANES / 6}", "attack.learner.batch_size=8", "attack.learner.hidden_dim=32",
)  # fmt: skip


@pytest.mark.parametrize("name", ["rarl", "rap"])
def test_attackers_find_the_weak_spot(name: str, ega: Callable[..., EGA]) -> None:
    """One hit is all they have: that agent, at that time. Random hits find it in one episode of twelve."""
    attack = ega(*QUICK, name=name)

    def share() -> float:
        hit = torch.cat([play(attack, seed)["hit"][:-1] for seed in range(8)])  # without the lane that ends at once
        return float(hit[:, WEAK_STEP, WEAK_AGENT].float().mean())

    before = share()
    assert fit(attack) == 12 * 3 and not attack.needs_fit and attack.fitted == 1.0
    assert before < 0.2 and share() > 0.7, (before, share())
    assert attack.learner.replay is None, "what is fitted needs no memory"


def test_evolution_finds_the_weak_spot_and_keeps_who_did(ega: Callable[..., EGA]) -> None:
    attack = ega(*QUICK, "attack.generations=40")

    def results() -> tuple[Tensor, Tensor]:
        batches = [play(attack, seed) for seed in range(10)]
        returns = torch.cat([batch.reward[:-1].sum(1) for batch in batches])
        return returns, torch.cat([batch.ega_member[:-1] for batch in batches]).long()

    before = float(results()[0].mean())
    fit(attack)
    returns, member = results()
    best = int(attack.archive.quality.argmax())
    assert float(returns[member == best].mean()) < 0.0, "4 without an attack, -1 with the one that matters"
    assert float(returns.mean()) < before - 0.5, "members are unlike each other, and here there is one way to hurt"


def test_the_archive_is_what_tests_play_against(ega: Callable[..., EGA]) -> None:
    attack = ega("attack.generations=6", "attack.archive.size=5", "attack.learner.lr=0.01")
    attack.archive.nearness = (1.0, 1.0)  # everybody is added
    fit(attack)
    assert 4 < len(attack.archive) <= 5
    members = torch.cat([play(attack, seed).ega_member for seed in range(20)])
    assert torch.bincount(members.long()).tolist() and set(members.tolist()) == set(range(len(attack.archive)))
    attack.take_turn()
    assert int(play(attack).ega_member.min()) >= len(attack.archive), "training goes on with the population"
    without = ega("attack.generations=1", name="rap")
    fit(without)
    assert len(without.archive) == 0 and set(play(without).ega_member.tolist()) == set(range(4))


def test_quality_is_minus_the_teams_return_in_the_review(ega: Callable[..., EGA]) -> None:
    attack = ega("attack.generations=1", f"attack.review_episodes={2 * LANES}")
    attack.archive.nearness = (1.0, 1.0)  # everybody is added
    with attack.fitting():
        for seed in range(3):
            learn(attack, play(attack, seed))
        reviews = [play(attack, seed) for seed in (3, 4)]  # nobody learns between them
        for seed in (3, 4):
            learn(attack, play(attack, seed))
    member, result = torch.cat([b.ega_member for b in reviews]), torch.cat([b.reward.sum(1) for b in reviews])
    expected = [-float(result[member == i].mean()) for i in range(4)]
    assert len(set(expected)) > 1
    torch.testing.assert_close(attack.archive.quality, torch.tensor(expected))


# what goes wrong


def test_a_victim_without_values_is_refused(ega: Callable[..., EGA]) -> None:
    class Closed:
        begin, act, after = Steadfast.begin, Steadfast.act, Steadfast.after

    assert not isinstance(Closed(), Victim)
    with pytest.raises(ConfigError, match="attack: EGA reads the values of its victim; Closed shows none"):
        play(ega(), victim=Closed())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("attack.learner.population=0", "attack.learner.population=0 must be at least 1"),
        ("attack.learner.floor=0.3", r"attack.learner.floor=0.3 must be within \[0, 0.25\]"),
        ("attack.learner.delta=0.0", r"attack.learner.delta=0.0 must be within \(0, 1\)"),
        ("attack.learner.replay_capacity=39", "replay_capacity=39 is too small; a step takes 40 episodes"),
        ("attack.masked=1.5", r"attack.masked=1.5 must be within \[0, 1\]"),
        ("attack.team_episodes=-1", "attack.team_episodes=-1 must be at least 0"),
        ("attack.generations=0", "attack.generations=0 must be at least 1"),
    ],
)
def test_bad_settings_are_refused(override: str, message: str, ega: Callable[..., EGA]) -> None:
    with pytest.raises(ConfigError, match=message):
        ega(override)


def test_several_processes_are_refused(ega: Callable[..., EGA], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="do not run under torchrun"):
        ega()
