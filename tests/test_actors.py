"""Teams of actors: every toy game, every switch, every attack, plug-ins that add rewards, and games that they solve."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import marl
from marl.core.types import ConfigError
from marl.run.compose import choices
from marl.run.trainer import fit
from tests.attacks.test_attack_contract import ATTACKS, MORE
from tests.support.helpers import command, compose_train, differences, newest_state, rows

TINY = (
    "train.n_envs=8", "train.total_steps=240", "eval.every=120", "eval.episodes=4", "eval.final_episodes=4",
    "eval.n_envs=4", "log.every=40", "checkpoint.every=120", "log.to=[]", "replay.capacity=64",
    "algo.agent.hidden_dim=8", "algo.critic.hidden_dim=8", "algo.learner.epochs=2",
)  # fmt: skip
TOYS = [name for name in choices("env") if name.startswith("toy/")]
# attacks that read the value of joint actions: Wolfpack's target, the attackers that learn beside a team's values
NEED_VALUES = {"wolfpack", "curriculum", "ega", "rap", "rarl", "romance"}
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
    with pytest.raises(ConfigError, match=r"attack: \w+ reads the team's value of its victim; Actor has none"):
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
    options = "scale: 0.0, resolution: 7, features: ['.*']"
    hook = "+algo.hooks.count={_target_: algos.count.CountBonus, _partial_: true, " + options + "}"
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


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run of actors, nearly untrained, and one of values."""
    folder = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("marl.show.plot.learning_curves", lambda groups, path: None)
        train(folder / "runs" / "t" / "toy-corridor" / "ippo-none" / "seed0", "env=toy/corridor")
        fit(
            compose_train(folder, "algo=vdn", "env=toy/corridor", "train.total_steps=40", "algo.agent.hidden_dim=8"),
            folder / "runs" / "t" / "toy-corridor" / "vdn-none" / "seed0",
        )
    return folder / "runs" / "t" / "toy-corridor"


def test_a_team_of_actors_is_tested_greedily_or_by_draws(two: Path, tmp_path: Path) -> None:
    found = {}
    for act in ("null", "greedy", "sample"):
        out = tmp_path / f"{act}.json"
        command("evaluate", f"run={two}/ippo-none/seed0", "episodes=64", f"act={act}", f"out={out}")
        found[act] = json.loads(out.read_text())["episodes"]["length"]
    assert found["null"] == found["sample"] != found["greedy"]  # by default drawn
    for act in ("greedy", "sample"):
        from_python = marl.load(two / "ippo-none" / "seed0", act=act).evaluate(64)["length"].mean
        assert from_python == pytest.approx(sum(found[act]) / 64), "the library plays as the script does"


def test_what_cannot_be_chosen_is_refused(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run, act, said in (
        ("vdn-none", "sample", "act=sample: the team of"),
        ("ippo-none", "maybe", "act=maybe is not known; choose one of greedy, sample"),
    ):
        with pytest.raises(SystemExit) as caught:
            command("evaluate", f"run={two}/{run}/seed0", "episodes=4", f"act={act}")
        assert caught.value.code == 2
        assert said in capsys.readouterr().err


def test_matrices_know_how_teams_acted(two: Path, tmp_path: Path) -> None:
    runs = f"runs=[{two}/ippo-none/seed0,{two}/vdn-none/seed0]"
    for act in ("greedy", "sample"):
        command("robustness", runs, "suite=quick", "only=[natural]", "episodes=32", f"act={act}", f"out={tmp_path}/m")
    cells = {path.name for path in (tmp_path / "m" / "cells").iterdir()}
    assert len(cells) == 3, "two of the actors, one of the values, which play alike"
    command("crossplay", f"runs=[{two}/ippo-none/seed0]", "episodes=4", "act=sample", f"out={tmp_path}/x")


@pytest.mark.parametrize("rollout", ["null", "8"])
def test_bench_measures_actors(rollout: str, tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    options = ("seconds=0.02", "warmup_steps=50", "yardstick=null", "threads=1", f"train.rollout={rollout}")
    command("bench", "algo=ippo", "env=toy/corridor", *TINY, *options, f"out={out}")
    found = {row["name"]: row for row in json.loads(out.read_text())}
    assert {"rollout", "update", "train", "memory", "shares: forward", "shares: backward"} <= found.keys()
    assert found["update"]["episodes"] >= 8 and found["train"]["updates_per_s"] > 0
