"""Best responses to one partner, trained as runs, and a run's own partners as a population: through the scripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numba
import pytest
import torch

from algos.sbc.population import BestResponse
from marl.core.types import ConfigError
from marl.run.teams import load_trained
from tests.algos.sbc.test_sbc_run import EAST, GOALS, MINI, WEST
from tests.support.helpers import command, newest_state, train

WALKER = "+policy@algo.policies.west=walkers"
GOES_WEST = (WALKER, "algo.policies.west.goals=[[0,2],[0,2]]")
LEARNS = ("env=mds_mini", "env.episode_limit=5", "train.total_steps=4000", "train.n_envs=16", "eval.every=4000",
          "log.every=1000", "checkpoint.every=4000", "algo.epsilon.steps=3000", "algo.epsilon.end=0.0",
          "algo.episodes_per_update=2", "algo.learner.lr=0.005", "replay.capacity=300")  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train an SBC run, and runs that answer a walker and one of its partners."""
    folder = tmp_path_factory.mktemp("responses")
    numba.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("marl.show.plot.learning_curves", lambda groups, path: None)
        train(folder / "sbc", *MINI, "algo=sbc", *GOALS)
        train(folder / "west", *LEARNS, "algo=response", *GOES_WEST)
        train(folder / "avoids", *MINI, "algo=response", f"algo.runs=[{folder}/sbc]", f"algo.members=['{WEST}']")
    return folder


def crossplay(runs: Path, out: Path, *arguments: str) -> dict[str, Any]:
    command("crossplay", f"runs=[{{name: sbc, path: {runs}/sbc}}]", f"out={out}", "episodes=4", "n_envs=4", *arguments)
    return json.loads((out / "crossplay.json").read_text())


def test_a_response_learns_to_play_with_its_partner(runs: Path, tmp_path: Path) -> None:
    """Beside somebody who goes west, east is worth 4 of 5 steps; in both seats. The partner never learns."""
    answers = f"+partners.scripted.responses={{west: '{runs}/west'}}"
    found = crossplay(runs, tmp_path, "partners=mds_mini", answers)
    west, east = found["partners"]
    assert (west["name"], west["limit_trained"], east["limit_trained"]) == ("west", True, False)
    assert west["limit"] == pytest.approx(4.0) and len(west["responses"]) == 1
    assert found["methods"][0]["populations"]["scripted"]["best_responses_trained"] is False
    state, replay = newest_state(runs / "west")
    assert set(state["algo"]) == {"learner", "returns"} and replay is not None
    assert (replay["data"]["assign"].sum(1) == 1).all(), "one seat each, and never the ego in both"


def test_partners_of_a_run_are_a_population_with_their_own_responses(runs: Path, tmp_path: Path) -> None:
    sbc = f"{{name: sbc, path: '{runs}/sbc'}}"
    blocked = f"+partners.blocked={{runs: {sbc}, members: [none, '2,{WEST}', {EAST}]}}"
    answers = f"+partners.blocked.responses={{sbc 2\\,{WEST} seed 0: '{runs}/avoids'}}"
    found = crossplay(runs, tmp_path, blocked, answers)
    names = [partner["name"] for partner in found["partners"]]
    assert names == ["sbc none seed 0", f"sbc 2,{WEST} seed 0", f"sbc {EAST} seed 0"] and found["complete"]
    assert [partner["limit_trained"] for partner in found["partners"]] == [False, True, False]
    assert [len(row) for row in found["matrix"]] == [4]
    assert all(len(cell["seats"]) == 2 for cell in found["matrix"][0][1:]), "none of them is the ego"
    assert [partner["source"]["member"] for partner in found["partners"]] == ["none", f"2,{WEST}", f"{EAST}"]
    lines = (tmp_path / "pairs.csv").read_text().splitlines()
    assert len(lines) == 5 and f'"sbc 2,{WEST} seed 0"' in lines[3]


def test_a_member_that_there_is_not_leaves_a_reason(runs: Path, tmp_path: Path) -> None:
    found = crossplay(runs, tmp_path, f"+partners.blocked={{runs: '{runs}/sbc', members: ['25', none]}}")
    assert "member '25' is not known" in found["matrix"][0][1]["why"] and "mean" in found["matrix"][0][2]


def test_responses_keep_what_they_answer(runs: Path) -> None:
    """Opened again, the run makes its partners from its own configuration."""
    parts, _ = load_trained(runs / "west", {}, 2)
    algo = parts.algo
    assert isinstance(algo, BestResponse) and len(algo.population) == 1 and algo.p_self == 0.0
    policy, obs = algo.population[0], parts.env.reset()
    gen = torch.Generator()
    actions = policy.act(obs, policy.begin(2, gen), explore=True, gen=gen)[0]
    assert parts.spec.action_names[int(actions[0, 0])] == "W" and actions.unique().numel() == 1
    parts.env.close()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((), "algo.runs and algo.policies are both empty"),
        ((WALKER, "algo.policies.west.goals=[[0,2]]"), "goals must be 2 cells"),
        ((*GOES_WEST, "+algo.policies.west.speed=2"), "algo.policies.west.speed is not an option of Walkers"),
        (("+policy@algo.policies.cook=cooks",), "cooks play Overcooked only"),
    ],
)
def test_what_nobody_could_answer_is_refused(overrides: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        train(tmp_path / "run", *MINI, "algo=response", *overrides)
