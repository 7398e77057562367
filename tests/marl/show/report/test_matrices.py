"""Matrices on the page: what is read from files of scripts.robustness and scripts.crossplay, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marl.core.types import ConfigError
from marl.show.report.matrices import Matrix, read_crossplay, read_robustness
from tests.support.report_parts import crossplay_document, robustness_document

ROOT = Path(__file__).resolve().parents[4]
pytest.importorskip("plotly", reason="charts need plotly: pip install -e .[report]")


def written(folder: Path, document: dict[str, Any], name: str = "found.json") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(document))
    return folder / name


def figure(matrix: Matrix, k: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(matrix.charts[k][1].json)
    return found


def test_a_robustness_matrix_becomes_a_heatmap_of_its_methods(tmp_path: Path) -> None:
    found = read_robustness(written(tmp_path, robustness_document()))
    drawn = figure(found, 0)
    (cells,) = (trace for trace in drawn["data"] if trace["type"] == "heatmap")
    assert cells["z"] == [[0.9, 0.7, 0.3, 0.2], [0.8, 0.6, None, None]] and (cells["zmin"], cells["zmax"]) == (0, 1)
    assert cells["text"][0][0].startswith("0.90<br>") and "[0.80, 1.00]" in cells["text"][0][0]
    assert cells["text"][0][2].startswith("<b>0.30</b>"), "the weakest column is in bold"
    assert drawn["layout"]["xaxis"]["ticktext"] == ["natural", "random", "fgsm", "every"]
    said = [note["text"] for note in drawn["layout"]["annotations"]]
    assert said == ["no<br>gradient", "-"], "what stands where there is no number"
    assert "4.0 steps and 8.0 actions" in cells["customdata"][0][2].replace("<br>", " ")


def test_its_budget_curves_have_a_panel_for_each_column_and_one_entry_for_each_team(tmp_path: Path) -> None:
    drawn = figure(read_robustness(written(tmp_path, robustness_document())), 1)
    lines = [trace for trace in drawn["data"] if trace.get("name")]
    assert [line["name"] for line in lines] == ["A", "B"] and lines[0]["x"] == [0, 2, 4]
    assert lines[0]["y"] == pytest.approx([0.9, 0.7, 0.5]) and len(drawn["data"]) == 4, "two bands, two lines"
    assert [trace["legendgroup"] for trace in drawn["data"]] == ["A", "A", "B", "B"]


def test_its_tables_and_what_is_missing_are_said(tmp_path: Path) -> None:
    found = read_robustness(written(tmp_path, robustness_document()))
    (_, numbers), (_, areas) = found.tables
    assert numbers.lines[2][3:] == ["fgsm", "0.30 [0.20, 0.40]", "3.00 [2.90, 3.10]", "0.60 [0.50, 0.70]", "4.0 / 8.0"]
    assert numbers.lines[5][4] == "no gradient: tables have none" and len(numbers.lines) == 6
    assert {len(line) for line in numbers.lines} == {len(numbers.heads)}
    assert areas.lines == [[name, "toy-corridor", "0.70 [0.60, 0.80]"] for name in "AB"]
    assert found.notes == [
        "The matrix is not complete: cells are still to be measured.",
        "B (toy-corridor) under fgsm: no gradient: tables have none.",
    ]
    (said,) = found.short
    assert "of 2 teams B keeps the highest win rate in its weakest column (random): 0.60 [0.50, 0.70]." in said
    assert ("command", "python -m scripts.robustness") in found.about


def test_a_matrix_of_before_has_fewer_parts(tmp_path: Path) -> None:
    document = robustness_document()
    for key in ("curves", "versus", "seed", "commit", "commits", "command", "physics"):
        del document[key]
    for row in document["rows"]:
        del row["every"], row["every_by_luck"]
    found = read_robustness(written(tmp_path, document))
    assert len(found.charts) == 1 and "No curves over budgets were measured" in found.notes[-1]
    assert figure(found, 0)["layout"]["xaxis"]["ticktext"] == ["natural", "random", "fgsm"]
    assert ("commit", "not recorded") in found.about


def test_leads_have_a_column_of_their_own(tmp_path: Path) -> None:
    document = robustness_document()
    document["rows"][0]["leads"] = {"random": {"mean": 0.25, "low": None, "high": None, "n": 1}}
    (_, numbers), *_ = read_robustness(written(tmp_path, document)).tables
    assert numbers.heads[-1] == "lead (win rate)" and [line[-1] for line in numbers.lines] == ["-", "0.25", *"----"]


def test_a_cross_play_matrix_becomes_a_heatmap_with_its_partners(tmp_path: Path) -> None:
    found = read_crossplay(written(tmp_path, crossplay_document()))
    drawn = figure(found, 0)
    (cells,) = (trace for trace in drawn["data"] if trace["type"] == "heatmap")
    assert cells["z"] == [[9, 2, 4], [2, 9, None]] and cells["text"][0][0] == "<b>9.00</b>"
    assert drawn["layout"]["xaxis"]["ticktext"] == ["SP 0", "SP 1", "Kim"]
    assert [shape["x0"] for shape in drawn["layout"]["shapes"]] == [1.5], "a line between teams and partners"
    assert found.notes == ["it cannot: no seat"]
    ((_, methods),) = found.tables
    assert methods.heads[-2:] == ["with people", "all held out"]
    assert methods.lines[0][:3] == ["SP", "0, 1", "9.00 [8.90, 9.10]"] and "2.00, seeds 0 and 1" in methods.lines[0]


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "results").glob("*.json")), ids=lambda path: path.stem)
def test_every_published_matrix_can_be_shown(path: Path) -> None:
    document = json.loads(path.read_text())
    if "matrix" in document:
        assert read_crossplay(path).charts
    elif "rows" in document and "baseline" in document:
        assert read_robustness(path).charts
    else:
        pytest.skip("it holds learning curves, which come from runs")


def test_a_folder_of_the_script_is_read_too(tmp_path: Path) -> None:
    written(tmp_path / "r", robustness_document(), "matrix.json")
    written(tmp_path / "c", crossplay_document(), "crossplay.json")
    assert read_robustness(tmp_path / "r").name == "tried" and read_crossplay(tmp_path / "c").name == "toy-corridor"


def _without(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda document: document.pop(key)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without("rows"), "it lacks 'rows'"),
        (_without("columns"), "it lacks 'columns'"),
        (_without("metric"), "it lacks 'metric'"),
        (lambda document: document.update(rows=[]), "is no output of scripts.robustness"),
        (lambda document: document.update(rows=5), "is no output of scripts.robustness"),
        (lambda document: document["rows"][0]["cells"].pop("fgsm"), "it lacks 'fgsm'"),
        (lambda document: document["rows"][0]["cells"].update(fgsm=3), "is no output of scripts.robustness"),
    ],
)
def test_what_is_no_robustness_matrix_is_refused_by_name(
    change: Callable[[dict[str, Any]], object], words: str, tmp_path: Path
) -> None:
    document = robustness_document()
    change(document)
    path = written(tmp_path, document)
    with pytest.raises(ConfigError) as refused:
        read_robustness(path)
    assert str(refused.value).startswith(f"robustness={path} ") and words in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"), [("{", "is damaged: "), ("[1]", "is damaged: it holds no matrix"), ("{}", "it lacks 'partners'")]
)
def test_damaged_files_are_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ConfigError) as refused:
        read_crossplay(tmp_path / "x.json")
    line = str(refused.value)
    assert line.startswith(f"crossplay={tmp_path / 'x.json'} ") and words in line.replace("'rows'", "'partners'")
    with pytest.raises(ConfigError, match=r"has no crossplay.json"):
        read_crossplay(tmp_path)
    with pytest.raises(ConfigError, match=r"does not exist"):
        read_crossplay(tmp_path / "nowhere")
