"""Loggers take the rows of the JSON lines, also of a run that was stopped; one that fails costs the run nothing."""

from __future__ import annotations

import csv
import logging
import math
import signal
from pathlib import Path
from typing import Any, ClassVar

import pytest

from marl.core.types import ConfigError
from marl.run.loggers import CSV, LoggedRun, chosen
from tests.marl.run.test_run import at_collection, raise_signal
from tests.support.helpers import compose_train, rows, train

pytestmark = pytest.mark.usefixtures("no_drawing")
STEPS = ["env_steps", "episodes", "updates"]


class Kept:
    """A logger of somebody's own: it keeps what it is given."""

    taken: ClassVar[list[tuple[str, int, list[str]]]] = []
    ended: ClassVar[list[Path]] = []

    def __init__(self, run: LoggedRun, *, only: str) -> None:
        self.run, self.only = run, only

    def write(self, table: str, scalars: dict[str, float], env_steps: int) -> None:
        if table == self.only:
            self.taken.append((table, env_steps, sorted(scalars)))

    def close(self) -> None:
        self.ended.append(self.run.dir)


class Broken(Kept):
    """The same, which fails at its second row."""

    def write(self, table: str, scalars: dict[str, float], env_steps: int) -> None:
        if self.taken:
            raise ConnectionError("no route\nto host")
        super().write(table, scalars, env_steps)


def own(logger: type[Kept]) -> tuple[str, ...]:
    Kept.taken.clear()
    Kept.ended.clear()
    target = f"{{_target_: {__name__}.{logger.__name__}, _partial_: true, only: eval}}"
    return f"+log.loggers.mine={target}", "log.to=[mine]"


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_tensorboard_has_the_same_scalars_and_the_options(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG, parse_session_start_info_plugin_data

    train(tmp_path / "run", "log.to=[tensorboard]", "seed=3")
    board = EventAccumulator(str(tmp_path / "run" / "tb"))
    board.Reload()
    steps = {key: [event.step for event in board.Scalars(key)] for key in board.Tags()["scalars"]}
    assert steps["train/return"] == [row["env_steps"] for row in rows(tmp_path / "run", "metrics")]
    assert steps["eval/win_rate"] == [row["env_steps"] for row in rows(tmp_path / "run", "eval")]
    about = board.SummaryMetadata(SESSION_START_INFO_TAG)
    options = parse_session_start_info_plugin_data(about.plugin_data.content).hparams
    assert options["seed"].number_value == 3 and options["algo.batch_size"].number_value == 8
    assert (
        options["algo.learner.tau"].string_value == "None" and options["checkpoint.replay"].WhichOneof("kind") is None
    )


def test_what_is_set_aside_is_no_run_of_tensorboard(tmp_path: Path) -> None:
    train(tmp_path / "run", "log.to=[tensorboard,csv]")
    train(tmp_path / "run", "log.to=[tensorboard]", "resume=never")
    seen = [path for path in tmp_path.rglob("*tfevents*") if path.is_file()]
    assert [path.parent for path in seen] == [tmp_path / "run" / "tb"]
    assert len(list((tmp_path / "run" / "previous" / "1" / "tb").iterdir())) == 1, "it is kept"
    assert (tmp_path / "run" / "previous" / "1" / "metrics.csv").exists()
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_csv_has_the_rows_also_of_a_run_that_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, halted = tmp_path / "whole", tmp_path / "halted"
    train(whole, "log.to=[csv]", "log.every=50")
    at_collection(monkeypatch, 3, raise_signal(signal.SIGTERM))
    assert train(halted, "log.to=[csv]", "log.every=50") == {}
    train(halted, "log.to=[csv]", "log.every=50")
    for name in ("metrics", "eval"):
        written, kept = table(halted / f"{name}.csv"), rows(halted, name)
        assert [int(row["env_steps"]) for row in written] == [row["env_steps"] for row in kept]
        for line, row in zip(written, kept, strict=True):
            for key, value in row.items():
                if key in line and key not in STEPS:
                    assert float(line[key]) == value, key
        timeless = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in table(whole / f"{name}.csv")]
        assert [{k: v for k, v in row.items() if not k.startswith("time/")} for row in written] == timeless


def test_csv_grows_columns_and_drops_rows_that_come_again(tmp_path: Path) -> None:
    first = CSV(LoggedRun(tmp_path, {}, 0))
    first.write("metrics", {"a": 1.5}, 10)
    first.write("metrics", {"a": 2.5, "b": math.nan}, 20)
    first.write("metrics", {"b": 3.0}, 30)
    text = "env_steps,a,b\n10,1.5,\n20,2.5,\n30,,3.0\n"
    assert (tmp_path / "metrics.csv").read_text() == text
    again = CSV(LoggedRun(tmp_path, {}, 20))
    again.write("metrics", {"b": 4.0}, 30)
    assert (tmp_path / "metrics.csv").read_text() == text.replace("3.0", "4.0")


