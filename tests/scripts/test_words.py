"""Paths on command lines: printed commands work as printed, and typed ones where names hold what Hydra's grammar reads.
A refused command leaves every file and folder as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from marl.run.quoting import PATHS, TEXTS, override, quoted, repaired, shell
from scripts.words import LAUNCHERS
from tests.scripts.test_cli import refused
from tests.support.helpers import TINY, command
from tests.support.own_configs import write_configs

NAMES = (
    "runs/a", "runs/lr=0.1,goals=[[0,1]]-seed0", "runs/{x: 1}", "/home/josé/läufe", "it's", r"a\'b", "a b", "1", "null",
    "True", "x:y", "back\\", "${seed}", "~/r", "runs/**", "50%", "a#b", "a&b;c", 'q"q', "a$b", "a`b", "a(b)",
)  # fmt: skip
LIKE_NUMBERS = (  # to Hydra they are numbers or truth values, written otherwise
    "2026_12_01", "1_0", "-1_0", "1e5", "1E5", "1.50", "+1", ".5", "5.", "-0", "NaN", "Inf", "true", "FALSE",
)  # fmt: skip
ROOT = Path(__file__).parents[2]


def read(word: str) -> object:
    value = OverridesParser.create().parse_override(word).value()
    return getattr(value, "text", value)


@pytest.mark.parametrize("name", [*NAMES, *LIKE_NUMBERS])
def test_a_printed_option_passes_the_shell_and_hydra(name: str) -> None:
    assert read(f"run={quoted(name)}") == name
    said = subprocess.run(["bash", "-c", f"printf %s {override('run', name)}"], capture_output=True, check=True)
    assert read(said.stdout.decode()) == name


def test_a_recorded_command_passes_the_shell_and_is_easy_to_read() -> None:
    words = ["python", *(f"run={quoted(name)}" for name in NAMES), "hey!", "it's me!", ""]
    said = subprocess.run(["bash", "-c", f"printf '%s\\0' {shell(words)}"], capture_output=True, check=True)
    assert said.stdout.decode().split("\0")[:-1] == words
    typed = ["python", "-m", "scripts.report", "runs=['runs/a/**','runs/b']", "title='A and $B'"]
    assert shell(typed) == """python -m scripts.report "runs=['runs/a/**','runs/b']" "title='A and \\$B'\""""


