"""Coordination methods on actors as runs: every method trains, resumes, plays and refuses what cannot be."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from algos.sbc import ActorBestResponse
from algos.sbc.algorithm import Penalty
from marl.core.types import ConfigError
from marl.learn.actor import Actor
from marl.run.teams import load_trained
from marl.run.trainer import fit
from tests.support.helpers import compose_train, differences, newest_state, rows
from tests.support.sbc_parts import GOALS, MINI

WISHES = ("algo.hooks.hidden.info=cell", "algo.hooks.hidden.size=25", "algo.hooks.hidden.numbered=true")

pytestmark = pytest.mark.usefixtures("no_drawing", "one_thread")


def trained(folder: Path, algo: str, *overrides: str) -> dict[str, Any]:
    name = "algo=ippo" if algo == "sp" else f"algo=ippo/{algo}"
    fit(compose_train(folder.parent, name, *MINI, *overrides), folder)
    written = rows(folder, "metrics")
    assert all(math.isfinite(value) for row in written for value in row.values())
    assert written[-1]["updates"] > 0 and "loss/policy" in written[-1]
    return newest_state(folder)[0]["algo"]


@pytest.mark.parametrize(("net", "rollout"), [("gru", "4"), ("mlp", "null")])
def test_every_method_is_a_run(net: str, rollout: str, tmp_path: Path) -> None:
    how = (f"train.rollout={rollout}", f"agent@algo.agent={net}")
    trained(tmp_path / "sp", "sp", *how)
    noisy = trained(tmp_path / "e3t", "e3t", *how)
    assert differences(noisy["learner"], trained(tmp_path / "other", "e3t", *how, "algo.noise=[0.9]")["learner"])
    for algo in ("sbc", "sbc_null"):
        state = trained(tmp_path / algo, algo, *GOALS, *how)
        assert state["partner"]["updates"] > 0 and state["learner"]["updates"] > 0
        last = rows(tmp_path / algo, "metrics")[-1]
        assert last["updates"] == state["partner"]["updates"] + state["learner"]["updates"]
        assert {"partner/loss/policy", "sbc/entropy"} <= last.keys()
    trained(tmp_path / "hidden", "hsp_partners", *WISHES, *how)
    whole = how if net == "mlp" else (*how, "train.rollout=null")  # who does not play remembers nothing of a part
    trained(tmp_path / "members", "mep_partners", "algo.members=2", *whole)
    for algo, runs, members, teams in (
        ("fcp", "sp", "null", 3 + 1), ("hsp", "hidden", "[wishes]", 1), ("mep", "members", "[0,1]", 3 * 2),
    ):  # fmt: skip
        options = (f"algo.runs=[{tmp_path}/{runs}]", f"algo.members={members}", *how)
        state = trained(tmp_path / "answers" / algo, algo, *options)
        assert len(state["returns"]) == teams and state["returns"].isfinite().any()
    parts, _ = load_trained(tmp_path / "answers" / "fcp", {}, 2)
    assert isinstance(parts.algo, ActorBestResponse)
    loaded = parts.algo.population[0].policy  # type: ignore[attr-defined]
    assert isinstance(loaded, Actor) and loaded.how == "sample", "as partners, whatever their own runs say"
    parts.env.close()


@pytest.mark.parametrize("rollout", ["null", "4"])
def test_an_attack_sees_the_ego(rollout: str, tmp_path: Path) -> None:
    options = ("attack=fgsm", "attack.epsilon=0.5", f"train.rollout={rollout}")
    attacked = trained(tmp_path / "run", "sbc", *GOALS, *options)
    assert rows(tmp_path / "run", "metrics")[-1]["attack/hits_per_episode"] > 0
    free = trained(tmp_path / "free", "sbc", *GOALS, f"train.rollout={rollout}")
    assert differences(attacked["learner"]["agent"], free["learner"]["agent"])


@pytest.mark.parametrize("rollout", ["null", "4"])
def test_a_resumed_run_is_the_same_bit_for_bit(rollout: str, tmp_path: Path) -> None:
    options = (*GOALS, f"train.rollout={rollout}")
    trained(tmp_path / "halves", "sbc", *options, "train.total_steps=120")
    halves = trained(tmp_path / "halves", "sbc", *options)
    assert differences(halves, trained(tmp_path / "whole", "sbc", *options)) == []


def test_a_penalty_of_zero_is_a_run_without_penalties_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    null, real = trained(tmp_path / "null", "sbc_null", *GOALS), trained(tmp_path / "real", "sbc", *GOALS)
    team = trained(tmp_path / "team", "sbc", *GOALS, "algo.penalise=team")
    monkeypatch.setattr(Penalty, "reward", lambda self, batch, fwd: 0.0)
    assert differences(null, trained(tmp_path / "none", "sbc", *GOALS)) == []
    assert differences(null["partner"], real["partner"]) and differences(real["learner"], team["learner"])


def test_partners_and_members_can_be_played(tmp_path: Path) -> None:
    trained(tmp_path / "sbc", "sbc", *GOALS)
    parts, _ = load_trained(tmp_path / "sbc", {}, 3)
    blocked = parts.algo.member("10,3").begin(3, torch.Generator())["blocked"]  # type: ignore[attr-defined]
    assert blocked.nonzero()[:, 2].unique().tolist() == [3, 10]
    with pytest.raises(ConfigError, match=r"member '25' is not known; give none, or numbers in 0\.\.24"):
        parts.algo.member("25")  # type: ignore[attr-defined]
    parts.env.close()


def test_what_cannot_be_is_refused_before_work_starts(tmp_path: Path) -> None:
    for overrides, message in (
        (("algo=ippo/sbc", "+algo.partner_epsilon=[0.1]"), "partner_epsilon is not an option of ActorSBC"),
        (("algo=ippo/sbc", "env=toy/matrix"), "family 'cells' cannot be blocked in this environment"),
        (("algo=ippo/e3t", "algo.learner._target_=marl.learn.ppo.PPOLearner"), "must be algos.sbc.actors.RoleActorLe"),
        (("algo=ippo/fcp", f"algo.runs=[{tmp_path}/nothing]"), "matches no run folder"),
        (("algo=ippo/fcp", "algo.runs=[]", "algo.partners_act=loud"), "partners_act=loud is not known; choose one of"),
        (("algo=ippo/mep_partners", "algo.members=1"), "algo.members=1"),
        (
            ("algo=ippo/mep_partners", "train.rollout=4"),
            "ActorDiverse learns from whole ones, since members that do not",
        ),
        (
            ("algo=ippo/mep_partners", "train.rollout=4", "agent@algo.agent=mlp", "algo.agent.last_action=true"),
            "members that do not play remember nothing",
        ),
        (("algo=ippo/sbc", *GOALS, "algo.critic.sees=state"), "algo.critic.sees=state: a partner's values depend on"),
    ):
        with pytest.raises(ConfigError, match=message):
            fit(compose_train(tmp_path, "env=mds_mini", *overrides), tmp_path / "run")
        assert not (tmp_path / "run").exists()
