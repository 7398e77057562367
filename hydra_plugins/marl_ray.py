"""Hydra's launcher for Ray clusters, ``launch=ray``. Hydra takes launchers only from the namespace ``hydra_plugins``.

Hydra's own Ray launcher requires versions of other packages that cannot be installed alongside this project's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


class RayLauncher(Launcher):
    """Gives each run of a sweep to a Ray cluster (``marl.run.cluster``), with ``cpus`` and ``gpus`` of a node to itself
    (fractions are allowed). A run whose node dies restarts on another one, at most ``retries`` times, and continues
    from its last checkpoint.
    """

    def __init__(self, address: str | None = None, cpus: float = 1, gpus: float = 0, retries: int = 3) -> None:
        self.address, self.cpus, self.gpus, self.retries = address, cpus, gpus, retries

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from marl.run import cluster

        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        ray = cluster.connect(self.address, "launch=ray")
        state = ray.put((Singleton.get_state(), self.context, self.config, self.task))
        jobs = [(initial_job_idx + k, list(overrides), state) for k, overrides in enumerate(job_overrides)]
        found = dict(cluster.each(ray, _run, jobs, cpus=self.cpus, gpus=self.gpus, retries=self.retries))
        return [found[k] for k in range(len(jobs))]


def _run(job: tuple[int, list[str], Any], again: bool) -> JobReturn:
    import ray

    from marl.run import lock

    number, overrides, state = job
    singletons, context, config, task = ray.get(state)
    setup_globals()
    Singleton.set_state(singletons)
    mine = context.config_loader.load_sweep_config(config, overrides)
    with open_dict(mine):
        mine.hydra.job.id = f"{mine.hydra.job.name}_{number}"
        mine.hydra.job.num = number
    HydraConfig.instance().set_config(mine)
    if again:  # the process that had the folder is gone with its node
        lock.release(Path(str(mine.hydra.sweep.dir)) / str(mine.hydra.sweep.subdir))
    return run_job(
        hydra_context=context, config=mine, task_function=task, job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )  # fmt: skip
