"""Starting from another run: which parts are loaded, left fresh or refused; and teams that do not learn."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from marl.core.config import resolved
from marl.core.protocols import Victim
from marl.core.types import Clock, ConfigError, Obs
from marl.learn.policy import EpsilonGreedy
from marl.run.rollout import compiled_form
from marl.run.trainer import fit, open_run
from tests.marl.run.test_run import assert_same_run, at_collection, raise_signal
from tests.support.helpers import TINY, compose_train, differences, newest_state, rows, train

SHORT = ("train.total_steps=120", "eval.every=60", "checkpoint.every=60")


pytestmark = pytest.mark.usefixtures("no_drawing")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a short run of QMIX, which tests only read."""
    folder = tmp_path_factory.mktemp("source") / "run"
    train(folder, "train.total_steps=200")
    return folder


def learnt(folder: Path) -> dict[str, Any]:
    return newest_state(folder)[0]["algo"]["learner"]


def begun_from(tmp_path: Path, source: Path, *overrides: str) -> dict[str, Any]:
    """Return the state of a run's algorithm before its first step."""
    cfg = compose_train(tmp_path, *TINY, f"init_from={source}", *overrides)
    run = open_run(cfg, tmp_path / "begun", resolved(cfg), None)
    run.close()
    assert run.clock == Clock() and len(run.replay) == 0
    return run.parts.algo.state_dict()["learner"]


def test_networks_and_optimizer_come_along_and_the_clock_does_not(source: Path, tmp_path: Path) -> None:
    assert differences(begun_from(tmp_path, source), learnt(source)) == []
    assert learnt(source)["optimizer"]["state"], "an optimizer without a state would prove nothing"


def test_the_optimizers_settings_are_the_new_runs(source: Path, tmp_path: Path) -> None:
    state = begun_from(tmp_path, source, "algo.learner.lr=0.003")["optimizer"]
    assert [group["lr"] for group in state["param_groups"]] == [0.003]
    assert differences(state["state"], learnt(source)["optimizer"]["state"]) == []


def test_an_optimizer_of_another_kind_stays_fresh(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    state = begun_from(tmp_path, source, "algo.learner.optimizer=rmsprop")
    assert state["optimizer"]["state"] == {}
    assert differences(state["agent"], learnt(source)["agent"]) == []
    assert "left fresh: optimizer" in caplog.text


def test_another_algorithm_takes_the_networks_of_its_names(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    state, theirs = begun_from(tmp_path, source, "algo=count"), learnt(source)
    for name in ("agent", "mixer", "target_agent", "target_mixer", "optimizer"):
        assert differences(state[name], theirs[name]) == [], name
    assert "left fresh: hooks" in caplog.text
    record = json.loads((tmp_path / "begun" / "meta.json").read_text())["init_from"]
    assert record["fresh"] == ["hooks"] and record["run"] == str(source)
    assert record["env_steps"] == newest_state(source)[0]["clock"]["env_steps"] > 0


def test_an_algorithm_with_more_networks_says_which_are_fresh(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    state = begun_from(tmp_path, source, "algo=wqmix")
    assert differences(state["agent"], learnt(source)["agent"]) == [] and state["optimizer"]["state"] == {}
    assert "left fresh: central, target_central, optimizer" in caplog.text


def test_a_target_that_the_other_algorithm_has_not_begins_as_what_it_follows(tmp_path: Path) -> None:
    """Actors have no targets: values would first be bootstrapped from untrained networks."""
    actors = tmp_path / "actors"
    of_values = ("algo.batch_size", "algo.warmup", "algo.episodes", "algo.epsilon", "algo.learner.ta")
    fit(compose_train(tmp_path, *(word for word in TINY if not word.startswith(of_values)), "algo=ippo"), actors)
    state = begun_from(tmp_path, actors, "algo=vdn")
    theirs = newest_state(actors)[0]["algo"]["learner"]["agent"]
    assert differences(state["agent"], theirs) == [] and differences(state["target_agent"], theirs) == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("algo.agent.hidden_dim=8", r"init_from=.* does not fit: agent.fc_in.bias is \[16\] there and \[8\] here"),
        ("algo=vdn", r"does not fit: mixer.hyper_b1.bias is \[32\] there and absent here"),
        ("env.n_agents=3", r"does not fit: agent.fc_in.weight is \[16, 10\] there and \[16, 13\] here"),
    ],
)
def test_networks_that_do_not_fit_are_refused(override: str, message: str, source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        train(tmp_path / "run", f"init_from={source}", override)
    assert "\n" not in str(refused.value) and not (tmp_path / "run").exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"init_from=.*nowhere is not a run folder: it has no config.json"):
        train(tmp_path / "run", f"init_from={tmp_path / 'nowhere'}")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"init_from=.*empty has no usable checkpoint"):
        train(tmp_path / "run", f"init_from={tmp_path / 'empty'}")
    assert not (tmp_path / "run").exists()


