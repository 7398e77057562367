"""Every option under conf/ composes, binds to its target's signature, and hides no value; unknown keys are refused."""

from __future__ import annotations

import functools
import importlib.util
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import OmegaConf

from conf.shared import LOADER
from marl.core.config import config_hash, resolved
from marl.core.resolvers import LONGEST_VARIANT
from marl.core.types import ConfigError
from marl.measure.entrants import entries
from marl.measure.suite import read_suite
from marl.run.build import RUNTIME, call, factory, signature
from marl.run.compose import choices, one_line, register_configs
from scripts.main import CONF
from tests.support.helpers import compose_train

register_configs()

# values for what a file leaves to the user ("???")
GIVEN = {
    "algo=frozen": ("algo.run=runs/one",),
    **{f"algo={name}": ("algo.runs=[runs/one]",) for name in ("fcp", "hsp", "mep", "ippo/fcp", "ippo/hsp", "ippo/mep")},
    **{f"experiment={name}_smac": ("init_from=runs/one",) for name in ("random", "rarl", "rap", "romance", "ernie")},
    **{f"demos@algo.demos={name}": ("algo=bc",) for name in choices("demos")},
    "env=gym": ("env.env=package:Name-v0", "env.episode_limit=10"),
    "env=pettingzoo": ("env.env=package.module", "env.episode_limit=10"),
}
ALGOS = choices("algo")
PLUGINS = {
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "optuna": "hydra_plugins.hydra_optuna_sweeper",
    **dict.fromkeys(("slurm", "slurm_dry"), "hydra_plugins.hydra_submitit_launcher"),
}
LAUNCHERS = {"joblib": "JoblibLauncher", "ray": "RayLauncher", "slurm": "SlurmLauncher", "slurm_dry": "PrintedSlurm"}
OPTIONS = [
    *(f"algo={name}" for name in choices("algo")),
    *(f"mixer@algo.mixer={name}" for name in choices("mixer")),
    *(f"agent@algo.agent={name}" for name in choices("agent")),
    *(f"attack={name}" for name in choices("attack")),
    *(f"env={name}" for name in choices("env")),
    *(f"experiment={name}" for name in choices("experiment")),
    *(f"+hook@algo.hooks.{name}={name}" for name in choices("hook")),
    *(f"demos@algo.demos={name}" for name in choices("demos")),
    *(f"sampler@replay.sampler={name}" for name in choices("sampler")),
]
# options of conf/options: (group with folder, name)
SHARING_A_FILE = [
    (path.relative_to(CONF / "options").with_suffix("").as_posix(), str(name))
    for path in sorted((CONF / "options").rglob("*.yaml"))
    for name in OmegaConf.load(path)
]
COMPOSED_HERE = {
    "algo",
    "demos",
    "mixer",
    "agent",
    "attack",
    "env",
    "experiment",
    "hook",
    "launch",
    "logger",
    "sampler",
}
# job_logging, what evaluate and record take instead of a run, columns of robustness, of crossplay (test_scripted.py),
# published tables (test_reproduce.py), what fidelity compares with (test_fidelity.py)
COMPOSED_BY_SCRIPTS = {"hydra", "policy", "suite", "study", "partners", "table", "logs"}


def test_every_group_is_known_here() -> None:
    folders = {path.relative_to(CONF).parts[0] for path in CONF.rglob("*/*.yaml")} - {"options"}
    groups = folders | {group.partition("/")[0] for group, _ in SHARING_A_FILE}
    assert groups <= COMPOSED_HERE | COMPOSED_BY_SCRIPTS, "a new group of configurations needs its test"


def test_every_option_that_shares_a_file_is_composed_here_and_has_no_file_of_its_own() -> None:
    assert len(SHARING_A_FILE) > 100
    for group, name in SHARING_A_FILE:
        assert not (CONF / group / f"{name}.yaml").exists(), f"{group}/{name} has two definitions"
        top, _, folder = group.partition("/")
        option = f"{folder}/{name}".lstrip("/")
        assert name == "base" or f"{top}={option}" in OPTIONS or (top == "logger" and option in choices("logger"))


@pytest.mark.parametrize("path", sorted((CONF / "options").rglob("*.yaml")), ids=lambda path: path.stem)
def test_shared_files_are_read_as_hydra_reads_its_own(path: Path) -> None:
    """The faster reader takes some numbers, such as 1e-5, for text."""
    assert yaml.load(path.read_text(encoding="utf8"), Loader=LOADER) == OmegaConf.to_container(OmegaConf.load(path))


