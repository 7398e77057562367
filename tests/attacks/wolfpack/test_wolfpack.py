"""Wolfpack, step by step: what a pack looks like, what it costs, when it starts, and that nothing else moves."""

from __future__ import annotations

import copy
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from attacks.wolfpack.attack import start_hazard
from envs.toys.games import Corridor
from marl.core.protocols import Fitting, Measured, NoAttack, View
from marl.core.types import Clock, ConfigError, EpisodeBatch, core_fields
from marl.learn.mixers import NoMixer, QMix, QPlex
from marl.learn.policy import EpsilonGreedy
from marl.learn.replay import EpisodeReplay
from marl.run.collect import collect
from tests.support.helpers import clock_after, differences, rows, train
from tests.support.wolfpack_parts import SPEC, Episode, Table, decided_victim, make_attack, random_obs, rows_of

LANES = 8
EVERYBODY = [[3.0, 2.0, 1.0, 0.0]] * 5  # everybody wants action 0 and is made to do action 3
MIXERS = {
    "none": NoMixer,
    "qmix": partial(QMix, embed_dim=8, hypernet_dim=8),
    "qplex": partial(QPlex, hypernet_dim=8, n_kernels=2, kernel_dim=8, stop_advantage=True, transform=True),
}


def corridor(lanes: int = LANES, fatal: bool = True) -> Corridor:
    return Corridor(n_agents=5, length=4, spread=3, fatal=fatal, episode_limit=12, n_envs=lanes, seed=1)


def walkers(mixer: str = "qmix") -> EpsilonGreedy:
    """They walk to the right end and press there, more or less; some die of it."""
    spec = corridor().spec
    with torch.random.fork_rng():
        torch.manual_seed(5)
        victim = decided_victim(spec, MIXERS[mixer](spec))
    with torch.no_grad():
        victim.agent.fc_out.bias.copy_(torch.tensor([-4.0, -2.0, 1.0, 2.0]))
    return victim


def play(attack: Any, victim: Any = None, seed: int = 0, env: Any = None) -> EpisodeBatch:
    env = env or corridor()
    fields = core_fields(env.spec) | attack.fields()
    gens = [torch.Generator().manual_seed(seed) for _ in range(2)]
    everywhere = torch.ones(env.n_envs, dtype=torch.bool)
    return collect(env, victim or walkers(), attack, fields, explore=False, attacked=everywhere, policy_gen=gens[0],
                   attack_gen=gens[1], device="cpu")  # fmt: skip


# what a pack looks like


def test_a_start_hits_one_agent_and_the_pack_follows_for_three_steps() -> None:
    hit = Episode(make_attack(budget=8), Table(EVERYBODY), 3).hits(12)
    assert hit.sum(-1)[:, 0].tolist() == [1, 2, 2, 2, 1, 2, 2, 2, 0, 0, 0, 0]
    for start in (0, 4):
        group = hit[start + 1]
        assert torch.equal(hit[start + 2], group) and torch.equal(hit[start + 3], group)
        assert not (group & hit[start]).any(), "the first agent is never in its pack"


def test_a_pack_ends_with_the_budget() -> None:
    hit = Episode(make_attack(budget=6), Table(EVERYBODY), 1).hits(10)
    assert hit.sum(-1).flatten().tolist() == [1, 2, 2, 2, 1, 2, 0, 0, 0, 0]
    hit = Episode(make_attack(budget=6, budget_unit="agent_action"), Table(EVERYBODY), 1).hits(10)
    assert hit.sum(-1).flatten().tolist() == [1, 2, 2, 1, 0, 0, 0, 0, 0, 0]


def test_the_pack_is_half_of_the_teammates_by_default() -> None:
    for n, size in ((1, 0), (2, 1), (3, 1), (4, 1), (5, 2), (8, 3), (9, 4), (10, 4)):
        spec = corridor().spec.__class__(**{**vars(SPEC), "n_agents": n})
        assert make_attack(spec, pack_size=None).pack_size == size


def test_a_start_that_changes_nothing_costs_nothing_and_is_tried_again() -> None:
    attack = make_attack()
    episode = Episode(attack, Table(EVERYBODY), 1)
    forced = random_obs(1, 0)
    forced.avail[..., 1:] = False  # nobody has a choice
    assert not episode.step(forced)[2].any() and not episode.step(forced)[2].any()
    assert attack.budget.spent.tolist() == [0]
    assert episode.step()[2].sum() == 1, "a start, not a follow-up"


