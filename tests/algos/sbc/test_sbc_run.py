"""SBC, its controls and the population methods as runs: stored fields, what learns when, controls, resume."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from algos.sbc.algorithm import SBC, Penalty
from marl.core.types import ConfigError
from marl.run.folders import nearest_steps
from marl.run.teams import load_trained
from tests.support.helpers import compose_train, differences, newest_state, rows, train

MINI = ("env=mds_mini", "env.episode_limit=5", "train.total_steps=240", "eval.every=120", "checkpoint.every=40",
        "checkpoint.milestone=40", "log.every=40", "algo.epsilon.steps=200")  # fmt: skip
GOALS = ("algo.sets.family=goals", "algo.sets.m_max=1", "algo.sets.refresh_steps=80", "algo.p_self=0.1")
WEST, EAST = 10, 14


pytestmark = pytest.mark.usefixtures("no_drawing", "one_thread")


def trained(folder: Path, *overrides: str) -> dict[str, Any]:
    """Train a tiny run on Multi-Destination Spread and return its newest state."""
    assert set(train(folder, *MINI, *overrides)) == {"win_rate", "return", "length"}
    return newest_state(folder)[0]


def agents(state: dict[str, Any]) -> dict[str, Any]:
    """Return the weights that egos and partners act with."""
    return {role: state["algo"][role]["agent"] for role in ("learner", "partner")}


@pytest.mark.parametrize("mixer", ["vdn", "none", "qmix"])
def test_both_roles_learn_with_every_mixer(mixer: str, tmp_path: Path) -> None:
    state = trained(tmp_path / "run", "algo=sbc", *GOALS, f"mixer@algo.mixer={mixer}")
    written = rows(tmp_path / "run", "metrics")
    assert all(math.isfinite(value) for row in written for value in row.values())
    assert {"loss/td", "partner/loss/td", "sbc/return_free", "sbc/return_blocked", "sbc/pen_rate"} <= written[-1].keys()
    untrained = trained(tmp_path / "short", "algo=sbc", *GOALS, f"mixer@algo.mixer={mixer}", "algo.warmup_episodes=64")
    for role, weights in agents(state).items():
        assert differences(weights, agents(untrained)[role]), role
    assert state["algo"]["sets"]["weight"][:, [WEST, EAST]].min() > 0
    assert state["algo"]["sets"]["weight"].count_nonzero() == 4


@pytest.mark.parametrize("algo", [("sbc", *GOALS), ("e3t",), ("fox",)], ids=lambda words: words[0])
@pytest.mark.parametrize("attack", ["wolfpack", "ibal"])
def test_attacks_that_read_memory_follow_lineups_and_stacked_layers(
    attack: str, algo: tuple[str, ...], tmp_path: Path
) -> None:
    """A lineup remembers for several policies and shows its ego's memory; IBAL strikes in no lane at first."""
    small = {"wolfpack": ("attack.foresight.window=3",), "ibal": ("attack.estimators.hidden_dim=16",)}
    env = "env=spread" if algo == ("fox",) else MINI[0]
    state = trained(tmp_path / "run", f"algo={algo[0]}", *algo[1:], env, f"attack={attack}", *small[attack])
    assert state["attack"] and state["clock"]["updates"] > 0


def test_episodes_hold_true_rewards_and_where_everybody_was(tmp_path: Path) -> None:
    trained(tmp_path / "run", "algo=sbc", *GOALS, "algo.penalty=100")
    data = newest_state(tmp_path / "run")[1]["data"]
    filled = data["filled"][:, :-1]
    cells = data["state"][:, 1:].unflatten(-1, (2, 25)).argmax(-1)  # [M, T, n], after the step
    assert torch.equal(data["cell"][:, :-1][filled], cells[filled])
    west, east = (cells == WEST).any(-1), (cells == EAST).any(-1)
    pay = torch.tensor([0.0, 0.1, 1.0])[west.long() + east.long()]
    assert torch.equal(data["reward"][:, :-1][filled], pay[filled]) and pay[filled].max() > 0
    assert data["blocked"].any() and not data["blocked"][..., [k for k in range(25) if k not in (WEST, EAST)]].any()
    assert data["assign"].unique().tolist() == [0, 1] and (data["assign"] == 0).any(1).all()


