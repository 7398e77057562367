"""What Wolfpack learns: it sees no future, ignores padding, learns a known system, and labels equal sums by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from attacks.wolfpack.followup import Moment, pack
from attacks.wolfpack.nets import AgentHead, Planner, QDifference, Track, drop, gaps
from attacks.wolfpack.planner import Foresight, Rules, Window, draw_window, foresight_loss
from envs.toys.games import Corridor
from marl.core.protocols import NoAttack, Traceable, View
from marl.core.types import Clock, EpisodeBatch, core_fields
from marl.learn.policy import random_available
from marl.run.build import call, factory
from marl.run.collect import collect
from tests.support.helpers import TINY, compose_train, make_spec, random_batch
from tests.support.wolfpack_parts import FORESIGHT, Table, decided_victim

SPEC = make_spec(n=3, A=3, O=4, S=5, limit=12)
W = 6


def make_foresight(duration: int = 3, spec: Any = SPEC, hidden: int = 3, size: int = 1, **changes: Any) -> Foresight:
    def choose(victim: Traceable, moment: Moment, u: Tensor) -> Tensor:
        return pack(victim, moment, size, "random", 0.0005, u)

    rules = Rules(duration, choose, "local", True)
    return Foresight(spec, torch.device("cpu"), rules, hidden, 0, **{**FORESIGHT, **changes})


def everything(net: Any, T: int) -> Tensor:
    """Distances of T steps that all look at each other."""
    steps = torch.arange(T)[None]
    return gaps(steps, steps, torch.ones(1, T, dtype=torch.bool), net.window)


def steps_of(T: int) -> tuple[Tensor, Tensor, Tensor]:
    gen = torch.Generator().manual_seed(0)
    state, hidden = torch.randn(1, T, 5, generator=gen), torch.randn(1, T, 3, 2, generator=gen)
    return state, hidden, torch.randint(3, (1, T, 3), generator=gen)


# what the networks see


def test_gaps_by_hand() -> None:
    place, keys = torch.tensor([[5, 7]]), torch.tensor([[3, 4, 5, 6, 7]])
    seen = torch.tensor([[True, True, True, False, True]])
    assert gaps(place, keys, seen, 3).tolist() == [[[2, 1, 0, 3, 3], [3, 3, 2, 3, 0]]], "3: not seen"


@pytest.mark.parametrize("heads", ["own", "shared"])
def test_the_planner_sees_the_last_steps_and_never_ahead(heads: Any) -> None:
    net = Planner(SPEC, 6, window=4, dim=8, ff_dim=16, dropout=0.0, heads=heads)
    state, hidden, actions = steps_of(9)

    def predicted() -> Tensor:
        x = net.tokens(state, hidden, actions)
        s, o = net(x, net.keys(x), everything(net, 9))
        return torch.cat([s, o.flatten(2)], -1)[0].detach()

    before = predicted()
    for part in (state, hidden):
        part[0, 3] += 5.0
    changed = (predicted() - before).abs().amax(-1) > 1e-5
    assert changed.tolist() == [False] * 3 + [True] * 4 + [False] * 2
    actions[0, 8] = (actions[0, 8] + 1) % 3
    assert ((predicted() - before)[8].abs() > 1e-5).any(), "the action matters"


@pytest.mark.parametrize("heads", ["own", "shared"])
def test_foresight_sees_the_last_steps_and_never_ahead(heads: Any) -> None:
    net = QDifference(SPEC, window=4, dim=8, dropout=0.0, heads=heads)
    state, _, _ = steps_of(9)

    def foreseen() -> Tensor:
        x = net.tokens(state, torch.arange(9)[None])
        return net(x, net.keys(x), everything(net, 9))[0].detach()

    before = foreseen()
    state[0, 3] += 5.0
    changed = (foreseen() - before).abs().amax((-1, -2)) > 1e-5
    assert changed.tolist() == [False] * 3 + [True] * 4 + [False] * 2
    assert before.shape == (9, 3, 4)


def test_a_track_foresees_what_whole_windows_do() -> None:
    net = QDifference(SPEC, window=4, dim=8, dropout=0.0, heads="own")
    state, _, _ = steps_of(9)
    x = net.tokens(state, torch.arange(9)[None])
    whole, track = net(x, net.keys(x), everything(net, 9))[0], Track(net, 1, torch.device("cpu"))
    for t in range(9):
        track.see(state[:, t], t)
        assert torch.allclose(track.foresee()[0], whole[t], atol=1e-6)


def test_own_keys_stand_for_steps_of_the_window() -> None:
    """Imagined steps follow a shared past: the same as if all were in one sequence."""
    net = Planner(SPEC, 6, window=4, dim=8, ff_dim=16, dropout=0.0, heads="own")
    x = net.tokens(*steps_of(7))  # 4 real steps, 3 imagined
    whole = net(x, net.keys(x), everything(net, 7))
    past, place = net.keys(x[:, :4]), torch.arange(4)[None]
    own = [(k[:, None, 4:], v[:, None, 4:]) for k, v in net.keys(x)]
    gap = gaps(torch.tensor([[6]]), place, torch.ones(1, 4, dtype=torch.bool), 4)
    split = net(x[:, 6:], past, gap, own)
    assert all(torch.allclose(a[:, 6:], b, atol=1e-6) for a, b in zip(whole, split, strict=True))


def test_published_heads_tell_agents_apart_by_a_constant_alone() -> None:
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    shared, own = (AgentHead(8, 3, 4, heads)(x).detach() for heads in ("shared", "own"))  # type: ignore[arg-type]
    assert shared.shape == own.shape == (5, 3, 4)
    differ = [(out[:, 1] - out[:, 0]).std(0).max() for out in (shared, own)]
    assert differ[0] < 1e-6 and differ[1] > 0.1


def test_dropout_draws_from_its_generator_and_keeps_the_mean() -> None:
    x, gen = torch.ones(20_000), torch.Generator().manual_seed(0)
    dropped = drop(x, 0.1, gen)
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.9]) and abs(dropped.mean() - 1) < 0.01
    assert torch.equal(drop(x, 0.1, torch.Generator().manual_seed(0)), dropped)
    assert drop(x, 0.1, None) is x and drop(x, 0.0, gen) is x


# windows


def test_windows_lie_within_their_episodes() -> None:
    filled = torch.arange(13) < torch.tensor([[12], [12], [6], [2]])
    window = draw_window(filled, 4, torch.tensor([0.0, 0.999, 0.5, 0.9]))
    assert window.place[:, 3].tolist() == [
        0,
        8,
        1,
        0,
    ]  # starts: of 0..8, 0..8, 0..2 and of an episode that is too short
    assert window.place[1].tolist() == [5, 6, 7, 8, 9, 10, 11]
    assert window.real[0].tolist() == [False] * 3 + [True] * 4
    assert window.real[3].tolist() == [False] * 3 + [True, True, False, False]
    assert window.real[1:3].all(1).tolist() == [True, False] and window.slot.min() == 0


# losses


def test_the_foresight_loss_by_hand() -> None:
    """W = 3. Step 0 foresees 3 labels, step 1 two, step 2 one. The middle label is unknown, step 2 is padding."""
    u = torch.tensor([[[1.0, 9.0, 3.0], [9.0, 5.0, 9.0], [7.0, 9.0, 9.0]]])
    target = torch.tensor([[0.0, 100.0, 1.0]])
    known = torch.tensor([[True, False, True]])
    real = torch.tensor([[True, True, False]])
    total, count = foresight_loss(u, target, real, known)
    # step 0: ((1 - 0)^2 + (3 - 1)^2) / 2; step 1: (5 - 1)^2 / 1
    assert float(total) == pytest.approx(2.5 + 16.0) and int(count) == 2


def test_the_planner_learns_a_linear_system() -> None:
    """Below 5% of the variance of what it predicts, and of what copying the present would lose."""
    gen = torch.Generator().manual_seed(0)
    batch = random_batch(SPEC, 64)
    push = torch.randn(3, 3, 5, generator=gen)  # what each agent's action does to the state
    mix = torch.linalg.qr(torch.randn(5, 5, generator=gen))[0]
    look = torch.randn(3, 5, 4, generator=gen) * 0.5
    for t in range(SPEC.episode_limit):
        moved = push[torch.arange(3), batch.actions[:, t].long()].sum(1) * 0.3
        batch.state[:, t + 1] = batch.state[:, t] @ mix * 0.8 + moved
    batch.data["obs"] = torch.einsum("mts,nso->mtno", batch.state, look)
    foresight = make_foresight(planner_lr=0.005, dim=16, ff_dim=64, dropout=0.0)
    for step in range(120):
        window = draw_window(batch.filled, W, foresight.rand(64))
        hidden = torch.zeros(64, 2 * W - 1, 3, 1)
        losses = foresight.fit_planner(batch, window, hidden)
        if step == 0:
            first = float(losses["loss/planner"])
    variance = float(batch.state[batch.filled].var(0).mean() + batch.obs[batch.filled].var((0, 1)).mean())
    assert float(losses["loss/planner"]) < 0.05 * variance < 0.05 * 2 * first
    assert float(losses["loss/planner"]) < 0.05 * float(losses["attack/planner_copy_loss"])


# labels


def still_batch(lengths: list[int]) -> EpisodeBatch:
    """Episodes in which nothing ever moves; everybody does action 0."""
    batch = random_batch(SPEC, len(lengths))
    slots, length = torch.arange(SPEC.episode_limit + 1), torch.tensor(lengths)[:, None]
    data = batch.data
    for name in ("obs", "state", "actions", "intended", "reward"):
        data[name] = torch.zeros_like(data[name])
    data["avail"], data["alive"] = torch.ones_like(data["avail"]), torch.ones_like(data["alive"])
    data["filled"], data["length"] = slots < length, length[:, 0].to(torch.int16)
    return batch


def labels_of(foresight: Foresight, batch: EpisodeBatch, victim: Any, starts: list[int]) -> tuple[Tensor, ...]:
    place = torch.tensor(starts)[:, None] + torch.arange(1 - W, W)
    real = (place >= 0) & (place < batch.length[:, None])
    window = Window(place, place.clamp(0, batch.horizon), real)
    q, carry = victim.unroll(batch)
    return foresight.labels(batch, window, victim, q, carry, window.of(carry["h"]))


def test_labels_are_what_an_attack_costs_by_hand() -> None:
    """Everybody is worth 2 with action 0 and 0 with action 2. The first hit costs 2, each follow-up on one agent 2."""
    foresight, victim = make_foresight(size=1), Table([[2.0, 1.0, 0.0]] * 3)
    _, known, label = labels_of(foresight, still_batch([12, 4]), victim, [6, 0])
    assert known.tolist() == [[True] * 6, [True] * 4 + [False] * 2]
    assert label[0].tolist() == [8.0, 8.0, 8.0, 6.0, 4.0, 2.0], "attacks end with the episode"
    assert label[1, :4].tolist() == [8.0, 6.0, 4.0, 2.0]
    _, _, label = labels_of(make_foresight(size=2), still_batch([12]), victim, [0])
    assert label[0].tolist() == [14.0] * 6  # 2 + 3 * 2 * 2
    _, _, label = labels_of(make_foresight(duration=1), still_batch([12]), victim, [0])
    assert label[0].tolist() == [4.0] * 6


def test_only_some_steps_of_a_window_may_have_labels() -> None:
    _, known, label = labels_of(make_foresight(label_steps=2), still_batch([12] * 50), Table([[2.0, 1.0, 0.0]] * 3),
                                [3] * 50)  # fmt: skip
    assert known.sum(1).tolist() == [2] * 50 and known.any(0).all()
    assert (label[known] == 8.0).all()


def test_labels_are_zero_without_a_choice_and_with_an_exact_planner() -> None:
    """Values depend on what is observed; nothing moves, and the planner knows it; nobody has a choice."""
    spec = SPEC
    batch, victim = still_batch([12, 9, 5]), decided_victim(spec)
    gen = torch.Generator().manual_seed(0)
    batch.data["obs"] += torch.randn(3, 1, *batch.obs.shape[2:], generator=gen)
    batch.data["state"] += torch.randn(3, 1, spec.state_dim, generator=gen)
    batch.data["avail"][..., 1:] = False

    class Exact:
        def tokens(self, state: Tensor, hidden: Tensor, actions: Tensor) -> Tensor:
            return torch.zeros(*state.shape[:-1], 1)

        def keys(self, tokens: Tensor) -> list[Any]:
            return [(tokens, tokens)]

        def __call__(self, x: Tensor, keys: Any, gap: Tensor, own: Any) -> tuple[Tensor, Tensor]:
            rows = x.shape[1]
            return (batch.state[:, :1].expand(-1, rows, -1) + error, batch.obs[:, :1].expand(-1, rows, -1, -1) + error)

    foresight, error = make_foresight(hidden=48), 0.0
    foresight.planner = Exact()  # type: ignore[assignment]
    _, known, label = labels_of(foresight, batch, victim, [4, 2, 0])
    assert known.sum() == 17 and label[known].abs().max() < 1e-5
    error = 0.5
    assert labels_of(foresight, batch, victim, [4, 2, 0])[2][known].abs().max() > 1e-2, "a wrong planner is seen"


def test_padding_changes_nothing() -> None:
    """Whatever lies behind the end of an episode: the same losses, labels and weights."""

    def learned(garbage: float) -> tuple[dict[str, Tensor], list[Tensor]]:
        batch = random_batch(SPEC, 8)
        beyond = torch.arange(SPEC.episode_limit + 1) > batch.length[:, None]
        for name in ("obs", "state"):
            batch.data[name][beyond] = garbage
        batch.data["avail"][beyond], batch.data["alive"][beyond] = garbage == 0.0, garbage != 0.0
        for name in ("actions", "intended"):
            batch.data[name][~batch.filled] = 2 if garbage else 0
        foresight = make_foresight(hidden=48)
        for _ in range(2):
            metrics = foresight.update(batch, decided_victim(SPEC))
        return metrics, [*foresight.planner.parameters(), *foresight.qdiff.parameters()]

    (metrics, weights), (same, others) = learned(0.0), learned(7.0)
    assert all(torch.allclose(metrics[name], same[name], atol=1e-6) for name in metrics)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(weights, others, strict=True))


# following a victim's memory


@pytest.mark.parametrize("algo", [("algo=qmix",), ("algo=fox",), ("algo=s2q",), ("algo=s2q", "algo.comm=true"),
                                  ("algo=qmix", "algo.learner.last_action=executed")], ids=",".join)  # fmt: skip
def test_unrolling_an_episode_and_advancing_through_it_give_what_was_remembered(
    algo: tuple[str, ...], tmp_path: Any
) -> None:
    class Notes(NoAttack):
        """Somebody does another action now and then; keeps what the policy remembered before every step."""

        def begin(self, n_envs: int, victim: Any, gen: torch.Generator) -> None:
            self.gen, self.seen, self.q, self.carries = gen, [], [], []  # type: ignore[var-annotated]

        def perturb_actions(self, view: View, intended: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            victim = view.victim
            assert isinstance(victim, Traceable)
            self.carries.append(view.carry)
            self.q.append(victim.q_values(view.obs.obs, view.carry).detach())
            self.seen.append(victim.advance(view.obs.obs, view.carry))
            other = torch.rand(intended.shape, generator=self.gen) < 0.3
            return torch.where(other, random_available(view.obs.avail, self.gen), intended), {}

    env = Corridor(n_agents=3, length=4, spread=2, fatal=False, episode_limit=6, n_envs=4, seed=0)
    made = factory(compose_train(tmp_path, *TINY, *algo).algo, "algo")
    policy = call(made, "algo", env.spec, torch.device("cpu"), torch.Generator()).policy(Clock())
    notes, gen = Notes(env.spec, "cpu"), torch.Generator().manual_seed(0)
    batch = collect(env, policy, notes, core_fields(env.spec), explore=False, attacked=torch.ones(4, dtype=torch.bool),
                    policy_gen=gen, attack_gen=gen, device="cpu")  # fmt: skip
    q, carry = policy.unroll(batch)
    assert batch.horizon == 6 and bool((batch.actions != batch.intended).any())
    for t, running in enumerate(batch.filled[:, :-1].T):
        assert torch.allclose(carry["h"][running, t], notes.carries[t]["h"][running], atol=1e-5)
        assert torch.equal(carry["last"][running, t], notes.carries[t]["last"][running])
        assert torch.allclose(q[running, t], notes.q[t][running], atol=1e-5)
        assert torch.allclose(notes.seen[t][0], notes.q[t], atol=1e-6)
    for t in range(5):
        assert torch.allclose(notes.seen[t][1]["h"], notes.carries[t + 1]["h"], atol=1e-6)