@pytest.mark.parametrize(("count", "spent"), [("changed", 1), ("every_step", 4)])
def test_what_follow_up_steps_without_effect_cost(count: str, spent: int) -> None:
    attack = make_attack(count=count)
    episode = Episode(attack, Table(EVERYBODY), 1)
    assert episode.step()[2].sum() == 1
    forced = random_obs(1, 0)
    forced.avail[..., 1:] = False
    for _ in range(3):
        assert not episode.step(forced)[2].any()
    assert attack.budget.spent.tolist() == [spent]
    assert episode.step()[2].sum() == 1, "the pack is over either way"


def test_the_dead_are_not_drawn() -> None:
    obs = random_obs(64, 0)
    obs.alive[:, [0, 3]] = False
    hit = Episode(make_attack(pack_size=4), Table(EVERYBODY), 64)
    first, follow = hit.step(obs)[2], hit.step(obs)[2]
    assert first.sum(-1).tolist() == [1] * 64 and first.any(0).tolist() == [False, True, True, False, True]
    assert follow.sum(-1).tolist() == [2] * 64, "of four wanted only two live"
    tried = Episode(make_attack(exclude_dead=False), Table(EVERYBODY), 64).step(obs)[2].any(-1).float().mean()
    assert 0.4 < tried < 0.8, "as published, two draws of five are in vain"


def test_a_lane_that_is_not_attacked_is_left_alone() -> None:
    episode = Episode(make_attack(), Table(EVERYBODY), 4)
    active = torch.tensor([True, False, True, False])
    for _ in range(6):
        assert episode.step(active=active)[2].any(-1).tolist() == active.tolist()


# budget and legality, in a game where agents die and lanes end at different times


@pytest.mark.parametrize("unit", ["step", "agent_action"])
@pytest.mark.parametrize(("budget", "duration", "size"), [(0, 3, 2), (1, 3, 2), (5, 1, 4), (7, 2, 1)])
def test_budget_and_legality(budget: int, duration: int, size: int, unit: str) -> None:
    attack = make_attack(corridor().spec, budget=budget, budget_unit=unit, duration=duration, pack_size=size)
    for seed in range(2):
        batch = play(attack, seed=seed)
        hit, filled = batch["hit"], batch.filled
        spent = hit.any(-1) if unit == "step" else hit.sum(-1)
        assert (spent.cumsum(1) <= budget).all() and not hit[~filled].any()
        assert budget == 0 or bool(hit.any(-1).any(1).float().mean() > 0.5)
        assert not (hit & ~batch.alive).any()
        acted, meant = batch.actions.long(), batch.intended.long()
        assert torch.equal(acted != meant, hit)
        assert batch.avail.gather(-1, acted.unsqueeze(-1)).squeeze(-1)[filled].all()


def test_without_a_budget_nothing_differs_from_no_attack() -> None:
    env = corridor()
    natural, attacked = play(NoAttack(env.spec, "cpu")), play(make_attack(env.spec, budget=0))
    assert all(torch.equal(natural[name], attacked[name]) for name in natural.data)


@pytest.mark.parametrize("every_step", [False, True])
def test_how_many_packs_a_budget_makes(every_step: bool) -> None:
    attack = make_attack(corridor(fatal=False).spec, budget=5, count="every_step" if every_step else "changed")
    starts = torch.zeros(LANES, dtype=torch.long)
    began = attack.perturb_actions

    def counting(view: View, intended: torch.Tensor) -> Any:
        result = began(view, intended)
        starts.add_(attack.starts & result[1]["hit"].any(-1))
        return result

    attack.perturb_actions = counting  # type: ignore[method-assign]
    play(attack, env=corridor(fatal=False))
    most = math.ceil(5 / 4) if every_step else 5
    assert 1 <= int(starts.max()) <= most


# lanes do not notice each other


@pytest.mark.parametrize("options", [{}, {"start": "planner", "temperature": 5.0}, {"followup": "random"},
                                     {"followup": "l2", "init_agent": "argmax"}], ids=str)  # fmt: skip