def test_a_penalty_of_zero_is_a_run_without_penalties_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    null = trained(tmp_path / "null", "algo=sbc_null", *GOALS)
    real = trained(tmp_path / "real", "algo=sbc", *GOALS)
    team = trained(tmp_path / "team", "algo=sbc", *GOALS, "algo.penalise=team")
    monkeypatch.setattr(Penalty, "reward", lambda self, batch, fwd: 0.0)
    assert differences(agents(null), agents(trained(tmp_path / "none", "algo=sbc", *GOALS))) == []
    assert differences(agents(null)["partner"], agents(real)["partner"]), "partners learn from a real one"
    assert differences(agents(real)["learner"], agents(team)["learner"]), "and the ego if it is the team's"


def test_in_two_stages_partners_come_first_and_then_stay(tmp_path: Path) -> None:
    options = ("algo=sbc_two_stage", *GOALS, "algo.partner_steps=120", "algo.epsilon.steps=100", "checkpoint.keep=9")
    trained(tmp_path / "run", *options, "train.total_steps=60")
    assert newest_state(tmp_path / "run")[1]["data"]["assign"].min() == 1, "nobody but partners"
    first = trained(tmp_path / "run", *options, "train.total_steps=120")
    fresh = trained(tmp_path / "fresh", *options, "algo.warmup_episodes=64")
    assert differences(agents(first)["learner"], agents(fresh)["learner"]) == []
    assert differences(agents(first)["partner"], agents(fresh)["partner"])
    second = trained(tmp_path / "run", *options)
    assert differences(agents(first)["partner"], agents(second)["partner"]) == []
    assert differences(agents(first)["learner"], agents(second)["learner"])
    kept = newest_state(tmp_path / "run")[1]["data"]["assign"]
    assert (kept == 0).any(1).all() and len(kept) > 8, "the ego learns from its own episodes alone"
    epsilon = {row["env_steps"]: row["train/epsilon"] for row in rows(tmp_path / "run", "metrics")}
    assert epsilon[120] == 1.0 and epsilon[240] == pytest.approx(0.05), "the ego's exploration begins with its stage"


def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    options = ("algo=sbc", *GOALS)
    trained(tmp_path / "halves", *options, "train.total_steps=120")
    assert differences(trained(tmp_path / "halves", *options), trained(tmp_path / "whole", *options)) == []


def test_a_partner_can_be_played_with_any_set(tmp_path: Path) -> None:
    trained(tmp_path / "run", "algo=sbc", *GOALS)
    parts, _ = load_trained(tmp_path / "run", {}, 3)
    algo, gen = parts.algo, torch.Generator()
    assert isinstance(algo, SBC)

    def read(name: str) -> Tensor:
        return algo.member(name).begin(3, gen)["blocked"]

    assert read("10,3").nonzero()[:, 2].unique().tolist() == [3, 10] and not read("none").any()
    for name in ("25", "west", ""):
        with pytest.raises(ConfigError, match=f"member '{name}' is not known; give none, or numbers in 0..24"):
            algo.member(name)
    parts.env.close()


def test_populations_are_answered(tmp_path: Path) -> None:
    """FCP responds to checkpoints of self-play, HSP to hidden rewards, MEP to the members of a run; all stay fixed."""
    wishes = ("algo.hooks.hidden.info=cell", "algo.hooks.hidden.size=25", "algo.hooks.hidden.numbered=true")
    for seed in (0, 1):
        trained(tmp_path / f"vdn{seed}", "algo=vdn", f"seed={seed}", "checkpoint.at_start=true")
        trained(tmp_path / f"hidden{seed}", "algo=hsp_partners", *wishes, f"seed={seed}")
    trained(tmp_path / "mep", "algo=mep_partners", "algo.members=2", "algo.alpha=0.1")
    for algo, runs, teams in (
        ("fcp", "vdn*", 2 * 3 + 1), ("hsp", "hidden*", 2), ("mep", "mep", 3 * 2)
    ):  # fmt: skip
        options = (f"algo={algo}", f"algo.runs=[{tmp_path}/{runs}]")
        options += ("algo.members=[0,'1']",) if algo == "mep" else ()
        state = trained(tmp_path / "answers" / algo, *options)
        assert len(state["algo"]["returns"]) == teams and state["algo"]["returns"].isfinite().any()
        assert (newest_state(tmp_path / "answers" / algo)[1]["data"]["assign"].amax(1) <= teams).all()
        parts, _ = load_trained(tmp_path / "answers" / algo, {}, 2)
        assert len(parts.algo.population) == teams  # type: ignore[attr-defined]
        parts.env.close()
    with pytest.raises(ConfigError, match="has one team only"):
        trained(tmp_path / "wrong", "algo=fcp", f"algo.runs=[{tmp_path}/vdn0]", "algo.members=['0']")