def test_a_logger_of_ones_own_takes_every_row(tmp_path: Path) -> None:
    train(tmp_path / "run", *own(Kept))
    assert [steps for _, steps, _ in Kept.taken] == [row["env_steps"] for row in rows(tmp_path / "run", "eval")]
    assert Kept.taken[0] == ("eval", 0, ["eval/length", "eval/return", "eval/win_rate"])
    assert Kept.ended == [tmp_path / "run"]


def test_a_logger_that_fails_is_left_out_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        final = train(tmp_path / "run", *own(Broken))
    assert final["win_rate"]["n"] == 8 and (tmp_path / "run" / "DONE").exists()
    warnings = [r.message for r in caplog.records if "log.to" in r.message]
    assert warnings == ["log.to: mine failed (no route to host); the run goes on without it"]
    assert len(Kept.taken) == 1 and Kept.ended == [], "it is not asked again"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["log.to=[tensorbord]"], "log.to names 'tensorbord', which is no logger; there are csv, mlflow, tensorboard"),
        (["log.to=[wandb]", "log.loggers.wandb.mode=later"], "wandb.mode=later is not known; choose one of offline"),
        (["log.to=[csv]", "+log.loggers.csv.sep=x"], "log.loggers.csv.sep is not an option of CSV"),
    ],
)  # fmt: skip
def test_bad_loggers_are_refused_before_anything_is_written(tmp_path: Path, options: list[str], line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        train(tmp_path / "run", *options)
    assert line in str(refused.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_missing_package_names_its_extra(tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"needs the package '{package}', .*: pip install -e .\[{package}\]"):
        train(tmp_path / "run", f"log.to=[{package}]")
    assert not (tmp_path / "run").exists()


def test_mlflow_has_the_rows_of_both_halves_in_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="pip install -e .[mlflow]")
    pytest.importorskip("sqlalchemy", reason="pip install -e .[mlflow]")
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "run"
    at_collection(monkeypatch, 3, raise_signal(signal.SIGTERM))
    train(folder, "log.to=[mlflow]", "log.every=50")
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    (where,) = client.search_experiments(filter_string="name = 'marl'")
    assert client.search_runs([where.experiment_id])[0].info.status == "KILLED"
    train(folder, "log.to=[mlflow]", "log.every=50")
    (found,) = client.search_runs([where.experiment_id])
    assert found.info.status == "FINISHED" and found.data.params["algo.batch_size"] == "8"
    for key, name in (("train/return", "metrics"), ("eval/win_rate", "eval")):
        history = {(m.step, m.value) for m in client.get_metric_history(found.info.run_id, key)}
        assert history == {(row["env_steps"], row[key]) for row in rows(folder, name) if key in row}
    at_collection(monkeypatch, 1, raise_signal(signal.SIGTERM))
    train(folder, "log.to=[mlflow]", "log.every=50", "train.total_steps=4000")
    (found,) = client.search_runs([where.experiment_id])
    assert found.info.status == "KILLED", "it goes on, and has not come to its new end"


def test_wandb_keeps_one_record_for_a_run_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights & Biases itself is replaced by what it is called with; a real record is made by hand (docs)."""
    calls: list[Any] = []

    class Record:
        def log(self, scalars: dict[str, float], step: int) -> None:
            calls.append((step, "eval/win_rate" in scalars))

        def finish(self) -> None:
            calls.append("finished")

    wandb = pytest.importorskip("wandb", reason="pip install -e .[wandb]")
    ids: list[str] = []

    def begin(**options: Any) -> Record:
        ids.append(options["id"])
        assert options["mode"] == "offline" and options["dir"] == str(tmp_path / "run")
        assert options["config"]["algo"]["batch_size"] == 8 and options["resume"] == "allow"
        return Record()

    monkeypatch.setattr(wandb, "init", begin)
    at_collection(monkeypatch, 3, raise_signal(signal.SIGTERM))
    train(tmp_path / "run", "log.to=[wandb]")
    train(tmp_path / "run", "log.to=[wandb]")
    train(tmp_path / "run", "log.to=[wandb]", "resume=never")
    assert ids[0] == ids[1] != ids[2]
    assert calls.count("finished") == 3 and calls[0] == (0, True)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([], ["tensorboard"]),
        (["log.tensorboard=false"], []),
        (["log.to=[csv,tensorboard]", "log.tensorboard=false"], ["csv"]),
        (["log.to=[]", "log.tensorboard=true"], ["tensorboard"]),
        (["log.to=[tensorboard,csv,csv]", "log.tensorboard=true"], ["tensorboard", "csv"]),
    ],
)
def test_the_switch_of_earlier_versions_still_works(tmp_path: Path, options: list[str], names: list[str]) -> None:
    assert chosen(compose_train(tmp_path, *options)) == names