def test_a_choice_that_shares_a_file_is_suggested_like_any_other() -> None:
    with initialize_config_module("conf", version_base="1.3"), pytest.raises(HydraException) as raised:
        compose("train", overrides=["experiment=mds_small/scb"])
    assert one_line(raised.value).startswith("experiment=mds_small/scb does not exist; did you mean mds_small/sbc or ")


def test_games_of_other_packages_are_games_that_the_project_can_install() -> None:
    """A configuration of somebody's own game, left behind in this folder, would compose like any other."""
    project = (CONF.parent / "pyproject.toml").read_text(encoding="utf8")
    named = {name: OmegaConf.to_container(compose_train(Path("x"), f"env={name}").env, throw_on_missing=False)
             for name in choices("env") if name not in ("gym", "pettingzoo")}  # fmt: skip
    packages = {name: game.split(":")[0].split(".")[0] for name, env in named.items()
                if isinstance(game := env.get("env"), str)}  # fmt: skip
    assert {"lbf", "mpe/spread"} <= packages.keys()
    assert [name for name, package in packages.items() if f'"{package}>=' not in project] == []


def test_the_table_of_maps_makes_options() -> None:
    options = choices("env")
    for name in ("3m", "8m", "2s3z", "3s5z", "27m_vs_30m"):
        assert f"skirmish/{name}" in options
    assert "skirmish/base" not in options


def absent(made: Any, section: str) -> list[str]:
    """Return a plug-in's parameters, at any depth, that its YAML does not give: required ones and hidden defaults.

    The framework passes ``RUNTIME``, and in ``marl`` and its plug-ins every positional parameter: these are left out.
    """
    if not isinstance(made, functools.partial):
        return []
    environment = made.func.__module__.startswith("envs")
    kinds = {inspect.Parameter.KEYWORD_ONLY} | ({inspect.Parameter.POSITIONAL_OR_KEYWORD} if environment else set())
    wanted = {p.name for p in signature(made.func).parameters.values() if p.kind in kinds} - set(RUNTIME)
    found = [f"{section}.{name}" for name in sorted(wanted - made.keywords.keys())]
    for key, value in made.keywords.items():
        parts = value.items() if isinstance(value, dict) else [("", value)]
        found += [gap for name, part in parts for gap in absent(part, f"{section}.{key}{name and '.' + name}")]
    return found


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_and_gives_every_value(option: str, tmp_path: Path) -> None:
    cfg = compose_train(tmp_path, option, *GIVEN.get(option, ()))
    resolved(cfg)  # nothing missing, every interpolation resolves
    for section in ("algo", "env", "attack"):
        assert absent(factory(cfg[section], section), section) == []


def test_every_logger_is_there_to_be_chosen_and_has_every_value(tmp_path: Path) -> None:
    loggers = compose_train(tmp_path).log.loggers
    assert sorted(loggers) == choices("logger")
    for name in loggers:
        assert absent(factory(loggers[name], name), name) == []


def test_a_missing_value_and_a_hidden_default_would_be_seen(tmp_path: Path) -> None:
    """Test the test above: take values away."""
    cfg = compose_train(tmp_path, "env=toy/corridor", "~env.length", "~algo.learner.lr", "~algo.agent.hidden_dim")
    assert absent(factory(cfg.env, "env"), "env") == ["env.length"]
    assert absent(factory(cfg.algo, "algo"), "algo") == ["algo.agent.hidden_dim", "algo.learner.lr"]


class Base:
    def __init__(self, spec: Any, *, width: int, depth: int) -> None:
        self.size = (spec, width, depth)


class Derived(Base):
    def __init__(self, *args: Any, height: float, **base: Any) -> None:
        super().__init__(*args, **base)
        self.height = height


def test_options_that_a_class_hands_to_its_base_are_checked_like_its_own() -> None:
    assert list(signature(Derived).parameters) == ["args", "height", "width", "depth"]

    def made(**options: Any) -> Any:
        node = {"_target_": f"{__name__}.Derived", "_partial_": True, "height": 1, "width": 2, "depth": 3} | options
        return factory(OmegaConf.create({k: v for k, v in node.items() if v is not None}), "part")

    assert call(made(), "part", "spec").size == ("spec", 2, 3)
    for options, message in (
        ({"length": 1}, "part.length is not an option of Derived, which takes args, height, width, depth"),
        ({"width": "wide"}, "part.width=wide has the wrong type; it must be int"),
        ({"depth": None}, "part: missing a required .*argument: 'depth'"),
    ):
        with pytest.raises(ConfigError, match=message):
            call(made(**options), "part", "spec")


