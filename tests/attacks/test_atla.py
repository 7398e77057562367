"""ATLA: densities and the clipped objective by hand, what it may show, and that it learns to make a team fail."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from attacks.atla import ATLA, Adversary, clipped_objective
from envs.toys.games import Corridor, MatrixGame
from marl.core.protocols import Fitting, VectorEnv
from marl.core.types import Clock, ConfigError, EpisodeBatch, Obs, core_fields
from marl.learn.replay import EpisodeReplay
from marl.run.collect import collect
from tests.support.helpers import differences, make_spec, newest_state, rows, train

OPTIONS: dict[str, Any] = {
    "epsilon": 0.5, "width": 16, "lr": 0.01, "gamma": 0.9, "gae_lambda": 0.9, "clip": 0.2, "entropy": 0.0, "epochs": 4,
    "minibatches": 2, "grad_clip": 0.5, "period": 4, "share": 0.5, "fit_episodes": 1280, "greedy": True,
}  # fmt: skip


class Watchful:
    """Takes the last action while what it sees is above 0.6, else the first."""

    def begin(self, n_envs: int, gen: torch.Generator) -> dict[str, Tensor]:
        return {}

    def act(self, obs: Obs, carry: dict[str, Tensor], *, explore: bool, gen: torch.Generator):  # type: ignore[no-untyped-def]
        last = obs.avail.shape[-1] - 1
        return torch.where((obs.obs[..., 0] > 0.6) & obs.avail[..., last], last, 0), carry, {}

    def after(self, carry: dict[str, Tensor], intended: Tensor, executed: Tensor) -> dict[str, Tensor]:
        return carry


def make(env: VectorEnv, **changes: Any) -> ATLA:
    torch.manual_seed(0)
    return ATLA(env.spec, "cpu", **{**OPTIONS, **changes})


def play(attack: ATLA, env: VectorEnv, seed: int = 0, off: int = 0) -> EpisodeBatch:
    gens = {name: torch.Generator().manual_seed(seed) for name in ("policy_gen", "attack_gen")}
    fields = core_fields(env.spec) | attack.fields()
    attacked = torch.arange(env.n_envs) >= off
    return collect(env, Watchful(), attack, fields, explore=True, attacked=attacked, device="cpu", **gens)  # type: ignore[arg-type]


def test_densities_and_entropy_by_hand() -> None:
    """Two agents, one feature: mean 0, spread 1; agent 1 does not count."""
    net = Adversary(make_spec(2, 2, 1), 4)
    with torch.no_grad():
        for p in net.actor.parameters():
            p.zero_()
        net.log_spread.zero_()
    drawn, obs = torch.tensor([[[2.0], [5.0]]]), torch.zeros(1, 2, 1)
    density = net.log_density(obs, drawn, torch.tensor([[True, False]]))
    assert density.tolist() == pytest.approx([-2.0 - 0.5 * math.log(2 * math.pi)])
    assert net.entropy().item() == pytest.approx(0.5 * math.log(2 * math.pi * math.e))


def test_the_clipped_objective_by_hand() -> None:
    ratio, advantage = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1]), torch.tensor([2.0, -2.0, 2.0, -2.0, 1.0])
    assert clipped_objective(ratio, advantage, 0.2).tolist() == pytest.approx([2.4, -3.0, 1.0, -1.6, 1.1])


def test_what_is_shown_is_near_and_legal_and_only_to_the_living_under_attack() -> None:
    env = Corridor(3, 4, 3, True, 12, n_envs=16, seed=1)
    batch = play(make(env, epsilon=0.3, greedy=False), env, off=8)
    seen, obs = batch["obs_seen"], batch.obs
    assert 0.1 < (seen - obs).abs().max() <= 0.3 + 1e-6
    assert (seen >= env.spec.obs_low).all() and (seen <= env.spec.obs_high).all()
    assert torch.equal(seen[:8], obs[:8]) and not batch["hit"][:8].any()
    changed = (seen != obs).any(-1)
    assert not (changed & ~batch.alive).any()
    assert torch.equal(batch["hit"], changed & batch.filled[..., None])


def test_it_learns_to_make_a_team_fail() -> None:
    """Seeing 1, everybody wins; the attacker must push what is seen below 0.6."""
    env = MatrixGame([[0, 0], [0, 1]], n_envs=64)
    attack = make(env)
    assert isinstance(attack, Fitting) and attack.needs_fit
    before = float(play(attack, env).reward.sum(1).mean())
    replay = EpisodeReplay(64, 1, core_fields(env.spec) | attack.fields())
    with attack.fitting():
        for seed in range(100):
            if not attack.needs_fit:
                break
            attack.update(replay, play(attack, env, seed), Watchful(), Clock())  # type: ignore[arg-type]
    assert not attack.needs_fit and attack.fitted == 1.0 and seed == 20
    assert before == 1.0 and play(attack, env).reward.sum(1).mean() < 0.1


def test_agent_and_attacker_take_turns() -> None:
    env = MatrixGame([[0, 0], [0, 1]], n_envs=8)
    attack = make(env, greedy=False)
    learnt = []
    for k in range(8):
        before = [p.detach().clone() for p in attack.net.parameters()]
        attack.update(None, play(attack, env, k), Watchful(), Clock())  # type: ignore[arg-type]
        learnt.append(not all(map(torch.equal, before, attack.net.parameters())))
    assert learnt == [False, False, True, True] * 2


def test_a_run_learns_and_resumes_exactly(tmp_path: Path) -> None:
    options = ("attack=atla", "attack.period=2", "attack.width=16")
    train(tmp_path / "whole", *options)
    train(tmp_path / "parts", *options, "train.total_steps=200")
    train(tmp_path / "parts", *options)
    whole, parts = newest_state(tmp_path / "whole")[0], newest_state(tmp_path / "parts")[0]
    assert whole["attack"]["learnt_from"] > 0 and "atla/objective" in rows(tmp_path / "whole", "metrics")[-1]
    assert differences(whole["attack"], parts["attack"]) == [] and differences(whole["algo"], parts["algo"]) == []


@pytest.mark.parametrize("changes", [{"epsilon": 0.0}, {"share": 1.5}, {"period": 0}, {"clip": -0.1}])
def test_bad_options_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        make(MatrixGame("climb", n_envs=1), **changes)
