"""Build objects from a configuration; only here are factories called with runtime values."""

from __future__ import annotations

import copy
import functools
import inspect
import os
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import hydra
import numba
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from marl.core.annotations import hints_of, require_type
from marl.core.checks import require_threads
from marl.core.config import pick_device, plain
from marl.core.distributed import world
from marl.core.games import require_game
from marl.core.memory import enough_memory, require_room
from marl.core.protocols import Algorithm, Attack, NoAttack, Sampler, Stateful, VectorEnv, Victim, attacks_within
from marl.core.seeding import Streams
from marl.core.states import require_readable
from marl.core.types import Clock, ConfigError, EnvSpec, Field, core_fields, episode_bytes

RUNTIME = ("spec", "device", "gen", "n_envs", "seed")  # arguments that the framework passes, not the configuration


@dataclass
class Parts:
    """The objects that collecting and learning need."""

    env: VectorEnv
    algo: Algorithm
    attack: Attack
    fields: dict[str, Field]
    streams: Streams
    device: torch.device

    @property
    def spec(self) -> EnvSpec:
        return self.env.spec


def factory(node: DictConfig, section: str) -> Callable[..., Any]:
    """Return the partial that a plug-in's YAML describes. Raise ConfigError for a target that cannot be imported and,
    at any depth, for a key that the target's signature lacks or a value of another type."""
    if not isinstance(node, DictConfig):
        raise ConfigError(f"{section}={node} must be a configuration with a _target_")
    if not isinstance(node.get("_target_"), str):
        raise ConfigError(f"{section}._target_={node.get('_target_')} must name a class or function in its module")
    _check_types(node, section)
    try:
        made = hydra.utils.instantiate(node)
    except Exception as error:  # Hydra wraps whatever the target raised
        cause: BaseException = error
        while cause.__cause__ is not None and not isinstance(cause, ConfigError):
            cause = cause.__cause__
        if isinstance(cause, ModuleNotFoundError):
            cause = ConfigError(f"no module of the name '{cause.name}' is found; check the spelling and PYTHONPATH")
        part = re.search(r"full_key: (\S+)", str(error))  # Hydra's key starts at the root of the tree with the node
        key = part[1] if part else section
        where = key if f"{key}.".startswith(f"{section}.") else f"{section}.{key}"
        raise ConfigError(f"{where}: {' '.join(str(cause).split())}") from error
    sealed: Callable[..., Any] = _sealed(made, section)
    return sealed


class Factory(functools.partial[Any]):
    """The factory of a node of the configuration. Calling it raises ConfigError, with the ``section`` of the node, if
    an option is missing."""

    section = ""

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        check_call(self, self.section, *args, **kwargs)
        return super().__call__(*args, **kwargs)


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a factory's parameters; for a class, also those of its bases' constructors."""
    if not isinstance(target, type):
        return hints_of(target)
    own = [vars(made)["__init__"] for made in reversed(target.__mro__[:-1]) if "__init__" in vars(made)]
    return {name: hint for init in own for name, hint in hints_of(init).items()}


def signature(target: Callable[..., Any]) -> inspect.Signature:
    """Return a factory's signature. If a class passes ``**rest`` to the next constructor in its method resolution
    order, that constructor's keywords replace ``rest``."""
    try:
        own = inspect.signature(target)
    except ValueError as error:  # some builtins have none
        raise ConfigError(f"{target.__module__}.{target.__qualname__} does not say which options it takes") from error
    if not isinstance(target, type):
        return own
    makers = [made for made in target.__mro__[:-1] if "__init__" in vars(made)]
    for made in makers[1:]:
        kept = {name: p for name, p in own.parameters.items() if p.kind is not p.VAR_KEYWORD}
        handed = inspect.signature(made).parameters
        more = {name: p for name, p in handed.items() if p.kind in (p.KEYWORD_ONLY, p.VAR_KEYWORD) and name not in kept}
        if len(kept) == len(own.parameters) or not more:  # without keywords there, the class reads ``**rest`` itself
            break
        own = own.replace(parameters=[*kept.values(), *more.values()])
    return own


def _found(path: Any) -> Any:
    """Return what a ``_target_`` names; None if it does not exist, or if importing its module fails for any reason:
    ``factory`` imports it again, and says why."""
    try:
        return pkgutil.resolve_name(path) if isinstance(path, str) else None
    except Exception:
        return None


def _check_types(node: Any, section: str) -> None:
    if not isinstance(node, DictConfig):
        return
    hints: dict[str, Any] = {}
    takes: Mapping[str, inspect.Parameter] = {}
    target = _found(node.get("_target_"))
    if callable(target):
        with suppress(ConfigError):  # a builtin that does not say what it takes
            hints = _hints(target)
            takes = signature(target).parameters
        given = [name for name in RUNTIME if name in takes and takes[name].default is inspect.Parameter.empty]
        if not node.get("_partial_", False) and (wanted := [name for name in given if name not in node]):
            raise ConfigError(f"{section} lacks _partial_: true: its target is called later, with {', '.join(wanted)}")
    for key in map(str, node):
        if OmegaConf.is_missing(node, key):
            raise ConfigError(f"{section}.{key} must be given, as {section}.{key}=...")
    for key, value in ((str(key), value) for key, value in node.items()):
        require_type(section, hints, **{key: plain(value)})
        _check_types(value, f"{section}.{key}")


