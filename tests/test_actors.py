"""Teams of actors: every toy game, every switch, every attack, plug-ins that add rewards, and games that they solve."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from marl.core.types import ConfigError
from marl.run.compose import choices
from marl.run.trainer import fit
from tests.attacks.test_attack_contract import ATTACKS, MORE
from tests.support.helpers import compose_train, differences, newest_state, rows

TINY = (
    "train.n_envs=8", "train.total_steps=240", "eval.every=120", "eval.episodes=4", "eval.final_episodes=4",
    "eval.n_envs=4", "log.every=40", "checkpoint.every=120", "log.tensorboard=false", "replay.capacity=64",
    "algo.agent.hidden_dim=8", "algo.critic.hidden_dim=8", "algo.learner.epochs=2",
)  # fmt: skip
TOYS = [name for name in choices("env") if name.startswith("toy/")]
# attacks that read the value of joint actions: Wolfpack's target, the attackers that learn beside a team's values
NEED_VALUES = {"wolfpack", "ega", "rap", "rarl", "romance"}
MORE = {**MORE, **dict.fromkeys(("ibal", "ib"), tuple(one.replace("16", "8") for one in MORE["ibal"]))}

pytestmark = pytest.mark.usefixtures("no_drawing")


def train(folder: Path, *overrides: str) -> dict[str, Any]:
    return fit(compose_train(folder.parent, "algo=ippo", *TINY, *overrides), folder)


def assert_learns(folder: Path, *overrides: str) -> dict[str, Any]:
    """Train, then: every metric is finite, both networks have moved, and nothing was stored for later."""
    train(folder, *overrides)
    written = rows(folder, "metrics")
    assert written and all(math.isfinite(value) for row in written for value in row.values())
    assert written[-1]["updates"] > 0 and "loss/policy" in written[-1]
    state = newest_state(folder)[0]["algo"]["learner"]
    assert all(bool(value.isfinite().all()) for net in ("agent", "critic") for value in state[net].values())
    return state


@pytest.mark.parametrize("env", TOYS)
@pytest.mark.parametrize("algo", ["ippo", "mappo"])
@pytest.mark.parametrize("rollout", ["null", "3"])
def test_every_toy_game(algo: str, env: str, rollout: str, tmp_path: Path) -> None:
    assert_learns(tmp_path / "run", f"algo={algo}", f"env={env}", f"train.rollout={rollout}")


@pytest.mark.parametrize(
    "switches",
    [
        ("agent@algo.agent=mlp", "algo.agent.share_parameters=false", "algo.critic.share_parameters=false"),
        ("algo.agent.share_parameters=false", "algo.learner.minibatches=3", "train.rollout=5"),
        (
            "algo.learner.normalise_value=false",
            "algo.learner.normalise_advantage=false",
            "algo.learner.value_clip=null",
        ),
        ("algo.learner.orthogonal=false", "algo.learner.optimizer=rmsprop", "algo.act=sample"),
        ("algo=mappo", "algo.critic.agent_id=false", "algo.lr_share.end=0.0", "algo.entropy.end=0.0"),
        ("algo.learner.act_on=executed", "algo.learner.last_action=executed", "attack=random"),
        ("train.n_envs=1", "algo.learner.minibatches=4"),
    ],
    ids=lambda switches: ",".join(s.split(".")[-1] for s in switches),
)
def test_switches(switches: tuple[str, ...], tmp_path: Path) -> None:
    assert_learns(tmp_path / "run", "env=toy/corridor", *switches)


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_attack_plays_or_says_before_anything_is_written_what_it_lacks(attack: str, tmp_path: Path) -> None:
    overrides = ("env=toy/corridor", "env.n_agents=4", f"attack={attack}", *MORE.get(attack, ()))
    if attack not in NEED_VALUES:
        assert_learns(tmp_path / "run", *overrides)
        return
    with pytest.raises(ConfigError, match=r"attack=\w+ reads the team's value of its victim; Actor has none"):
        train(tmp_path / "run", *overrides)
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize("algo", ["ippo", "mappo"])
@pytest.mark.parametrize("rollout", ["null", "8"])
def test_the_corridor_is_solved(algo: str, rollout: str, tmp_path: Path) -> None:
    final = train(
        tmp_path / "run", f"algo={algo}", "env=toy/corridor", "train.total_steps=20000", "train.n_envs=32",
        f"train.rollout={rollout}", "eval.every=20000", "eval.final_episodes=64", "algo.learner.lr=0.003",
        "checkpoint.every=20000", "algo.agent.hidden_dim=16", "algo.critic.hidden_dim=16",
    )  # fmt: skip
    assert final["win_rate"]["mean"] == 1.0


def test_a_matrix_game_is_solved(tmp_path: Path) -> None:
    train(
        tmp_path / "run", "env=toy/matrix", "env.payoff=additive", "train.total_steps=6000", "train.n_envs=64",
        "eval.every=6000", "algo.learner.lr=0.01", "checkpoint.every=6000",
    )  # fmt: skip
    assert rows(tmp_path / "run", "eval")[-1]["eval/return"] == 6.0


def test_a_bonus_of_zero_is_no_bonus_bit_for_bit(tmp_path: Path) -> None:
    hook = "+algo.hooks.count={_target_: algos.count.CountBonus, _partial_: true, scale: 0.0, resolution: 7, features: ['.*']}"
    train(tmp_path / "plain", "env=toy/corridor")
    train(tmp_path / "hook", "env=toy/corridor", hook)
    plain, hooked = (newest_state(tmp_path / name)[0]["algo"]["learner"] for name in ("plain", "hook"))
    for part in ("agent", "critic", "optimizer"):
        assert differences(plain[part], hooked[part]) == []


def test_random_weights_do_not_solve_it_and_a_team_without_a_gradient_stays_what_it_was(tmp_path: Path) -> None:
    final = train(tmp_path / "run", "env=toy/corridor", "algo.lr_share.start=0.0", "algo.lr_share.end=0.0")
    assert final["win_rate"]["mean"] < 1.0
    fresh = torch.cat([v.flatten() for v in newest_state(tmp_path / "run")[0]["algo"]["learner"]["agent"].values()])
    train(
        tmp_path / "one", "env=toy/corridor", "train.total_steps=1", "algo.lr_share.start=0.0", "algo.lr_share.end=0.0"
    )
    again = torch.cat([v.flatten() for v in newest_state(tmp_path / "one")[0]["algo"]["learner"]["agent"].values()])
    assert torch.equal(fresh, again)
