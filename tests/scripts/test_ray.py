"""A sweep on a Ray cluster of two nodes on this machine: it survives the death of one, and its runs go on from their
checkpoints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from hydra_plugins import marl_ray
from marl.core.types import ConfigError
from marl.run.jobs import require_jobs, run_jobs
from marl.run.lock import LOCK, held
from marl.run.progress import JobProgress
from marl.run.signals import StopRequest
from tests.support.helpers import rows
from tests.support.jobs_parts import Sum, add_up

ray = pytest.importorskip("ray", reason="pip install -e .[ray]")
LONG = (
    "env=toy/corridor", "train.total_steps=6000", "train.n_envs=4", "eval.every=1000", "eval.episodes=4",
    "eval.final_episodes=4", "checkpoint.every=200", "log.every=500", "log.to=[]", "algo.agent.hidden_dim=8",
    "algo.batch_size=4", "algo.warmup_episodes=4", "algo.episodes_per_update=1",
)  # fmt: skip


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def begun(folder: Path) -> bool:
    """Return whether a run has written a checkpoint and is not at its end."""
    return (folder / "checkpoints" / "latest").exists() and not (folder / "DONE").exists()


def wait_for(what: Any, child: subprocess.Popen[str]) -> None:
    while not what():
        assert child.poll() is None, child.communicate()[0]
        time.sleep(0.1)


def test_a_sweep_survives_the_death_of_a_node(cluster: Any, tmp_path: Path) -> None:
    second = cluster.add_node(num_cpus=1)
    command = [
        sys.executable,
        "-m",
        "scripts.train",
        "-m",
        "launch=ray",
        "seed=0,1",
        f"runs_dir={tmp_path}",
        "run_path=seed${seed}",
        *LONG,
    ]
    folders = [tmp_path / f"seed{seed}" for seed in (0, 1)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ})
    wait_for(lambda: all(map(begun, folders)), child)
    cluster.remove_node(second, allow_graceful=False)
    said, _ = child.communicate(timeout=600)
    assert child.returncode == 0, said
    assert "begins again" in said and "2 runs: 2 finished" in said
    assert said.count("continuing at step") == 1, "one of the two was on the node that died"
    for folder in folders:
        steps = [row["env_steps"] for row in rows(folder, "metrics")]
        assert steps == sorted(set(steps)), "no row twice"
        assert json.loads((folder / "DONE").read_text())["env_steps"] >= 6000


def test_jobs_run_on_the_nodes(cluster: Any) -> None:
    jobs = [Sum(n) for n in (1, 2, 3, 4)]
    with StopRequest() as stop, JobProgress(len(jobs)) as progress:
        found = {job.n: result for job, result in run_jobs(add_up, jobs, "ray", stop, progress)}
    assert {n: total for n, (total, _) in found.items()} == {1: 0, 2: 1, 3: 3, 4: 6}
    assert os.getpid() not in {process for _, process in found.values()}


@pytest.mark.parametrize("again", [False, True])
def test_only_a_run_that_begins_again_takes_the_lock_of_another_machine(
    again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine that had the run is gone, which nobody but the cluster can know."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).write_text(json.dumps({"host": "gone", "pid": 1, "started": "1"}))
    cfg = OmegaConf.create({"hydra": {"job": {"name": "train"}, "sweep": {"dir": str(tmp_path), "subdir": "run"}}})
    loader = SimpleNamespace(load_sweep_config=lambda config, overrides: cfg)
    monkeypatch.setattr(ray, "get", lambda state: ({}, SimpleNamespace(config_loader=loader), cfg, None))
    monkeypatch.setattr(marl_ray, "setup_globals", lambda: None)
    monkeypatch.setattr(marl_ray.Singleton, "set_state", lambda state: None)
    monkeypatch.setattr(marl_ray.HydraConfig, "instance", lambda: SimpleNamespace(set_config=lambda config: None))

    def work(**_: Any) -> str:
        with held(tmp_path / "run"):
            return "trained"

    monkeypatch.setattr(marl_ray, "run_job", work)
    if again:
        assert marl_ray._run((0, [], None), again) == "trained"
    else:
        with pytest.raises(ConfigError, match="in use by process 1 on gone"):
            marl_ray._run((0, [], None), again)


@pytest.mark.parametrize("jobs", [0, -1, 1.5, True, "dask"])
def test_what_is_neither_a_number_nor_a_cluster_is_refused(jobs: Any) -> None:
    with pytest.raises(ConfigError, match=f"jobs={jobs} must be at least 1, or ray"):
        require_jobs(jobs)