def _sealed(made: Any, section: str) -> Any:
    """Return an instantiated node with each partial in it, at any depth, turned into a ``Factory``. Raise ConfigError
    for a key that its target does not take."""
    if isinstance(made, functools.partial):
        takes = signature(made.func).parameters
        open_ = any(p.kind is p.VAR_KEYWORD for p in takes.values())
        for key in made.keywords:
            if key not in takes and not open_:
                options = ", ".join(name for name in takes if name not in RUNTIME)
                raise ConfigError(f"{section}.{key} is not an option of {made.func.__name__}, which takes {options}")
        within = {key: _sealed(value, f"{section}.{key}") for key, value in made.keywords.items()}
        sealed = Factory(made.func, *made.args, **within)
        sealed.section = section
        return sealed
    if isinstance(made, DictConfig | ListConfig | dict | list):
        names: Iterable[Any] = made if isinstance(made, DictConfig | dict) else range(len(made))
        for name in names:
            if (value := made[name]) is not (new := _sealed(value, f"{section}.{name}")):
                made[name] = new
    return made


def check_call(make: Callable[..., Any], section: str, *args: Any, **kwargs: Any) -> None:
    """Raise ConfigError if a factory lacks an option or was given an unknown one."""
    partial = make if isinstance(make, functools.partial) else functools.partial(make)
    try:
        signature(partial.func).bind(*partial.args, *args, **{**partial.keywords, **kwargs})
    except TypeError as error:
        raise ConfigError(f"{section}: {error}") from error


def call(make: Callable[..., Any], section: str, *args: Any, **kwargs: Any) -> Any:
    """Call a factory. Raise ConfigError, not TypeError, if an option is missing."""
    if not callable(make):
        raise ConfigError(f"{section} is {type(make).__name__}; it lacks _partial_: true, or its _target_ is wrong")
    check_call(make, section, *args, **kwargs)
    return make(*args, **kwargs)


def make_env(cfg: DictConfig, n_envs: int, seed: int, section: str = "env") -> VectorEnv:
    """Make the environment of ``cfg.env`` with ``n_envs`` lanes. Raise ConfigError if it is not an environment, or too
    large, naming the ``section`` of its options."""
    with enough_memory(f"{section} with {n_envs} lanes", cfg.env, section):
        env = call(factory(cfg.env, section), section, n_envs=n_envs, seed=seed)
    try:
        require_game(env, n_envs, section, str(cfg.env.get("_target_")))
    except ConfigError:
        if hasattr(env, "close"):
            env.close()
        raise
    return env


def make_training_env(cfg: DictConfig, n_envs: int, seed: int) -> VectorEnv:
    """Make the environment in which a run trains: that of ``cfg.env`` with the options of ``cfg.train.env``. Raise
    ConfigError as ``make_env`` does."""
    if not cfg.train.env:
        return make_env(cfg, n_envs, seed)
    changed = copy.deepcopy(cfg)
    with open_dict(changed):
        changed.env.merge_with(cfg.train.env)
    return make_env(changed, n_envs, seed, "train.env")


def testing_env(cfg: DictConfig, n_envs: int, parts: Parts) -> VectorEnv:
    """Make the environment in which a run is tested. Raise ConfigError if the environment in which it trains has other
    sizes because of ``train.env``."""
    env = make_env(cfg, n_envs, parts.streams.env_seed("eval"))
    for name in ("n_agents", "n_actions", "obs_dim", "state_dim"):
        if (here := getattr(env.spec, name)) != (there := getattr(parts.spec, name)):
            env.close()
            raise ConfigError(f"train.env={plain(cfg.train.env)} changes the game's {name} from {here} to {there}")
    try:
        each = episode_bytes(parts.fields, env.spec.episode_limit)
        require_room("eval.n_envs", n_envs, each, "lanes of an episode", parts.device)
    except ConfigError:
        env.close()
        raise
    return env


def make_sampler(cfg: DictConfig) -> Sampler:
    """Make the sampler of ``cfg.replay.sampler``, which chooses the episodes of a batch."""
    made = factory(cfg.replay.sampler, "replay.sampler")
    sampler = call(made, "replay.sampler") if isinstance(made, functools.partial) else made
    if not hasattr(sampler, "draw"):
        raise ConfigError(f"replay.sampler={cfg.replay.sampler.get('_target_')} has no method draw(replay, size, gen)")
    if isinstance(sampler, Stateful):
        require_readable(sampler.state_dict(), "replay.sampler")
    return sampler


