"""Run folders of earlier versions still open: ``tests/data/run_of_0.1.0`` dates from before classes moved into
packages."""

from __future__ import annotations

import json
import pkgutil
import re
import shutil
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from marl import make_env
from marl.core.types import ConfigError
from marl.run.compose import option
from marl.run.folders import read_config
from marl.run.renames import OPTIONS, TARGETS, current
from marl.run.teams import evaluate_team, load_trained, open_team
from marl.run.trainer import fit
from tests.support.helpers import compose_train, rows

BEFORE = Path(__file__).resolve().parents[2] / "data" / "run_of_0.1.0"
COMMAND = (
    "algo=s2q", "env=toy/corridor", "attack=random", "name=before", "train.n_envs=4", "eval.every=100",
    "eval.episodes=4", "eval.final_episodes=4", "eval.n_envs=4", "log.every=100", "checkpoint.every=200",
    "checkpoint.keep=1", "replay.capacity=16", "algo.batch_size=4", "algo.warmup_episodes=4",
    "algo.agent.hidden_dim=8", "algo.central_dim=8", "algo.decoder_dim=8", "algo.latent_dim=4",
    "mixer@algo.mixer=vdn", "log.to=[]", "algo.episodes_per_update=4", "algo.learner.target_every=100",
)  # fmt: skip


@pytest.fixture
def before(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BEFORE, tmp_path / "run"))


def test_the_stored_run_is_of_before() -> None:
    stored = json.loads((BEFORE / "config.json").read_text())
    assert stored["algo"]["learner"]["_target_"] == "algos.s2q_learner.S2QLearner" and "sampler" not in stored["replay"]
    assert read_config(BEFORE).algo.learner._target_ == "algos.s2q.learner.S2QLearner"


def test_it_is_tested_as_it_was(before: Path) -> None:
    cfg = OmegaConf.create({
        "run": str(before), "policy": None, "checkpoint": None, "seed": 0, "device": "cpu", "threads": 1, "env": None,
        "attack": {"_target_": "attacks.base.NoAttack", "_partial_": True}, "env_options": {},
    })  # fmt: skip
    team = open_team(cfg, 4)
    final = json.loads((before / "DONE").read_text())["final"]
    assert evaluate_team(team, 4)["won"].mean() == final["win_rate"]["mean"]
    parts, clock = load_trained(before, {}, 4)
    assert clock.env_steps == 238 and type(parts.attack).__module__ == "attacks.random"


def test_it_is_continued(before: Path) -> None:
    old = rows(before, "metrics")
    fit(compose_train(before.parent, *COMMAND, "train.total_steps=600"), before)
    assert rows(before, "metrics")[: len(old)] == old and len(rows(before, "metrics")) > len(old)
    assert json.loads((before / "DONE").read_text())["env_steps"] >= 600
    assert "algos.s2q.learner.S2QLearner" in (before / "config.json").read_text()


def test_another_configuration_is_still_refused(before: Path) -> None:
    with pytest.raises(ConfigError, match=r"algo.K: 2 -> 3"):
        fit(compose_train(before.parent, *COMMAND, "train.total_steps=600", "algo.K=3"), before)


@pytest.mark.parametrize("module", TARGETS.values())
def test_every_new_name_exists(module: str) -> None:
    assert pkgutil.resolve_name(module)


def test_names_are_replaced_at_any_depth_and_nothing_else() -> None:
    old = {
        "algo": {"_target_": "algos.s2q.S2Q", "hooks": {"a": {"_target_": "algos.visits.Visits"}},
                 "list": [{"_target_": "marl.mixers.VDN"}, "marl.mixers.VDN"]},
        "replay": {"capacity": 3},
    }  # fmt: skip
    assert current(old) == {
        "algo": {"_target_": "algos.s2q.S2Q", "hooks": {"a": {"_target_": "algos.visits.Visits"}},
                 "list": [{"_target_": "marl.learn.mixers.VDN"}, "marl.mixers.VDN"]},
        "replay": {"capacity": 3, "sampler": {"_target_": "marl.learn.replay.Uniform"}},
    }  # fmt: skip
    assert "sampler" not in old["replay"]
    own = {"replay": {"sampler": {"_target_": "mine.Recent"}}}
    assert current(own) == own


def test_options_that_a_class_has_got_since_mean_what_it_did_before() -> None:
    """At any depth; what the run's own configuration says stays."""
    for path, options in OPTIONS.items():
        old, new = {"_target_": path, "scale": 1}, {"_target_": path, **dict.fromkeys(options, "given")}
        found = current({"algo": {"hooks": {"it": old}}, "attack": new})
        assert found == {"algo": {"hooks": {"it": {**options, **old}}}, "attack": new}
        assert options.keys() <= set(signature(get_object(path)).parameters)


def test_a_share_of_0_meant_the_earliest_checkpoint_that_was_kept() -> None:
    fcp = {"_target_": "algos.sbc_population.BestResponse", "checkpoints": [0.0, 0.5, 1.0]}
    assert current({"algo": fcp})["algo"]["checkpoints"] == [1e-9, 0.5, 1.0]
    assert current({"algo": fcp | {"random_partner": True}})["algo"]["checkpoints"] == [0.0, 0.5, 1.0]


def test_patterns_call_cooks_what_a_kitchen_calls_them_now() -> None:
    """In kitchens alone; without it FIM would exclude nothing, and LAIES would refuse its own run."""

    def hooks(who: str) -> dict[str, Any]:
        cog = {"candidates": [".*", "3:7"], "exclude": [f"^{who} \\d+ holds", "players"]}
        return {"fim": {"cog": cog, "scale": 1.0}, "laies": {"external": [f"^pot |^{who} 1"]}}

    old = {"_target_": "envs.wrappers.Wrapped", "env": {"_target_": "envs.overcooked.Overcooked"}}
    kitchen = {
        "_target_": "envs.wrappers.Wrapped",
        "env": {**old["env"], "random_start": 0.0, "parked_soup_pays": True},
    }
    football = {"_target_": "envs.adapters.football.Football"}
    for env, now, then in ((old, kitchen, "cook"), (football, football, "player")):
        found = current({"env": env, "algo": {"hooks": hooks("player")}})
        assert found == {"env": now, "algo": {"hooks": hooks(then)}}
    assert current({"env": old, "algo": {"hooks": {"count": {}}}})["algo"] == {"hooks": {"count": {}}}
    names = make_env("overcooked/cramped_room").spec.state_names
    assert sum(re.search("^cook [01] ", name) is not None for name in names) == 24


def test_a_game_of_the_pool_is_the_same_one_as_before_it_had_a_time_limit() -> None:
    old = {"env": {"_target_": "envs.wrappers.Wrapped", "env": {"_target_": "envs.gym.Gym", "workers": None}}}
    new = {"_target_": "envs.adapters.gym.Gym", "workers": None, "timeout": 300}
    assert current(old)["env"]["env"] == new and current({"env": {**new, "timeout": None}})["env"]["timeout"] is None
    assert {option("env", name).timeout for name in ("lbf", "mpe/spread")} == {300}
