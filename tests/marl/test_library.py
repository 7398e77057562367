"""The library as a notebook uses it: twice in a row, from any folder, with plug-ins from outside the repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict
from PIL import Image

import marl
from marl.core.types import ConfigError
from marl.run.collect import collect
from marl.run.metrics import read_rows
from marl.run.teams import load_trained
from marl.show import crossplay_report, leaderboard, robustness_report
from tests.support.helpers import command, rows
from tests.support.own_configs import write_configs

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("env=toy/corridor", "train.total_steps=400", "train.n_envs=8", "eval.every=200", "eval.episodes=8",
         "eval.final_episodes=8", "eval.n_envs=8", "replay.capacity=64", "algo.batch_size=8",
         "algo.episodes_per_update=1", "agent@algo.agent=gru", "algo.agent.hidden_dim=16", "log.every=100",
         "log.to=[]", "log.progress=off")  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> marl.Run:
    return marl.train("algo=vdn", *SMALL, dir=tmp_path_factory.mktemp("library") / "run")


def test_the_version_is_that_of_the_package() -> None:
    assert f'version = "{marl.__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_importing_marl_loads_nothing_and_lists_everything() -> None:
    unlisted = "sorted(set(marl.__all__) - set(dir(marl)))"
    code = f"import sys, marl; print('torch' in sys.modules, 'hydra' in sys.modules, {unlisted})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == "False False []", done.stderr
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        marl.nonsense  # noqa: B018


def test_compose_is_the_command_line_and_leaves_hydra_as_it_was() -> None:
    before = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    first = marl.compose("algo=vdn", "env=toy/matrix", "algo.learner.lr=0.01", "seed=3")
    assert marl.compose("algo=vdn", "env=toy/matrix", "algo.learner.lr=0.01", "seed=3") == first
    assert (GlobalHydra.instance().hydra, HydraConfig.instance().cfg) == before
    assert first.run_path == "default/toy-matrix/vdn-none/algo.learner.lr=0.01-seed3"
    assert marl.compose("env=toy/corridor", "++env={length:5}").run_path.endswith("/env={length:5}-seed0")
    assert first.env._target_ == "envs.toys.games.MatrixGame" and "hydra" not in first
    assert marl.compose("suite=quick", config="robustness").suite.columns


def test_the_library_takes_paths_and_texts_as_they_are() -> None:
    path = "runs/x/train.n_envs=8-seed0"
    found = marl.compose(f"init_from={path}", "name=größe")
    assert (found.init_from, found.name) == (path, "größe")
    with pytest.raises(ConfigError, match="seed=a=b cannot be read: mismatched input"):
        marl.compose("seed=a=b")


def test_what_is_done_to_a_configuration_changes_no_other() -> None:
    """Of an option that Hydra keeps in its store, of an override's list, and of what the store itself holds."""
    words = ("algo=sbc_irrelevant", "env=mds", "attack=rand_act")
    expected = OmegaConf.to_yaml(marl.compose(*words))
    first = marl.compose(*words)
    first.algo.sets.pool, first.algo.penalty, first.attack.budget = 1, 99.0, 7
    with open_dict(first):
        first.algo.more = {"a": [1]}
    assert OmegaConf.to_yaml(marl.compose(*words)) == expected


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["algo=qmx"], "algo=qmx does not exist; did you mean qmix"),
        (["env=3m"], "env=3m does not exist; did you mean skirmish/3m"),
        (["algo.learner.lrr=1"], "lrr"),
        (["train.total_steps=0"], "train.total_steps=0"),
        (["train.total_steps=many"], "many"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(overrides: list[str], says: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConfigError):
        marl.train(*overrides, dir=tmp_path / "mine")
    assert (tmp_path / "mine").is_dir(), "it was there before"
    with pytest.raises(ConfigError) as caught:
        marl.train(*overrides, dir=tmp_path / "run")
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_run_is_what_the_script_makes(run: marl.Run, tmp_path: Path) -> None:
    command("train", "algo=vdn", *SMALL, f"runs_dir={tmp_path}")
    (script,) = (path.parent for path in tmp_path.rglob("DONE"))
    for file in ("eval", "metrics"):
        assert rows(script, file) == rows(run.dir, file)
    left = {path.name for path in run.dir.iterdir()}
    assert left >= {"config.json", "meta.json", "checkpoints", "DONE", "learning_curve.png"}
    final = read_rows(run.dir / "eval.jsonl")[-1]
    assert run.finished and run.scores["return"].mean == final["eval/return"]
    said = json.loads((run.dir / "meta.json").read_text())["command"]
    assert said.startswith("marl.train('algo=vdn', 'env=toy/corridor'") and str(run.dir) in said


def test_the_same_call_again_returns_the_finished_run(run: marl.Run) -> None:
    assert marl.train("algo=vdn", *SMALL, dir=run.dir) == run
    with pytest.raises(ConfigError, match="trained with another configuration"):
        marl.train("algo=iql", *SMALL, dir=run.dir)


def test_a_team_is_tested_as_by_the_script(run: marl.Run, tmp_path: Path) -> None:
    command("evaluate", f"run='{run.dir}'", "episodes=12", "seed=5", "attack=random", f"out={tmp_path / 'result.json'}")
    found = json.loads((tmp_path / "result.json").read_text())
    team = marl.load(run)
    scores = team.evaluate(episodes=12, seed=5, attack="random")
    assert {name: score.as_dict() for name, score in scores.items()} == {name: found[name] for name in scores}
    assert scores.keys() == {"win_rate", "return", "length", "hits", "hit_actions"}
    assert team.evaluate(episodes=12, seed=5, attack="random") == scores
    assert team.spec.n_agents == marl.make_env("toy/corridor").spec.n_agents and str(run.dir) in repr(team)


def test_a_team_is_tested_in_a_changed_environment(run: marl.Run) -> None:
    assert marl.load(run, env_options={"episode_limit": 3}).evaluate(episodes=4)["length"].mean <= 3
    with pytest.raises(ConfigError, match="lengthy"):
        marl.load(run, env_options={"lengthy": 3})


def test_a_team_acts_as_when_it_is_tested(tmp_path: Path) -> None:
    """Led by hand through the lanes of a test, it plays the test's actions: it remembers what it saw and did."""
    small = [word for word in SMALL if not word.startswith("env=")]
    run = marl.train("algo=vdn", "env=spread", *small, dir=tmp_path / "run")
    parts, clock = load_trained(run.dir, {"seed": 3}, 8)
    gen = torch.Generator()
    tested = collect(
        parts.env, parts.algo.policy(clock), parts.attack, parts.fields, explore=False,
        attacked=torch.ones(8, dtype=torch.bool), policy_gen=gen, attack_gen=gen, device="cpu", seed=7,
    )  # fmt: skip
    team, env = marl.load(run), marl.make_env("spread", n_envs=8)
    for _ in range(2):
        obs = env.reset(seed=7)
        team.reset()
        for t in range(tested.horizon):
            actions = team.act(obs)
            assert torch.equal(actions[tested.filled[:, t]], tested.intended[:, t].long()[tested.filled[:, t]]), t
            obs = env.step(actions).next
    assert len(tested.intended[tested.filled].unique(dim=0)) > 1, "it does not always play the same"


def test_the_lanes_of_an_episode_stay_the_same(run: marl.Run) -> None:
    team, wide = marl.load(run.dir), marl.make_env("toy/corridor", n_envs=5)
    team.act(marl.make_env("toy/corridor", n_envs=4).reset())
    with pytest.raises(ValueError, match="obs has 5 lanes, the episode began with 4"):
        team.act(wide.reset())
    team.reset()
    assert team.act(wide.reset()).shape == (5, team.spec.n_agents)


def test_a_team_is_filmed(run: marl.Run, tmp_path: Path) -> None:
    path = marl.load(run).record(tmp_path / "films" / "corridor.gif")
    with Image.open(path) as film:
        assert film.n_frames > 1
    with pytest.raises(ConfigError, match=r"film.mp4 must end in .gif"):
        marl.load(run).record(tmp_path / "film.mp4")


def test_it_works_from_any_folder_twice_in_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        folder = "runs/nb" if seed == 0 else None
        one = marl.train("algo=vdn", *SMALL, f"seed={seed}", dir=folder)
        assert one.finished and (tmp_path / one.dir / "DONE").exists()
        assert marl.load(one.dir).evaluate(episodes=4)["return"].n == 4
    assert one.dir.parts[0] == "runs" and one.dir.name.endswith("seed1")


def test_environments_take_options_and_refuse_others() -> None:
    assert marl.make_env("toy/corridor", n_envs=3, length=6).n_envs == 3
    with pytest.raises(ConfigError, match="lengthy"):
        marl.make_env("toy/corridor", lengthy=6)
    with pytest.raises(ConfigError, match="n_envs=0 must be at least 1"):
        marl.make_env("toy/corridor", n_envs=0)


def test_a_class_outside_the_repository_is_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_bonus.py").write_text(
        "import torch\nfrom marl.core.protocols import NoHook\n\n\n"
        "class Bonus(NoHook):\n    def __init__(self, spec, *, size):\n        self.size = size\n\n"
        "    def reward(self, batch, fwd):\n        return self.size\n\n"
        "    def update(self, batch, fwd):\n        return {'bonus/size': torch.tensor(self.size)}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    hook = "+algo.hooks.bonus={_target_: my_bonus.Bonus, _partial_: true, size: 0.25}"
    run = marl.train("algo=vdn", *SMALL, hook, dir=tmp_path / "run")
    assert read_rows(run.dir / "metrics.jsonl")[-1]["bonus/size"] == 0.25


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Forget the folders of configurations that a test adds."""
    yield
    marl.use_configs()


@pytest.mark.usefixtures("forgotten")
def test_configurations_of_ones_own_are_found_by_everything(
    run: marl.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A game, an attack, an algorithm and a suite: in the folder that was added, also from elsewhere later on."""
    write_configs(tmp_path / "conf")
    (tmp_path / "other" / "attack").mkdir(parents=True)
    (tmp_path / "other" / "attack" / "nudge.yaml").write_text("defaults: [flip, _self_]\nbudget: 1\n")
    with pytest.raises(ConfigError, match="env=meet does not exist"):
        marl.make_env("meet")
    monkeypatch.chdir(tmp_path)
    marl.use_configs("conf")
    marl.use_configs(Path("other"))
    monkeypatch.chdir("/")
    assert marl.make_env("meet", n_envs=2).n_envs == 2
    found = marl.compose("algo=own", "env=meet", "attack=nudge")
    assert (found.algo.batch_size, found.attack.budget, found.run_path) == (8, 1, "default/meet/own-nudge/seed0")
    with pytest.raises(ConfigError, match="env=meat does not exist; did you mean meet"):
        marl.compose("env=meat")
    team = marl.load(run, env="meet")
    assert 0 < team.evaluate(episodes=4, attack="flip")["hits"].mean <= 2
    matrix = marl.robustness(run, "mine", episodes=2, out=tmp_path / "r")
    assert matrix.columns == ["natural", "flip"]
    assert matrix.about["command"].startswith(f"marl.use_configs('{tmp_path}/conf'); marl.use_configs(")
    assert marl.crossplay(run, env="meet", episodes=2, out=tmp_path / "c").game == "meet"
    file = tmp_path / "board.json"
    marl.leaderboard(file, run, "mine", by="us", episodes=2, n_envs=2, out=tmp_path / "l")
    (checked,) = marl.leaderboard(file, run, check=True, out=tmp_path / "l").checks
    assert checked.agrees and checked.numbers
    marl.use_configs()
    with pytest.raises(ConfigError, match="env=meet does not exist"):
        marl.make_env("meet")


@pytest.mark.usefixtures("forgotten")
def test_a_folder_of_configurations_that_is_none_is_refused(tmp_path: Path) -> None:
    write_configs(tmp_path / "conf")
    for folder in (tmp_path / "nope", tmp_path / "conf" / "env" / "meet.yaml", ""):
        with pytest.raises(ConfigError, match=r"use_configs: .* is no folder"):
            marl.use_configs(folder)
    with pytest.raises(ConfigError, match=r"--config-dir=conf is a flag of the scripts; .* marl\.use_configs"):
        marl.compose("--config-dir=conf", "env=meet")
    word = f"hydra.searchpath=[file://{tmp_path}/conf]"
    assert marl.compose(word, "env=meet").env.length == 6
    with pytest.raises(ConfigError, match="did you mean meet"):
        marl.compose(word, "env=meat")


def test_both_matrices_are_measured_shown_and_written(run: marl.Run, tmp_path: Path, capsys: Any) -> None:
    matrix = marl.robustness([run], "quick", episodes=4, only=["natural", "random"], out=tmp_path / "r")
    (method, row) = matrix.rows
    assert matrix.columns == ["natural", "random"] and row.label == method.label and matrix.complete
    assert matrix.about["command"].startswith("marl.robustness(")
    assert repr(matrix) == "<Matrix quick; runs: 1; columns: natural, random; episodes: 4>"
    title, head, line = str(matrix).splitlines()
    assert title == "quick: win_rate over 4 episodes a cell" and head.split() == ["natural", "random"]
    rates = [f"{method.cells[name].win_rate.mean:.2f}" for name in matrix.columns]
    assert line.startswith(f"{method.label} (toy-corridor)") and line.split()[-2:] == rates
    robustness_report.show(matrix)
    assert "natural" in capsys.readouterr().out
    assert (robustness_report.write(matrix, tmp_path / "r") / "matrix.png").exists()
    cross = marl.crossplay(run.dir, "simple", episodes=4, out=tmp_path / "c")
    assert cross.complete and {partner.population for partner in cross.sheet.partners}
    assert repr(cross) == "<CrossMatrix of toy-corridor; runs: 1; partners: 2; episodes: 4>"
    assert str(cross).splitlines()[1].split() == ["self-play", "cross-play", "simple"]
    (method,) = cross.methods
    (held,) = method.held
    assert str(cross).splitlines()[2].split()[-3:] == [f"{method.self_play.mean:.2f}", "-", f"{held.mean.mean:.2f}"]
    assert (crossplay_report.write(cross, tmp_path / "c") / "crossplay.png").exists()
    with pytest.raises(ConfigError, match=r"episods is not an option of marl.robustness; there are .*episodes"):
        marl.robustness([run], episods=4)
    with pytest.raises(ConfigError, match="episodes=few"):
        marl.robustness([run], episodes="few")


def test_a_leaderboard_is_what_the_script_makes(run: marl.Run, tmp_path: Path) -> None:
    """Added to by the library and by the script, two boards differ in the time and in who says so."""
    file, how = tmp_path / "library.json", {"episodes": 6, "n_envs": 3, "out": tmp_path / "out"}
    made = marl.leaderboard(file, run, "quick", by="us", **how)
    command("leaderboard", f"file={tmp_path}/script.json", f"runs='{run.dir}'", "suite=quick", "by=us", "episodes=6",
            "n_envs=3", f"out={tmp_path}/script")  # fmt: skip
    boards = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("library", "script"))
    (mine,), (other,) = (board["entries"] for board in boards)
    assert {key for key in mine if mine[key] != other[key]} <= {"date"}
    assert made.matrix is not None and made.matrix.complete
    assert made.matrix.about["command"].startswith(f"marl.leaderboard('{file}', ['{run.dir}'], 'quick', by='us'")
    assert made.entries == made.added == marl.leaderboard(file).entries and not made.replaced + made.left_out
    again = marl.leaderboard(file, [run], "quick", "suite.budget=8", by="we", **how)
    assert [one.by for one in again.replaced] == ["us"] and [one.by for one in again.entries] == ["we"]