def test_eight_lanes_play_as_eight_single_ones(options: dict[str, Any]) -> None:
    steps, victim = 10, decided_victim(mixer=QMix(SPEC, embed_dim=8, hypernet_dim=8))
    draws = torch.rand(steps, LANES, 2 + SPEC.n_agents, generator=torch.Generator().manual_seed(1))
    ends = torch.arange(LANES) + 3  # staggered
    changes = {"start_prob": 0.4, **options}

    def run(lanes: slice) -> tuple[torch.Tensor, list[Any]]:
        attack = make_attack(**changes)
        attack.seed = 3
        count = len(range(LANES)[lanes])
        episode = Episode(attack, victim, count)
        executed = []
        for t in range(steps):
            attack.uniform = lambda *shape, t=t: draws[t, lanes]  # type: ignore[method-assign]
            obs = rows_of(random_obs(LANES, 100 + t), lanes)
            executed.append(episode.step(obs, active=(t < ends)[lanes])[1])
        return torch.stack(executed), [attack.budget.spent, attack.left, attack.last_start, attack.group]

    together, state = run(slice(0, LANES))
    for lane in range(LANES):
        alone, own = run(slice(lane, lane + 1))
        assert torch.equal(together[:, lane : lane + 1], alone)
        assert all(torch.equal(both[lane : lane + 1], single) for both, single in zip(state, own, strict=True))
    assert state[0].sum() > LANES, "they were attacked at all"


# when it starts


def test_the_hazard_grows_with_the_age_of_the_window() -> None:
    """Constant foresight: 1 / (W - age), certain from age W - 1 on."""
    u = torch.zeros(6, 4)
    age = torch.tensor([0, 1, 2, 3, 4, 10])
    assert start_hazard(u, age, 0.5).tolist() == pytest.approx([1 / 4, 1 / 3, 1 / 2, 1, 1, 1])


def test_the_hazard_is_the_first_entry_of_a_softmax_over_what_is_left() -> None:
    def hazard(u: list[float], age: int, temperature: float) -> float:
        return float(start_hazard(torch.tensor([u]), torch.tensor([age]), temperature))

    assert hazard([1.0, 0.0], 0, 0.5) == pytest.approx(0.880797)  # e^2 / (e^2 + 1)
    assert hazard([1.0, 0.0, 5.0], 1, 0.5) == pytest.approx(0.880797), "the third entry is out of the window"
    assert hazard([1.2, 0.0], 0, 0.5) > hazard([1.0, 0.0], 0, 0.5)
    assert hazard([1.0, 0.0, 2.0], 0, 1e-3) == 0.0 and hazard([1.0, 0.0, 2.0], 1, 1e-3) == 1.0


def test_with_a_planner_starts_are_never_further_apart_than_the_window() -> None:
    attack = make_attack(start="planner", budget=None, duration=1)
    episode = Episode(attack, Table(EVERYBODY), 64)
    assert attack.foresight is not None
    torch.nn.init.zeros_(attack.foresight.qdiff.head.net.weight)
    torch.nn.init.zeros_(attack.foresight.qdiff.head.net.bias)  # constant foresight
    starts = torch.stack([episode.step()[2].any(-1) & (attack.last_start == t) for t in range(30)])
    # the first step counts from 0 too, so the window of the episode's beginning ends at step 5
    gaps = [lane.nonzero().flatten().diff() for lane in starts.T]
    assert starts[:6].any(0).all() and max(int(gap.max()) for gap in gaps) == 5 and torch.cat(gaps).min() >= 2
    assert 0.1 < starts[0].float().mean() < 0.3  # 1/6


def test_argmax_hits_the_agent_whose_loss_is_foreseen_largest() -> None:
    attack = make_attack(start="random", init_agent="argmax")
    episode = Episode(attack, Table(EVERYBODY), 8)
    assert attack.foresight is not None
    head, window = attack.foresight.qdiff.head.net, attack.foresight.window
    torch.nn.init.zeros_(head.weight)
    with torch.no_grad():
        head.bias[:] = 0.0
        head.bias[3 * window] = 1.0  # agent 3, now
    assert episode.step()[2].nonzero()[:, 1].tolist() == [3] * 8


# the victim is read, never written


@pytest.mark.parametrize("mixer", MIXERS)
def test_the_victim_stays_as_it_is(mixer: str) -> None:
    env, victim = corridor(), walkers(mixer)
    nets = (victim.agent, victim.mixer)
    before = [(p.detach().clone(), p.requires_grad) for net in nets for p in net.parameters()]
    attack = make_attack(env.spec, start="planner", attack_action="exact")
    batch = play(attack, victim)
    replay = EpisodeReplay(16, env.spec.episode_limit, core_fields(env.spec) | attack.fields())
    replay.add(batch)
    metrics = attack.update(replay, batch, victim, clock_after(8))
    assert {"loss/planner", "loss/foresight"} <= metrics.keys() and all(m.isfinite() for m in metrics.values())
    after = [(p, p.requires_grad) for net in nets for p in net.parameters()]
    assert all(torch.equal(a, b) and x == y for (a, x), (b, y) in zip(before, after, strict=True))
    assert all(p.grad is None for p, _ in after) and all(net.training for net in nets)


