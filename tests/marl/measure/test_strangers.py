"""A teammate from another run: which run it is, what it costs by hand, and what is said where there is none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from marl.core.types import ConfigError
from marl.measure import zoo
from marl.measure.entrants import Entrant, from_runs, imported
from marl.measure.strangers import next_run, policy_of, seated, who_sits
from marl.measure.suite import Column, read_suite
from tests.support.helpers import TINY, command
from tests.support.robustness_parts import CORRIDOR, NATURAL, entrant, measured, score, setting

TRAITOR = {
    "_target_": "attacks.traitor.Traitor", "_partial_": True, "agents": 1, "plays": "policy", "policy": None,
    "budget": None, "budget_unit": "step",
}  # fmt: skip
STRANGER = Column("stranger", TRAITOR, None, {}, policy_of="next_run")


def team(actions: list[int] | None, label: str, seed: int, **where: Any) -> Entrant:
    """Return a team whose weights its label and seed decide."""
    made = entrant(actions, label, seed, **where)
    return replace(made, content={**made.content, "weights": f"{label} {seed}"})


def test_the_next_run_is_the_next_seed_then_the_next_row() -> None:
    a0, a2, a5 = (team([0, 0], "a", seed) for seed in (0, 2, 5))
    b, c = team([0, 0], "b", 0), team([0, 0], "c", 0)
    far = team(None, "a", 1, env=CORRIDOR, task="corridor")
    rows = [a0, a2, a5, far, b, c]
    chosen = {one.name: next_run(one, rows) for one in rows}
    assert chosen == {
        a0.name: a2, a2.name: a5, a5.name: a0,  # seeds of one method, in a circle
        b.name: c, c.name: a0,  # the next row, in a circle
        far.name: None,  # alone in its game
    }  # fmt: skip
    assert next_run(b, [b, a5, a0]) is a5, "in the order of the rows"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train two seeds on the corridor."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        command("train", *TINY, f"seed={seed}", f"runs_dir={folder}", "log.progress=off", "train.total_steps=100")
    return folder


def test_the_same_weights_under_another_name_are_no_stranger(runs: Path, tmp_path: Path) -> None:
    """A packed team beside the run that it was packed from, and the run as a policy. The twin that looks at names, or
    at files, would take them."""
    folders = [Path(one.opens["run"]) for one in from_runs(str(runs), None, None)]
    zoo.pack_run(folders[0], tmp_path / "zoo")
    given = [{"name": f"{k}", "path": str(path)} for k, path in enumerate((folders[0], tmp_path / "zoo", folders[1]))]
    run, packed, other = from_runs(given, None, None)
    policy = DictConfig({**policy_of(run), "step": None})
    again = imported({"name": "import", "policy": "run"}, policy, run.env, run.task, [])
    assert len({json.dumps(one.content) for one in (run, packed, again)}) == 3, "keys of cells stay"
    for one in (run, packed, again):
        assert next_run(one, [run, packed, again]) is None
        assert next_run(one, [run, packed, again, other]) is other
    assert next_run(other, [run, packed, again, other]) is run
    sampled = replace(packed, content=packed.content | {"algo": packed.content["algo"] | {"act": "sample"}})
    assert next_run(run, [run, sampled]) is sampled, "it plays otherwise"


def test_a_stranger_by_hand(tmp_path: Path) -> None:
    """Payoffs [[8, 2], [4, 0]]: a team that always plays (0, 0) wins with 8. Its stranger plays (1, 1), so that one
    of the two seats plays 1: 4 or 2. The other team gets 0 alone, and 2 or 4 with a seat of the first."""
    rows, _ = measured([team([0, 0], "a", 0), team([1, 1], "a", 1)], [NATURAL, STRANGER], setting(tmp_path))
    first, second = (row for row in rows if row.level == "run")
    natural, with_stranger = score(first, "natural"), score(first, "stranger")
    assert (natural.returns.mean, natural.win_rate.mean) == (8.0, 1.0)
    assert with_stranger.win_rate.mean == 0.0 and (with_stranger.attacked_steps, with_stranger.attacked_actions) == (
        1,
        1,
    )
    assert with_stranger.returns.mean in {(4 * k + 2 * (6 - k)) / 6 for k in range(7)}
    assert score(second, "natural").returns.mean == 0.0 and 2.0 <= score(second, "stranger").returns.mean <= 4.0


def test_a_teammate_of_the_same_play_costs_nothing(tmp_path: Path) -> None:
    rows, _ = measured([team([0, 0], "a", 0), team([0, 0], "a", 1)], [NATURAL, STRANGER], setting(tmp_path))
    assert score(rows[1], "stranger").returns.mean == 8.0 and score(rows[1], "stranger").attacked_steps == 0.0


def test_nobody_to_sit_in_is_not_possible(tmp_path: Path) -> None:
    rows, outcome = measured([team([0, 0], "a", 0)], [NATURAL, STRANGER], setting(tmp_path))
    assert rows[0].cells["stranger"] == (
        "not possible: no other team of matrix is among the rows, to replace one of its teammates"
    )
    assert outcome.complete and score(rows[0], "natural").win_rate.mean == 1.0


def test_other_columns_know_nothing_of_strangers() -> None:
    one = team([0, 0], "a", 0)
    assert seated(NATURAL, one, [one]) is NATURAL and who_sits([NATURAL], [one]) == {}
    with pytest.raises(ConfigError, match="no other team of matrix"):
        seated(STRANGER, one, [one])


def test_a_run_sits_in_as_the_row_plays() -> None:
    run = replace(team([0, 0], "a", 0), opens={"run": "runs/x", "policy": None, "checkpoint": 40, "act": "sample"})
    assert policy_of(run) == {
        "_target_": "marl.run.teams.run_policy", "_partial_": True, "run": "runs/x", "step": 40, "member": None,
        "act": "sample",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"attack": TRAITOR, "policy_of": "any"}, "policy_of=any is not known; choose one of next_run"),
        ({"attack": NATURAL.attack, "policy_of": "next_run"}, "fills the attack's option policy, which is no option"),
        ({"attack": {**TRAITOR, "policy": TRAITOR}, "policy_of": "next_run"}, "option policy, which is given"),
    ],
)
def test_what_no_column_can_ask_for_is_refused(node: dict[str, Any], said: str) -> None:
    suite = OmegaConf.create({"baseline": None, "columns": {"stranger": node}})
    with pytest.raises(ConfigError, match=said):
        read_suite(suite, None)


def test_the_suite_measures_runs(runs: Path, tmp_path: Path) -> None:
    """The matrix says whose team sat in, and a row alone is not possible."""
    how = ("suite=strangers", "only=[natural,stranger]", "episodes=4", "n_envs=4", "luck=false", f"out={tmp_path}/out")
    command("robustness", f"runs=['{runs}/**']", *how)
    found = json.loads((tmp_path / "out" / "matrix.json").read_text())
    assert found["columns"]["stranger"]["policy_of"] == "next_run"
    sat = found["strangers"]["rows"]["stranger"]
    assert [(name[-6:], one["run"][-5:]) for name, one in sat.items()] == [("seed 0", "seed1"), ("seed 1", "seed0")]
    cells = [row["cells"]["stranger"] for row in found["rows"]]
    assert all("win_rate" in cell for cell in cells)
    command("robustness", f"runs=['{runs}/**/*seed0']", *how)
    found = json.loads((tmp_path / "out" / "matrix.json").read_text())
    assert "no other team" in str(found["rows"][0]["cells"]["stranger"]) and found["complete"]
