"""Training under IBAL: nobody attacked is the run without it; a run learns, reports and resumes; ablations attack."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from marl.run.trainer import fit
from tests.support.helpers import TINY, compose_train, differences, newest_state, rows, train
from tests.support.ibal_parts import SMALL

TRAIN = ("env=posts", "env.episode_limit=6", "algo=vdn", "attack=ibal", *SMALL, "attack.estimators.every=1",
         "attack.report_every=5", "attack.curriculum.every=100", "attack.curriculum.success=0.0",
         "attack.curriculum.window=4", "attack.curriculum.success_return=0.0")  # fmt: skip

SHORT = ("train.total_steps=200", "eval.every=200", "checkpoint.every=200", "log.every=40")


def test_nobody_attacked_is_the_unattacked_run_bit_for_bit(tmp_path: Path) -> None:
    train(tmp_path / "free", "env=posts", "algo=vdn", *SHORT)
    train(tmp_path / "none", "env=posts", "algo=vdn", *SHORT, "attack=ibal", *SMALL, "attack.k_max=0")
    free, none = (newest_state(tmp_path / name)[0]["algo"] for name in ("free", "none"))
    assert free["learner"]["updates"] > 4 and differences(free, none) == []


def test_a_run_learns_reports_and_resumes_exactly(tmp_path: Path) -> None:
    train(tmp_path / "whole", *TRAIN)
    written = rows(tmp_path / "whole", "metrics")
    assert {"ibal/est_ce", "ibal/group_ce", "ibal/score_top", "ibal/forced_rate", "ibal/p_max", "ibal/told_forced",
            "ibal/mask_change"} <= set(written[-1])  # fmt: skip
    assert written[-1]["ibal/told_forced"] <= written[-1]["ibal/told_intended"] + 1e-4
    assert written[-1]["ibal/p_max"] == 1.0  # one attacked agent: always
    with (tmp_path / "whole" / "reports" / "ibal_scores.csv").open(encoding="utf8") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 3 * 2 * 15 and (tmp_path / "whole" / "reports" / "ibal_scores.png").stat().st_size > 5000
    seen = next(r for r in table if (r["observer"], r["feature"], r["actor"]) == ("1", "other 0 at A", "2"))
    assert seen["describes"] == "0" and float(seen["nats"]) >= 0.0
    assert any(row["hidden"] == "1" for row in table)

    half = compose_train(tmp_path, *TINY, *TRAIN, "train.total_steps=200")
    fit(half, tmp_path / "parts")
    cfg = compose_train(tmp_path, *TINY, *TRAIN)
    fit(cfg, tmp_path / "parts")
    whole, parts = newest_state(tmp_path / "whole")[0], newest_state(tmp_path / "parts")[0]
    assert whole["attack"]["estimators"]["rounds"] > 10
    assert differences(whole["attack"], parts["attack"]) == [] and differences(whole["algo"], parts["algo"]) == []


def test_it_learns_against_a_team_that_does_not(tmp_path: Path) -> None:
    """Nobody's updates pace its rounds there: after the natural episodes every episode gives some."""
    train(tmp_path / "base", "env=posts", "env.episode_limit=6", "algo=vdn", *SHORT)
    options = [option for option in TINY if not option.startswith(("algo.", "agent@"))]
    against = (option.replace("algo=vdn", "algo=frozen") for option in TRAIN)
    fit(compose_train(tmp_path, *options, *against, f"algo.run={tmp_path / 'base'}", *SHORT), tmp_path / "run")
    written = rows(tmp_path / "run", "metrics")
    assert written[-1]["updates"] == 0 and written[-1]["ibal/score_top"] > 0
    assert written[-1]["ibal/masked"] > 0 and written[-1]["attack/hits_per_episode"] > 0


@pytest.mark.parametrize(
    "switch",
    ["attack.obs_attack=false", "attack.action_attack=false", "attack.guidance=false", "attack.schedule=false",
     "attack.fgsm=0.1", "attack.score=pmi", "attack.estimators.estimator=ce", "attack.floor=none",
     "attack.estimators.context=obs"],
)  # fmt: skip
def test_ablations_run_and_attack(switch: str, tmp_path: Path) -> None:
    train(tmp_path / "run", *TRAIN, *SHORT, switch)
    last = rows(tmp_path / "run", "metrics")[-1]
    assert (last["ibal/masked"] > 0) == (switch != "attack.obs_attack=false")
    assert (last["ibal/forced_rate"] > 0) == (switch != "attack.action_attack=false")
