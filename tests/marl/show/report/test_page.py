"""The page of a report: what stands on it, that it loads nothing, that names do nothing, and what is refused."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

import marl
from marl.core.types import ConfigError
from marl.show.gather import gather
from marl.show.plot import summary
from marl.show.report import charts, page
from tests.support.helpers import command
from tests.support.report_parts import (
    Page,
    crossplay_document,
    faults,
    make_run,
    options,
    robustness_document,
)

pytest.importorskip("plotly", reason="charts need plotly: pip install -e .[report]")
EVIL = "<img src=x onerror=hacked=1>"


def made(runs: Path | None, **changed: Any) -> str:
    """Return the page of a report, without what plotly brings."""
    report, _ = page.contents(options(runs, **changed))
    return page.html(report).replace(charts.library(), "")


def figures(html: str) -> list[dict[str, Any]]:
    pieces = html.split('<script type="application/json">')[1:]
    return [json.loads(piece.partition("</script>")[0]) for piece in pieces]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two groups in two environments; one seed of a group is unfinished."""
    for seed, end in ((0, 0.4), (1, 0.8)):
        make_run(tmp_path / "runs", "qmix-none", seed, ((0, 0.0), (500, 0.2), (1000, end)))
        make_run(tmp_path / "runs", "vdn-random", seed, ((0, 0.0), (500, 0.1), (1000, 0.1)))
    make_run(tmp_path / "runs", "qmix-none", 2, ((0, 0.0), (300, 0.1)))
    make_run(tmp_path / "runs", "qmix-none", 0, task="toy-matrix")
    return tmp_path / "runs"


def test_all_sections_are_there_and_the_contents_lead_to_them(runs: Path) -> None:
    found = Page(made(runs))
    anchors = {attributes["href"] for tag, attributes in found.elements if tag == "a"}
    sections = {f"#{attributes['id']}" for tag, attributes in found.elements if tag == "section"}
    assert anchors == sections == {f"#{anchor}" for anchor, _ in page.CONTENTS}


def test_the_page_says_what_was_run_and_what_it_came_to(runs: Path) -> None:
    text = Page(made(runs)).text
    for words in (
        "5 runs in 3 groups and 2 environments; 1 left out.",
        "toy-corridor: the highest final test win rate is 0.60 [0.40, 0.80], of study qmix.",
        "toy-matrix: the highest final test win rate is 0.50, of study qmix.",
        f"Left out: {runs / 'study/toy-corridor/qmix-none/seed2'}: unfinished, at step 300 of 1,000.",
        "study qmix in toy-matrix has one seed, and so no interval.",
        "No robustness matrix was given", "No cross-play matrix was given", "No episodes were recorded (episodes=0).",
        "a made-up machine", "train seed=1", "c0ffee",
        "0.600 [0.400, 0.800] 2 0.400, 0.800",  # final scores
        "0.5 of the best (0.3)", "1,000 (2 of 2 seeds)", "not reached (0 of 2 seeds)",  # sample efficiency
        "There is one group, so there is nothing to compare it with.",
    ):  # fmt: skip
        assert words in text, words


def test_curves_are_means_with_bands_over_environment_steps(runs: Path) -> None:
    drawn = figures(made(runs))[0]
    named = {trace["name"]: trace for trace in drawn["data"] if trace.get("name")}
    assert list(named) == ["study qmix (2 seeds)", "study vdn-random (2 seeds)"]
    line = named["study qmix (2 seeds)"]
    assert (line["x"][0], line["x"][-1], line["y"][-1]) == (0, 1000, pytest.approx(0.6))
    assert line["customdata"][-1] == pytest.approx([0.4, 0.8])
    seeds = [trace for trace in drawn["data"] if trace.get("meta") == charts.SEED]
    assert [trace["y"][-1] for trace in seeds] == [0.4, 0.8, 0.1, 0.1] and {trace["opacity"] for trace in seeds} == {0}
    groups = [trace["legendgroup"] for trace in drawn["data"]]
    assert groups == ["study qmix"] * 4 + ["study vdn-random"] * 4, "the legend switches band, mean and seeds together"


