"""Plots over run folders made by hand: which runs are averaged, under which names, and with which intervals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

from marl.core.intervals import bootstrap_interval
from marl.core.types import ConfigError
from marl.show.gather import gather
from marl.show.plot import band, learning_curves, on_grid, summary
from tests.support.helpers import command

QMIX = "study/toy-corridor/qmix-none"


def make_run(runs: Path, path: str = QMIX, seed: int = 0, win_rate: float = 0.5, steps: int = 1000) -> Path:
    """Make a run of 1,000 steps that has come to step ``steps``; its return is ten times its win rate."""
    folder = runs / path / f"seed{seed}"
    folder.mkdir(parents=True)
    config = {"seed": seed, "run_path": f"{path}/seed{seed}", "train": {"total_steps": 1000, "n_envs": 8}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "meta.json").write_text(json.dumps({"commit": "c0ffee", "command": f"train seed={seed}"}))
    for step in {steps // 2, steps}:
        row = {"env_steps": step, "eval/win_rate": win_rate, "eval/return": 10 * win_rate}
        with (folder / "eval.jsonl").open("a") as out:
            out.write(json.dumps(row) + "\n")
    (folder / "metrics.jsonl").write_text(json.dumps({"env_steps": steps, "train/epsilon": 0.1}) + "\n")
    if steps >= 1000:
        (folder / "DONE").write_text(json.dumps({"env_steps": steps}))
    return folder


def plot(runs: Path, *options: str) -> list[dict[str, Any]]:
    """Run the script on everything below ``runs``; return its summary."""
    out = runs.parent / "plots"
    command("plot", f"runs='{runs}/**'", f"out={out}", *options)
    found: list[dict[str, Any]] = json.loads((out / "summary.json").read_text())
    return found


def refused(runs: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """Return the one line with which the script refuses; it has written nothing."""
    before = sorted(runs.parent.rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        plot(runs, *options)
    shown = capsys.readouterr()
    assert stopped.value.code == 2 and not shown.out and sorted(runs.parent.rglob("*")) == before
    (line,) = shown.err.splitlines()
    assert line.startswith("error: ")
    return line


def groups(runs: Path) -> dict[str, list[float]]:
    """Return the win rates of each group's seeds."""
    found = summary(gather(f"{runs}/**")[0])
    return {group["group"]: group["metrics"]["eval/win_rate"]["per_seed"] for group in found}


# names of groups


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["slow/x/toy-corridor/qmix-none", "fast/x/toy-corridor/qmix-none"], ["fast/x qmix", "slow/x qmix"]),
        (["x/toy-corridor/qmix-none", "default/toy-corridor/qmix-none"], ["qmix", "x qmix"]),
        ([QMIX, f"old/{QMIX}"], ["old/study qmix", "study qmix"]),
    ],
)
def test_a_group_is_named_by_the_whole_study(tmp_path: Path, paths: list[str], expected: list[str]) -> None:
    for k, path in enumerate(paths):
        make_run(tmp_path / "runs", path, win_rate=float(k))
    found = groups(tmp_path / "runs")
    assert sorted(found) == expected and sorted(found.values()) == [[0.0], [1.0]]


def test_equal_studies_in_different_folders_are_told_apart(tmp_path: Path) -> None:
    """Two folders of runs, and a study that was moved; seeds of one study stay together, the other group is itself."""
    for k, runs in enumerate(("here", "there", "there/old")):
        make_run(tmp_path / "runs" / runs, seed=0, win_rate=k / 2)
        make_run(tmp_path / "runs" / runs, seed=1, win_rate=k / 2)
    make_run(tmp_path / "runs" / "here", "study/toy-corridor/vdn-none")
    (tmp_path / "runs" / "there" / "old" / "study").rename(tmp_path / "runs" / "there" / "old" / "renamed")
    assert groups(tmp_path / "runs") == {
        "here: study qmix": [0.0, 0.0], "there: study qmix": [0.5, 0.5], "there/old/renamed: study qmix": [1.0, 1.0],
        "study vdn": [0.5],
    }  # fmt: skip


def test_runs_in_folders_of_their_own_are_seeds_of_one_group(tmp_path: Path) -> None:
    for seed in (0, 1, 10, 2):
        make_run(tmp_path / "made", seed=seed, win_rate=seed / 10)
        (tmp_path / "runs").mkdir(exist_ok=True)
        (tmp_path / "made" / QMIX / f"seed{seed}").rename(tmp_path / "runs" / f"mine{seed}")
    assert groups(tmp_path / "runs") == {"study qmix": [0.0, 0.1, 0.2, 1.0]}


