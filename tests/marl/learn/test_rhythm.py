"""How often a team learns: counted in episodes, whatever the number of lanes."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from marl.core.types import Clock, ConfigError
from marl.learn.mixers import VDN
from marl.learn.rhythm import Rhythm
from marl.run import trainer
from marl.run.compose import choices
from marl.run.renames import current
from tests.support.helpers import compose_train, make_learner, make_spec, newest_state, random_batch, train
from tests.test_combinations import ELSEWHERE, NEEDS

LEARNERS = [name for name in choices("algo") if name not in ELSEWHERE]


def updates(rhythm: Rhythm, lanes: int, episodes: int) -> list[int]:
    """Return the number of updates after every collection."""
    clock, made = Clock(), []
    for _ in range(episodes // lanes):
        clock.count(lanes, 0)
        made.append(rhythm.due(clock))
    return made


def test_by_hand() -> None:
    assert updates(Rhythm(32, 4, 4), 32, 96) == [8, 8, 8]
    assert updates(Rhythm(32, 4, 32), 32, 96) == [1, 8, 8], "the first at 32 episodes, the next at 36"
    assert updates(Rhythm(128, 8, 128), 8, 144) == [0] * 15 + [1, 1, 1]
    assert updates(Rhythm(4, 3, 4), 2, 16) == [0, 1, 0, 1, 1, 0, 1, 1], "at 4, 7, 10, 13, 16 episodes"
    assert updates(Rhythm(2, 0.4, 0), 1, 6) == [0, 6, 2, 3, 2, 3], "5 for two episodes, and one at the start"
    assert updates(Rhythm(8, 4, 2), 4, 16) == [0, 2, 1, 1], "those due before there is a batch are made with the first"
    assert updates(Rhythm.steady(32), 32, 96) == [1, 1, 1] and updates(Rhythm.steady(0.1), 3, 9) == [30, 30, 30]


@pytest.mark.parametrize("each", [0.3, 1, 2.6666666666666665, 3, 7.5, 32])
def test_the_number_of_lanes_changes_no_count(each: float) -> None:
    counts = {lanes: sum(updates(Rhythm(16, each, 10), lanes, 960)) for lanes in (1, 4, 8, 32, 64)}
    assert len(set(counts.values())) == 1, counts
    assert counts[1] == pytest.approx(950 / each, abs=1.01)


def test_no_fraction_is_lost_in_a_long_run() -> None:
    clock, rhythm, made = Clock(), Rhythm(1, 0.7, 0.7), 0
    for _ in range(20_000):
        clock.count(7, 0)
        made += rhythm.due(clock)
    assert made == 200_000


def copies(each: float, every: float, steps: int) -> list[int]:
    """Return the updates after which the target of a learner was copied."""
    spec = make_spec()
    learner = make_learner(spec, VDN(spec), target_every=every)
    learner.episodes_per_update = each
    found, batch = [], random_batch(spec, 4)
    for k in range(1, steps + 1):
        learner.update(batch)
        weights = learner.agent.fc_out.bias, learner.target_agent.fc_out.bias
        if bool((weights[0] == weights[1]).all()):
            found.append(k)
    return found


def test_targets_are_copied_by_episodes() -> None:
    assert copies(4, 20, 12) == [5, 10]
    assert copies(8, 20, 10) == [3, 5, 8, 10], "at 24, 40, 64, 80 episodes: the fraction is carried over"
    assert copies(0.4, 1.2, 7) == [3, 6], "0.4 * 3 is not exactly 1.2"


def counted(folder: Path, algo: str, lanes: int, episodes: int = 64) -> dict[str, Any]:
    """Train the defaults of ``algo`` for a while on a game whose episodes have 4 steps; return the counts."""
    cfg = compose_train(
        folder.parent, f"algo={algo}", "env=toy/corridor", "env.length=9", "env.episode_limit=4",
        f"train.total_steps={4 * episodes}", f"train.n_envs={lanes}", "replay.capacity=128", "eval.episodes=4",
        "eval.n_envs=4",
        "eval.final_episodes=4", "log.every=1000000", "eval.every=1000000", "checkpoint.replay=false",
        "log.to=[]", "algo.batch_size=8", *NEEDS.get(algo, ()),
    )  # fmt: skip
    trainer.fit(cfg, folder)
    state = newest_state(folder)[0]
    return {key: state["clock"][key] for key in ("episodes", "updates")}


@pytest.mark.parametrize("algo", LEARNERS)
def test_defaults_hold_with_any_number_of_lanes(algo: str, tmp_path: Path, no_drawing: None) -> None:
    episodes = 128 if algo == "s2q" else 64  # it begins later than the others
    few, many = (counted(tmp_path / str(lanes), algo, lanes, episodes) for lanes in (4, 32))
    assert few == many and few["episodes"] == episodes and few["updates"] > 0


def test_a_lane_bound_rhythm_would_be_found(tmp_path: Path, no_drawing: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rhythm, "due", lambda self, clock: 1)  # one update per collection, as before
    assert counted(tmp_path / "4", "vdn", 4) != counted(tmp_path / "32", "vdn", 32)


def test_it_is_said_at_the_start_and_stored(tmp_path: Path, no_drawing: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        train(tmp_path / "run", "algo.episodes_per_update=4", "algo.learner.target_every=200")
    assert "rhythm      1 update of 8 episodes per 4 new ones, target copied every 200" in caplog.text
    assert "published rhythm" not in caplog.text
    stored = json.loads((tmp_path / "run" / "meta.json").read_text())["rhythm"]
    assert stored == {
        "batch_size": 8, "episodes_per_update": 4, "warmup_episodes": 4, "target_every": 200, "tau": None,
        "ranks": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        ((), False),
        (("algo.episodes_per_update=3.9",), True),  # published: 8
        (("algo.episodes_per_update=16", "algo.learner.tau=0.08"), False),
        (("algo.episodes_per_update=17", "algo.learner.tau=0.08"), True),
        (("algo.learner.tau=0.009",), True),  # 444 episodes instead of 200
        (("algo.learner.tau=null", "algo.learner.target_every=99"), True),
    ],
)
def test_a_rhythm_far_from_the_published_one_is_a_warning(
    changes: tuple[str, ...], warned: bool, tmp_path: Path
) -> None:
    cfg = compose_train(tmp_path, "env=toy/corridor", *changes)
    algo = built(cfg)
    assert algo.rhythm.differs(algo.published) == warned


@pytest.mark.parametrize("name", ["iql", "vdn", "qmix", "qplex", "wqmix", "s2q", "fox", "count"])
def test_defaults_are_not_far_from_the_published_rhythm(name: str, tmp_path: Path) -> None:
    algo = built(compose_train(tmp_path, f"algo={name}", "env=toy/corridor"))
    assert not algo.rhythm.differs(algo.published)


def built(cfg: DictConfig) -> Any:
    parts = trainer.build(cfg, 4)
    parts.env.close()
    return parts.algo


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"episodes_per_update": 0.0}, "episodes_per_update=0.0 must be above 0"),
        ({"episodes_per_update": -1}, "episodes_per_update=-1"),
        ({"batch_size": 0}, "batch_size=0"), ({"warmup_episodes": -2}, "warmup_episodes=-2"),
    ],
)  # fmt: skip
def test_impossible_rhythms_are_refused(changes: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Rhythm(**{"batch_size": 1, "episodes_per_update": 1, "warmup_episodes": 1, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lanes", "each", "warm", "batch"),
    [(32, 8, 32, 32), (8, 1, 128, 128), (16, 16, 20, 4), (1, 1, 32, 8), (32, 12, 5, 21)],
)
def test_older_runs_keep_their_rhythm(lanes: int, each: int, warm: int, batch: int) -> None:
    algo = {"updates_per_collect": each, "warmup_episodes": warm, "batch_size": batch, "learner": {"target_every": 25}}
    foresight = {"updates_per_collect": 2}
    stored = {"train": {"n_envs": lanes}, "algo": algo, "attack": {"foresight": foresight}}
    now = current(stored)
    rhythm = Rhythm(batch, now["algo"]["episodes_per_update"], now["algo"]["warmup_episodes"])
    before = [each if (k + 1) * lanes >= max(warm, batch) else 0 for k in range(40)]
    assert updates(rhythm, lanes, 40 * lanes) == before
    assert now["algo"]["learner"]["target_every"] == pytest.approx(25 * lanes / each)
    assert now["attack"]["foresight"] == {"episodes_per_update": lanes / 2}
    assert "updates_per_collect" in stored["algo"], "what was read is not changed"


def test_older_turns_are_counted_in_episodes() -> None:
    turns = {"attacker_turns": 3, "team_turns": 2, "review_turns": 1, "updates": 8}
    now = current({"train": {"n_envs": 32}, "attack": {"attacks": {"it": turns}}})["attack"]["attacks"]["it"]
    assert now == {"attacker_episodes": 96, "team_episodes": 64, "review_episodes": 32, "episodes_per_update": 4}


def test_ranks_of_torchrun_make_the_updates_of_one_process_a_little_later() -> None:
    """Two ranks have 128 episodes each when the run has 256; what was due before is made then, not dropped."""
    one, two = (Rhythm(batch_size=128, episodes_per_update=8, ranks=ranks) for ranks in (1, 2))
    made = [sum(r.due(Clock(episodes=e, fresh=32)) for e in range(32, 513, 32)) for r in (one, two)]
    assert made[0] == made[1] == one.made(512) and [two.made(e) for e in (128, 255, 256)] == [0, 0, one.made(256)]
