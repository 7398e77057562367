"""Collection: which values are stored where, what an attack may change, and that evaluation is independent of
training."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from envs.toys.games import Corridor, KStepMatrixGame
from marl.core.intervals import mean_interval, rate_interval
from marl.core.protocols import NoAttack, View
from marl.core.types import ConfigError, EpisodeBatch, Field, Obs, core_fields
from marl.run.collect import collect
from marl.run.evaluate import episode_results, evaluate
from marl.run.metrics import Window
from tests.support.grid_games import spread

CORRIDOR: dict[str, Any] = {"n_agents": 2, "length": 4, "spread": 2, "fatal": True, "episode_limit": 12}


class Scripted:
    """Acts at random among available actions and records its inputs."""

    def __init__(self) -> None:
        self.after_calls: list[tuple[Tensor, Tensor]] = []
        self.saw: list[Tensor] = []

    def begin(self, n_envs: int, gen: torch.Generator) -> dict[str, Tensor]:
        return {"steps": torch.zeros(n_envs)}

    def act(self, obs: Obs, carry: dict[str, Tensor], *, explore: bool, gen: torch.Generator):  # type: ignore[no-untyped-def]
        noise = torch.rand(obs.avail.shape, generator=gen).masked_fill(~obs.avail, -1.0)
        self.saw.append(obs.obs.clone())
        lane_steps = carry["steps"] + 1
        return noise.argmax(-1), {"steps": lane_steps}, {"head": lane_steps}

    def after(self, carry: dict[str, Tensor], intended: Tensor, executed: Tensor) -> dict[str, Tensor]:
        self.after_calls.append((intended.clone(), executed.clone()))
        return carry


class Force(NoAttack):
    """Makes agent 0 of attacked lanes take its first available action, and shifts all their observations."""

    def fields(self) -> dict[str, Field]:
        n = self.spec.n_agents
        return {"hit": Field((n,), torch.bool), "obs_seen": Field((n, self.spec.obs_dim))}

    def perturb_obs(self, view: View) -> Tensor:
        return torch.where(view.active[:, None, None], view.obs.obs + 1.0, view.obs.obs)

    def perturb_actions(self, view: View, intended: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        executed = intended.clone()
        first = view.obs.avail[:, 0].float().argmax(-1)
        hit = torch.zeros_like(view.obs.alive)
        hit[:, 0] = view.active & view.obs.alive[:, 0]
        executed[:, 0] = torch.where(hit[:, 0], first, intended[:, 0])
        return executed, {"hit": hit}


class Blur(Force):
    """Reports a hit on every agent but leaves actions unchanged, so that lanes end at different times."""

    def perturb_actions(self, view: View, intended: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return intended, {"hit": view.obs.alive | True}


class Shows(NoAttack):
    """Shows agents something of another form than observations have."""

    def __init__(self, form: Callable[[Tensor], Tensor], *args: Any) -> None:
        super().__init__(*args)
        self.form = form

    def perturb_obs(self, view: View) -> Tensor:
        return self.form(view.obs.obs)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (
            lambda obs: obs[..., :1],
            r"Shows.perturb_obs returned float32 \[3, 2, 1\]; observations are float32 \[3, 2, ",
        ),
        (lambda obs: obs[:1], r"returned float32 \[1, 2, "),
        (lambda obs: obs.double(), r"returned float64 \[3, 2, "),
        (lambda obs: obs * torch.nan, "returned numbers that are not finite, at step 0"),
    ],
    ids=["features", "lanes", "type", "nan"],
)
def test_what_an_attack_shows_has_the_form_of_observations(form: Callable[[Tensor], Tensor], message: str) -> None:
    env = Corridor(**CORRIDOR, n_envs=3, seed=0)
    gens = {"policy_gen": torch.Generator(), "attack_gen": torch.Generator()}
    with pytest.raises(ConfigError, match=message):
        collect(env, Scripted(), Shows(form, env.spec, "cpu"), core_fields(env.spec), explore=True,
                attacked=torch.ones(3, dtype=torch.bool), **gens, device="cpu")  # fmt: skip


def play(
    n_envs: int, attack: bool = False, attacked: list[bool] | None = None, by: type[NoAttack] = Force
) -> tuple[EpisodeBatch, Scripted]:
    env = Corridor(**CORRIDOR, n_envs=n_envs, seed=3)
    adversary = by(env.spec, "cpu") if attack else NoAttack(env.spec, "cpu")
    fields = core_fields(env.spec) | adversary.fields() | {"head": Field(())}
    policy = Scripted()
    lanes = torch.tensor(attacked if attacked is not None else [True] * n_envs)
    gens = {"policy_gen": torch.Generator().manual_seed(0), "attack_gen": torch.Generator().manual_seed(0)}
    return collect(env, policy, adversary, fields, explore=True, attacked=lanes, device="cpu", **gens), policy


def test_every_transition_carries_its_own_flags() -> None:
    batch, _ = play(64)
    steps = torch.arange(batch.horizon + 1)
    assert torch.equal(batch.filled, steps < batch.length[:, None])
    ended = batch.terminated.any(1)
    assert ended.any() and not ended.all()  # both endings occur side by side
    last = batch.length.long() - 1
    assert torch.equal(batch.terminated.nonzero()[:, 1], last[ended])
    assert (batch.length[~ended] == batch.horizon).all()  # truncated at the limit
    assert not batch.reward[~batch.filled].any() and not batch.filled[:, -1].any()
    assert torch.equal(batch.won, (batch.reward > 0).any(1))


def test_the_slot_after_the_last_step_is_the_last_observation() -> None:
    """Slot t+1 holds the observation after step t, also where a lane ended early while others went on."""
    batch, policy = play(16)
    env = Corridor(**CORRIDOR, n_envs=16, seed=3)
    now = env.reset()
    for t, (_, executed) in enumerate(policy.after_calls):
        running = t <= batch.length.long()
        assert torch.equal(batch.obs[running, t], now.obs[running]), t
        now = env.step(executed).next
    assert torch.equal(
        batch.obs[:, batch.horizon][batch.length == batch.horizon], now.obs[batch.length == batch.horizon]
    )


def test_declared_fields_are_stored() -> None:
    batch, _ = play(4)
    assert torch.equal(batch["head"][0, : int(batch.length[0])], torch.arange(1.0, 1 + int(batch.length[0])))
    with pytest.raises(AttributeError, match="no field 'nothing'"):
        _ = batch.nothing


def test_attacks_change_what_is_executed_and_seen_in_their_lanes_only() -> None:
    attacked = [True, False] * 8
    batch, policy = play(16, attack=True, attacked=attacked)
    assert batch.attacked.tolist() == attacked
    filled = batch.filled
    off = ~torch.tensor(attacked)
    assert torch.equal(batch.actions[off], batch.intended[off]) and not batch["hit"][off].any()
    assert torch.equal(batch["obs_seen"][off][filled[off]], batch.obs[off][filled[off]])
    on = torch.tensor(attacked)
    assert (batch.actions[on] != batch.intended[on]).any()
    assert torch.equal(batch["obs_seen"][on][:, 0], batch.obs[on][:, 0] + 1.0)
    assert batch.policy_obs is batch["obs_seen"]
    assert torch.equal(torch.stack(policy.saw, 1), batch["obs_seen"][:, :-1])  # the policy acts on what it is shown
    executed = batch.actions.long().unsqueeze(-1)
    assert batch.avail.gather(-1, executed).squeeze(-1)[filled].all()
    intended, done = policy.after_calls[0]
    assert torch.equal(done[:, 1], intended[:, 1])


def test_the_observation_after_the_last_step_is_perturbed_too() -> None:
    """Values are bootstrapped from it, in lanes that end early as in those that end last; it contains no hits."""
    batch, _ = play(16, attack=True, attacked=[True] * 12 + [False] * 4, by=Blur)
    lanes, last = torch.arange(16), batch.length.long()
    assert len(last.unique()) > 1
    assert torch.equal(batch["obs_seen"][lanes, last][:12], batch.obs[lanes, last][:12] + 1.0)
    assert torch.equal(batch["obs_seen"][lanes, last][12:], batch.obs[lanes, last][12:])
    assert torch.equal(batch["hit"].any(-1), batch.filled)


def test_what_was_seen_is_stored_before_a_step_overwrites_it() -> None:
    """A compiled game writes every observation into the same tensor, which no attack here replaces."""
    env = spread(n_envs=3, seed=3)
    fields = core_fields(env.spec) | {"obs_seen": Field((env.spec.n_agents, env.spec.obs_dim))}
    gens = {"policy_gen": torch.Generator().manual_seed(0), "attack_gen": torch.Generator().manual_seed(0)}
    everyone, none = torch.ones(3, dtype=torch.bool), NoAttack(env.spec, "cpu")
    batch = collect(env, Scripted(), none, fields, explore=True, attacked=everyone, device="cpu", **gens)
    assert torch.equal(batch["obs_seen"], batch.obs) and not torch.equal(batch.obs[:, 0], batch.obs[:, 1])


def test_attacked_steps_and_agents_are_counted() -> None:
    batch, _ = play(3, attack=True, attacked=[True, True, False])
    hit = torch.zeros_like(batch["hit"])  # [3, T+1, 2]
    batch.length[:] = torch.tensor([3, 2, 2])
    batch.data["filled"] = torch.arange(batch.horizon + 1) < batch.length[:, None]
    hit[0, 0], hit[0, 2, 1], hit[1, 1, 0], hit[1, 2] = True, True, True, True  # the last one after the end
    batch.data["hit"] = hit
    found = episode_results(batch)
    assert found["hits"].tolist() == [2, 1, 0] and found["hit_actions"].tolist() == [3, 1, 0]
    window = Window()
    window.add(batch)
    window.add(batch)
    means = window.take()
    assert means["attack/hits_per_episode"] == 1.5 and means["attack/hit_actions_per_episode"] == 2.0
    assert means["length"] == pytest.approx(7 / 3), "over all episodes, also those without attack"
    free, _ = play(3)
    window.add(free)
    assert not any(key.startswith("attack/") for key in window.take())
    assert episode_results(free)["hit_actions"].tolist() == [0, 0, 0]


def test_trim_and_lanes() -> None:
    batch, _ = play(8)
    few = batch.lanes(torch.tensor([5, 2])).trim(2)
    assert few.obs.shape[:2] == (2, 3) and torch.equal(few.length, batch.length[[5, 2]])


def test_evaluation_counts_each_lane_alike() -> None:
    """With one winning lane and one that loses at once, short episodes must not be counted more often."""
    env = KStepMatrixGame([[1.0, 0], [0, 0]], [[0.0, 0], [0, 2.0]], [0, 0], 2, n_envs=2)

    class LaneZeroWins(Scripted):
        def act(self, obs, carry, *, explore, gen):  # type: ignore[no-untyped-def]
            assert not explore
            second = obs.obs[:, 0, 1] > 0
            win = torch.where(second, 1, 0)
            lose = torch.ones_like(win)
            lane0 = torch.arange(len(win)) == 0
            return torch.where(lane0, win, lose)[:, None].expand(-1, 2).contiguous(), carry, {}

    gens = {"policy_gen": torch.Generator(), "attack_gen": torch.Generator()}
    results = evaluate(
        env, LaneZeroWins(), NoAttack(env.spec, "cpu"), core_fields(env.spec), episodes=5, device="cpu", **gens
    )
    assert results["length"].tolist() == [2, 1, 2, 1, 2]
    assert results["won"].tolist() == [True, False, True, False, True]
    with pytest.raises(ConfigError, match="episodes=0 must be at least 1"):
        evaluate(env, LaneZeroWins(), NoAttack(env.spec, "cpu"), {}, episodes=0, device="cpu", **gens)


def test_intervals_by_hand() -> None:
    # t(0.975, 3) = 3.182; sd of 1..4 = 1.291; half width 3.182 * 1.291 / 2
    interval = mean_interval(np.array([1.0, 2.0, 3.0, 4.0]))
    assert interval.mean == 2.5 and interval.high - 2.5 == pytest.approx(3.1824 * 1.29099 / 2, rel=1e-4)
    # Wilson at 9 of 10: centre (0.9 + 1.92/10) / (1 + 3.84/10)
    rate = rate_interval(np.array([True] * 9 + [False]))
    assert (rate.low, rate.high) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert mean_interval(np.array([3.0])).as_dict() == {"mean": 3.0, "low": None, "high": None, "n": 1}