def test_a_leaderboard_is_checked(run: marl.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The honest entry agrees, a forged one does not, and the file stays as it is."""
    file = tmp_path / "board.json"
    how = {"episodes": 6, "n_envs": 3, "out": tmp_path / "out"}
    marl.leaderboard(file, run, "quick", by="us", **how)
    made = marl.leaderboard(file, run, check=True, out=tmp_path / "out")
    assert [one.agrees for one in made.checks] == [True] and made.checks[0].numbers and not made.wrong
    tree = json.loads(file.read_text())
    head = tree["entries"][0]["without_attack"]
    head["mean"] = 1.0 if head["mean"] < 0.5 else 0.0
    file.write_text(json.dumps(tree))
    forged = marl.leaderboard(file, run, check=True, out=tmp_path / "out")
    assert len(forged.wrong) == 1 and json.loads(file.read_text()) == tree
    leaderboard.show_check(list(forged.checks))
    assert "does not agree" in capsys.readouterr().out


def test_composing_while_a_script_runs_leaves_its_hydra_alone(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import hydra, marl\nfrom hydra.core.hydra_config import HydraConfig\n\n\n"
        "@hydra.main(version_base='1.3', config_path=None)\ndef main(cfg):\n"
        "    folder = HydraConfig.get().runtime.output_dir\n"
        "    target = marl.compose('env=toy/matrix').env._target_\n"
        "    print(target, HydraConfig.get().runtime.output_dir == folder)\n\n\nmain()\n"
    )
    words, env = [sys.executable, str(script), f"hydra.run.dir={tmp_path}"], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=600, env=env)
    assert done.stdout.strip() == "envs.toys.games.MatrixGame True", done.stderr