def test_what_a_person_types_is_repaired_where_hydra_could_not_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "lr=0.1,goals=[[0,1]]-seed0"
    (tmp_path / "runs" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    plain = ["seed=range(3)", "run=runs/a", "run='a b'", "runs=['runs/**']", "algo.lr=a=b", "-m", "runs", "out=null"]
    assert repaired(plain) == plain
    assert repaired([f"run=runs/{name}", "init_from=a,b", "out=/tmp/é"]) == [
        f"run='runs/{name}'", "init_from='a,b'", "out='/tmp/é'",
    ]  # fmt: skip
    assert repaired([f"runs=[runs/{name},runs/**,x=1]"]) == [f"runs=['runs/{name}',runs/**,'x=1']"]
    for key in ("policy.run", "file", "picture", "hydra.sweep.dir"):
        assert repaired([f"{key}=runs/x/train.n_envs=8-seed0"]) == [f"{key}='runs/x/train.n_envs=8-seed0'"]
    assert repaired(["-m", "init_from=a,b"]) == ["-m", "init_from=a,b"], "a sweep over two"


@pytest.mark.parametrize("key", ["algo.policies.a.run", "+partners.x.runs", "attack.policy.run", "name", "by", "title"])
def test_paths_and_texts_are_repaired_wherever_their_option_stands(key: str) -> None:
    for value in ("runs/x/train.n_envs=8-seed0", "größe", "Müller & Söhne", "A = B, C"):
        assert repaired([f"{key}={value}"]) == [f"{key}='{value}'"]
    for word in (f"{key}=null", f"{key}=plain", f"{key}='a=b'", f"{key}=[{{name: a, path: b=c}}]"):
        assert repaired([word]) == [word]


@pytest.mark.parametrize("key", [*PATHS, *TEXTS, "hydra.sweep.dir", "+partners.x.run"])
def test_a_name_that_looks_like_a_number_stays_as_it_is_typed(key: str) -> None:
    for text in LIKE_NUMBERS:
        assert repaired([f"{key}={text}"]) == [f"{key}='{text}'"]
    for text in ("2026_12_01", "true"):
        assert repaired([f"{key}=[a,{text},b=c]"]) == [f"{key}=[a,'{text}','b=c']"]
        assert repaired([f"{key}=[a,{text}]"]) == [f"{key}=[a,'{text}']"], "a list that Hydra can read"
        assert repaired(["-m", f"{key}=a,{text},'1_0',10"]) == ["-m", f"{key}=a,'{text}','1_0',10"]
        assert repaired(["-m", f"{key}=choice(a,{text})"]) == ["-m", f"{key}=choice(a,'{text}')"]
        listed = f"{key}=[{{name: {text}, path: {text}, seeds: {text}}}]"
        assert repaired([listed]) == [f"{key}=[{{name: '{text}', path: '{text}', seeds: {text}}}]"]
    for text in ("12", "-3", "0.5", "null", "nan", "True", "007", "_1", "a 1_0", "12:1_0", "${seed}1_0", "'1_0'"):
        assert repaired([f"{key}={text}"]) == [f"{key}={text}"]
    for text in ("range(1_0,12)", r"a\,1_0", "${oc.env:X,1_0}"):
        assert repaired(["-m", f"{key}={text}"]) == ["-m", f"{key}={text}"]


def test_studies_that_look_like_numbers_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one run below ``runs_dir``, and in a sweep, whose runs Hydra writes as words again."""
    monkeypatch.chdir(tmp_path)
    words = (*TINY, "train.total_steps=64", "runs_dir=2026_12_01", "log.progress=off")
    command("train", *words, "name=1e5")
    command("train", "-m", *words, "name=a,1_0,10")
    assert [path.name for path in tmp_path.iterdir()] == ["2026_12_01"]
    assert {path.name for path in (tmp_path / "2026_12_01").iterdir() if path.is_dir()} == {"1e5", "a", "1_0", "10"}


def test_what_cannot_be_read_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("seed=a=b", "algo.learner.lr=ü"):
        line = refused(capsys, "train", word)
        assert line.startswith(f"error: {word} cannot be read") and f"{word.partition('=')[0]}='...'" in line
        assert "http" not in line and "Lexer" not in line
    assert "nonsense cannot be read" in (line := refused(capsys, "train", "nonsense")) and "give key=value" in line
    line = refused(capsys, "train", "name=a,b")
    assert "--multirun" in line, "two studies, and -m is missing"


def test_the_command_that_training_prints_works_in_a_shell(tmp_path: Path) -> None:
    """Beyond the name of the folder, also the path to it holds what Hydra does not read."""
    place = tmp_path / "ö [1] it's"
    place.mkdir()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    words = [sys.executable, "-m", "scripts.train", *TINY, "train.total_steps=64", f"runs_dir={place}"]
    said = subprocess.run(words, capture_output=True, text=True, env=env, cwd=tmp_path, check=False)
    assert said.returncode == 0, said.stderr
    (line,) = [line for line in said.stderr.splitlines() if "scripts.evaluate" in line]
    printed = line.partition("try next")[2].replace("episodes=200", "episodes=4")
    again = subprocess.run(["bash", "-c", printed], capture_output=True, text=True, env=env, cwd=tmp_path, check=False)
    assert again.returncode == 0 and "over 4 episodes" in again.stdout, again.stderr


def tree(folder: Path) -> dict[str, tuple[int, bytes | None]]:
    """Return every path below a folder with its time of change and its bytes."""
    return {
        str(path): (path.stat().st_mtime_ns if path.is_file() else 0, path.read_bytes() if path.is_file() else None)
        for path in sorted(folder.rglob("*"))
    }


REFUSED = (
    ("env.length=1",),  # by the game
    ("seed=-1",),  # by the configuration
    ("algo.learner.optimizer=sgd",),  # by the learner
    ("replay.capacity=1",),
    ("init_from=nowhere",),
    ("resume=must",),
    ("device=cuda:99",),
    ("resume=never", "env.length=1"),
    ("resume=never", "init_from=nowhere"),
    ("+algo.nothing=1",),
)


@pytest.mark.parametrize("named", [False, True], ids=["by runs_dir", "by hydra.run.dir"])
def test_a_refused_command_leaves_everything_as_it_was(
    named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    where = ("hydra.run.dir=runs/here",) if named else ()

    def refuse(*more: str) -> None:
        before = tree(tmp_path)
        with pytest.raises(SystemExit) as left:
            command("train", *TINY, "train.total_steps=128", *where, *more)
        assert left.value.code == 2 and capsys.readouterr().err.startswith("error: ")
        assert tree(tmp_path) == before, more

    for more in REFUSED:
        refuse(*more)
    assert list(tmp_path.iterdir()) == []
    command("train", *TINY, "train.total_steps=64", "hydra.run.dir=runs/here")
    capsys.readouterr()
    if named:  # and so is a run that is there
        for more in REFUSED:
            if more != ("resume=must",):
                refuse(*more)
        refuse("train.n_envs=4")  # of another configuration


@pytest.mark.parametrize("name", ["joblib", "slurm", "slurm_dry", "optuna", "ray"])
@pytest.mark.parametrize("there", ["nosuch", "hydra.nosuch", "nosuch.either"])
def test_a_launcher_that_is_not_installed_says_which_extra_to_install(
    name: str, there: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = LAUNCHERS[name][1]
    monkeypatch.setitem(LAUNCHERS, name, (there, extra))
    line = refused(capsys, "train", "-m", f"launch={name}", "seed=0,1")
    assert line.strip() == f"error: launch={name} needs {there}; pip install -e .[{extra}]"


@pytest.mark.parametrize("kind", ["--config-dir", "hydra.searchpath"])
def test_help_and_hints_know_configurations_of_ones_own(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_configs(tmp_path / "conf")
    given = ["--config-dir", str(folder)] if kind == "--config-dir" else [f"{kind}=[file://{folder}]"]
    command("train", "--help", *given, "algo=own")
    shown = capsys.readouterr().out
    assert "algo.batch_size: 8" in shown and "of one's own" in shown
    assert " meet" in shown and " flip" in shown and " own," in shown
    assert "did you mean meet" in refused(capsys, "train", *given, "env=meat")
    assert "flip" in refused(capsys, "train", *given, "attack=3")
    assert "flip" not in refused(capsys, "train", "attack=3")
