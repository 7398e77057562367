"""The scripts on tiny runs: train, then evaluate, plot, record and bench, and what each of them leaves behind."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from envs.adapters import smax
from marl.measure.bench import ROWS
from tests.support.helpers import TINY, command, newest_state, rows
from tests.support.pretend import pretended_gpu

ROOT = Path(__file__).resolve().parents[2]
RESTLESS = "attack._target_=tests.support.helpers.Restless"  # random play: episodes differ whatever was learnt


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds, trained by the script itself."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        command("train", *TINY, f"seed={seed}", f"runs_dir={folder}", "log.progress=off", "name=study")
    return folder


def folders(runs: Path) -> list[Path]:
    return sorted(path.parent for path in runs.rglob("eval.jsonl"))


def evaluate(run: Path, out: Path, *arguments: str) -> dict[str, Any]:
    command("evaluate", f"run='{run}'", f"out={out}", RESTLESS, *arguments)
    return json.loads(out.read_text())


def test_train_leaves_a_run_folder(runs: Path) -> None:
    assert [folder.name[-5:] for folder in folders(runs)] == ["seed0", "seed1"]
    for folder in folders(runs):
        assert folder.parent.relative_to(runs).as_posix() == "study/toy-corridor/qmix-none"
        left = {path.name for path in folder.iterdir()}
        assert left >= {"train.log", "metrics.jsonl", "eval.jsonl", "checkpoints", "meta.json",
                        "config.json", "DONE", "learning_curve.png"}  # fmt: skip
        meta, done = (json.loads((folder / name).read_text()) for name in ("meta.json", "DONE"))
        assert meta["physics"] == 1  # of a game that has no versions
        assert meta["commit"] and meta["packages"]["torch"] and done["env_steps"] >= 400
        assert newest_state(folder)[0]["clock"]["env_steps"] == done["env_steps"]
        said = (folder / "train.log").read_text()
        for words in ("replay      grows to", "finished after", "win_rate", "try next", "scripts.evaluate"):
            assert words in said
        with Image.open(folder / "learning_curve.png") as picture:
            assert len(set(picture.convert("L").tobytes())) > 10


def test_evaluate_writes_every_episode_and_its_summary(runs: Path, tmp_path: Path) -> None:
    run = folders(runs)[0]
    result = evaluate(run, tmp_path / "a.json", "episodes=21", "n_envs=8")
    episodes = result["episodes"]
    assert {len(values) for values in episodes.values()} == {21} and result["n"] == 21
    assert result["env_steps"] == newest_state(run)[0]["clock"]["env_steps"]
    for name, values in (("return", episodes["return"]), ("length", episodes["length"])):
        summary = result[name]
        half = 2.0860 * float(np.std(values, ddof=1)) / math.sqrt(21)  # t(0.975, 20)
        assert summary["mean"] == pytest.approx(np.mean(values)) and summary["n"] == 21
        assert (summary["low"], summary["high"]) == pytest.approx(
            (summary["mean"] - half, summary["mean"] + half), rel=1e-3, abs=1e-9
        )
    rate = result["win_rate"]
    assert rate["mean"] == pytest.approx(sum(episodes["won"]) / 21)
    assert 0 <= rate["low"] <= rate["mean"] <= rate["high"] <= 1 and rate["low"] < rate["high"]
    assert sum(episodes["won"]) == sum(r > 0 for r in episodes["return"])


def test_evaluate_repeats_with_its_seed_and_differs_with_another(runs: Path, tmp_path: Path) -> None:
    run = folders(runs)[0]
    lengths = [
        evaluate(run, tmp_path / f"{i}.json", "episodes=24", "n_envs=8", f"seed={seed}", *more)["episodes"]["length"]
        for i, (seed, more) in enumerate([(0, []), (0, []), (1, []), (0, ["env=toy/corridor", "env.length=3"])])
    ]
    assert lengths[0] == lengths[1]
    assert lengths[0] != lengths[2], "another seed, other episodes"
    assert lengths[0] != lengths[3], "another environment, other episodes"


def test_plot_draws_curves_and_summarises_seeds(runs: Path, tmp_path: Path) -> None:
    command("plot", f"runs='{runs}/**'", f"out={tmp_path / 'plots'}")
    with Image.open(tmp_path / "plots" / "curves_toy-corridor.png") as picture:
        assert picture.width > 300 and picture.height > 200
        colours = picture.convert("RGB").getcolors(10**6)
        assert colours is not None and any(b > r + 60 for _, (r, _, b) in colours), "no blue line"
    (group,) = json.loads((tmp_path / "plots" / "summary.json").read_text())
    assert group["task"] == "toy-corridor" and group["seeds"] == [0, 1] and group["group"].startswith("study qmix")
    for key in ("eval/return", "eval/win_rate", "eval/length"):
        finals = [rows(folder, "eval")[-1][key] for folder in folders(runs)]
        found = group["metrics"][key]
        assert found["per_seed"] == pytest.approx(finals) and found["n"] == 2
        assert (found["mean"], found["low"], found["high"]) == (sum(finals) / 2, min(finals), max(finals))


def test_plot_averages_the_last_tests_and_tabulates_training(runs: Path, tmp_path: Path) -> None:
    command("plot", f"runs='{runs}/**'", f"out={tmp_path}", "last=2", "also=[train/epsilon]")
    (group,) = json.loads((tmp_path / "summary.json").read_text())
    lengths = []
    for folder in folders(runs):
        by_step = {row["env_steps"]: row["eval/length"] for row in rows(folder, "eval")}  # the final test replaces
        lengths.append(sum(list(by_step.values())[-2:]) / 2)
    assert group["metrics"]["eval/length"]["per_seed"] == pytest.approx(lengths)
    epsilons = [rows(folder, "metrics")[-1]["train/epsilon"] for folder in folders(runs)]
    assert group["metrics"]["train/epsilon"]["per_seed"] == pytest.approx(epsilons)


def test_plot_publishes_results_that_say_how_they_came_about(runs: Path, tmp_path: Path) -> None:
    command("plot", f"runs='{runs}/**'", f"out={tmp_path / 'plots'}", f"results={tmp_path / 'docs' / 'study.json'}")
    found = json.loads((tmp_path / "docs" / "study.json").read_text())
    metas = [json.loads((folder / "meta.json").read_text()) for folder in folders(runs)]
    assert found["name"] == "study" and found["commits"] == [metas[0]["commit"]]
    assert found["commands"] == sorted(meta["command"] for meta in metas) and len(set(found["commands"])) == 2
    for seed, line in enumerate(found["commands"]):
        assert line.startswith("python -m scripts.train env=toy/corridor ") and f" seed={seed} " in line
    assert found["table"].startswith("python -m scripts.plot \"runs='") and str(tmp_path / "docs") in found["table"]
    assert found["groups"] == json.loads((tmp_path / "plots" / "summary.json").read_text())
    assert found["groups"][0]["seeds"] == [0, 1] and found["physics"] == [1]
    assert len(found["groups"][0]["metrics"]["eval/return"]["per_seed"]) == 2
    with Image.open(tmp_path / "docs" / "study.png") as picture:
        assert picture.width > 300


def test_plot_refuses_results_without_a_json_name(runs: Path, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stopped:
        command("plot", f"runs='{runs}/**'", f"out={tmp_path}", f"results={tmp_path / 'study.txt'}")
    assert stopped.value.code == 2 and "study.txt must end in .json" in capsys.readouterr().err


def test_record_refuses_other_pictures(runs: Path, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stopped:
        command("record", f"run='{folders(runs)[0]}'", f"out={tmp_path / 'film.mp4'}")
    assert stopped.value.code == 2 and "film.mp4 must end in .gif" in capsys.readouterr().err


def test_record_films_an_episode(runs: Path, tmp_path: Path) -> None:
    film = tmp_path / "film.gif"
    command("record", f"run='{folders(runs)[0]}'", f"out={film}", "episodes=2", "fps=10", RESTLESS)
    with Image.open(film) as gif:
        frames, durations = [], []
        for i in range(gif.n_frames):
            gif.seek(i)
            frames.append(gif.convert("RGB").tobytes())
            durations.append(gif.info["duration"])
        zoom, line = 3, 18 + 4  # 96 pixels are enlarged to at least 240; a line of text below
        assert gif.width == 360 and gif.height == zoom * 2 * 24 + line
    assert len(frames) > 2 and len(set(frames)) > 1
    assert durations[0] == 100 and durations[-1] >= 1500, "the outcome stays on screen"


def test_record_shows_who_is_hit(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = tmp_path / "film.gif"
    command("record", f"run='{folders(runs)[0]}'", f"out={film}", "attack=random", "attack.p=0.9")
    with Image.open(film) as gif:
        first = np.array(gif.convert("RGB")).astype(int)
        assert gif.width == 360 and gif.height > 2 * 24
    red, green, blue = first.transpose(2, 0, 1)
    assert ((red - green > 120) & (blue - green > 60)).any(), "nobody is marked"
    assert " of them attacked" in capsys.readouterr().out


def test_evaluate_counts_hits_and_changes_single_values_of_the_environment(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = folders(runs)[0]
    out = tmp_path / "a.json"
    command("evaluate", f"run='{run}'", f"out={out}", "episodes=8", "attack=fgsm", "+env_options.episode_limit=5")
    result = json.loads(out.read_text())
    assert max(result["episodes"]["length"]) == 5
    assert result["episodes"]["hit_actions"] == [2 * hits for hits in result["episodes"]["hits"]]
    assert result["hits"]["mean"] == pytest.approx(np.mean(result["episodes"]["hits"])) and result["hits"]["mean"] > 1
    with pytest.raises(SystemExit) as stopped:
        command("evaluate", f"run='{run}'", "+env_options.ally_health=0.85")
    assert stopped.value.code == 2
    assert "env.ally_health is not an option of Corridor, which takes n_agents" in capsys.readouterr().err


def bench(out: Path, *arguments: str) -> list[dict[str, Any]]:
    command("bench", *TINY, "seconds=0.02", f"out={out}", *arguments)
    return json.loads(out.read_text())


def test_bench_measures_every_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = bench(tmp_path / "bench.json", "threads=1")
    rows = [row for row in ROWS[1:] if row != "attack"]  # there is none
    assert list(dict.fromkeys(row["name"].partition(":")[0] for row in measured if row["name"] != "env_random")) == rows
    assert [row["lanes"] for row in measured if row["name"] == "env_random"] == [1, 32, 1024]
    for row in measured:
        assert {"name", "lanes", "threads", "value", "unit"} <= row.keys()
        assert row["value"] > 0 and row["threads"] == 1 and row["unit"], row
    held = {row["name"]: row.get("peak_mib", row["value"]) for row in measured}
    assert 50 < held["train"] <= held["memory"], "MiB; torch alone takes more than 50"
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("env_random", *rows))
    shares = {
        row["name"].removeprefix("shares: "): row["value"] for row in measured if row["name"].startswith("shares")
    }
    assert {"environment", "policy", "storing", "sampling", "forward", "backward", "optimizer"} <= shares.keys()
    assert sum(shares.values()) == pytest.approx(100.0)


@pytest.mark.parametrize("only", ["env_random", "update", "memory"])
def test_bench_measures_one_row(only: str, tmp_path: Path) -> None:
    assert {row["name"] for row in bench(tmp_path / "bench.json", f"only={only}", "threads=1")} == {only}


def test_a_gpu_has_done_its_work_when_the_clock_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU is handed work and does it later: what is timed begins and ends with waiting for it."""
    waits, clock = [], time.perf_counter
    with pretended_gpu():
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: waits.append(clock()))
        (row,) = bench(tmp_path / "bench.json", "only=update", "threads=1", "device=cuda")
    assert row["device"] == "cuda, a pretended one" and len(waits) == 2 and waits[1] - waits[0] >= 0.02


