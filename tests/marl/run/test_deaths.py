"""Games that die while a team trains: what was learnt is saved, the game is built anew, and training goes on with whole
episodes only; games that cannot be kept alive end a run in one line."""

from __future__ import annotations

import itertools
from contextlib import closing
from pathlib import Path

import pytest
import torch

from envs.adapters.pool import Pool
from marl.core.protocols import NoAttack
from marl.core.seeding import derive
from marl.core.types import GameError, core_fields
from marl.learn.scripted import RandomPlay
from marl.run.collect import ATTEMPTS
from marl.run.evaluate import evaluate
from tests.support.games import Doomed
from tests.support.helpers import TINY, command, newest_state, rows, train

MORTAL = ("env=gym", "env.env=tests.support.games:Mortal", "env.episode_limit=4", "env.workers=2")
SELDOM = ("replay.capacity=10000", "checkpoint.every=1000000", "checkpoint.keep=100", "log.progress=off")


def checkpoints(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step_")) for path in folder.rglob("checkpoints/step_*"))


@pytest.mark.parametrize("workers", [1, 2])
def test_training_goes_on_and_counts_whole_episodes_only(
    workers: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With one worker a death leaves nothing of a collection, with two the other half."""
    final = train(tmp_path / "run", *MORTAL, "+env.kwargs.after=60", f"env.workers={workers}", *SELDOM)
    deaths = [record.message for record in caplog.records if "the simulator went away" in record.message]
    assert len(deaths) >= 3 and all("lane" in line and "step" in line for line in deaths)
    assert final["return"]["n"] == 8, "tests are played again"
    state, replay = newest_state(tmp_path / "run")
    clock, saved = state["clock"], checkpoints(tmp_path / "run")
    assert replay is not None and replay["size"] == clock["episodes"]
    length = replay["data"]["length"][: clock["episodes"]]
    assert int(length.sum()) == clock["env_steps"] >= 400 and 1 <= int(length.min()) and int(length.max()) <= 4
    assert torch.equal(replay["data"]["filled"][: clock["episodes"]].sum(1), length)
    assert len(saved) >= 3 and saved[-1] == clock["env_steps"], "each death is preceded by a checkpoint"
    assert rows(tmp_path / "run", "metrics")[-1]["env_steps"] <= clock["env_steps"]


@pytest.mark.parametrize("attack", ["romance", "mixture"])
def test_attacks_that_remember_their_lanes_survive_deaths(
    attack: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    romance = ("learner.batch_size=2", "learner.hidden_dim=8", "budget=2", "behaviour_rows=4")
    part = "attack." if attack == "romance" else "attack.attacks.it."
    mixture = ("attack.weights.fgsm=0", "+attack@attack.attacks.it=romance", "+attack.weights.it=1")
    words = (*(() if attack == "romance" else mixture), *(f"{part}{option}" for option in romance))
    assert train(tmp_path / "run", *MORTAL, "+env.kwargs.after=60", *SELDOM, f"attack={attack}", *words)
    assert len([record for record in caplog.records if "the simulator went away" in record.message]) >= 3
    last = rows(tmp_path / "run", "metrics")[-1]
    assert any(name.startswith("attack/generation") for name in last), "it learns from collections without deaths"


def test_what_was_learnt_is_saved_when_no_game_can_be_kept_alive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grave = tmp_path / "grave"
    words = ("env.workers=1", "eval.every=1000000", "+env.kwargs.after=200", f"+env.kwargs.grave={grave}")
    with pytest.raises(SystemExit) as ended:
        command("train", *TINY, *MORTAL, *SELDOM, *words, f"runs_dir={tmp_path}")
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert ended.value.code == 1 and last.startswith("error: environment worker (lane")
    assert "5 times without finishing an episode" in last and "there is no simulator" in last
    (saved,) = checkpoints(tmp_path)
    assert 100 < saved < 200


def test_a_game_that_always_fails_ends_in_one_line_and_leaves_no_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command("train", *TINY, *MORTAL, *SELDOM, "+env.kwargs.after=1", f"runs_dir={tmp_path}")
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert ended.value.code == 1 and "the simulator went away" in last and last.startswith("error: environment worker")
    assert not checkpoints(tmp_path)


def test_a_test_whose_games_always_die_is_given_up() -> None:
    """One lane finishes its episodes, so that the pool goes on; the other one, of the same worker, never does."""
    pool = Pool(Doomed, n_envs=2, workers=1)
    gen, spec = torch.Generator().manual_seed(0), pool.spec
    for seed in itertools.count():
        pool.reset(derive(seed, "round 0") & 0x7FFFFFFF)
        if (pool._arrays["seed"] % 2).tolist() == [0, 1]:
            break
    with closing(pool), pytest.raises(GameError, match=f"games have died in {ATTEMPTS} rounds"):
        evaluate(
            pool, RandomPlay(spec, pool.device), NoAttack(spec, pool.device), core_fields(spec), episodes=2,
            policy_gen=gen, attack_gen=gen, device="cpu", seed=seed,
        )  # fmt: skip


def test_a_run_continues_with_another_time_limit(tmp_path: Path) -> None:
    train(tmp_path / "run", *MORTAL, "+env.kwargs.after=1000000", "env.timeout=100")
    final = train(tmp_path / "run", *MORTAL, "+env.kwargs.after=1000000", "env.timeout=null", "train.total_steps=450")
    assert final["return"]["n"] == 8 and newest_state(tmp_path / "run")[0]["clock"]["env_steps"] >= 450
