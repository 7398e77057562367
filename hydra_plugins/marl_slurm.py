"""Print what ``launch=slurm`` would submit: ``launch=slurm_dry``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

NAMES = {"timeout_min": "time", "name": "job_name", "tasks_per_node": "ntasks_per_node"}  # submitit's -> sbatch's
OWN = ("submitit_folder", "max_num_timeout")  # submitit's alone


def sbatch_script(options: dict[str, Any], runs: int) -> str:
    """Return the file that submitit gives to sbatch for an array of ``runs`` runs. ``options``: those of Hydra's
    launcher for Slurm."""
    from submitit.slurm.slurm import _make_sbatch_string

    given = {NAMES.get(key, key): value for key, value in options.items() if value is not None and key not in OWN}
    if (memory := given.pop("mem_gb", None)) is not None:
        given["mem"] = f"{memory}GB"
    command = shlex.join([sys.executable, "-u", "-m", "submitit.core._submit", options["submitit_folder"]])
    return _make_sbatch_string(command=command, folder=options["submitit_folder"], map_count=runs, **given)


class PrintedSlurm(Launcher):
    """Prints the job and its runs without starting anything. ``options``: those of Hydra's launcher for Slurm."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from marl.core.checks import require_extra

        require_extra("submitit", "cluster", "launch=slurm_dry")
        asked = {key: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for key, v in self.options.items()}
        print(sbatch_script(asked, len(job_overrides)))
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            options = [word for word in filter_overrides(overrides) if not word.startswith("launch=")]
            words = ["python", "-m", f"scripts.{self.config.hydra.job.name}", *options]
            print(f"# task {number}: {shlex.join(words)}")
        return [JobReturn(status=JobStatus.COMPLETED) for _ in job_overrides]
