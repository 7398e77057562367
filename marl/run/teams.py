"""Teams to test: read from run folders (configuration, newest checkpoint, policy) or trained elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Generator

from marl.core.checks import require_choice, require_name
from marl.core.config import pick_device, plain
from marl.core.protocols import Algorithm, Attack, Fitting, MultiPolicy, Policy, VectorEnv, attacks_within
from marl.core.seeding import Streams
from marl.core.types import Clock, ConfigError, EnvSpec, Field, core_fields
from marl.learn.actor import Act
from marl.run import checkpoint
from marl.run.build import Parts, build, call, factory, make_env, use_threads
from marl.run.evaluate import Results, episode_results, evaluate
from marl.run.folders import pick_checkpoint, read_team, run_folder


@dataclass
class Team:
    """A trained policy with its environment and attack."""

    env: VectorEnv
    policy: Policy
    attack: Attack
    fields: dict[str, Field]
    streams: Streams
    device: torch.device
    source: dict[str, Any]  # the team's origin, recorded with results


def open_team(cfg: DictConfig, n_envs: int) -> Team:
    """Open the team that a command line names by ``run=`` (a run folder) or by ``policy=`` (trained elsewhere)."""
    if cfg.policy is not None:
        if cfg.run is not None:
            raise ConfigError(f"run={cfg.run} and policy= are both given; give one of them")
        return open_imported(cfg, n_envs)
    require_name(run=cfg.run)
    if cfg.run is None:
        raise ConfigError("run is missing: give run=DIR (a run folder), or policy=pymarl policy.path=FILE env=...")
    changes = {key: cfg[key] for key in ("seed", "device", "threads", "env", "attack")}
    parts, clock = load_trained(run_folder(cfg.run), changes, n_envs, cfg.checkpoint, cfg.env_options, cfg.get("act"))
    source = {"run": str(cfg.run), "env_steps": clock.env_steps}
    policy = parts.algo.policy(clock)
    return Team(parts.env, policy, parts.attack, parts.fields, parts.streams, parts.device, source)


def refuse_run_options(cfg: DictConfig) -> None:
    """Raise ConfigError for options that apply to ``run=`` only, when ``cfg.policy`` plays instead."""
    for key, theirs in (("checkpoint", "step"), ("member", "member"), ("act", "act")):
        if (value := cfg.get(key)) is not None:
            instead = f"; give policy.{theirs}" if theirs in cfg.policy else ""
            raise ConfigError(f"{key}={value} is for run=DIR, and policy= is given{instead}")


def open_imported(cfg: DictConfig, n_envs: int) -> Team:
    """Open the team of ``cfg.policy`` in ``cfg.env``."""
    refuse_run_options(cfg)
    if cfg.env is None:
        raise ConfigError("env is missing: a team that was trained elsewhere needs env=...")
    use_threads(cfg.threads)
    device = pick_device(cfg.device)
    make_policy, make_attack = factory(cfg.policy, "policy"), factory(cfg.attack, "attack")
    streams = Streams(cfg.seed, device)
    cfg.env = with_options(cfg.env, cfg.get("env_options") or {})
    env = make_env(cfg, n_envs, streams.env_seed("eval"))
    try:
        with streams.initializing():
            policy = call(make_policy, "policy", env.spec, device)
            attack = call(make_attack, "attack", env.spec, device)
    except BaseException:
        env.close()
        raise
    fields = core_fields(env.spec) | attack.fields()
    source = {"policy": cfg.policy.get("path") or plain(cfg.policy)}  # a file, or all options of a scripted policy
    return Team(env, policy, attack, fields, streams, device, source)


def evaluate_team(
    team: Team, episodes: int, on_round: Callable[[int], None] | None = None, results: Results = episode_results
) -> dict[str, np.ndarray]:
    """Evaluate a team in test episodes; see ``marl.run.evaluate.evaluate``. Raise ConfigError if its attack must be
    fitted to the team first."""
    require_fitted(team.attack)
    return evaluate(
        team.env, team.policy, team.attack, team.fields, episodes=episodes, policy_gen=team.streams["eval"],
        attack_gen=team.streams["eval_attack"], device=team.device, on_round=on_round,
        results=results,
    )  # fmt: skip


def require_fitted(attack: Attack) -> None:
    """Raise ConfigError for an attack that has yet to be fitted to the team."""
    for _, part in attacks_within(attack):
        if isinstance(part, Fitting) and part.needs_fit:
            raise ConfigError(
                f"attack: {type(part).__name__} must first be fitted to the team; scripts.robustness does that, with "
                "fit=victim in the attack's column"
            )


def with_act(algo: DictConfig, act: str | None, run: Path | str) -> DictConfig:
    """Return the configuration of a run's algorithm with another ``act``: greedy or sample (None: unchanged). Raise
    ConfigError for an algorithm without this option."""
    if act is None:
        return algo
    require_choice("", get_args(Act), act=act)
    if "act" not in algo:
        raise ConfigError(f"act={act}: the team of {run} acts by values, greedily; only actors are sampled from")
    return DictConfig(OmegaConf.merge(algo, {"act": act}))


def with_options(env: DictConfig, options: Mapping[str, Any]) -> DictConfig:
    """Return an environment's configuration with some of its options changed, at any depth; unknown ones are refused
    when it is made."""
    changed = OmegaConf.merge(plain(env), plain(options))
    assert isinstance(changed, DictConfig)
    return changed


def load_trained(
    run_dir: Path,
    overrides: dict[str, Any],
    n_envs: int,
    step: int | None = None,
    env_options: Mapping[str, Any] | None = None,
    act: str | None = None,
) -> tuple[Parts, Clock]:
    """Load the trained team of a run on a fresh environment with ``n_envs`` lanes; return it with its clock.

    ``overrides`` replaces top-level keys of the stored configuration: seed, device, threads, env, attack.
    ``env_options`` changes single options of the environment, for example ``ally_health: 0.85``; ``act`` changes how
    actors choose actions, greedy or sample.
    """
    cfg = read_team(run_dir)
    folder = pick_checkpoint(run_dir, step)
    for key, value in overrides.items():
        if value is not None or key == "threads":  # null is a value of threads: as many as there are cores
            cfg[key] = value
    cfg.env, cfg.algo = with_options(cfg.env, env_options or {}), with_act(cfg.algo, act, run_dir)
    parts = build(cfg, n_envs, env_stream="eval")
    try:
        return parts, restore(parts.algo, run_dir, folder)
    except ConfigError:
        parts.env.close()
        raise


def restore(algo: Algorithm, run_dir: Path, folder: Path) -> Clock:
    """Load the weights of the checkpoint ``folder`` of a run into ``algo``; return the checkpoint's clock."""
    state, clock = checkpoint.load_state(folder), Clock()
    with checkpoint.that_fits(f"the team of {run_dir} does not fit this environment"):
        algo.load_state_dict(state["algo"])
        clock.load_state_dict(state["clock"])
    return clock