@dataclass(frozen=True)
class ComputeSettings:
    """How this process computes: threads of torch and of the simulators, and whether torch is deterministic."""

    threads: int
    simulators: int
    deterministic: bool
    warn_only: bool

    @classmethod
    def now(cls) -> ComputeSettings:
        """Return the current settings. Torch's threads are read first: see ``use``."""
        threads, warn_only = torch.get_num_threads(), torch.is_deterministic_algorithms_warn_only_enabled()
        return cls(threads, numba.get_num_threads(), torch.are_deterministic_algorithms_enabled(), warn_only)

    def use(self) -> None:
        """Apply these settings. Numba's threads are set first: both share OpenMP's number of threads, which numba sets
        to the number of cores when it starts its own. Determinism is set only if it changes: setting it, even to off,
        makes torch import its compiler, which takes a second."""
        numba.set_num_threads(self.simulators)
        torch.set_num_threads(self.threads)
        present = ComputeSettings.now()
        if (present.deterministic, present.warn_only) != (self.deterministic, self.warn_only):
            torch.use_deterministic_algorithms(self.deterministic, warn_only=self.warn_only)


@contextmanager
def settings_kept(inside: ComputeSettings | None = None) -> Iterator[None]:
    """Restore the settings of this process after this context. ``inside``: those to apply first (None: unchanged)."""
    before = ComputeSettings.now()
    try:
        if inside is not None:
            inside.use()
        yield
    finally:
        before.use()


def use_threads(threads: int | None) -> None:
    """Let torch and the simulators use ``threads`` CPU threads; None: as many as there are cores."""
    require_threads(threads)
    cores = int(getattr(numba.config, "NUMBA_NUM_THREADS"))  # noqa: B009 - untyped
    threads = cores if threads is None else threads
    replace(ComputeSettings.now(), threads=threads, simulators=min(threads, cores)).use()


def all_fields(spec: EnvSpec, algo: Algorithm, attack: Attack) -> dict[str, Field]:
    """Return the core fields and those that the plug-ins declare. Raise ConfigError if two declare the same name
    differently."""
    fields = core_fields(spec)
    for owner in (algo, attack):
        for name, field in owner.fields().items():
            if fields.setdefault(name, field) != field:
                raise ConfigError(
                    f"field '{name}' is declared as {field} by {type(owner).__name__} and as {fields[name]}"
                )
    return fields


def require_sight(parts: Parts) -> None:
    """Begin the attack on a team that exposes no values of joint actions, before anything is written. Raise ConfigError
    if the attack needs them."""
    policy = parts.algo.policy(Clock())
    if not isinstance(policy, Victim):
        parts.attack.begin(parts.env.n_envs, policy, torch.Generator(parts.device))


def require_attacked(cfg: DictConfig, parts: Parts) -> None:
    """Raise ConfigError for a share of attacked lanes that is above 0 but not enough for one lane."""
    share, lanes = cfg.train.attack_fraction, parts.env.n_envs
    if type(parts.attack) is not NoAttack and share > 0 and round(share * lanes) == 0:
        here = f"train.n_envs={cfg.train.n_envs}" + (f" in {world()[1]} processes" if world()[1] > 1 else "")
        raise ConfigError(f"train.attack_fraction={share} of {here} is no whole lane, so that nobody would be attacked")


def learns_from_newest(parts: Parts) -> bool:
    """Return whether neither the algorithm nor an attack ever reads the replay."""
    reads = any(type(one).update is not NoAttack.update for _, one in attacks_within(parts.attack))
    return bool(getattr(parts.algo, "on_policy", False)) and not reads


def build(cfg: DictConfig, n_envs: int, env_stream: str = "env") -> Parts:
    """Build everything that ``cfg`` describes, with ``n_envs`` lanes seeded from the stream ``env_stream``."""
    rank, _ = world()
    use_threads(cfg.threads)
    device = pick_device(cfg.device)
    if cfg.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with this
    replace(ComputeSettings.now(), deterministic=cfg.deterministic, warn_only=False).use()
    streams = Streams(cfg.seed, device, rank)
    make_algo, make_attack = factory(cfg.algo, "algo"), factory(cfg.attack, "attack")
    make = make_training_env if env_stream == "env" else make_env
    env = make(cfg, n_envs, streams.env_seed(env_stream))
    try:
        with streams.initializing():
            with enough_memory("algo", cfg.algo, "algo"):
                algo = call(make_algo, "algo", env.spec, device, streams["replay"])
            with enough_memory("attack", cfg.attack, "attack"):
                attack = call(make_attack, "attack", env.spec, device)
        fields = all_fields(env.spec, algo, attack)
        require_room("n_envs", n_envs, episode_bytes(fields, env.spec.episode_limit), "lanes of an episode", device)
        return Parts(env, algo, attack, fields, streams, device)
    except BaseException:
        env.close()
        raise
