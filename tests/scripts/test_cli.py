"""Bad input: exit code 2 and one line that names the value and what was allowed; no traceback, nothing begun."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from numba import njit
from numba.core import event

from scripts.main import CompileNotice, exit_codes
from tests.support.helpers import command, compose_train, train

ROOT = Path(__file__).resolve().parents[2]

# arguments of scripts.train -> what the line must contain
TRAIN = {
    # the schema: keys and types
    "train.total_stepz=5": ("total_stepz", "total_steps", "n_envs"),
    "nonsense=1": ("nonsense", "seed", "train", "algo"),
    "train.n_envs=many": ("train.n_envs=many", "Integer"),
    "seed=[0]": ("seed",),
    "nonsense": ("nonsense",),
    # ranges
    "train.n_envs=0": ("train.n_envs=0", "at least 1"),
    "train.total_steps=-5": ("train.total_steps=-5", "at least 1"),
    "eval.episodes=0": ("eval.episodes=0", "at least 1"),
    "checkpoint.keep=0": ("checkpoint.keep=0", "at least 1"),
    "replay.capacity=-1": ("replay.capacity=-1", "at least 1"),
    "seed=-1": ("seed=-1", "at least 0"),
    "threads=0": ("threads=0", "at least 1"),
    "train.attack_fraction=1.5": ("train.attack_fraction=1.5", "[0, 1]"),
    # choices
    "resume=sometimes": ("resume=sometimes", "auto, never, must"),
    "log.progress=loud": ("log.progress=loud", "auto, bar, lines, off"),
    "env=skirmish/3n": ("env=skirmish/3n", "did you mean skirmish/3m", "toy/corridor"),
    "algo=qmxi": ("algo=qmxi", "did you mean qmix", "iql"),
    "attack=nope": ("attack=nope", "none"),
    "mixer@algo.mixer=qmax": ("mixer=qmax", "did you mean qmix"),
    "launch=abacus": ("launch=abacus", "local"),
    # plug-ins: their constructors are the schema
    "algo.foo=1": ("algo.foo", "learner", "batch_size"),
    "+algo.foo=1": ("algo.foo", "ValueAlgorithm", "learner", "batch_size"),
    "+algo.learner.foo=1": ("algo.learner.foo", "ValueLearner", "gamma"),
    "+algo.agent.foo=1": ("algo.agent.foo", "RecurrentAgent", "hidden_dim"),
    "+env.foo=1": ("env.foo", "Corridor", "length"),
    "algo.learner.lr=fast": ("algo.learner.lr=fast", "float"),
    "algo.learner.lr=null": ("algo.learner.lr=None", "float"),
    "algo.learner.double_q=maybe": ("algo.learner.double_q=maybe", "bool"),
    "algo.learner.target_every=soon": ("algo.learner.target_every=soon", "float", "null"),
    "algo.agent.hidden_dim=2.5": ("algo.agent.hidden_dim=2.5", "int"),
    "algo.batch_size=true": ("algo.batch_size=True", "int"),
    "algo.epsilon.steps=abc": ("algo.epsilon.steps=abc", "int"),
    "env.length=x": ("env.length=x", "int"),
    "algo.agent.hidden_dim=0": ("hidden_dim=0", "at least 1"),
    "algo.batch_size=-3": ("batch_size=-3", "at least 1"),
    "algo.epsilon.end=2": ("algo.epsilon: end=2", "[0, 1]"),
    "algo.learner.optimizer=sgd": ("optimizer=sgd", "adam, rmsprop"),
    "algo.learner.tau=0.1 algo.learner.target_every=5": ("learner.tau=0.1", "exactly one"),
    "env.length=1": ("length=1", "at least 2"),
    "~algo.batch_size": ("algo", "batch_size"),
    "algo._target_=marl.learn.algorithm.Nope": ("algo", "Nope"),
    # what is not there, and what does not fit
    "device=cuda:99": ("device=cuda:99", "auto, cpu"),
    "replay.device=gpu": ("replay.device=gpu", "cpu"),
    "replay.capacity=1000000000000": ("replay.capacity=1000000000000", "GiB", "episodes fit"),
    "resume=must": ("resume=must", "no usable checkpoint"),
    "replay.capacity=16 algo.warmup_episodes=32": (
        "replay.capacity=16",
        "algo.warmup_episodes=32",
        "nothing would ever be learnt",
    ),
    "replay.capacity=16": ("replay.capacity=16", "algo.batch_size=32", "nothing would ever be"),
    "env=gym": ("env.env",),
}


def refused(capsys: pytest.CaptureFixture[str], script: str, *arguments: str) -> str:
    """Return the line on stderr of a command that must be refused."""
    with pytest.raises(SystemExit) as left:
        command(script, *arguments)
    out, err = capsys.readouterr()
    assert left.value.code == 2, err
    assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n"), err
    assert "Traceback" not in out + err
    return err


@pytest.mark.parametrize("argument", TRAIN)
def test_train_refuses(argument: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = () if argument.startswith("env=") else ("env=toy/corridor",)
    line = refused(capsys, "train", *task, "train.total_steps=50", f"runs_dir={tmp_path}", *argument.split())
    for words in TRAIN[argument]:
        assert words in line
    begun = {p.name for p in tmp_path.rglob("*")} & {"checkpoints", "metrics.jsonl", "config.json", "tb", "DONE"}
    assert not begun, "refused only after work had begun"


@pytest.mark.parametrize(
    ("script", "arguments", "expected"),
    [
        ("evaluate", ["run=nowhere"], ("run=nowhere", "config.json")),
        ("evaluate", [], ("run",)),
        ("evaluate", ["run=nowhere", "episodes=0"], ("episodes=0", "at least 1")),
        ("evaluate", ["run=nowhere", "n_envs=-2"], ("n_envs=-2", "at least 1")),
        ("evaluate", ["run=nowhere", "episode=5"], ("episode", "episodes")),
        ("record", ["run=nowhere"], ("run=nowhere", "config.json")),
        ("record", ["run=nowhere", "fps=0"], ("fps=0", "within [1, 100]")),
        ("plot", ["runs=nowhere/**"], ("runs=nowhere/**", "no run folder")),
        ("bench", ["only=speed"], ("only=speed", "env_random, rollout, attack, update, train, shares, memory")),
        ("bench", ["seconds=0"], ("seconds=0", "above 0")),
    ],
)
def test_other_scripts_refuse(
    script: str, arguments: list[str], expected: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, script, *arguments)
    for words in expected:
        assert words in line


def test_a_run_is_read_with_care(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is wrong with a folder, a checkpoint, a seed or another environment is said in one line."""
    folder = tmp_path / "run"
    train(folder, "train.total_steps=50")
    run = f"run={folder}"
    (step,) = (int(p.name.removeprefix("step_")) for p in (folder / "checkpoints").glob("step_*"))
    assert str(step) in refused(capsys, "evaluate", run, "checkpoint=12345")
    assert "seed=-1" in refused(capsys, "evaluate", run, "seed=-1")
    assert "threads=0" in refused(capsys, "evaluate", run, "threads=0")
    assert "device=cuda:99" in refused(capsys, "evaluate", run, "device=cuda:99")
    assert "does not fit" in refused(capsys, "evaluate", run, "env=toy/matrix")
    config = json.loads((folder / "config.json").read_text())
    assert config["env"]["_target_"] == "envs.toys.games.Corridor"
    for file in (folder / "checkpoints").rglob("state.pt"):
        file.write_bytes(b"")
    with pytest.raises(SystemExit):
        command("record", run)
    err = capsys.readouterr().err
    assert "damaged" in err and f"error: run={folder} has no usable checkpoint" in err