class FakeYardstick:
    """A simulator of which ``lanes`` x 100 steps take half a second and a quarter of a CPU second."""

    name = "OTHER"

    def __init__(self, missing: str | None, broken: bool) -> None:
        self.missing, self.broken = missing, broken

    def absent(self) -> str | None:
        return self.missing

    def measure(self, lanes: int, threads: int, seconds: float) -> tuple[float, float, float]:
        if self.broken and lanes > 1:
            raise RuntimeError("fell over")
        return 100 * lanes, 0.5, 0.25


def beside(env: Any, missing: str | None, broken: bool) -> FakeYardstick | None:
    return FakeYardstick(missing, broken) if env["_target_"] == "envs.toys.games.Corridor" else None


def bench_beside(out: Path, *arguments: str, missing: str = "null", broken: bool = False) -> list[dict[str, Any]]:
    """Rows of the yardstick beside the environment, among those of a bench of the environment alone."""
    target = ["yardstick._target_=tests.scripts.test_scripts.beside", f"+yardstick.missing={missing}"]
    measured = bench(out, *target, f"+yardstick.broken={broken}", "only=env_random", *arguments)
    ours = [row for row in measured if row["name"] == "env_random"]
    assert [row["lanes"] for row in ours] == [1, 32, 1024] * (len(ours) // 3) and ours
    assert all(row["per_cpu_s"] > 0 for row in ours)
    return [row for row in measured if row["name"] != "env_random"]


def test_bench_measures_a_yardstick_beside_the_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bench.json"
    other = bench_beside(out, "threads=1")
    assert [(row["name"], row["lanes"], row["threads"], row["value"], row["per_cpu_s"]) for row in other] == [
        ("env_random OTHER", lanes, 1, 200 * lanes, 400 * lanes) for lanes in (1, 32, 1024)
    ]
    assert "204,800.0" in capsys.readouterr().out
    assert bench_beside(out, "env=toy/kstep", "threads=1") == [], "another game"
    assert "OTHER" not in capsys.readouterr().out
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)
    assert bench_beside(out, missing="'install it'") == []
    assert capsys.readouterr().out.count("OTHER: install it\n") == 1, "one line, not one per number of threads"
    assert [row["lanes"] for row in bench_beside(out, "threads=1", broken=True)] == [1]
    assert "OTHER: fell over\n" in capsys.readouterr().out


