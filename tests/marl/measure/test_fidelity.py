"""The scoreboard's numbers by hand, its logs, and the best of several views of a game, chosen on other episodes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

from marl.core.types import ConfigError, EpisodeBatch, Field
from marl.learn.policy import EpsilonGreedy
from marl.measure import fidelity
from marl.measure.fidelity import MEASURES, facts_of, imported, open_policy, read_logs, row_of, score_team
from marl.run.collect import collect_whole
from marl.run.compose import choices, register_configs
from marl.run.teams import evaluate_team
from scripts.fidelity import enemy_orders, game
from tests.marl.measure.test_importers import pymarl_agent, save
from tests.support.helpers import command

SEEN = {  # (win rate, return) of each view by seed
    7: {"a": (0.9, 1.0), "b": (0.5, 2.0), "c": (0.4, 3.0)},
    8: {"a": (0.2, 9.0), "b": (0.6, 4.0), "c": (0.6, 5.0)},
}


def team_of_3m(folder: Path) -> Path:
    """Save a team for 3m that nobody trained."""
    folder.mkdir(exist_ok=True)
    save(pymarl_agent(30 + 9 + 3, hidden=8, actions=9), folder / "qmix_3m.th")
    return folder / "qmix_3m.th"


def setting(**changes: Any) -> DictConfig:
    return OmegaConf.create({"episodes": 5, "n_envs": 2, "seed": 7, "threads": 1, **changes})


def two_episodes() -> tuple[EpisodeBatch, torch.Tensor]:
    """Make an episode of 2 steps that is won and one of 3 that runs out of time, and Q_tot [2, 4] along them. What
    stands behind an end means nothing."""
    data = {
        "reward": torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0, 1.0, 0.5, 0.0]]),
        "terminated": torch.tensor([[False, True, False, False], [False, False, False, False]]),
        "filled": torch.tensor([[True, True, False, False], [True, True, True, False]]),
        "won": torch.tensor([True, False]),
        "length": torch.tensor([2, 3], dtype=torch.int32),
        "dead_allies": torch.tensor([[0, 1, 9, 9], [0, 2, 4, 9]], dtype=torch.int32),
    }
    return EpisodeBatch(data, {}), torch.tensor([[10.0, 4.0, 70.0, 90.0], [3.0, 2.0, 1.0, 4.0]])


def test_what_two_episodes_come_to() -> None:
    """The residuals are 1 + 0.99 * 4 - 10 = -5.04 and 2 - 4 = -2 (the end bootstraps nothing), then -1.02, -0.01 and
    0.5 + 0.99 * 4 - 1 = 3.46 (a time-out does)."""
    facts = {name: value.tolist() for name, value in facts_of(*two_episodes()).items()}
    assert facts["won"] == [True, False] and facts["length"] == [2, 3] and facts["deaths"] == [1, 4]
    assert facts["return"] == [3.0, 1.5] and facts["expected"] == [10.0, 3.0]
    assert facts["real"] == pytest.approx([1 + 0.99 * 2, 0.99 + 0.99**2 * 0.5], rel=1e-6)
    assert facts["residual"] == pytest.approx([-7.04 / 2, 2.43 / 3], rel=1e-5)
    assert facts["squares"] == pytest.approx([5.04**2 + 4, 1.02**2 + 0.01**2 + 3.46**2], rel=1e-5)


def test_a_row_has_means_intervals_and_what_the_logs_say() -> None:
    """Student's t of two values, 12.706, times half their difference; Wilson's interval of one win in two."""
    facts = {name: value.numpy() for name, value in facts_of(*two_episodes()).items()}
    row = row_of(facts, {"length": 54.7, "win_rate": 0.9})
    assert list(row) == list(MEASURES)
    means = {"win_rate": 0.5, "return": 2.25, "length": 2.5, "deaths": 2.5, "expected": 6.5, "residual": -1.355}
    assert {name: row[name]["mean"] for name in means} == pytest.approx(means, rel=1e-5)
    half = 12.7062 * 1.5 / 2
    assert (row["return"]["low"], row["return"]["high"]) == pytest.approx((2.25 - half, 2.25 + half), abs=1e-4)
    z = 1.959964**2
    half = 1.959964 * np.sqrt(0.25 / 2 + z / 16) / (1 + z / 2)
    assert (row["win_rate"]["low"], row["win_rate"]["high"]) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-6)
    rms = row["residual_rms"]
    assert rms["mean"] == pytest.approx(np.sqrt((5.04**2 + 4 + 1.02**2 + 0.01**2 + 3.46**2) / 5), rel=1e-5)
    assert rms["low"] is rms["high"] is None and {row[name]["n"] for name in MEASURES} == {2}
    assert {name: row[name]["log"] for name in MEASURES if row[name]["log"] is not None} == {
        "length": 54.7, "win_rate": 0.9,
    }  # fmt: skip


def test_a_row_is_of_the_episodes_of_a_plain_evaluation(tmp_path: Path) -> None:
    """Five episodes on two lanes are three rounds; the sixth is dropped."""
    agent = team_of_3m(tmp_path)
    cfg, env = setting(), game("3m")
    row = score_team(cfg, env, agent, 7, {})
    results = evaluate_team(open_policy(cfg, env, imported(agent), 7), 5)
    for name, key in (("win_rate", "won"), ("return", "return"), ("length", "length")):
        assert row[name]["mean"] == results[key].astype(np.float64).mean() and row[name]["n"] == 5


def test_the_dead_are_counted_when_an_episode_ends(tmp_path: Path) -> None:
    """They are those who are not alive in the slot behind the last step."""
    team = open_policy(setting(episodes=8, n_envs=8), game("3m"), imported(team_of_3m(tmp_path)), 7)
    team.fields["dead_allies"] = Field((), torch.int32)
    batch = collect_whole(
        team.env, team.policy, team.attack, team.fields, explore=False, attacked=torch.zeros(8, dtype=torch.bool),
        policy_gen=team.streams["eval"], attack_gen=team.streams["eval_attack"], device="cpu",
    )  # fmt: skip
    assert isinstance(team.policy, EpsilonGreedy)
    deaths = facts_of(batch, fidelity.joint_values(team.policy, batch))["deaths"]
    dead = 3 - batch.alive[torch.arange(8), batch.length.long()].sum(1)
    assert deaths.tolist() == dead.tolist() and dead.max() == 3


def score_fake(cfg: DictConfig, env: DictConfig, agent: Path, seed: int, logs: Mapping[str, float]) -> dict[str, Any]:
    won, earned = SEEN[seed][env.view]
    return {"win_rate": {"mean": won}, "return": {"mean": earned}, "length": {"mean": 3.0}}


def test_the_choice_is_made_on_other_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed 8 chooses, b and c win alike there, and c earns more; the row is c's over the episodes of seed 7, although a
    is better in these."""
    monkeypatch.setattr(fidelity, "score_team", score_fake)
    envs = {name: OmegaConf.create({"view": name}) for name in "abc"}
    row = fidelity.best_of(OmegaConf.create({"seed": 7}), envs, Path("agent.th"), {})
    assert (row["chosen"], row["win_rate"]["mean"], row["return"]["mean"]) == ("c", 0.4, 3.0)
    assert row["tried"]["a"] == {"win_rate": 0.2, "return": 9.0} and list(row["tried"]) == ["a", "b", "c"]


