"""EGA and its relatives: what attackers see, choose and learn, whose turn it is, and that they find a weak spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from attacks.ega import EGA
from attacks.ega_learner import SoftLearner, attacker_inputs
from marl.build import factory
from marl.collect import collect
from marl.protocols import Alternating, Victim
from marl.replay import Replay
from marl.trainer import Run, open_run
from marl.types import Carry, Clock, ConfigError, EnvSpec, EpisodeBatch, Metrics, Obs, Step, core_fields
from tests.helpers import TINY, compose_train, differences, make_spec, newest_state, rows, train
from tests.test_run import assert_same_run, at_collection, raise_signal

LANES, STEPS, AGENTS = 16, 4, 3
WEAK_STEP, WEAK_AGENT = 2, 1


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marl.plot.learning_curves", lambda groups, path: None)


class WeakSpot:
    """Three agents, four steps, two actions; a step pays 1. Action 1 costs nothing, but that agent 1 must not do it in
    step 2: that costs 5. The state is the one-hot step; the last lane ends after one step."""

    device, resumable = torch.device("cpu"), False

    def __init__(self, n_envs: int = LANES) -> None:
        self.n_envs = n_envs
        self.spec = EnvSpec(AGENTS, 2, STEPS, STEPS, STEPS, torch.zeros(STEPS), torch.ones(STEPS))

    def observe(self) -> Obs:
        state = torch.eye(STEPS)[min(self.t, STEPS - 1)].expand(self.n_envs, -1)
        everyone = torch.ones(self.n_envs, AGENTS, dtype=torch.bool)
        return Obs(state[:, None].expand(-1, AGENTS, -1), state, everyone[..., None].expand(-1, -1, 2), everyone)

    def reset(self, seed: int | None = None, mask: Tensor | None = None) -> Obs:
        self.t = 0
        return self.observe()

    def step(self, actions: Tensor) -> Step:
        spoilt = (actions[:, WEAK_AGENT] == 1) & (self.t == WEAK_STEP)
        self.t += 1
        over = torch.full((self.n_envs,), self.t == STEPS)
        over[-1] = self.t == 1
        return Step(self.observe(), 1.0 - 5.0 * spoilt, over, torch.zeros_like(over), {"won": over})


class Steadfast:
    """Values action 0 above action 1, always."""

    def begin(self, n_envs: int, gen: Generator) -> Carry:
        return {"h": torch.zeros(n_envs, AGENTS, 1)}

    def act(self, obs: Obs, carry: Carry, *, explore: bool, gen: Generator) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        return torch.zeros(obs.obs.shape[:2], dtype=torch.long), carry, {}

    def after(self, carry: Carry, intended: Tensor, executed: Tensor) -> Carry:
        return carry

    def q_values(self, obs: Tensor, carry: Carry) -> Tensor:
        return torch.tensor([1.0, 0.0]).expand(*obs.shape[:2], 2)

    def q_total(self, q: Tensor, state: Tensor, **kwargs: Tensor) -> Tensor:
        return q.sum(-1, keepdim=True)

    def params(self) -> dict[str, Tensor]:
        return {}

    def q_with(self, params: dict[str, Tensor], obs: Tensor, carry: Carry) -> Tensor:
        return self.q_values(obs, carry)


def make(tmp_path: Path, *overrides: str, name: str = "ega", spec: EnvSpec | None = None, seed: int = 0) -> EGA:
    cfg = compose_train(tmp_path, f"attack={name}", *overrides)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        attack = factory(cfg.attack, "attack")(spec or WeakSpot().spec, "cpu")
    assert isinstance(attack, EGA)
    return attack


@pytest.fixture
def ega(tmp_path: Path) -> Callable[..., EGA]:
    return lambda *overrides, **more: make(tmp_path, *overrides, **more)


def play(attack: EGA, seed: int = 0, victim: Any = None, attacked: Tensor | None = None) -> EpisodeBatch:
    env, gen = WeakSpot(), torch.Generator().manual_seed(seed)
    lanes = torch.ones(LANES, dtype=torch.bool) if attacked is None else attacked
    return collect(
        env, victim or Steadfast(), attack, core_fields(env.spec) | attack.fields(), explore=False, attacked=lanes,
        policy_gen=gen, attack_gen=gen, device="cpu",
    )  # fmt: skip


def learn(attack: EGA, fresh: EpisodeBatch) -> Metrics:
    return attack.update(Replay(4, STEPS, fresh.fields), fresh, Steadfast(), Clock())


def fit(attack: EGA) -> int:
    """Collections until it needs no more."""
    count = 0
    with attack.fitting():
        while attack.needs_fit:
            learn(attack, play(attack, seed=count))
            count += 1
    return count


ONE = ("attack.learner.population=1", "attack.learner.batch_size=2", "attack.learner.diversity=0")


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
    "attack.learner.tau=0.05", "attack.learner.delta=0.3", "attack.updates=6", "attack.generations=12",
    "attack.learner.batch_size=8", "attack.learner.hidden_dim=32",
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
    attack = ega("attack.generations=1", "attack.review_turns=2")
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


# turns

SMALL = ("env=toy/corridor", "attack.learner.batch_size=2", "attack.learner.hidden_dim=8", "attack.budget=2",
         "attack.behaviour_rows=4")  # fmt: skip
CYCLE = ("attack=romance", "attack.attacker_turns=2", "attack.team_turns=1", "attack.review_turns=1", *SMALL)


def open_small(tmp_path: Path, *overrides: str) -> Run:
    return open_run(compose_train(tmp_path, *TINY, *overrides), tmp_path / "run", {}, None)


def test_turns_go_round_and_the_team_learns_only_in_its_own(tmp_path: Path) -> None:
    run = open_small(tmp_path, *CYCLE, "attack.freeze_after=3")
    attack = run.parts.attack
    assert isinstance(attack, EGA) and isinstance(attack, Alternating)
    seen = []
    for _ in range(16):
        turn, before, weights = attack.turn, run.clock.updates, attack.learner.weights
        then = weights.detach().clone()
        fresh = run.collect()
        run.count(fresh)
        run.learn(fresh)
        moved = attack.learner.weights is weights and not torch.equal(then, weights)
        seen.append((turn, run.clock.updates - before, moved))
    run.close()
    # after three generations attackers are frozen and all turns are the team's
    assert [turn for turn, _, _ in seen] == [
        *("attackers", "attackers", "team", "review") * 3, *("team",) * 4,
    ]  # fmt: skip
    assert all((updates > 0) == (turn == "team") for turn, updates, _ in seen)
    assert all(moved == (turn == "attackers") for turn, _, moved in seen if turn != "review")
    assert attack.generation == 4 and attack.frozen and attack.learner.replay is None


def test_attacks_that_begin_later_let_the_team_learn_until_then(tmp_path: Path) -> None:
    run = open_small(tmp_path, *CYCLE, "train.attack_start=100000")
    for _ in range(3):
        fresh = run.collect()
        run.learn(fresh)
    run.close()
    assert run.clock.updates == 6 and isinstance(run.parts.attack, EGA) and run.parts.attack.collections == 0


def test_a_review_plays_both_and_renews_the_archives_qualities(tmp_path: Path) -> None:
    run = open_small(tmp_path, *CYCLE, "train.n_envs=32")
    attack = run.parts.attack
    assert isinstance(attack, EGA)
    while attack.generation < 1 or attack.turn != "review":
        run.learn(run.collect())
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
    task = (f"attack={name}", *SMALL, "attack.attacker_turns=1", "attack.team_turns=1", "attack.review_turns=1")
    done = train(tmp_path / "whole", *task)
    with monkeypatch.context() as patch:
        at_collection(patch, 3, raise_signal(15))
        assert train(tmp_path / "broken", *task) == {}
    assert train(tmp_path / "broken", *task) == done
    assert_same_run(tmp_path / "whole", tmp_path / "broken")
    last = rows(tmp_path / "whole", "metrics")[-1]
    assert last["attack/generation"] >= 1 and last["loss/attackers"] > 0 and last["updates"] > 0
    assert (last["attack/archive"] > 0) == (name in ("romance", "ega"))


def test_a_frozen_team_trains_its_attackers(tmp_path: Path) -> None:
    train(tmp_path / "team", "train.total_steps=100")
    overrides = [o for o in TINY if not o.startswith(("algo.", "agent@"))]
    cfg = compose_train(
        tmp_path, *overrides, "algo=frozen", f"algo.run={tmp_path / 'team'}", "attack=ega", *SMALL,
        "attack.attacker_turns=1", "attack.updates=2", "attack.review_turns=0",
    )  # fmt: skip
    run = open_run(cfg, tmp_path / "run", {}, None)
    before = run.parts.algo.state_dict()
    for _ in range(4):
        run.learn(run.collect())
    run.close()
    assert isinstance(run.parts.attack, EGA) and run.parts.attack.generation == 4
    assert differences(before, run.parts.algo.state_dict()) == []
    assert differences(before, newest_state(tmp_path / "team")[0]["algo"]) == []


# what goes wrong


def test_a_victim_without_values_is_refused(ega: Callable[..., EGA]) -> None:
    class Closed:
        begin, act, after = Steadfast.begin, Steadfast.act, Steadfast.after

    assert not isinstance(Closed(), Victim)
    with pytest.raises(ConfigError, match="attack=ega reads the values of its victim; Closed shows none"):
        play(ega(), victim=Closed())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("attack.learner.population=0", "attack.learner.population is 0; it must be at least 1"),
        ("attack.learner.floor=0.3", r"attack.learner.floor=0.3 must be within \[0, 0.25\]"),
        ("attack.learner.delta=0.0", r"attack.learner.delta=0.0 must be within \(0, 1\)"),
        ("attack.learner.replay_capacity=39", "replay_capacity=39 is too small; a step takes 40 episodes"),
        ("attack.masked=1.5", r"attack.masked=1.5 must be within \[0, 1\]"),
        ("attack.team_turns=-1", "attack.team_turns=-1 must be at least 0"),
        ("attack.generations=0", "attack.generations is 0; it must be at least 1"),
    ],
)
def test_bad_settings_are_refused(override: str, message: str, ega: Callable[..., EGA]) -> None:
    with pytest.raises(ConfigError, match=message):
        ega(override)


def test_several_processes_are_refused(ega: Callable[..., EGA], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="do not run under torchrun"):
        ega()
