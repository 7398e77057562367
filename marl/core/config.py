"""Schema of the top-level configuration. Plug-ins (algo, env, attack, agent, mixer) are ``_target_`` YAML files whose
schema is the constructor's signature; the sections here are dataclasses, so that a wrong type or key fails at once."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from marl.core import resolvers
from marl.core.filming import RecordConfig, ReportConfig
from marl.core.types import ConfigError

# the sections annotate these as str, since OmegaConf does not support Literal; ``validation`` checks them
ResumeMode = Literal["auto", "never", "must"]
ProgressMode = Literal["auto", "bar", "lines", "off"]  # auto: bar on a terminal, lines elsewhere
Objective = Literal["eval/return", "eval/win_rate", "eval/length"]  # of the final test


@dataclass
class TrainSection:
    total_steps: int = MISSING  # environment steps, summed over lanes
    n_envs: int = MISSING  # lanes
    rollout: int | None = None  # steps of each lane in a collection; null: whole episodes
    attack_fraction: float = 1.0  # share of the lanes that the attack may touch
    attack_start: int = 0  # environment steps before the first attack
    env: dict[str, Any] = field(default_factory=dict)  # changes to the game's options for training, not for tests


@dataclass
class EvalSection:
    every: int = MISSING  # environment steps
    episodes: int = MISSING
    final_episodes: int = MISSING
    n_envs: int = MISSING


@dataclass
class ReplaySection:
    capacity: int = MISSING  # episodes
    device: str | None = None  # null: host memory, pinned when training on a GPU
    sampler: Any = MISSING  # chooses the stored episodes of a batch


@dataclass
class CheckpointSection:
    every: int = MISSING  # environment steps
    replay: bool = True  # save the replay too: resume is then exact
    keep: int = 2  # number of newest checkpoints to keep
    milestone: int | None = None  # environment steps between checkpoints that are never deleted
    at_start: bool = False  # keep one of step 0 for good, before anything is learnt


@dataclass
class LogSection:
    every: int = MISSING  # environment steps
    progress: str = "auto"  # a ProgressMode
    to: list[str] = field(default_factory=lambda: ["tensorboard"])  # keys of loggers
    tensorboard: bool | None = None  # from earlier versions: whether to use tensorboard; null: what ``to`` says
    loggers: dict[str, Any] = field(default_factory=dict)


@dataclass
class TrainConfig:
    name: str = MISSING
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    deterministic: bool = False
    resume: str = "auto"  # a ResumeMode
    init_from: str | None = None
    objective: str = "eval/return"  # an Objective
    runs_dir: str = "runs"
    run_path: str = MISSING
    algo: Any = MISSING
    env: Any = MISSING
    attack: Any = MISSING
    train: TrainSection = field(default_factory=TrainSection)
    eval: EvalSection = field(default_factory=EvalSection)
    replay: ReplaySection = field(default_factory=ReplaySection)
    checkpoint: CheckpointSection = field(default_factory=CheckpointSection)
    log: LogSection = field(default_factory=LogSection)


@dataclass
class EvaluateConfig:
    run: str | None = None
    policy: Any = None
    checkpoint: int | None = None
    episodes: int = MISSING
    n_envs: int = MISSING
    act: str | None = None  # greedy or sample, for teams of actors
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    out: str | None = None
    env: Any = None
    env_options: dict[str, Any] = field(default_factory=dict)
    attack: Any = MISSING


@dataclass
class ScoresSection:
    low: Any = None  # a number, or one for each task
    high: Any = None


@dataclass
class PlotConfig:
    runs: str = MISSING
    out: str = MISSING
    metrics: list[str] | None = None
    results: str | None = None
    last: int = 1
    also: list[str] = field(default_factory=list)
    unfinished: bool = False
    statistics: bool = False
    scores: ScoresSection = field(default_factory=ScoresSection)
    versus: str | None = None
    formats: list[str] = field(default_factory=lambda: ["png"])
    latex: bool = False
    export: str | None = None  # marl_eval


@dataclass
class ZooConfig:
    runs: Any = None
    out: str = MISSING
    half: bool = False


@dataclass
class BenchConfig(TrainConfig):
    only: str | None = None
    seconds: float = MISSING
    warmup_steps: int = MISSING
    yardstick: Any = None
    out: str | None = None


@dataclass
class FidelityConfig:
    dir: str = MISSING
    only: list[str] | None = None
    logs: Any = MISSING
    episodes: int = MISSING
    n_envs: int = MISSING
    orders: int = MISSING
    search: int = MISSING
    seed: int = 0
    threads: int | None = None
    out: str | None = None
    picture: str | None = None


@dataclass
class FitSection:
    n_envs: int = MISSING  # lanes
    replay: int = MISSING  # episodes kept


@dataclass
class AttackedConfig:
    """Options shared by all measurements of teams under the attacks of a suite."""

    runs: Any = None
    imports: Any = None
    suite: Any = MISSING
    only: list[str] | None = None
    episodes: int = MISSING
    n_envs: int = MISSING
    act: str | None = None  # greedy or sample, for teams of actors
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    jobs: Any = 1  # a number, or ray
    luck: bool = True
    fit: FitSection = field(default_factory=FitSection)
    out: str = MISSING


@dataclass
class RobustnessConfig(AttackedConfig):
    metric: str = MISSING
    versus: str | None = None
    budgets: Any = None
    fit_on: Any = None
    results: str | None = None
    env: Any = None


@dataclass
class LeaderboardConfig(AttackedConfig):
    file: str = MISSING
    by: str | None = None
    check: bool = False


@dataclass
class CrossplayConfig:
    runs: Any = None
    partners: Any = MISSING
    across: bool = True
    episodes: int = MISSING
    n_envs: int = MISSING
    act: str | None = None  # greedy or sample, for teams of actors
    seed: int = 0
    epsilon: float = MISSING
    device: str = "auto"
    threads: int | None = None
    jobs: Any = 1  # a number, or ray
    metric: str = MISSING
    out: str = MISSING
    results: str | None = None
    env: Any = None


@dataclass
class PlayConfig:
    run: str | None = None
    policy: Any = None
    checkpoint: int | None = None
    member: str | None = None
    seat: int = MISSING
    pace: float | None = None
    episodes: int = MISSING
    act: str | None = None  # greedy or sample, for teams of actors
    seed: int = 0
    device: str = "cpu"
    threads: int | None = None
    out: str | None = None
    env: Any = None
    env_options: dict[str, Any] = field(default_factory=dict)


@dataclass
class TableSection:
    train: list[str] = MISSING  # sweeps, run one after the other
    measure: dict[str, str] = MISSING  # result file -> the script that writes it, with its options


@dataclass
class ReproduceConfig:
    table: TableSection = MISSING
    jobs: Any = 1  # a number, or ray
    overrides: list[str] = field(default_factory=list)
    results: str = MISSING
    report: bool = True
    dry_run: bool = False


SCHEMAS = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "record": RecordConfig,
    "plot": PlotConfig,
    "report": ReportConfig,
    "bench": BenchConfig,
    "fidelity": FidelityConfig,
    "robustness": RobustnessConfig,
    "leaderboard": LeaderboardConfig,
    "crossplay": CrossplayConfig,
    "play": PlayConfig,
    "reproduce": ReproduceConfig,
    "zoo": ZooConfig,
}


def register() -> None:
    """Register the schemas and the resolvers; safe to call twice."""
    for name, node in SCHEMAS.items():
        ConfigStore.instance().store(name=f"{name}_schema", node=node)
    resolvers.register()


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """Return a plain, fully interpolated copy of the configuration. Raise ConfigError for a missing value."""
    try:
        container = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True, enum_to_str=True)
    except MissingMandatoryValue as error:
        raise ConfigError(says_missing(error)) from error
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def says_missing(error: MissingMandatoryValue) -> str:
    """Return the error message that says which value must be given."""
    return f"{error.full_key} must be given, as {error.full_key}=..."


def plain(node: Any) -> Any:
    """Convert a configuration to builtins; return anything else unchanged."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings into one with dotted keys."""
    if isinstance(tree, dict) and tree:
        return {
            k: v for key, sub in tree.items() for k, v in flatten(sub, f"{prefix}.{key}" if prefix else key).items()
        }
    return {prefix: tree}


def identity(config: dict[str, Any]) -> dict[str, Any]:
    """Return the dotted keys and values that a resumed run must share with its checkpoint."""
    return {key: value for key, value in flatten(config).items() if not resolvers.is_free(key)}


def config_hash(config: dict[str, Any]) -> str:
    """Return a digest of ``identity(config)``."""
    return hashlib.sha256(json.dumps(identity(config), sort_keys=True, default=str).encode()).hexdigest()[:16]


def pick_device(name: str, key: str = "device") -> torch.device:
    """Return the device called ``name``; ``auto`` picks the first GPU, or else the CPU. Raise ConfigError if this
    machine has no such device."""
    have = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        have.append("mps")
    if name == "auto":
        return torch.device("cuda:0" if "cuda:0" in have else "cpu")
    if name not in have and not (name == "cuda" and "cuda:0" in have):
        raise ConfigError(f"{key}={name} is not available here; choose one of auto, {', '.join(have)}")
    return torch.device("cuda:0" if name == "cuda" else name)