def test_what_hooks_count_and_remember_begins_anew_and_their_networks_come_along(tmp_path: Path) -> None:
    """A bonus that had faded is paid again, counts are empty, and FoX keeps encoder and decoders."""
    fading = "+algo.hooks.fading={_target_: algos.sbc.rewards.Fading, _partial_: true, info: shaped, steps: 100}"
    kitchen = ("env=overcooked/cramped_room", "env.episode_limit=10", fading)
    train(tmp_path / "faded", *kitchen, "train.total_steps=200")
    assert learnt(tmp_path / "faded")["hooks"][0]["seen"] >= 100
    state = begun_from(tmp_path, tmp_path / "faded", *kitchen)
    assert state["hooks"][0]["seen"] == 0
    assert differences(state["agent"], learnt(tmp_path / "faded")["agent"]) == []
    fox = ("algo=fox", "agent@algo.agent=fox", "algo.fox.aware.samples=2")
    train(tmp_path / "fox", *fox, "train.total_steps=120")
    state, old = begun_from(tmp_path, tmp_path / "fox", *fox), learnt(tmp_path / "fox")
    for name in ("fox_encoder", "fox_decoder", "fox_history"):
        assert differences(state["hooks"][0]["aware"][name], old["hooks"][0]["aware"][name]) == []
    assert differences(state["agent"], old["agent"]) == []
    assert differences(state["hooks"][0]["table"], old["hooks"][0]["table"]) != []


def test_a_resumed_run_does_not_start_again(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed run no longer needs its source, keeps the record of it, and equals an unstopped run bit for bit."""
    gone = tmp_path / "gone"
    shutil.copytree(source, gone)
    task = (f"init_from={gone}",)
    train(tmp_path / "whole", *task)
    with monkeypatch.context() as patch:
        at_collection(patch, 3, raise_signal(15))
        assert train(tmp_path / "broken", *task) == {}
    shutil.rmtree(gone)
    train(tmp_path / "broken", *task)
    assert_same_run(tmp_path / "whole", tmp_path / "broken")
    for file in ("meta.json", *(str(p) for p in (tmp_path / "broken").glob("checkpoints/step_*/meta.json"))):
        assert json.loads((tmp_path / "broken" / file).read_text())["init_from"]["run"] == str(gone)


def test_exploration_starts_at_the_new_clock(source: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", *SHORT, f"init_from={source}", "algo.epsilon.steps=1000", "log.every=1")
    assert rows(tmp_path / "run", "metrics")[0]["train/epsilon"] > 0.9
    assert rows(source, "metrics")[-1]["train/epsilon"] < 0.6


# frozen

FROZEN = ("algo=frozen", "env=toy/corridor", "train.n_envs=8", "eval.n_envs=8", "eval.episodes=8",
          "eval.final_episodes=8", "replay.capacity=64", "log.every=60", "log.to=[]", *SHORT)  # fmt: skip


def test_a_frozen_team_plays_greedily_and_learns_nothing(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fit(compose_train(tmp_path, *FROZEN, f"algo.run={source}"), folder)
    assert differences(newest_state(folder)[0]["algo"]["learner"], learnt(source)) == []

    run = open_run(compose_train(tmp_path, *FROZEN, f"algo.run={source}"), tmp_path / "other", {}, None)
    policy = run.parts.algo.policy(Clock())
    assert isinstance(policy, Victim)
    obs: Obs = run.parts.env.reset()
    gen = torch.Generator().manual_seed(0)
    carry = policy.begin(8, gen)
    q = policy.q_values(obs.obs, carry).masked_fill(~obs.avail, -torch.inf)
    for _ in range(20):
        assert torch.equal(policy.act(obs, carry, explore=True, gen=gen)[0], q.argmax(-1))
    run.close()


def test_a_frozen_team_plays_greedily_in_compiled_code_too(tmp_path: Path) -> None:
    train(tmp_path / "source", "env=spread", "train.total_steps=8")
    words = (*FROZEN, "env=spread", f"algo.run={tmp_path / 'source'}")
    run = open_run(compose_train(tmp_path, *words), tmp_path / "run", {}, None)
    fresh, policy = run.collect(), run.parts.algo.policy(Clock())
    assert isinstance(policy, EpsilonGreedy)
    assert compiled_form(run.parts.env, policy, run.parts.attack, run.parts.fields, False) is not None
    best = policy.unroll(fresh)[0].masked_fill(~fresh.avail, -torch.inf).argmax(-1)
    assert torch.equal(fresh.intended[fresh.filled].long(), best[fresh.filled])
    run.close()


def test_a_frozen_team_is_refused_where_it_does_not_fit(source: Path, tmp_path: Path) -> None:
    for override, message in (
        ("env.n_agents=3", "the team of .* does not fit this environment"),
        ("algo.run=nowhere", "algo.run=nowhere is not a run folder"),
    ):
        cfg = compose_train(tmp_path, *FROZEN, f"algo.run={source}", override)
        with pytest.raises(ConfigError, match=message):
            open_run(cfg, tmp_path / "run", {}, None)
