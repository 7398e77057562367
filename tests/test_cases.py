"""Small inputs that once failed (``../shared/cases``, beside the repository), each run as its first line says and held
against what that line expects. Skipped where they are absent; their kinds have tests of their own. The interpreter that
they call is a quick one: each script begins in a fork."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.prefork import quick_python
from tests.support.processes import DEADLINE_S, ROOT

CASES = ROOT.parent / "shared" / "cases"
QUICK = (
    "train.total_steps=400 train.n_envs=4 eval.episodes=4 eval.final_episodes=4 eval.n_envs=4 log.to=[] "
    "env.workers=1 env.episode_limit=20"
)
TRAIN = "python -m scripts.train"
ZOO = f"{TRAIN} env=pettingzoo {QUICK}"
SWITCHED = f"{TRAIN} env=gym env.env=gym_done_per_agent:make +env.kwargs.form="
PLOT = "python -m scripts.plot runs='names/**' out=plots unfinished=true"
RUNS = r"length +5\.000 .*|return +10\.000"  # as the game is


@dataclass(frozen=True)
class Case:
    """A command, its exit code and words of its output. ``then`` looks at what it leaves in its folder."""

    command: str
    code: int
    words: str = ""
    then: Callable[[Path], bool] = lambda folder: True


def done(*names: str) -> Callable[[Path], bool]:
    return lambda folder: all((folder / name / "DONE").exists() for name in names)


def finished(pattern: str, count: int) -> Callable[[Path], bool]:
    return lambda folder: len(list(folder.glob(f"{pattern}/DONE"))) == count


GAMES = {
    "zoo_one_file": Case(f"{ZOO} env.env=zoo_one_file:make", 0, RUNS),
    "zoo_keeps_agents": Case(f"{ZOO} env.env=zoo_keeps_agents", 0, RUNS),
    "zoo_mask_names info": Case(f"{ZOO} env.env=zoo_mask_names +env.kwargs.where=info", 0, RUNS),
    "zoo_mask_names obs": Case(f"{ZOO} env.env=zoo_mask_names +env.kwargs.where=obs", 0, RUNS),
    "zoo_mask_names rllib": Case(f"{ZOO} env.env=zoo_mask_names +env.kwargs.where=rllib", 0, RUNS),
    "zoo_no_state": Case(f"{ZOO} env.env=zoo_no_state env.state=env algo=qplex", 2, "no features.*env.state=concat"),
    "zoo_noop_of_the_dead": Case(
        f"{ZOO} env.env=zoo_noop_of_the_dead env.noop_action=0 attack=missing attack.mode=idle", 2,
        "attack=missing needs an action",
    ),
    "zoo_old_api obs": Case(f"{ZOO} env.env=zoo_old_api +env.kwargs.form=obs_only", 2, "reset must return"),
    "zoo_old_api info": Case(f"{ZOO} env.env=zoo_old_api +env.kwargs.form=info_none", 0, RUNS),
    "zoo_old_api four": Case(f"{ZOO} env.env=zoo_old_api +env.kwargs.form=four", 1, "step must return"),
    "zoo_reward_forms array": Case(f"{ZOO} env.env=zoo_reward_forms +env.kwargs.form=array", 0, RUNS),
    "zoo_reward_forms none": Case(f"{ZOO} env.env=zoo_reward_forms +env.kwargs.form=none", 1, "must be a number"),
    "zoo_reward_forms scalar": Case(f"{ZOO} env.env=zoo_reward_forms +env.kwargs.form=scalar", 1, "each agent"),
    "zoo_turns": Case(
        f"{TRAIN} env=pettingzoo env.env=pettingzoo.classic.tictactoe_v3:env env.episode_limit=20", 2, "AECEnv"
    ),
    "zoo_long": Case(
        "sed -i s/40000/33000/ zoo_long.py; python -m scripts.evaluate policy=random env=pettingzoo env.env=zoo_long "
        "env.episode_limit=33000 env.workers=1 episodes=1 n_envs=1", 0, r"length +33000",  # above 32767, as 40000 is
    ),
    "zoo_simulator_dies": Case(
        f"{ZOO} env.env=zoo_simulator_dies train.total_steps=12000 algo.episodes_per_update=4", 0, "went away"
    ),
    "gym_done_per_agent list": Case(f"{SWITCHED}list {QUICK}", 1, "terminated must be one flag"),
    "gym_done_per_agent dict": Case(f"{SWITCHED}dict {QUICK}", 1, "terminated must be one flag"),
    "windows_folders": Case(
        "python windows_folders.py env=toy/matrix train.total_steps=200 eval.episodes=4 log.to=[]", 0, "",
        finished("runs/*/*/*/*", 1),
    ),
    "gpu_run_on_cpu": Case("python gpu_run_on_cpu.py", 0, "stream|generator", done("runs/gpu")),
    "plot_names": Case(f"python plot_names.py && {PLOT}", 0, "(?s)fast/x.*slow/x"),
    "yaml_comment": Case("bash yaml_comment.sh", 2, "some_argument"),  # this game takes no argument
    "never_learns": Case(f"{TRAIN} env=toy/matrix replay.capacity=16 train.total_steps=3000", 2, "nothing would"),
    "damaged_run": Case("bash damaged_run.sh", 0, "", lambda left: bool([*left.glob("runs/damaged/*/step_*_best")])),
    "env_options_nested": Case("bash env_options_nested.sh", 0, "win_rate|return"),
    "joblib_pool": Case("bash joblib_pool.sh", 0, "", finished("runs/*/*/*/*", 2)),
    "printed_command": Case("bash printed_command.sh", 0, "return"),
    "sweep_one_fails": Case(  # the healthy runs have 12,000 steps to go when the first one fails at its first update
        "sed 's/=3000/=1000/; s/=60000/=12000/' sweep_one_fails.sh | bash", 0, r"(?s)failed.*lr=1e\+30",
        finished("runs/*/*/*/*", 4),
    ),
}  # fmt: skip


def test_every_case_is_run_here() -> None:
    if not CASES.exists():
        pytest.skip(f"{CASES} is absent")
    files = {path.stem for path in CASES.iterdir() if path.suffix in (".py", ".sh")}
    alone = {"full_disk"}  # needs file systems of its own: tests/marl/run/test_disks.py
    assert files == {name.partition(" ")[0] for name in GAMES} | alone


@pytest.mark.parametrize("name", GAMES)
def test_cases(name: str, tmp_path: Path) -> None:
    if not CASES.exists():
        pytest.skip(f"{CASES} is absent")
    case, folder = GAMES[name], Path(shutil.copytree(CASES, tmp_path / "cases"))
    environment = {
        **os.environ, "PYTHONPATH": f"{ROOT}:{folder}", "PATH": f"{quick_python().parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    result = subprocess.run(
        ["bash", "-c", case.command], cwd=folder, env=environment, capture_output=True, text=True, timeout=DEADLINE_S
    )
    said = result.stdout + result.stderr
    assert result.returncode == case.code, said
    assert "Traceback" not in said or name == "zoo_simulator_dies", said  # the game's own, with a warning
    assert re.search(case.words, said), said
    assert case.then(folder), said