def test_a_search_tries_orders_on_few_other_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an order earns in the search is 10 for its first place; the row is of the episodes that were asked for."""
    asked = []

    def score(cfg: DictConfig, env: DictConfig, agent: Path, seed: int, logs: Mapping[str, float]) -> dict[str, Any]:
        asked.append((seed, cfg.episodes, cfg.n_envs))
        return {"return": {"mean": 10.0 * env.order[0] if seed == 9 else 0.5}}

    monkeypatch.setattr(fidelity, "score_team", score)
    cfg = OmegaConf.create({"seed": 7, "search": 40, "episodes": 200, "n_envs": 50})
    row = fidelity.search_of(cfg, lambda order: OmegaConf.create({"order": order}), [0, 1, 2], Path("agent.th"), {})
    assert row["order"][0] == 2 and row["then"] == 20.0 and row["return"]["mean"] == 0.5
    assert asked == [(9, 24, 24)] * 41 + [(7, 200, 50)] and cfg.episodes == 200


def test_orders_have_names_first() -> None:
    assert enemy_orders(1) == ["creation"] and enemy_orders(2) == ["creation", "reversed"]
    assert enemy_orders(5) == ["creation", "reversed", 0, 1, 2]


@pytest.mark.parametrize("name", choices("logs"))
def test_the_logs_that_are_there_are_read(name: str) -> None:
    register_configs()
    with initialize_config_module("conf", version_base="1.3"):
        logs = read_logs(compose("fidelity", overrides=[f"logs={name}", "dir=teams"]).logs)
    assert logs.teams or logs.random


def test_the_logs_of_starcraft() -> None:
    with initialize_config_module("conf", version_base="1.3"):
        logs = read_logs(compose("fidelity", overrides=["dir=teams", "+logs.teams.qmix_3m.win_rate=1"]).logs)
    assert logs.teams["qmix_3s5z"] == {"win_rate": 0.956, "length": 54.7, "deaths": 3.1}
    assert logs.teams["qmix_3m"] == {"win_rate": 1.0} and logs.random["2s3z"] == {"length": 49.3, "return": 3.58}


def test_logs_may_leave_out_a_part_and_nothing_else() -> None:
    assert read_logs({"random": {"3m": {"length": 9}}}) == fidelity.Logs({}, {"3m": {"length": 9.0}})
    with pytest.raises(ConfigError, match=r"logs\.teams\.a\.length=True must be a number"):
        read_logs({"teams": {"a": {"length": True}}})
    with pytest.raises(ConfigError, match="logs=3 must be a section"):
        read_logs(3)


def test_the_script_scores_the_plain_and_the_best_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    team_of_3m(tmp_path / "teams")
    out, picture = tmp_path / "rows.json", tmp_path / "new" / "board.png"
    command(
        "fidelity", f"dir={tmp_path / 'teams'}", "only=[3m]", "episodes=6", "n_envs=3", "orders=3", "search=2",
        "seed=5", f"out={out}", f"picture={picture}",
        "+logs.teams.qmix_3m.win_rate=0.97", "+logs.random={3m:{length:21}}",
    )  # fmt: skip
    board = json.loads(out.read_text())
    assert (board["episodes"], board["seed"]) == (6, 5) and "scripts.fidelity" in board["command"]
    (row,), (random,) = board["teams"], board["random"]
    best = row["best"]
    assert row["win_rate"]["n"] == best["win_rate"]["n"] == 6 and set(best["tried"]) == {"creation", "reversed", "0"}
    assert row["win_rate"]["log"] == best["win_rate"]["log"] == 0.97 and row["length"]["log"] is None
    assert sorted(row["searched"]["order"]) == [0, 1, 2] and row["searched"]["win_rate"]["n"] == 6
    assert random["map"] == "3m" and random["length"]["log"] == 21 and random["return"]["log"] is None
    assert random["length"]["n"] == 6 and random["length"]["low"] <= random["length"]["mean"]
    printed = capsys.readouterr().out
    assert "best order: of 3, chosen over 6 other episodes, of seed 6" in printed and "0.970" in printed
    assert "searched order: of 2 more, by the return of 24 episodes, of seed 7" in printed
    if best["chosen"] == "creation":
        assert {key: best[key] for key in MEASURES} == {key: row[key] for key in MEASURES}
    assert picture.read_bytes().startswith(b"\x89PNG")