@pytest.mark.parametrize("algo", ALGOS)
@pytest.mark.parametrize("env", ["toy/matrix", "skirmish/3m", "mpe/spread"])
def test_every_algorithm_composes_with_every_kind_of_environment(algo: str, env: str, tmp_path: Path) -> None:
    cfg = compose_train(tmp_path, f"algo={algo}", f"env={env}")
    name = {"iql": "NoMixer", "vdn": "VDN", "qmix": "QMix", "qplex": "QPlex"}.get(algo)
    if name is not None:
        assert cfg.algo.mixer._target_ == f"marl.learn.mixers.{name}"
    assert cfg.run_path.startswith(f"default/{env.replace('/', '-')}/{algo.replace('/', '-')}-none/")


def test_a_wrong_part_is_named_by_its_whole_key() -> None:
    """The name is whole in a tree, and for a configuration that stands by itself, as the attacks of columns do."""
    wrong = {"_target_": "marl.learn.policy.LinearSchedule", "start": 3.0, "end": 0.0, "steps": 1}
    holder = {"_target_": "builtins.dict", "epsilon": wrong}
    for node, section, key in (
        (OmegaConf.create({"algo": holder}).algo, "algo", "algo.epsilon"),
        (OmegaConf.create(holder), "suite.columns.x.attack", "suite.columns.x.attack.epsilon"),
        (OmegaConf.create(wrong), "algo", "algo"),
        (OmegaConf.create({"_target_": "builtins.dict", "algorithm": wrong}), "algo", "algo.algorithm"),
    ):
        with pytest.raises(ConfigError, match=rf"^{key}: start=3.0 must be within"):
            factory(node, section)


def puzzling(spec: Any, *, odd: Any, width: int) -> None: ...


def test_an_annotation_that_is_no_type_hides_no_other() -> None:
    puzzling.__annotations__["odd"] = "int | 3"
    with pytest.raises(ConfigError, match=r"part\.width=wide has the wrong type; it must be int"):
        factory(OmegaConf.create({"_target_": f"{__name__}.puzzling", "_partial_": True, "width": "wide"}), "part")


@pytest.mark.parametrize("name", choices("launch"))
def test_every_launcher_composes(name: str, tmp_path: Path) -> None:
    plugin = PLUGINS.get(name)
    if plugin is not None and importlib.util.find_spec(plugin) is None:
        pytest.skip(f"launch={name} needs {plugin}: pip install -e .[cluster] or .[search]")
    compose_train(tmp_path, f"launch={name}")
    assert HydraConfig.get().launcher._target_.endswith(f".{LAUNCHERS.get(name, 'BasicLauncher')}")
    assert HydraConfig.get().sweeper._target_.endswith(".OptunaSweeper" if name == "optuna" else ".BasicSweeper")


@pytest.mark.parametrize("suite", choices("suite"))
def test_every_suite_composes_and_its_attacks_lack_nothing(suite: str) -> None:
    with initialize_config_module("conf", version_base="1.3"):
        cfg = compose("robustness", overrides=[f"suite={suite}", "runs=runs"])
    columns, baseline = read_suite(cfg.suite, None)
    assert baseline == "natural" and columns[0].name == "natural" and len(columns) > 1
    for column in columns:
        attack = factory(OmegaConf.create(column.attack), "attack")
        assert absent(attack, column.name) == []
        assert column.name not in ("wolfpack", "ega", "ib") or column.fit, "these learn about their victim"


def made_by_experiments() -> set[str]:
    """Return the names of runs that experiments give."""
    experiments: list[Any] = [OmegaConf.load(path) for path in (CONF / "experiment").rglob("*.yaml")]
    for path in (CONF / "options" / "experiment").rglob("*.yaml"):
        experiments += dict(OmegaConf.load(path)).values()
    return {str(one.name) for one in experiments if "name" in one}


@pytest.mark.parametrize("study", choices("study"))
def test_every_study_composes_and_names_runs_that_experiments_make(study: str) -> None:
    script = "crossplay" if "/partners" in (CONF / "study" / f"{study}.yaml").read_text() else "robustness"
    with initialize_config_module("conf", version_base="1.3"):
        cfg = compose(script, overrides=[f"study={study}"])
        assert compose(script, overrides=[f"study={study}", "episodes=3"]).episodes == 3, "options still count"
    paths = [] if cfg.runs is None else [path for _, path in entries(OmegaConf.to_container(cfg.runs))]
    if script == "robustness":
        read_suite(cfg.suite, None)
        paths += list(cfg.fit_on or ())
    else:
        partners = OmegaConf.to_container(cfg.partners)
        assert isinstance(partners, dict)
        paths += [population["runs"] for population in partners.values() if "runs" in population]
    assert {path.split("/")[1] for path in paths} <= made_by_experiments()