def test_a_saved_attack_goes_on_as_it_would_have() -> None:
    env, victim = corridor(), walkers()
    replay = EpisodeReplay(16, env.spec.episode_limit, core_fields(env.spec) | make_attack().fields())

    def go_on(attack: Any) -> tuple[EpisodeBatch, dict[str, Any]]:
        batch = play(attack, victim, seed=1)
        attack.update(replay, batch, victim, clock_after(8))
        return play(attack, victim, seed=2), attack.state_dict()

    first, second = (make_attack(env.spec, start="planner") for _ in range(2))
    replay.add(play(first, victim))
    first.update(replay, play(first, victim), victim, clock_after(8))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    (one, state), (other, same) = go_on(first), go_on(second)
    assert differences(one.data, other.data) == [] and differences(state, same) == []


# fitting, measuring, bad input


def test_it_is_fitted_to_a_frozen_victim_with_random_starts() -> None:
    env, victim = corridor(), walkers()
    attack = make_attack(env.spec, start="planner", init_agent="argmax", start_prob=0.3)
    assert isinstance(attack, Fitting) and attack.needs_fit and attack.fitted == 0.0
    replay = EpisodeReplay(64, env.spec.episode_limit, core_fields(env.spec) | attack.fields())
    shares = []
    with attack.fitting():
        while attack.needs_fit:
            assert (attack.start, attack.init_agent) == ("random", "random")
            replay.add(fresh := play(attack, victim))
            attack.update(replay, fresh, victim, Clock())
            shares.append(attack.fitted)
    assert (attack.start, attack.init_agent) == ("planner", "argmax")
    assert shares == [1.0] and attack.foresight is not None and attack.foresight.updates == 4  # 8 lanes of 8 episodes
    assert not make_attack().needs_fit, "random starts need no planner"


def test_the_follow_up_can_be_measured() -> None:
    attack, victim = make_attack(), decided_victim()
    episode = Episode(attack, victim, 3)
    assert isinstance(attack, Measured)
    chores = attack.chores(View(0, random_obs(3, 0), episode.carry, torch.ones(3, dtype=torch.bool), victim))
    assert {name: (once(), unit) for name, (once, unit) in chores.items()} == {
        "follow-up": (3.0, "lanes/s"), "follow-up loop": (3.0, "lanes/s"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"followup": "best"}, "attack.followup=best is not known; choose one of kl, l2, random"),
     ({"start": "now"}, "attack.start=now is not known; choose one of planner, random"),
     ({"pack_size": 5}, r"attack.pack_size=5 must be within \[0, 4\], the teammates"),
     ({"start_prob": 1.5}, "attack.start_prob=1.5 must be within"),
     ({"temperature": 0.0}, "attack.temperature=0.0 must be above 0"),
     ({"duration": 0}, "attack.duration=0 must be at least 1"),
     ({"count": "every_step", "budget_unit": "agent_action"}, "attack.count=every_step counts steps"),
     ({"start": "planner", "duration": 7}, "attack.duration=7 must be at most attack.foresight.window=6"),
     ({"start": "planner", "foresight": {"heads": "two"}}, "attack.foresight.heads=two is not known"),
     ({"start": "planner", "foresight": {"dropout": 1.0}}, "attack.foresight.dropout=1.0 must be within")],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_bad_input(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_attack(**changes)


def test_a_victim_that_shows_too_little_is_refused() -> None:
    class Silent(Table):
        advance = None  # type: ignore[assignment]

    class Blind:
        pass

    with pytest.raises(ConfigError, match="attack=wolfpack follows its victim's memory, which Silent does not show"):
        make_attack(start="planner").begin(1, Silent(EVERYBODY), torch.Generator())
    with pytest.raises(ConfigError, match="attack: wolfpack reads the values of its victim; Blind shows none"):
        make_attack().begin(1, Blind(), torch.Generator())  # type: ignore[arg-type]


def test_training_under_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marl.show.plot.learning_curves", lambda groups, path: None)
    small = ("attack.foresight.window=5", "attack.foresight.dim=8", "attack.foresight.ff_dim=16")
    train(tmp_path / "run", "attack=wolfpack", "env.n_agents=4", "env.fatal=true", *small)
    written = rows(tmp_path / "run", "metrics")
    assert all(math.isfinite(value) for row in written for value in row.values())
    assert {"loss/planner", "loss/foresight", "attack/label"} <= written[-1].keys()
