"""What plot writes of statistics: figures in three formats, a LaTeX table, JSON for marl-eval, and the numbers."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from marl.core.types import ConfigError
from marl.show import latex, marl_eval, statistics_figures
from marl.show.gather import Run
from marl.show.plot import save_pictures
from marl.show.statistics import aggregate
from tests.marl.show.test_plot import make_run, refused
from tests.support.helpers import command
from tests.support.statistics_parts import RETURN, WON, aggregate_by_hand, rliable, run

FIGURES = ("intervals", "profile", "improvement", "efficiency")

# figures


def test_each_figure_is_written_in_each_format(tmp_path: Path) -> None:
    found = statistics_figures.draw(aggregate_by_hand(), tmp_path, ("png", "pdf", "svg"))
    assert [path.name for path in found] == [
        f"{name}_win_rate.{end}" for name in FIGURES for end in ("png", "pdf", "svg")
    ]
    for png, pdf, svg in zip(found[::3], found[1::3], found[2::3], strict=True):
        with Image.open(png) as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        blue, orange = pixels[..., 2] - pixels[..., 0], pixels[..., 0] - pixels[..., 2]
        assert (blue > 60).sum() > 50, f"{png.name} has nothing of the first method"
        assert (orange > 60).sum() > 50 or "improvement" in png.name, f"{png.name} has nothing of the second method"
        content = pdf.read_bytes()
        assert content.startswith(b"%PDF-") and content.rstrip().endswith(b"%%EOF")
        assert b"/FontFile2" in content and b"/Type3" not in content, "letters must stay letters"
        assert ElementTree.parse(svg).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_equal_figures_are_equal_files(tmp_path: Path) -> None:
    paths = [
        save_pictures(statistics_figures.profiles(aggregate_by_hand()), tmp_path / name / "a.png", ("pdf", "svg"))
        for name in ("one", "two")
    ]
    assert [path.read_bytes() for path in paths[0]] == [path.read_bytes() for path in paths[1]]


def test_figures_show_every_method_and_number(tmp_path: Path) -> None:
    figure = statistics_figures.intervals(aggregate_by_hand())
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["IQM", "median", "mean", "optimality gap"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["study qmix", "study vdn"]
    bars = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in figure.axes[0].patches]
    assert bars == [(0.625, 0.875), (0.375, 0.625)]
    assert figure.axes[0].get_xlim() == pytest.approx((0.375 - 0.03, 0.875 + 0.03))
    (pair,) = statistics_figures.improvements(aggregate_by_hand()).axes[0].get_yticklabels()
    assert pair.get_text() == "study qmix\n> study vdn"
    assert not statistics_figures.intervals(aggregate_by_hand(single=True)).axes[0].patches


def test_an_empty_aggregate_has_no_figures(tmp_path: Path) -> None:
    whole = aggregate_by_hand()
    for held in (whole.intervals, whole.pairs, whole.curves):
        held.clear()  # type: ignore[attr-defined]
    assert statistics_figures.draw(whole, tmp_path) == [] and list(tmp_path.iterdir()) == []


def test_the_terminal_shows_a_line_for_each_method() -> None:
    first, _ = statistics_figures.lines(aggregate_by_hand())
    assert first.startswith("study qmix  eval/win_rate  2 tasks, 2 seeds:  IQM 0.750 [0.625, 0.875]  median 0.750 [0.6")
    assert next(statistics_figures.lines(aggregate_by_hand(single=True))).endswith(
        "2 tasks, 1 seed:  IQM 0.750  median 0.750  mean 0.750  optimality gap 0.750"
    )


# LaTeX


def group(name: str, task: str, mean: float, ends: tuple[float | None, float | None]) -> dict[str, Any]:
    return {"group": name, "task": task, "metrics": {WON: {"mean": mean, "low": ends[0], "high": ends[1], "n": 2}}}


DOCUMENT = [
    group("study qmix", "toy-corridor", 0.5, (0.25, 0.75)),
    group("study qmix", "toy-shift", 1.0, (1.0, 1.0)),
    group("study_2 50% [vdn]", "toy-corridor", -0.125, (None, None)),
]


def test_a_latex_table_by_hand() -> None:
    made = latex.table(DOCUMENT, WON, aggregate_by_hand(), "python -m scripts.plot latex=true")
    assert made.splitlines() == [
        "% python -m scripts.plot latex=true",
        r"% eval/win_rate: mean over seeds with its 95% bootstrap interval; needs \usepackage{booktabs}",
        "% IQM: over toy-corridor, toy-shift; eval/win_rate is a rate and counts as it is",
        r"\begin{tabular}{lccc}",
        r"\toprule",
        r" & toy-corridor & toy-shift & IQM \\",
        r"\midrule",
        r"study qmix & 0.50 [0.25, 0.75] & 1.00 [1.00, 1.00] & 0.75 [0.62, 0.88] \\",
        r"study\_2 50\% {[}vdn{]} & $-$0.12 & -- & -- \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    assert "IQM" not in latex.table(DOCUMENT, WON, None, "")


@pytest.mark.parametrize(
    ("names", "rows", "study"),
    [
        (["a_b qmix", "a_b vdn lr=1"], ["qmix", "vdn lr=1"], ["% study: a_b"]),
        (["a_b qmix", "a_bc vdn"], [r"a\_b qmix", r"a\_bc vdn"], []),  # two studies, one of which begins like the other
        (["a_b", "a_b vdn"], [r"a\_b", r"a\_b vdn"], []),  # a row would have no name
    ],
)
def test_a_study_that_all_groups_share_is_named_once(names: list[str], rows: list[str], study: list[str]) -> None:
    made = latex.table([group(name, "toy", 0.5, (0.0, 1.0)) for name in names], WON, None, "").splitlines()
    assert [line.split(" & ")[0] for line in made if "0.50" in line] == rows
    assert [line for line in made if line.startswith("% study")] == study


def faulty(table: str) -> list[str]:
    """Return rows with another number of cells than the table has columns, or with letters that LaTeX does not set."""
    columns = len(re.findall(r"\\begin\{tabular\}\{(\w+)\}", table)[0])
    rows = [line for line in table.splitlines() if line.endswith(r"\\")]
    bare = re.compile(r"(?<!\\)[#%_]|(?<!\\)\$(?!-\$)(?<!-\$)|[~^<>|]|^\s*[\[*]")
    return [row for row in rows if len(re.findall(r"(?<!\\)&", row)) + 1 != columns or bare.search(row)]


def test_every_letter_is_escaped() -> None:
    strange = [group(r"[a]&b_c%d#e$f~g^h\i{j}<k>|*", "a_b", 0.5, (0.0, 1.0))]
    made = latex.table(strange, WON, None, "")
    assert faulty(made) == []
    assert faulty(made.replace(r"\&", "&")) and faulty(made.replace(r"\_", "_")) and faulty(made.replace("{[}", "[", 1))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex")
def test_the_table_compiles(tmp_path: Path) -> None:
    strange = [*DOCUMENT, group(r"[a]&b_c%d#e$f~g^h\i{j}<k>|*", "a_b", 0.5, (0.0, 1.0))]
    table = latex.table(strange, WON, aggregate_by_hand(), "")
    page = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{table}\end{{document}}"
    (tmp_path / "page.tex").write_text(page)
    made = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "page.tex"], cwd=tmp_path, capture_output=True
    )
    assert made.returncode == 0, made.stdout.decode()[-2000:]


# marl-eval


def logged(seed: int, tests: int = 2) -> Run:
    """Return a run with that many tests and a final one."""
    rows = [
        {"env_steps": 100 * i, "episodes": i, WON: i / 4, RETURN: float(i), "eval/win_rate_low": 0.0}
        for i in range(tests)
    ]
    return Run(Path(), {"seed": seed}, [*rows, {**rows[-1], "final": True, WON: 0.75, "eval/length": None}], None, {})


def test_the_layout_of_marl_eval_by_hand() -> None:
    found = marl_eval.document({"skirmish-3m": {"qmix": [logged(0), logged(4)]}, "spread": {"vdn": [run(1, [0.5])]}})
    whole = {
        "step_0": {"step_count": 0, "win_rate": [0.0], "return": [0.0]},
        "step_1": {"step_count": 100, "win_rate": [0.25], "return": [1.0]},
        "absolute_metrics": {"win_rate": [0.75], "return": [1.0]},
    }
    assert found == {
        "skirmish": {"3m": {"qmix": {"seed_0": whole, "seed_4": whole}}},
        "spread": {"spread": {"vdn": {"seed_1": {
            "step_0": {"step_count": 0, "win_rate": [0.5]}, "absolute_metrics": {"win_rate": [0.5]}
        }}}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("tasks", "why"),
    [
        ({"toy-a": {"x": [logged(0)]}, "toy-b": {"x": [logged(1)]}, "spread": {"y": [logged(0, 5)]}}, ""),
        (
            {"toy-a": {"x": [logged(0)]}, "toy-b": {"y": [logged(0)]}},
            "tasks of toy have runs of different algorithms",
        ),
        ({"toy-a": {"x": [logged(0)], "y": [logged(0), logged(1)]}}, "toy has different numbers of runs: 1, 2"),
        ({"toy-a": {"x": [logged(0), logged(1, 3)]}}, "toy has different numbers of tests: 2, 3"),
        ({"toy-a": {"QMIX": [logged(0)], "qmix": [logged(0)]}}, "toy has names that differ in case alone: QMIX, qmix"),
    ],
)
def test_what_marl_eval_refuses_is_known(tasks: Any, why: str) -> None:
    assert marl_eval.uneven(tasks) == why


def lacks(document: dict[str, Any]) -> str:
    """Return what marl-eval 0.0.4 would look up in vain, or nothing: from the first task, algorithm, run and final test
    of an environment it takes the names that it reads in all others (``create_matrices_for_rliable``)."""

    def first(held: dict[str, Any]) -> Any:
        return next(iter(held.values()))

    for held in document.values():
        runs = first(first(held))
        steps, metrics = first(runs), set(first(runs)["absolute_metrics"])
        for algorithms in held.values():
            for label in first(held):
                if "," in label or label not in algorithms:
                    return str(label)
                for name in runs:
                    if name not in algorithms[label]:
                        return str(name)
                    for step in steps:
                        if missing := metrics - set(algorithms[label][name].get(step, {})):
                            return f"{label} {name} {step} {missing}"
    return ""


def with_loss(run: Run, *, until: int) -> Run:
    """Return the run with another metric in its first tests."""
    return replace(run, rows=[{**row, "eval/loss": 1.0} if i < until else row for i, row in enumerate(run.rows)])


@pytest.mark.parametrize(
    "tasks",
    [
        {"toy-a": {"x": [logged(0), logged(3)]}, "toy-b": {"x": [logged(1), logged(2)]}},
        {"toy-a": {"x a=[1,2]": [logged(0)], "y": [logged(0)]}},
        {"toy-a": {"x": [with_loss(logged(0), until=9)]}, "toy-b": {"x": [with_loss(logged(0), until=1)]}},
    ],
    ids=["seeds", "commas", "metrics"],
)
def test_marl_eval_finds_what_it_looks_up(tasks: Any) -> None:
    """The package itself loads these three; it raised KeyErrors for what was written before, the broken twin."""
    made = marl_eval.document(tasks)
    assert marl_eval.uneven(tasks) == "" and lacks(made) == ""
    plain: dict[str, Any] = {
        task.removeprefix("toy-"): {
            label: {f"seed_{run.seed}": marl_eval._run(run) for run in runs} for label, runs in groups.items()
        }
        for task, groups in tasks.items()
    }
    assert lacks({"toy": plain})


def test_runs_of_other_seeds_are_called_by_their_place_and_metrics_are_common() -> None:
    tasks = {"toy-a": {"x,1": [with_loss(logged(0), until=9), logged(3)]}, "toy-b": {"x,1": [logged(3), logged(7)]}}
    made = marl_eval.document(tasks)["toy"]
    assert list(made["a"]) == ["x;1"] and list(made["a"]["x;1"]) == list(made["b"]["x;1"]) == ["run_0", "run_1"]
    assert made["a"]["x;1"]["run_0"]["absolute_metrics"] == {"win_rate": [0.75], "return": [1.0]}


# the script


def make_study(runs: Path) -> None:
    """Make three seeds of two methods on two tasks."""
    for task in ("toy-corridor", "toy-shift"):
        for method, won in (("qmix", 0.75), ("vdn", 0.25)):
            for seed in range(3):
                make_run(runs, f"study/{task}/{method}-none", seed, won + 0.125 * seed)


def test_the_script_writes_what_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The IQM of qmix: 0.75, 0.875, 1 on both tasks, of which one is cut off at each end."""
    rliable()
    monkeypatch.setattr("marl.show.statistics.aggregate", partial(aggregate, reps=200))
    make_study(tmp_path / "runs")
    out = tmp_path / "plots"
    command("plot", f"runs='{tmp_path}/runs/**'", f"out={out}", "statistics=true", "formats=[svg]", "latex=true",
            "export=marl_eval", "versus='study vdn'", f"results={tmp_path}/published/table.json")  # fmt: skip
    figures = {f"{name}_win_rate.svg" for name in FIGURES} | {
        f"curves_toy-{task}.svg" for task in ("corridor", "shift")
    }
    assert {path.name for path in out.iterdir()} == {*figures, "summary.json", "table_win_rate.tex", "marl_eval.json"}
    summary = json.loads((out / "summary.json").read_text())
    assert len(summary["groups"]) == 4
    found = summary["statistics"][WON]
    assert found["intervals"]["study qmix"]["iqm"]["value"] == 0.875 and found["notes"] == []
    assert [(one["first"], one["probability"]["value"]) for one in found["pairs"]] == [("study qmix", 1.0)]
    table = (out / "table_win_rate.tex").read_text()
    assert faulty(table) == [] and "\nqmix & 0.88 [0.75, 1.00] & 0.88 [0.75, 1.00] & 0.88 [" in table
    exported = json.loads((out / "marl_eval.json").read_text())
    assert exported["toy"]["shift"]["study vdn"]["seed_2"]["absolute_metrics"]["win_rate"] == [0.5]
    published = json.loads((tmp_path / "published" / "table.json").read_text())
    assert (
        published["statistics"] == summary["statistics"] and (tmp_path / "published" / "table_toy-shift.svg").exists()
    )
    shown = capsys.readouterr()
    assert "study qmix  eval/win_rate  2 tasks, 3 seeds:  IQM 0.875 [" in shown.out and not shown.err