def test_smax_is_the_yardstick_of_the_battle(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named for a battle alone; what is not installed, or no scenario of its, is said in a line."""
    battle = {"_target_": "envs.skirmish.Skirmish"}
    assert smax.beside({"_target_": "envs.toys.games.Corridor", "length": 4}) is None
    here = smax.beside({**battle, "map": "2s3z"})
    assert here is not None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert here.absent() == "install with pip install -e .[smax]"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert here.absent() is None
    reason = smax.Smax("MMM2").absent()
    assert reason is not None and "no scenario MMM2" in reason and "3m, 8m" in reason
    with pytest.raises(RuntimeError, match=r"envs\.adapters\.smax nowhere 1 1 0\.1 failed: "):
        smax.Smax("nowhere").measure(1, 1, 0.1)


@pytest.mark.skipif(importlib.util.find_spec("jaxmarl") is None, reason="needs pip install -e .[smax]")
def test_smax_runs() -> None:
    """Every scenario listed here is one of the package's; a few steps on one thread take about one CPU."""
    code = f"from jaxmarl.environments.smax import map_name_to_scenario as find; [find(m) for m in {smax.MAPS!r}]"
    assert subprocess.run([sys.executable, "-c", code], timeout=600).returncode == 0
    steps, wall, cpu = smax.Smax("3m").measure(8, 1, 0.2)
    assert steps >= 2048 and wall >= 0.2 and 0 < cpu < 1.2 * wall