def test_virtual_environments_train_any_algorithm_and_report_both_returns(tmp_path: Path) -> None:
    blocked = [option.replace("env.episode_limit", "env.env.episode_limit") for option in MINI[1:]]
    options = ("env=mds_mini_blocked", *blocked, "algo=vdn", "+hook@algo.hooks.unblocked=unblocked", "env.penalty=100")
    train(tmp_path / "run", *options)
    data = newest_state(tmp_path / "run")[1]["data"]
    lowered = data["unblocked_reward"] - data["reward"]
    assert lowered.min() == 0 and lowered.max() in (50.0, 100.0), "one or both agents on the cell"
    last = rows(tmp_path / "run", "metrics")[-1]
    mine = (data["unblocked_reward"] * data["filled"]).sum(1)[-8:].mean()
    assert last["reward/unblocked_return"] == pytest.approx(float(mine))


def test_what_cannot_be_is_refused_before_work_starts(tmp_path: Path) -> None:
    for overrides, message in (
        (("env=toy/matrix", "algo=sbc"), "family 'cells' cannot be blocked in this environment; there are none"),
        ((*MINI, "algo=sbc", "algo.penalty=-1"), "algo.penalty=-1"),
        ((*MINI, "algo=sbc", "algo.penalise=ego"), "algo.penalise=ego is not known; choose one of partner, team"),
        ((*MINI, "algo=sbc", "algo.partner_epsilon=[]"), r"algo.partner_epsilon=\[\] must be"),
        ((*MINI, "algo=sbc", "algo.p_self=2"), "algo.p_self=2"),
        ((*MINI, "algo=e3t", "algo.noise=[1.5]"), r"algo.noise=\[1.5\] must be"),
        (
            (*MINI, "algo=e3t", "algo.learner._target_=marl.learn.learner.ValueLearner"),
            "must be algos.sbc.roles.RoleLearner",
        ),
        ((*MINI, "algo=fcp", f"algo.runs=[{tmp_path}/nothing]"), "matches no run folder"),
        ((*MINI, "algo=mep_partners", "algo.members=1"), "algo.members=1"),
    ):
        with pytest.raises(ConfigError, match=message):
            train(tmp_path / "run", *overrides)


def test_a_checkpoint_of_step_0_is_kept_and_holds_what_was_not_learnt(tmp_path: Path) -> None:
    """With it a run is the same, bit for bit; without it FCP refuses a share of 0 instead of taking one of 10%."""
    plain = trained(tmp_path / "plain", "algo=vdn")
    asked = trained(tmp_path / "asked", "algo=vdn", "checkpoint.at_start=true", "checkpoint.keep=1")
    assert differences(plain, asked) == [] and rows(tmp_path / "plain", "eval") == rows(tmp_path / "asked", "eval")
    assert nearest_steps(tmp_path / "asked", [0.0, 1.0], "algo.runs") == [0, 240]
    first, clock = load_trained(tmp_path / "asked", {}, 2, step=0)
    first.env.close()
    assert clock.env_steps == 0 and clock.updates == 0
    with pytest.raises(ConfigError, match=r"has no checkpoint of step 0, only from 40 on; .*checkpoint.at_start=true"):
        trained(tmp_path / "fcp", "algo=fcp", f"algo.runs=[{tmp_path}/plain]")
    trained(tmp_path / "fcp", "algo=fcp", f"algo.runs=[{tmp_path}/asked]")


def test_published_methods_have_no_share_of_self_play() -> None:
    for name in ("e3t", "fcp", "hsp", "mep"):
        assert (
            compose_train(Path("runs"), f"algo={name}", *(() if name == "e3t" else ("algo.runs=[x]",))).algo.p_self == 0
        )
        old = compose_train(Path("runs"), f"experiment=overcooked_small/{name}")
        assert old.algo.p_self == 0.25, "as in the published table"