def test_equal_seeds_in_a_group_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "runs")
    copy = make_run(tmp_path / "copy")
    copy.rename(run.with_name("seed0_copy"))
    line = refused(tmp_path / "runs", capsys)
    assert f"{run} and {run}_copy are both seed 0 of study qmix in toy-corridor" in line


# runs that are left out


def test_unfinished_seeds_are_left_out_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "runs", seed=0, win_rate=1.0)
    stopped = make_run(tmp_path / "runs", seed=1, win_rate=0.0, steps=400)
    untested = make_run(tmp_path / "runs", seed=2, steps=10)
    (untested / "eval.jsonl").unlink()
    extended = make_run(tmp_path / "runs", seed=3, win_rate=0.0)
    (extended / "config.json").write_text((extended / "config.json").read_text().replace("1000", "5000"))
    (group,) = plot(tmp_path / "runs")
    assert (group["seeds"], group["unfinished"], group["metrics"]["eval/win_rate"]["mean"]) == ([0], [], 1.0)
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"left out: {stopped}: unfinished, at step 400 of 1,000",
        f"left out: {untested}: unfinished, at step 10 of 1,000",
        f"left out: {extended}: unfinished, at step 1,000 of 5,000",
    ]


def test_unfinished_seeds_are_taken_in_where_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "runs", seed=0, win_rate=1.0)
    stopped = make_run(tmp_path / "runs", seed=1, win_rate=0.0, steps=400)
    with (stopped / "eval.jsonl").open("a") as out:
        out.write('{"env_steps": 40')  # killed while it wrote
    (group,) = plot(tmp_path / "runs", "unfinished=true")
    assert (group["seeds"], group["unfinished"], group["metrics"]["eval/win_rate"]["mean"]) == ([0, 1], [1], 0.5)
    shown = capsys.readouterr()
    assert not shown.err and "[0.000, 1.000]  n=2, 1 unfinished" in shown.out


def test_the_picture_says_how_many_are_unfinished(tmp_path: Path) -> None:
    rows = [{"env_steps": step, "eval/return": 1.0} for step in (0, 100)]
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        learning_curves({"a": [rows, rows], "b": [rows]}, tmp_path / "curves.svg", short={"a": 1, "b": 0})
    drawn = (tmp_path / "curves.svg").read_text()
    assert "a (2 seeds, 1 unfinished)" in drawn and "b (1 seed)" in drawn


def scored(*points: tuple[int, float]) -> list[dict[str, Any]]:
    return [{"env_steps": step, "eval/return": value} for step, value in points]


def test_a_seed_that_has_barely_begun_leaves_the_curve_of_the_others(tmp_path: Path) -> None:
    whole, begun, none = scored((0, 0.0), (100, 1.0)), scored((0, 0.0)), scored()
    late, later = scored((200, 0.0), (300, 1.0)), scored((90, 0.9), (250, 0.0))
    for runs, ends, count in (
        ([whole, begun, whole], (0, 100), 2), ([begun, whole, none], (0, 100), 1), ([late, whole, whole], (0, 100), 2),
        ([whole, late], (0, 100), 1), ([late, later, whole], (200, 250), 2), ([begun, none], None, 0),
    ):  # fmt: skip
        x, values = on_grid(runs, "eval/return")
        assert len(values) == count and (ends is None or (x[0], x[-1]) == ends) and (np.diff(x) > 0).all()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        groups = {"a": [whole, begun], "b": [begun], "c": [none], "d": [whole, whole]}
        learning_curves(groups, tmp_path / "curves.svg", short={"a": 1, "b": 1})
    drawn = (tmp_path / "curves.svg").read_text()
    for text in ("a (1 of 2 seeds, 1 unfinished)", "b (0 of 1 seed, 1 unfinished)", "d (2 seeds)"):
        assert text in drawn
    assert "c (" not in drawn