@pytest.mark.parametrize(
    "script",
    ["evaluate", "record", "plot", "report", "bench", "fidelity", "robustness", "leaderboard", "crossplay", "play"],
)
def test_the_other_scripts_compose(script: str, tmp_path: Path) -> None:
    given = {
        "plot": ["runs=runs"],
        "report": ["runs=runs"],
        "bench": [],
        "fidelity": ["dir=agents"],
        "robustness": ["runs=runs"],
        "leaderboard": [],
        "crossplay": ["runs=runs"],
    }.get(script, ["run=runs/one"])
    with initialize_config_module("conf", version_base="1.3"):
        cfg = compose(script, overrides=given)
        if script == "bench":
            cfg.run_path = ""  # made of Hydra's own state, which compose has not
        assert OmegaConf.missing_keys(cfg) == set()
        with pytest.raises(HydraException):
            compose(script, overrides=[*given, "nonsense=1"])


@pytest.mark.parametrize(
    "override",
    ["train.nonsense=1", "nonsense=1", "algo.nonsense=1", "algo.learner.nonsense=1", "env.nonsense=1", "train.n_envs=x",
     "seed=one", "log.to=perhaps", "checkpoint.keep=2.5"],
)  # fmt: skip
def test_unknown_keys_and_wrong_types_do_not_compose(override: str, tmp_path: Path) -> None:
    with pytest.raises(HydraException):
        compose_train(tmp_path, override)


def test_arguments_of_somebody_elses_game_are_new_keys(tmp_path: Path) -> None:
    for env in ("pettingzoo", "gym"):
        given = (f"env={env}", "env.env=package", "env.episode_limit=5", "env.kwargs.some_argument=1")
        cfg = compose_train(tmp_path, *given, "env.kwargs.other={a: [2]}", "+env.kwargs.third=x")
        assert cfg.env.kwargs == {"some_argument": 1, "other": {"a": [2]}, "third": "x"}
        with pytest.raises(HydraException):
            compose_train(tmp_path, *given, "env.some_argument=1")


# where a run lives


def path_of(tmp_path: Path, *overrides: str) -> str:
    return str(compose_train(tmp_path, *overrides).run_path)


def test_what_identifies_a_run_is_in_its_path(tmp_path: Path) -> None:
    assert path_of(tmp_path) == "default/skirmish-3m/qmix-none/seed0"
    assert path_of(tmp_path, "name=study", "algo=vdn", "env=toy/matrix", "seed=4") == "study/toy-matrix/vdn-none/seed4"
    # a sweep over a learning rate makes one folder per value; what a resumed run may change does not
    assert path_of(tmp_path, "algo.learner.lr=0.01").endswith("/algo.learner.lr=0.01-seed0")
    free = ("train.total_steps=5", "eval.episodes=3", "checkpoint.keep=5", "log.every=7", "threads=1", "resume=must")
    assert path_of(tmp_path, *free).endswith("/qmix-none/seed0")
    two = path_of(tmp_path, "train.n_envs=4", "algo.learner.lr=0.01")
    assert two == path_of(tmp_path, "algo.learner.lr=0.01", "train.n_envs=4"), "the order of overrides must not matter"
    assert "/" not in path_of(tmp_path, "mixer@algo.mixer=vdn", "+env.note=a/b").split("qmix-none/")[1]


def test_many_overrides_still_make_a_name_that_file_systems_take(tmp_path: Path) -> None:
    many = [f"+env.option_{i}={i}" for i in range(40)]
    one, other = (path_of(tmp_path, *many, f"+env.last={k}").split("/")[-1] for k in (1, 2))
    assert len(one) <= LONGEST_VARIANT + len("-seed0") and one != other and one.endswith("-seed0")
    (tmp_path / one).mkdir()


def test_the_digest_ignores_what_a_resumed_run_may_change(tmp_path: Path) -> None:
    def digest(*overrides: str) -> str:
        return config_hash(resolved(compose_train(tmp_path, *overrides)))

    base = digest()
    assert digest("train.total_steps=1", "eval.every=1", "threads=2", "name=other", "log.every=1") == base
    for changed in ("seed=1", "algo.learner.lr=0.01", "train.n_envs=4", "replay.capacity=9", "env=skirmish/8m"):
        assert digest(changed) != base, changed
