"""A search with Optuna, and the job that Slurm would get."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

import scripts.train
from marl.run.sweep import Entry, Here, overview
from tests.support.helpers import command, compose_train

# of sbatch's manual page, version 23.11: the long options that take a value
SBATCH = (
    "account array batch bb bbf begin chdir cluster-constraint clusters comment constraint container container-id "
    "core-spec cores-per-socket cpu-freq cpus-per-gpu cpus-per-task deadline delay-boot dependency distribution error "
    "exclude exclusive export export-file extra extra-node-info get-user-env gid gpu-bind gpu-freq gpus gpus-per-node "
    "gpus-per-socket gpus-per-task gres gres-flags hint input job-name kill-on-invalid-dep licenses mail-type "
    "mail-user mcs-label mem mem-bind mem-per-cpu mem-per-gpu mincpus network nice nodefile nodelist nodes ntasks "
    "ntasks-per-core ntasks-per-gpu ntasks-per-node ntasks-per-socket open-mode output partition power prefer priority "
    "profile propagate qos reservation resv-ports segment signal sockets-per-node switches thread-spec "
    "threads-per-core time time-min tmp tres-bind tres-per-task uid wait-all-nodes wckey"
).split()
GIVEN = (
    "hydra.launcher.partition=gpu", "hydra.launcher.gpus_per_node=1", "hydra.launcher.mem_gb=32",
    "hydra.launcher.array_parallelism=2", "hydra.launcher.setup=['module load cuda']", "hydra.launcher.constraint=a100",
    "+hydra.launcher.additional_parameters.mail-type=END",
)  # fmt: skip


@pytest.fixture
def job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    pytest.importorskip("submitit", reason="pip install -e .[cluster]")
    command("train", "-m", "launch=slurm_dry", "seed=0,1,2", "env=toy/matrix", f"runs_dir={tmp_path / 'runs'}", *GIVEN)
    assert not (tmp_path / "runs").exists(), "nothing is started, nothing is written"
    return capsys.readouterr().out


def test_the_printed_job_has_what_was_asked_for(job: str) -> None:
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", job, re.MULTILINE))
    asked = {"partition": "gpu", "gpus-per-node": "1", "mem": "32GB", "array": "0-2%2", "constraint": "a100",
             "time": "720", "cpus-per-task": "4", "mail-type": "END"}  # fmt: skip
    assert {key: options.get(key) for key in asked} == asked
    assert "module load cuda" in job and "account" not in options, "what is null is left to the cluster"
    assert job.count("# task ") == 3 and "# task 2: python -m scripts.train seed=2 env=toy/matrix" in job


def test_the_printed_job_uses_options_that_sbatch_has(job: str) -> None:
    lines = [line for line in job.splitlines() if line.startswith("#SBATCH")]
    names = [re.match(r"#SBATCH --([a-z-]+)", line) for line in lines]
    assert len(lines) > 10 and all(name is not None and name[1] in SBATCH for name in names)


def test_sbatch_itself_reads_the_printed_job(job: str, tmp_path: Path) -> None:
    if shutil.which("sbatch") is None:
        pytest.skip("there is no sbatch here: apt-get install slurm-client")
    (tmp_path / "slurm.conf").write_text(
        "ClusterName=x\nSlurmctldHost=localhost(127.0.0.1)\nSlurmctldPort=1\nMessageTimeout=1\nGresTypes=gpu\n"
        "NodeName=n1 CPUs=8 State=UNKNOWN\nPartitionName=gpu Nodes=n1 Default=YES\n"
    )

    def read(script: str) -> str:
        (tmp_path / "job.sh").write_text(script)
        done = subprocess.run(
            ["sbatch", "--test-only", str(tmp_path / "job.sh")], capture_output=True, text=True, check=False,
            env={**os.environ, "SLURM_CONF": str(tmp_path / "slurm.conf")},
        )  # fmt: skip
        return done.stderr

    assert "unrecognized option '--tyme=720'" in read(job.replace("--time=720", "--tyme=720")), "the broken twin"
    assert "contact" in read(job), "it has read all options, and asks a controller that is not there"


def test_a_search_finds_the_better_learning_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With one of the rates nothing is learnt, and the team earns nothing; with the other it earns 1."""
    pytest.importorskip("optuna", reason="pip install -e .[search]")
    command(
        "train", "-m", "launch=optuna", "env=toy/kstep", "train.total_steps=3000", "log.to=[]", "log.progress=off",
        "eval.every=3000", "eval.episodes=8", "eval.final_episodes=8", "checkpoint.every=3000", f"runs_dir={tmp_path}",
        "name=rates", "hydra.sweeper.n_trials=4", "algo.learner.lr=choice(0.0000001,0.003)", "algo.epsilon.steps=1000",
    )  # fmt: skip
    found = OmegaConf.load(tmp_path / "rates" / "search.yaml")
    said = capsys.readouterr().out
    assert found.best_params["algo.learner.lr"] == 0.003
    tested = {path.parent.name: json.loads(path.read_text())["final"] for path in (tmp_path / "rates").rglob("DONE")}
    returns = {name: final["return"]["mean"] for name, final in tested.items()}
    assert len(returns) == 2 and found.best_value == max(returns.values()) == 1 and min(returns.values()) == 0
    assert "best eval/return" in said and f"kept in {tmp_path}/rates/search.yaml" in said
    assert not (tmp_path / "optimization_results.yaml").exists()


@pytest.mark.parametrize(("objective", "score"), [("return", 0.25), ("win_rate", 0.5), ("length", 7.0)])
def test_training_returns_the_score_that_is_asked_for(
    objective: str, score: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = {"return": {"mean": 0.25}, "win_rate": {"mean": 0.5}, "length": {"mean": 7}}
    cfg = compose_train(tmp_path, f"objective=eval/{objective}")
    folder = SimpleNamespace(runtime=SimpleNamespace(output_dir=str(tmp_path)))
    monkeypatch.setattr(scripts.train.HydraConfig, "get", lambda: folder)
    monkeypatch.setattr(scripts.train, "fit", lambda *_: final)
    assert scripts.train.train(cfg) == score
    monkeypatch.setattr(scripts.train, "fit", lambda *_: {})  # a signal stopped it
    monkeypatch.setattr(Here, "stopped", False)
    assert scripts.train.train(cfg) is None and Here.stopped


def test_an_overview_says_what_became_of_each_run() -> None:
    entries = [Entry("runs/a", "finished", score=0.5), Entry("runs/long", "failed", "no"), Entry("runs/b", "stopped")]
    assert overview(entries) == [
        "3 runs: 1 finished, 1 stopped, 1 failed",
        "  runs/a     finished     0.500",
        "  runs/long  failed  ",
        "  runs/b     stopped ",
    ]
    assert overview(entries[:1]) == [], "a single run has said it"