def test_a_group_of_one_seed_has_no_band(runs: Path) -> None:
    drawn = next(f for f in figures(made(runs)) if len([t for t in f["data"] if t.get("name")]) == 1)
    assert [trace["mode"] for trace in drawn["data"]] == ["lines", "lines"] and "fill" not in drawn["data"][0]


def test_bars_have_intervals_and_a_dot_for_each_seed(runs: Path) -> None:
    drawn = next(f for f in figures(made(runs)) if f["data"][0]["type"] == "bar")
    bar, dots = drawn["data"][:2]
    assert bar["x"] == [pytest.approx(0.6)] and dots["x"] == [0.4, 0.8] and dots["customdata"] == [0, 1]
    assert bar["error_x"]["array"] == [pytest.approx(0.2)] and bar["error_x"]["arrayminus"] == [pytest.approx(0.2)]


def test_dots_have_their_own_seeds_where_another_has_no_value(tmp_path: Path) -> None:
    for seed in range(3):
        folder = make_run(tmp_path, seed=seed, points=((0, 0.0), (1000, seed / 4)))
        if seed == 1:
            (folder / "eval.jsonl").write_text('{"env_steps": 1000, "eval/return": 1.0}\n')
    dots = next(f for f in figures(made(tmp_path)) if f["data"][0]["type"] == "bar")["data"][1]
    assert (dots["customdata"], dots["x"]) == ([0, 2], [0.0, 0.5])
    (entry,) = summary(gather(f"{tmp_path}/**")[0])
    assert entry["metrics"]["eval/win_rate"]["seeds"] == [0, 2] and "seeds" not in entry["metrics"]["eval/return"]


def test_unfinished_runs_are_taken_in_where_that_is_asked_for_and_named(runs: Path) -> None:
    text = Page(made(runs, unfinished=True)).text
    assert "6 runs in 3 groups" in text and "none left out" in text and "0, 1, 2 (1 unfinished)" in text
    assert "it is averaged with the others" in text


def test_a_seed_that_has_barely_begun_leaves_the_curve_of_the_others(tmp_path: Path) -> None:
    make_run(tmp_path, points=((0, 0.0), (1000, 0.5)))
    make_run(tmp_path, seed=1, points=((0, 0.0),))
    make_run(tmp_path, "vdn-none", points=((0, 0.0),))
    curves = figures(made(tmp_path, unfinished=True))[0]["data"]
    named = {trace["name"]: trace for trace in curves if trace.get("name")}
    assert [*named] == ["study qmix (1 of 2 seeds, 1 unfinished)", "study vdn (0 of 1 seed, 1 unfinished)"]
    mean = named["study qmix (1 of 2 seeds, 1 unfinished)"]
    assert (mean["x"][-1], mean["y"][-1]) == (1000, 0.5) and len(curves) == 2 + 3, "and every seed by itself"


def test_matrices_are_on_the_page_also_without_runs(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(robustness_document()))
    (tmp_path / "c.json").write_text(json.dumps(crossplay_document()))
    html = made(None, robustness=str(tmp_path / "r.json"), crossplay=[str(tmp_path / "c.json")])
    text = Page(html).text
    assert len(figures(html)) == 3 and "No training runs were given." in text and "tried" in text
    assert "tried: B (toy-corridor) under fgsm: no gradient: tables have none." in text
    assert "No robustness matrix" not in text and not faults(html)


# what the page must not do


