"""Words that Hydra cannot read, flags that do not exist, sweeps without -m, and folders that cannot be made."""

from __future__ import annotations

import pytest

from scripts.words import help_text
from tests.support.refusals import Ground, faults

TRAIN = "train env=toy/corridor train.total_steps=50 "
CASES = {
    TRAIN + "nonsense": "nonsense cannot be read: missing EQUAL",
    TRAIN + "env": "env cannot be read: missing EQUAL",
    TRAIN + "=5": "'=5' has no key; give key=value",
    TRAIN + "+train.n_envs=2": "Either remove + prefix: 'train.n_envs=2'",
    TRAIN + "algo=[qmix": "algo=[qmix names no option of algo",
    TRAIN + "'algo.learner.lr=[1,2'": "no viable alternative at input '[1,2'",
    TRAIN + "'algo={a:1'": "algo={a:1 names no option of algo",
    TRAIN + "'algo={a:1}'": "algo={a:1} names no option of algo",
    TRAIN + "'name=\"unbalanced'": 'name="unbalanced',
    TRAIN + "'algo.learner.lr=${nothing}'": "Interpolation key 'nothing' not found",
    TRAIN + "'algo.learner.lr=${algo.learner.lr}'": "Recursive interpolation",
    TRAIN + "seed=0,1": "'seed=0,1' ... To sweep over it, add --multirun",
    TRAIN + "algo=qmix,vdn": "'algo=qmix,vdn' ... To sweep over it, add --multirun",
    TRAIN + "'seed=range(3)'": "'seed=range(3)' requires --multirun",
    TRAIN + "'seed=choice(1,2)'": "'seed=choice(1,2)' requires --multirun",
    TRAIN + "'seed=foo(1,2)'": "Unknown function 'foo'",
    "evaluate run=team,rival": "run=team,rival is not a run folder",
    TRAIN + "--nonsense": "unrecognized arguments: --nonsense; flags such as -m stand before or after all of key=value",
    TRAIN + "-x": "unrecognized arguments: -x",
    TRAIN + "-m seed=1,2": "unrecognized arguments: seed=1,2; flags such as -m stand before or after all of key=value",
    TRAIN + "--cfg nothing": "invalid choice: 'nothing' (choose from",
    TRAIN + "--config-name=nope": "there is no configuration nope.yaml",
    TRAIN + "--config-path=nope": "'scripts.nope' not found",
    TRAIN + "--config-dir=nope": "nope' not found",
    TRAIN + "--config-dir=file": "file' not found",
    TRAIN + "--run --multirun": "Only one of --run, --multirun",
    "train -m env=toy/corridor seed=": "seed= ... could not be converted to Integer",
    "train -m env=toy/corridor algo=qmix,nope": "algo=nope does not exist",
    "train -m env=toy/corridor algo=qmix,nope runs_dir=new/runs": "algo=nope does not exist",
    "train -m env=toy/corridor train.nope=1,2": "nope",
    "train -m env=toy/corridor algo=qmix,nope launch=joblib": "algo=nope does not exist",
    "evaluate --nonsense": "unrecognized arguments: --nonsense",
    "robustness --help=yes": "--help",
    TRAIN + "hydra.job.chdir=maybe": "hydra.job.chdir=maybe ... is not a valid bool",
    TRAIN + "hydra.run.dir=file": "file: File exists",
    TRAIN + "name=a/../../b": "name=a/../../b must name a folder below runs_dir",
    TRAIN + "name=..": "name=.. must name a folder below runs_dir",
    TRAIN + "name=../b": "name=../b must name a folder below runs_dir",
    TRAIN + "name=/b": "name=/b must name a folder below runs_dir",
    TRAIN + "name=": "name= must name a folder below runs_dir",
    TRAIN + "name=null": "name=null ... not Optional",
    TRAIN + "name=[a]": "name=[a]",
    TRAIN + f"name={'a' * 300}": "has a part that is longer than 255 bytes",
    TRAIN + "run_path=../x": "run_path=../x must name a folder below runs_dir",
    TRAIN + "run_path=/x": "run_path=/x must name a folder below runs_dir",
    TRAIN + "run_path=": "run_path= must name a folder below runs_dir",
    TRAIN + "runs_dir=file": "file/default/toy-corridor/qmix-none/seed0: Not a directory",
    TRAIN + "runs_dir=file/x": "file/x/default/toy-corridor/qmix-none/seed0: Not a directory",
    TRAIN + "runs_dir=null": "runs_dir=null ... not Optional",
    TRAIN + "runs_dir=/proc/nothing": "/proc/nothing",
    TRAIN + "resume=must": "resume=must, but ... holds no usable checkpoint",
    TRAIN + f"init_from={'a' * 300}": "has a part that is longer than 255 bytes",
    TRAIN + f"runs_dir={'a' * 300}": "has a part that is longer than 255 bytes",
    TRAIN + f"algo=frozen algo.run={'a' * 300}": "has a part that is longer than 255 bytes",
    TRAIN + f"hydra.run.dir={'a' * 300}": "File name too long",
    "train --config-dir=own env=toy/corridor algo=broken": "own/algo/broken.yaml is no YAML: expected ',' ... line 4",
    "train --config-dir=own env=toy/corridor algo=latin": "own/algo/latin.yaml is not written in UTF-8: 'utf-8' codec",
    TRAIN + "init_from=": "init_from= must name a file or folder",
    TRAIN + "algo=frozen algo.run=": "algo.run= must name a file or folder",
    TRAIN + "algo=fcp 'algo.runs=[\"\"]'": "algo.runs= must name a file or folder",
    TRAIN + "init_from=nowhere": "init_from=nowhere is not a run folder",
    # what an experiment begins from is named by Hydra's own choices, which are known only once it runs
    "train experiment=robust_long/wall env=toy/matrix runs_dir=new": "new/gradients/toy-matrix/qmix-none/seed0 is not",
    TRAIN + "init_from=empty": "init_from=empty is not a run folder",
    TRAIN + "init_from=other agent@algo.agent=gru algo.agent.hidden_dim=16": "init_from=other does not fit",
    TRAIN + "algo=frozen algo.run=nowhere": "nowhere is not a run folder",
    TRAIN + "algo=frozen algo.run=other": "does not fit",
    TRAIN + "algo=fcp 'algo.runs=[nowhere]'": "nowhere",
}
HELP = {
    "train --help": (
        "Train a team",
        "total_steps: 300000     # environment steps",
        "algo: bc, count",
        "sampler: uniform",
        "algo=qmix, marl.learn.algorithm.ValueAlgorithm:\n",  # and the options of what is chosen
        "  algo.batch_size: 32                 # episodes per gradient step\n",
        "  env.map: 3m\n",
    ),
    "train --help algo=fim env=mpe/spread": (
        "  algo.hooks.fim.influence: abs ",
        "# abs | sq",
        "env.env: mpe2.simple_spread_v3",
        "algo.learner.lr: 0.0005",
    ),
    "reproduce --help": ("dry_run: false", "only print the commands", "table: battle_scripts"),
    "evaluate --help": ("checkpoint: null", "null: the newest", "attack: atla"),
    "plot -h": ("last: 1",),
}


