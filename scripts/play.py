"""Play with trained partners, with the keyboard of a terminal: ``python -m scripts.play run=runs/... seat=1``."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path

from omegaconf import DictConfig

from marl.core.checks import require_name, require_positive
from marl.core.config import pick_device, plain
from marl.core.seeding import Streams
from marl.core.types import ConfigError
from marl.run.build import make_env, use_threads
from marl.run.files import write_atomic
from marl.run.folders import read_config, run_folder
from marl.run.teams import load_policy, refuse_run_options, with_options
from marl.show.play import Chooser, Keyboard, Screen, legend, play, seats_of
from scripts.main import positive, run, writable_file


def main(cfg: DictConfig) -> None:
    positive(cfg, "episodes")
    writable_file(cfg)
    require_name(run=cfg.run)
    require_positive("", pace=cfg.pace, or_null=True)
    if (cfg.run is None) == (cfg.policy is None):
        raise ConfigError("give the partners, either as run=DIR (a run folder) or as policy=NAME with env=NAME")
    if cfg.run is None and cfg.env is None:
        raise ConfigError("env is missing: partners that are no run need env=NAME")
    if cfg.policy is not None:
        refuse_run_options(cfg)
    use_threads(cfg.threads)
    device = pick_device(cfg.device)
    streams = Streams(cfg.seed, device)
    cfg.env = with_options(cfg.env if cfg.env is not None else read_config(run_folder(cfg.run)).env, cfg.env_options)
    opens = {key: plain(cfg[key]) for key in ("run", "policy", "checkpoint", "member", "act")}
    keyboard = Keyboard(sys.stdin.fileno())
    env = make_env(cfg, 1, streams.env_seed("eval"))
    with closing(env):
        seats_of(cfg.seat, env.spec.n_agents)
        choose = Chooser(env.spec, keyboard, cfg.pace)
        screen = Screen([f"you are agent {cfg.seat}", legend(env.spec, choose.keys)])
        partners = load_policy(opens, env.spec, device, streams)
        with keyboard.single_keys():
            results = list(play(env, partners, cfg.seat, choose, streams, cfg.episodes, screen))
    for k, result in enumerate(results):
        print(f"episode {k}: return {result['return']:.2f}, {result['length']} steps{', won' if result['won'] else ''}")
    if len(results) < cfg.episodes:
        print(f"left after {len(results)} of {cfg.episodes} episodes")
    if cfg.out is not None:
        write_atomic(Path(cfg.out), json.dumps({"partners": opens, "seat": cfg.seat, "episodes": results}, indent=1))


if __name__ == "__main__":
    run(main, "play")