def load_policy(opens: Mapping[str, Any], spec: EnvSpec, device: torch.device, streams: Streams) -> Policy:
    """Load a policy without an environment: that of the run ``opens["run"]`` at ``opens["checkpoint"]`` (None: the
    newest), or the plug-in ``opens["policy"]``. ``opens["member"]`` selects another policy that the run's algorithm
    trains, in place of its team; ``opens["act"]`` says how actors choose actions. Raise ConfigError if there is none,
    or if it does not fit ``spec``."""
    if opens["policy"] is not None:
        with streams.initializing():
            return call(factory(OmegaConf.create(opens["policy"]), "policy"), "policy", spec, device)
    run_dir = run_folder(opens["run"])
    make_algo = factory(with_act(read_team(run_dir).algo, opens.get("act"), run_dir), "algo")
    with streams.initializing():
        algo = call(make_algo, "algo", spec, device, streams["replay"])
    clock = restore(algo, run_dir, pick_checkpoint(run_dir, opens["checkpoint"]))
    member = opens.get("member")
    return algo.policy(clock) if member is None else member_of(algo, member, run_dir)


def member_of(algo: Algorithm, member: str | int, run: Path) -> Policy:
    """Return the policy ``member`` that an algorithm trains besides its team; raise ConfigError if it trains none."""
    if not isinstance(algo, MultiPolicy):
        raise ConfigError(f"{run} has no member {member}: {type(algo).__name__} trains one team only")
    return algo.member(str(member))


def load_team(
    run: Path,
    key: str,
    spec: EnvSpec,
    device: torch.device | str,
    gen: Generator,
    step: int | None = None,
    act: Act | None = None,
) -> tuple[Algorithm, Clock]:
    """Return the algorithm of the run folder ``run`` as it was at ``step`` (None: its newest checkpoint), and the clock
    of that checkpoint. Actors play as ``act`` says (None: as in their run's tests). Raise ConfigError, with ``key`` as
    the name of the folder's option, if there is no such run or checkpoint, or if the team does not fit ``spec``."""
    algo = read_team(run, key).algo
    algo = with_act(algo, act, run) if "act" in algo else algo
    team: Algorithm = call(factory(algo, "algo"), "algo", spec, device, gen)
    return team, restore(team, run, pick_checkpoint(run, step, key))


def run_policy(
    spec: EnvSpec, device: torch.device | str, *, run: str, step: int | None, member: str | int | None, act: Act | None
) -> Policy:
    """Return the team of the run folder ``run``, playing without exploration, or the policy ``member`` of its
    algorithm. Raise ConfigError as ``load_team`` does, and for a member that the algorithm does not have."""
    require_name(**{"policy.run": run})
    team, clock = load_team(run_folder(run), "policy.run", spec, device, Generator(device), step, act)
    return team.policy(clock) if member is None else member_of(team, member, Path(run))