def test_a_real_process_exits_with_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.train", "env=skirmish/3n", f"runs_dir={tmp_path}"],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: env=skirmish/3n does not exist") and done.stderr.count("\n") == 1


def test_compiling_is_said_once_and_only_where_something_is_compiled(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    double, triple = njit(lambda x: 2 * x), njit(lambda x: 3 * x)
    with event.install_listener("numba:compile", CompileNotice()):
        assert double(2) == 4 and triple(2) == 6
    assert [record.message for record in caplog.records] == ["compiling for this machine, once: up to a minute"]
    with event.install_listener("numba:compile", CompileNotice()):
        assert double(3) == 6
    assert len(caplog.records) == 1


def test_an_interrupt_is_one_word_and_not_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, exit_codes():
        raise KeyboardInterrupt
    assert ended.value.code == 130 and capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(
    ("name", "reward"),
    {"fim_football": "fox", "fox_football": "fox", "s2q_football": "goals", "football_small/qmix": "fox"}.items(),
)
def test_football_without_its_engine_is_refused_in_one_line(
    name: str, reward: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether or not it is installed here, and before anything is written."""
    found = importlib.util.find_spec
    missing = {"gfootball_engine": None}
    monkeypatch.setattr(importlib.util, "find_spec", lambda one, *rest: missing.get(one, one) and found(one, *rest))
    with pytest.raises(SystemExit) as stopped:
        command("train", f"experiment={name}", f"runs_dir={tmp_path / 'runs'}")
    (line,) = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2 and list(tmp_path.rglob("*")) in ([], [tmp_path / "runs"])
    wanted = "the environment needs the package 'gfootball_engine', which is not installed: make football"
    assert line == f"error: {wanted}"
    cfg = compose_train(tmp_path, f"experiment={name}").env
    assert cfg.reward == reward and cfg.timeout_is_terminal is True


def test_the_old_interface_of_football_is_refused_and_the_adapter_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        command(
            "train", "env=gym", "env.env=gfootball.env:create_environment", "env.episode_limit=9",
            f"runs_dir={tmp_path / 'runs'}",
        )  # fmt: skip
    (line,) = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2 and list(tmp_path.rglob("*")) in ([], [tmp_path / "runs"])
    assert line.startswith("error: env.env=gfootball.env:create_environment has the old Gym interface")
    assert "env=football/SCENARIO" in line