def test_the_page_loads_nothing_and_forbids_it(runs: Path) -> None:
    html = made(runs)
    assert faults(html) == []
    (policy,) = (a["content"] for _, a in Page(html).elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none';") and "http" not in policy


@pytest.mark.parametrize(
    "broken",
    ["<script src='https://x.org/a.js'></script>", "<img src='//x.org/a.png'>", "<link href='http://x.org/a.css'>",
     "<style>body { background: url(http://x.org/a) }</style>", "<p onclick='x()'>", "<iframe></iframe>", EVIL],
)  # fmt: skip
def test_the_check_finds_what_a_page_must_not_have(runs: Path, broken: str) -> None:
    assert faults(made(runs).replace("<main>", f"<main>{broken}"))


def test_names_are_shown_and_do_nothing(tmp_path: Path) -> None:
    """A group, a configuration, a command and a matrix that hold elements of HTML."""
    evil = f"</script><script>hacked=1</script>{EVIL}"
    make_run(tmp_path / "runs", f"{EVIL}-none", config={"note": evil}, meta={"command": evil, "machine": evil})
    make_run(tmp_path / "runs", "vdn-none", config={"note": 1})
    document = {**robustness_document(), "name": evil, "command": evil}
    for row in document["rows"]:
        row["agent"] = evil
    for row in document["curves"]["rows"]:
        row["agent"] = evil
    (tmp_path / "r.json").write_text(json.dumps(document))
    html = made(tmp_path / "runs", robustness=str(tmp_path / "r.json"), title=evil)
    clean = made(tmp_path / "runs", robustness=str(tmp_path / "r.json"), title="clean")
    assert faults(html) == [] and EVIL in Page(html).text
    assert Page(html).count("script") == Page(clean).count("script") == html.count("</script>")
    names = [trace.get("name", "") for figure in figures(html) for trace in figure["data"]]
    assert any("&lt;img" in name for name in names) and not any("<" in name for name in names)


def test_without_escaping_names_would_do_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "runs", f"{EVIL}-none")
    environment = page.Environment
    monkeypatch.setattr(page, "Environment", lambda **given: environment(**{**given, "autoescape": False}))
    assert "handler onerror of img" in faults(made(tmp_path / "runs"))


# the script, and what it refuses


def test_the_script_writes_one_file(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "report.html"
    command("report", f"runs=['{runs}/**']", f"out={out}", "episodes=0", "statistics=false", "title=Ours")
    assert "written to" in capsys.readouterr().out and [path.name for path in out.parent.iterdir()] == ["report.html"]
    html = out.read_text(encoding="utf8")
    assert html.count(charts.library()) == 1 and Page(html.replace(charts.library(), "")).text.startswith("Ours Ours")


def test_several_patterns_are_read_together_and_a_run_once(runs: Path) -> None:
    both = options(None, runs=[f"{runs}/**/seed0", f"{runs}/study/toy-corridor/**"])
    report, groups = page.contents(both)
    assert [len(group.runs) for group in groups] == [2, 2, 1] and report.title == "study"


def test_the_library_writes_it_too(runs: Path, tmp_path: Path) -> None:
    found = marl.report([f"{runs}/**"], tmp_path / "x.html", episodes=0, statistics=False)
    assert found == tmp_path / "x.html" and "marl.report([" in found.read_text(encoding="utf8")


def test_missing_plotly_is_one_line_that_names_the_extra(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^a report needs the package 'plotly'.*pip install -e \.\[report\]$"):
        page.make(options(runs, out=str(tmp_path / "x.html")))
    assert not (tmp_path / "x.html").exists()


def test_missing_rliable_leaves_the_statistics_out_by_name(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rliable", None)
    assert "Aggregates: statistics need rliable: pip install -e .[report]." in Page(made(runs, statistics=True)).text


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"out": "x.pdf"}, "out=x.pdf must end in .html"),
        ({"out": " "}, "out= must name a file"),
        ({"out": "/proc/x.html"}, "out=/proc/x.html cannot be written"),
        ({"last": 0}, "last=0 must be at least 1"),
        ({"episodes": -1}, "episodes=-1 must be at least 0"),
        ({"fps": 0}, "fps=0.0 must be within [1, 100]"),
        ({"megabytes": 0}, "megabytes=0.0 must be at least 1"),
        ({"fractions": [0.5, 1.5]}, "fractions=1.5 must be within (0, 1]"),
        ({"metrics": ["eval/nothing"]}, "metrics: no run has the scalar eval/nothing; there are eval/return"),
        ({"runs": "nowhere"}, "runs=nowhere matches no run folder"),
        ({"runs": None}, "runs is missing"),
        ({"robustness": "nowhere.json"}, "robustness=nowhere.json does not exist"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(
    runs: Path, tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError) as refused:
        page.make(options(runs, **{"out": str(tmp_path / "x.html"), **changed}))
    assert words in str(refused.value) and sorted(tmp_path.rglob("*")) == before
