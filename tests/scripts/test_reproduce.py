"""Published tables from nothing: sweeps become runs, each recipe is sound, and a stopped one continues."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

from marl.core.config import register
from marl.core.types import ConfigError
from marl.run.compose import choices, register_configs
from marl.run.trees import beside, named_by
from scripts.reproduce import Command, check, finds, measurement, refuse_moved, report, runs_of
from tests.support.helpers import TINY
from tests.support.processes import ROOT
from tests.support.processes import run as quick
from tests.support.processes import start as begun

TABLES = choices("table")
# earlier forms of what a recipe now measures at once: further seeds and methods that were run later
PARTS = {"s2q_shift_more": "s2q_shift", "spread_more": "spread_small", "sparse_battle_more": "sparse_battle_small"}


def test_a_sweep_becomes_its_runs_in_order() -> None:
    runs = runs_of("algo=vdn,qmix seed='range(1,3)' +x=\"'a,b'\" env.sizes=[1,2]", ["train.n_envs=4"])
    assert [run.words for run in runs] == [
        ("algo=vdn", "seed=1", "+x='a,b'", "env.sizes=[1,2]", "train.n_envs=4"),
        ("algo=vdn", "seed=2", "+x='a,b'", "env.sizes=[1,2]", "train.n_envs=4"),
        ("algo=qmix", "seed=1", "+x='a,b'", "env.sizes=[1,2]", "train.n_envs=4"),
        ("algo=qmix", "seed=2", "+x='a,b'", "env.sizes=[1,2]", "train.n_envs=4"),
    ]


def test_an_override_replaces_the_same_key_of_a_sweep() -> None:
    """It would multiply the runs otherwise: each with two seeds, the last of which counts."""
    runs = runs_of("algo=vdn,qmix seed=range(3) name=a", ["seed=7,8", "name=b", "threads=1"])
    assert [run.words for run in runs] == [
        (algo, f"seed={seed}", "name=b", "threads=1") for algo in ("algo=vdn", "algo=qmix") for seed in (7, 8)
    ]
    assert [run.words for run in runs_of("seed=range(3)", ["seed=0,1", "seed=5"])] == [("seed=5",)]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("runs/a/**", True), ("runs/a", True), ("runs/*/*/vdn-none/seed*", True), ("runs/a/x/vdn-none/seed[01]", True),
        ("runs/**/seed*", True), ("runs/**/lr=[12]-seed0", False), ("runs/*/seed*", False), ("runs/a/x/*/a*", False),
        ("runs/b/**", False), ("runs/a/x/vdn-none/seed0/checkpoints", False), ("", False),
    ],
)  # fmt: skip
def test_a_pattern_finds_the_folders_of_runs_that_are_not_there_yet(pattern: str, found: bool) -> None:
    assert finds(pattern, Path("runs/a/x/vdn-none/seed0")) == found
    assert finds(f"{Path.cwd()}/{pattern}", Path("runs/a/x/vdn-none/seed0")) == (found or not pattern)


LINES = ("experiment=s2q_shift algo=qmix,s2q seed=range(2)", "experiment=s2q_shift algo=s2q algo.learner.lr=0.1 seed=0")
LOOKS = {"a": "plot runs='runs/s2q_shift/*/*/seed*'", "b": "robustness runs=[{name:x,path:'runs/s2q_shift/*/*/algo*'}]"}


@pytest.mark.parametrize("override", ["name=x", "train.n_envs=8", "runs_dir=elsewhere", "algo.learner.lr=1.0"])
def test_overrides_that_move_runs_from_where_they_are_measured_are_refused(override: str) -> None:
    measured = {name: measurement(name, line, Path("out"), 1) for name, line in LOOKS.items()}
    with pytest.raises(ConfigError) as refused:
        refuse_moved(LINES, [override, "seed=0"], measured)
    said = str(refused.value)
    assert said.startswith(f"overrides: {override} would train ") and "\n" not in said
    assert "where table.measure.a does not look; it looks for runs/s2q_shift/*/*/seed*." in said
    refuse_moved(LINES, [override], {})


@pytest.mark.parametrize("override", ["algo=fox", "log.to=[]", "train.total_steps=90", "seed=5,6"])
def test_overrides_that_leave_runs_where_they_are_measured_are_not(override: str) -> None:
    measured = {name: measurement(name, line, Path("out"), 1) for name, line in LOOKS.items()}
    refuse_moved(LINES, ["device=cpu", override], measured)


def test_a_recipe_whose_runs_would_be_missed_trains_nothing(tmp_path: Path) -> None:
    done = quick("reproduce", "table=s2q_tenfold", "overrides=['name=x']", cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "would train runs/x/" in done.stderr and "table.measure.s2q_tenfold does not look" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_measurements_are_told_where_to_write_and_how_many_at_once() -> None:
    assert measurement("a", "crossplay study=x", Path("out"), 3) == Command(
        "crossplay", ("study=x", "jobs=3", "results=out/a.json")
    )
    assert measurement("b", "plot runs='x/**' last=10", Path("out"), 3).words == (
        "runs=x/**", "last=10", "results=out/b.json",
    )  # fmt: skip


def test_commands_know_the_folders_of_the_one_that_starts_them(tmp_path: Path) -> None:
    with beside(named_by([], str(tmp_path))):
        assert Command("train", ("seed=1",)).argv[2:] == [
            "scripts.train",
            "seed=1",
            f"hydra.searchpath=['file://{tmp_path}']",
        ]
    assert Command("train", ("seed=1",)).argv[2:] == ["scripts.train", "seed=1"]


def test_the_report_is_of_all_runs_and_of_the_matrices_that_are_measured() -> None:
    sweeps = [runs_of("algo=vdn seed=0,1 algo.learner.lr=0.1", []), runs_of("algo=qmix name=b", [])]
    lines = {"a": "robustness study=x", "b": "plot runs=x", "c": "crossplay study=y", "d": "robustness study=z"}
    measured = [measurement(name, line, Path("out"), 1) for name, line in lines.items()]
    (command,) = report(sweeps, measured, Path("out/x.html"))
    path = "runs/default/skirmish-3m/vdn-none/algo.learner.lr=0.1-seed"
    assert command == Command(
        "report",
        (f"runs=['{path}0','{path}1',runs/b/skirmish-3m/qmix-none/seed0]", "robustness=[out/a.json,out/d.json]",
         "crossplay=[out/c.json]", "out=out/x.html", "title=x"),
    )  # fmt: skip
    assert report([], [measured[1]], Path("x.html")) == [], "there is nothing to show"
    (only,) = report([], [measured[0]], Path("x.html"))
    assert only.words == ("robustness=[out/a.json]", "out=x.html", "title=x")


@pytest.mark.parametrize("table", TABLES)
def test_every_recipe_is_sound(table: str) -> None:
    register()
    register_configs()
    with initialize_config_module("conf", version_base="1.3"):
        recipe = compose("reproduce", overrides=[f"table={table}"]).table
        sweeps = [runs_of(sweep, []) for sweep in recipe.train]
        check([sweep[0] for sweep in sweeps] + [measurement(n, m, Path("x"), 1) for n, m in recipe.measure.items()])
    every = [run for sweep in sweeps for run in sweep]
    assert len(set(every)) == len(every)
    words = {tuple(word.split("=", 1)) for run in every for word in run.words}
    for group in ("experiment", "env", "algo"):
        assert {name for key, name in words if key == group} <= set(choices(group))


def test_every_published_table_has_its_recipe() -> None:
    register()
    with initialize_config_module("conf", version_base="1.3"):
        made = {name for table in TABLES for name in compose("reproduce", overrides=[f"table={table}"]).table.measure}
    published = {path.stem for path in (ROOT / "docs" / "results").glob("*.json")}
    assert published - made == set(PARTS)
    assert set(PARTS.values()) <= made


# processes in a folder of their own: real ones where they are stopped


def words_of(sweep: str, *options: str, measure: str = "plot runs=runs/**") -> tuple[str, ...]:
    return (
        "table=s2q_tenfold", f"table.train=['{sweep}']", f"table.measure={{s2q_tenfold: '{measure}'}}", "jobs=2",
        f"overrides={list(TINY)}", "report=false", *options,
    )  # fmt: skip


def start(folder: Path, sweep: str, *options: str) -> subprocess.Popen[str]:
    return begun("reproduce", *words_of(sweep, *options), cwd=folder)


def run(folder: Path, sweep: str, *options: str, measure: str = "plot runs=runs/**") -> tuple[int, str]:
    """Run a table to its end, and the scripts that it starts, in forks; return its exit code and what it said."""
    done = quick("reproduce", *words_of(sweep, *options, measure=measure), cwd=folder)
    said = done.stdout + done.stderr
    assert "Traceback" not in said, said
    return done.returncode, said


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=600)
    assert "Traceback" not in output, output
    return output


def test_a_table_is_trained_and_measured_and_nothing_is_done_twice(tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="a report needs plotly: pip install -e .[report]")
    code, output = run(tmp_path, "algo=vdn,qmix seed=0", "report=true")
    assert code == 0, output
    page = (tmp_path / "outputs/tables/s2q_tenfold.html").read_text(encoding="utf8")
    assert "2 runs in 2 groups and 1 environment; none left out." in page and page.count('class="player"') == 2
    done = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("DONE")}
    document = json.loads((tmp_path / "outputs/tables/s2q_tenfold.json").read_text())
    assert len(done) == 2 and {group["group"][:4] for group in document["groups"]} == {"vdn ", "qmix"}
    code, output = run(tmp_path, "algo=vdn,qmix seed=0", "jobs=1")
    assert code == 0, output
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("DONE")} == done


def test_a_run_that_fails_is_named_and_nothing_is_measured(tmp_path: Path) -> None:
    code, output = run(tmp_path, "algo=vdn init_from=null,runs/nowhere", "jobs=1")
    assert code == 1
    assert (
        "1 of 2 runs did not finish" in output
        and "init_from=runs/nowhere" in output
        and "is not a run folder" in output
    )
    assert len(list(tmp_path.rglob("DONE"))) == 1 and not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("sweep", "measure", "said"),
    [
        ("algo=vdn algo.nonsense=1", "plot runs=runs/**", "algo.nonsense"),
        ("algo=vdn,ippo algo.batch_size=8 train.n_envs=8", "plot runs=runs/**", "algo.batch_size"),
        ("algo=vdn", "plot nonsense=1", "nonsense"),
        ("algo=vdn", "scatter runs=runs/**", "scatter"),
    ],
)
def test_a_recipe_that_is_wrong_is_refused_before_anything_starts(
    sweep: str, measure: str, said: str, tmp_path: Path
) -> None:
    code, output = run(tmp_path, sweep, measure=measure)
    assert code == 2 and said in output and len(output.strip().splitlines()) == 1, output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_stop_lets_the_runs_in_hand_save_and_the_same_command_continues(jobs: int, tmp_path: Path) -> None:
    def words(total: int) -> tuple[str, str, str]:
        return "algo=vdn seed=0,1,2", f"overrides={[*TINY, f'train.total_steps={total}']}", f"jobs={jobs}"

    process = start(tmp_path, *words(99999999))
    deadline = time.monotonic() + 600
    while len(list(tmp_path.rglob("metrics.jsonl"))) < jobs:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output = finish(process)
    assert process.returncode == 0 and "stopped by SIGINT; the same command continues" in output, output
    saved = {path.parent.parent.name: path.name for path in tmp_path.rglob("checkpoints/step_*")}
    assert len(saved) == jobs and not (tmp_path / "outputs").exists()
    code, output = run(tmp_path, *words(400))
    assert code == 0, output
    logs = {path.parent.name: path.read_text() for path in tmp_path.rglob("train.log")}
    assert len(logs) == 3 and (tmp_path / "outputs/tables/s2q_tenfold.json").exists()
    assert {seed for seed, log in logs.items() if "continuing at step" in log} == set(saved)


def test_a_run_that_somebody_else_stopped_is_not_taken_for_finished(tmp_path: Path) -> None:
    process = start(tmp_path, "algo=vdn seed=0", f"overrides={[*TINY, 'train.total_steps=99999999']}")
    deadline = time.monotonic() + 600
    while not list(tmp_path.rglob("metrics.jsonl")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    subprocess.run(["pkill", "-TERM", "-P", str(process.pid), "-f", "scripts.train"], check=True)
    output = finish(process)
    assert process.returncode == 1 and "stopped by SIGTERM" in output and not (tmp_path / "outputs").exists(), output