@pytest.mark.parametrize("line", CASES)
def test_refused(ground: Ground, line: str) -> None:
    assert faults(line, CASES[line], ground.answer(line)) == []


@pytest.mark.parametrize("line", HELP)
def test_help_says_what_the_files_say(ground: Ground, line: str) -> None:
    answer = ground.answer(line)
    assert (answer.code, answer.err, answer.changed) == (0, "", [])
    assert [words for words in HELP[line] if words not in answer.out] == []


def test_help_of_a_choice_has_the_options_that_it_is_made_of() -> None:
    shown = help_text("train", "", ["algo=hsp", "attack=random", "env=nope", "mixer@algo.mixer=qmix"])
    assert (
        "algo=hsp, algos.sbc.population.BestResponse:\n" in shown
        and "  algo.checkpoints: [1.0]  " in shown
        and "MEP" not in shown
    )
    assert "  algo.learner.lr: 0.0005" in shown and "  algo.mixer.embed_dim: 32" in shown
    assert "attack=random, attacks.random.RandomActions:\n" in shown and "env=nope: there is no such choice" in shown
    assert "algo=qmix" not in shown and "env=skirmish/3m" not in shown, "others stand in their place"
    assert help_text("zoo", "", []).endswith("as its run"), "a script without choices offers none"


def test_help_fits_the_terminal_and_leaves_out_what_nobody_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = help_text("train", "", [])
    listed = shown.partition("Choices, as GROUP=NAME:")[2].partition("\n\nalgo=qmix")[0].splitlines()
    assert 70 < max(map(len, listed)) <= 80 and "  - env: skirmish/3m\n" in shown
    assert not any(word in shown for word in ("train_schema", "_self_", "override hydra", "- logger@log"))
    assert "defaults" not in help_text("plot", "", []), "nothing is chosen there"