def test_the_script_says_what_statistics_lack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rliable()
    make_run(tmp_path / "runs", "study/toy-corridor/qmix-none")
    make_run(tmp_path / "runs", "study/toy-shift/vdn-none")
    command("plot", f"runs='{tmp_path}/runs/**'", f"out={tmp_path}/plots", "statistics=true", "metrics=[eval/return]")
    assert not list((tmp_path / "plots").glob("intervals*"))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("statistics of eval/return: no task has runs of all methods")


def test_plain_plots_are_as_light_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise ConfigError("a plain plot needs no rliable")

    monkeypatch.setattr("marl.show.statistics.load_rliable", refuse)
    make_run(tmp_path / "runs")
    command("plot", f"runs='{tmp_path}/runs/**'", f"out={tmp_path}/plots", "latex=true")
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert names == {"curves_toy-corridor.png", "summary.json", "table_win_rate.tex"}


def test_a_method_or_range_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rliable()
    make_run(tmp_path / "runs")
    line = refused(tmp_path / "runs", capsys, "statistics=true", "versus=nobody")
    assert line == "error: versus=nobody is no group of these runs; there are study qmix"
    line = refused(tmp_path / "runs", capsys, "statistics=true", "metrics=[eval/return]", "scores.low=0",
                   "scores.high={spread: 1}")  # fmt: skip
    assert "scores.low and scores.high say nothing of toy-corridor; there are toy-corridor" in line


def test_a_missing_rliable_is_said_before_runs_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rliable", None)
    assert refused(tmp_path / "none", capsys, "statistics=true") == (
        "error: statistics need rliable: pip install -e .[report]"
    )