@pytest.mark.parametrize(
    ("file", "text", "why"),
    [
        ("config.json", None, "config.json is damaged or missing"),
        ("config.json", "", "config.json is damaged or missing"),
        ("config.json", "[1]", "config.json is damaged or missing"),
        ("config.json", '{"seed": 0}', "config.json is damaged or missing"),
        ("DONE", "", "DONE is damaged or missing"),
        ("eval.jsonl", '{"env_steps": 1}\n{"env_ste', "eval.jsonl is damaged in line 2"),
        ("eval.jsonl", '{"note": 1}\n', "eval.jsonl is damaged in line 1"),
        ("eval.jsonl", '{"env_steps": 1, "eval/return": "high"}\n', "eval.jsonl is damaged in line 1"),
        ("eval.jsonl", "5\n\udcff", "eval.jsonl is damaged in line 1"),
        ("eval.jsonl", "", "it has no test results"),
        ("metrics.jsonl", "[]\n", "metrics.jsonl is damaged in line 1"),
        ("meta.json", "{}", "meta.json is damaged or missing"),
    ],
)
def test_a_damaged_run_is_left_out_by_name(tmp_path: Path, file: str, text: str | None, why: str) -> None:
    bad = make_run(tmp_path)
    if text is None:
        (bad / file).unlink()
    else:
        (bad / file).write_text(text, errors="surrogateescape")
    with pytest.raises(ConfigError, match=rf"none of 1 run folder can be averaged: {bad}: {why}"):
        gather(f"{tmp_path}/**", also=("train/epsilon",), metas=True)
    make_run(tmp_path, seed=1, win_rate=0.75)
    tasks, (left,) = gather(f"{tmp_path}/**", also=("train/epsilon",), metas=True)
    (group,) = summary(tasks)
    assert (group["seeds"], group["metrics"]["eval/win_rate"]["per_seed"]) == ([1], [0.75])
    assert left.folder == bad and left.why.startswith(why)


def test_the_script_says_what_it_leaves_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = make_run(tmp_path / "runs")
    (bad / "config.json").write_text("")
    assert f"{bad}: config.json is damaged" in refused(tmp_path / "runs", capsys)
    make_run(tmp_path / "runs", seed=1)
    plot(tmp_path / "runs", f"results={tmp_path / 'results' / 'table.json'}")
    assert capsys.readouterr().err.startswith(f"left out: {bad}: config.json is damaged")
    (left,) = json.loads((tmp_path / "results" / "table.json").read_text())["left_out"]
    assert left.startswith(f"{bad}: config.json is damaged")


# intervals


def test_the_bootstrap_interval_by_hand() -> None:
    """The mean of four draws from 0, 0, 0, 4 is the number of fours: 0 in 0.32, at most 2 in 0.949, at most 3 in 0.996
    of all draws."""
    found = bootstrap_interval(np.array([0.0, 0.0, 0.0, 4.0]))
    assert (found.mean, found.low, found.high, found.n) == (1.0, 0.0, 3.0, 4)
    assert bootstrap_interval(np.array([3.0])).as_dict() == {"mean": 3.0, "low": None, "high": None, "n": 1}


def test_intervals_lie_within_the_runs(tmp_path: Path) -> None:
    """Two seeds with returns 0 and 3: Student's t would reach from -17.6 to 20.6, and from -1.8 to 2.1 for the rate."""
    values = np.random.default_rng(1).random((5, 40))
    mean, low, high = band(values)
    assert (values.min(0) <= low).all() and (low < mean).all() and (mean < high).all() and (high <= values.max(0)).all()
    for seed, win_rate in enumerate((0.0, 0.3)):
        make_run(tmp_path / "runs", seed=seed, win_rate=win_rate)
    (group,) = summary(gather(f"{tmp_path}/runs/**")[0])
    for name, most in (("eval/win_rate", 0.3), ("eval/return", 3.0)):
        assert (group["metrics"][name]["low"], group["metrics"][name]["high"]) == (0.0, most)


# what is refused before work


def test_places_that_take_no_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The runs are damaged: what is said about the place is said before they are read."""
    (make_run(tmp_path / "runs") / "config.json").write_text("")
    (tmp_path / "file").touch()
    (tmp_path / "folder.json").mkdir()
    for option, why in {
        f"out={tmp_path}/file": f"out={tmp_path}/file cannot be written: {tmp_path}/file is a file",
        f"out={tmp_path}/file/a/b": f"{tmp_path}/file is a file",
        "out=/proc/plots": "out=/proc/plots cannot be written: /proc takes no files",
        f"results={tmp_path}/file/table.json": f"results={tmp_path}/file/table.json cannot be written: {tmp_path}/file",
        f"results={tmp_path}/folder.json": "is a folder, not a file",
    }.items():
        assert why in refused(tmp_path / "runs", capsys, option)


def test_scalars_that_no_run_has_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "runs")
    for option in ("metrics", "also"):
        line = refused(tmp_path / "runs", capsys, f"{option}=[eval/winrate]")
        assert f"{option}: no run has the scalar eval/winrate; there are eval/return, eval/win_rate" in line
