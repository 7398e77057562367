"""The training loop, ``fit``: collect, store, learn, report, save. It contains no algorithm."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from marl.core import distributed
from marl.core.config import pick_device, resolved
from marl.core.intervals import Interval
from marl.core.protocols import Alternating, Moving, NoAttack, Reporting, VectorEnv, attacks_within
from marl.core.seeding import globals_kept, globals_state, restore_globals, seed_globals
from marl.core.states import require_readable
from marl.core.types import Clock, EpisodeBatch, GameError, Metrics
from marl.core.validation import validate
from marl.learn.replay import EpisodeReplay
from marl.learn.rhythm import crossed
from marl.run import checkpoint, report
from marl.run.build import Parts, build, learns_from_newest, make_sampler, require_attacked, require_sight, testing_env
from marl.run.collect import collect
from marl.run.evaluate import evaluate, summarise
from marl.run.files import WriteError, expendable, logged_to, write_atomic
from marl.run.lock import held, made_by_hydra, tidied
from marl.run.loggers import LoggedRun, Loggers, require_loggers
from marl.run.metrics import Window, Writer, require_finite
from marl.run.progress import STOPPING, Doing, TrainProgress, doing
from marl.run.resume import find, holds, run_meta, set_aside
from marl.run.signals import StopRequest
from marl.run.stretch import Stretches, require_pieces
from marl.run.transfer import origin_of

log = logging.getLogger(__name__)


@dataclass
class Run:
    """A run folder and everything that its checkpoint contains."""

    cfg: DictConfig
    dir: Path
    parts: Parts
    eval_env: VectorEnv
    replay: EpisodeReplay
    config: dict[str, Any]
    origin: dict[str, Any] | None = None  # the origin of the weights that ``init_from`` loaded
    clock: Clock = field(default_factory=Clock)
    window: Window = field(default_factory=Window)
    team_learns: bool = True  # from the newest collection
    stretches: Stretches | None = None  # collects parts of episodes; None: whole ones
    metrics: Metrics = field(default_factory=dict)  # the newest value of each; not every update gives all of them

    def attacked_lanes(self) -> torch.Tensor:
        """Return which lanes are attacked, bool [B]: the first ``train.attack_fraction`` of them, from
        ``train.attack_start`` on."""
        lanes = torch.arange(self.parts.env.n_envs)
        share = self.cfg.train.attack_fraction if self.clock.env_steps >= self.cfg.train.attack_start else 0.0
        return lanes < round(share * len(lanes))

    def collect(self, compiled: bool = True) -> EpisodeBatch:
        """Collect one episode per lane with exploration (fewer if games die), or a stretch of each lane, with the
        general loop unless ``compiled``. If all games die, save and try again."""
        p, attacked = self.parts, self.attacked_lanes()
        self.team_learns = True
        if bool(attacked.any()):
            turns = [one.take_turn() for _, one in attacks_within(p.attack) if isinstance(one, Alternating)]
            self.team_learns = all(turns)
        while True:
            policy, explore, harm = p.algo.policy(self.clock), p.streams["explore"], p.streams["attack"]
            if self.stretches is not None:
                fresh = self.stretches.collect(policy, attacked, explore, harm, compiled=compiled)
            else:
                fresh = collect(
                    p.env, policy, p.attack, p.fields, explore=True, attacked=attacked, policy_gen=explore,
                    attack_gen=harm, device=p.device, compiled=compiled,
                )  # fmt: skip
            if len(fresh):
                return fresh
            self.save_progress()

    def store(self, fresh: EpisodeBatch) -> None:
        """Add a collection to the replay, if anything ever reads it."""
        if not learns_from_newest(self.parts):
            self.replay.add(fresh)

    def learn(self, fresh: EpisodeBatch) -> Metrics:
        """Store the episodes and update the attack, and the algorithm if it is the team's turn. If games have died, the
        attack, which identifies episodes by their lanes, does not learn from the rest. Raise NonFiniteError."""
        p = self.parts
        p.algo.annotate(fresh)
        self.store(fresh)
        metrics = p.algo.update(self.replay, fresh, self.clock) if self.team_learns else {}
        if len(fresh) == p.env.n_envs and self.stretches is None:
            metrics |= p.attack.update(self.replay, fresh, p.algo.policy(self.clock), self.clock)
        require_finite(metrics, p.algo, self.clock)
        for name, part in (("", p.algo), *attacks_within(p.attack)):
            if isinstance(part, Reporting) and distributed.world()[0] == 0:
                with expendable(self.dir / "reports"):
                    part.report(self.dir / "reports" / name)
        return metrics

    def evaluate(self, episodes: int) -> dict[str, Interval]:
        """Play unattacked test episodes on a separate environment and streams, which leaves training unchanged."""
        p = self.parts
        if isinstance(self.eval_env, Moving):
            self.eval_env.follow(p.env)
        with doing("testing"), globals_kept(p.streams.global_seed(f"eval/step{self.clock.env_steps}")):
            results = evaluate(
                self.eval_env, p.algo.policy(self.clock), NoAttack(p.spec, p.device), p.fields, episodes=episodes,
                policy_gen=p.streams["eval"], attack_gen=p.streams["eval_attack"], device=p.device,
            )  # fmt: skip
        return summarise(results)

    def count(self, fresh: EpisodeBatch) -> None:
        """Advance the clock by the steps and episodes of all ranks."""
        ended = fresh.won if self.stretches is None else self.stretches.ended["won"]
        self.clock.count(distributed.total(len(ended)), distributed.total(int(fresh.length.sum())))
        if self.stretches is None:
            self.window.add(fresh)
        else:
            self.window.add_ended(self.stretches.ended, "hit" in fresh)

    def state_dict(self) -> dict[str, Any]:
        p = self.parts
        return {
            "algo": p.algo.state_dict(),
            "attack": p.attack.state_dict(),
            "clock": self.clock.state_dict(),
            "window": self.window.state_dict(),
            "metrics": dict(self.metrics),
            "streams": p.streams.state_dict(),
            "env": p.env.state_dict() if p.env.resumable else None,
            "eval_env": self.eval_env.state_dict() if self.eval_env.resumable else None,
            "rng": globals_state(),
        } | ({} if self.stretches is None else {"stretches": self.stretches.state_dict()})

    def meta(self) -> dict[str, Any]:
        """Return the origin of the run's results, the version of the game, and how often the team learns."""
        rhythm = report.rhythm_of(self.parts.algo)
        found = {"rhythm": None if rhythm is None else asdict(rhythm), "init_from": self.origin}
        about = run_meta(self.config) | {"physics": self.parts.spec.physics}
        return about | {key: value for key, value in found.items() if value is not None}

    def save(self, milestone: bool = False) -> bool:
        """Write a checkpoint; return False, with earlier checkpoints intact, if it could not be written."""
        alone = distributed.world()[1] == 1
        with_replay = self.cfg.checkpoint.replay and alone
        replayed = with_replay or (alone and learns_from_newest(self.parts))
        exact = replayed and self.parts.env.resumable and (self.stretches is None or self.stretches.pausing)
        meta = {**self.meta(), "exact": exact}
        try:
            checkpoint.save(
                self.dir / "checkpoints", self.clock.env_steps, self.state_dict(),
                self.replay.state_dict() if with_replay else None, meta,
                keep=self.cfg.checkpoint.keep, milestone=milestone,
            )  # fmt: skip
        except WriteError as why:
            step = self.clock.env_steps
            log.error("checkpoint at step %d not written: %s; earlier ones are intact", step, why.strerror)
            return False
        return True

    def save_progress(self) -> None:
        """Write a checkpoint if there is something to lose and this process is the one that saves."""
        if self.clock.env_steps > 0 and distributed.world()[0] == 0:
            self.save()

    def load(self, folder: Path) -> None:
        """Continue from a checkpoint folder. Raise ConfigError if it is of something else, CheckpointError."""
        before = json.loads((folder / "meta.json").read_text(encoding="utf8")).get("physics", 1)
        if before != (now := self.parts.spec.physics):
            log.warning("the game's physics are now of version %s: this run began with version %s", now, before)
        state, replay = checkpoint.load_state(folder), checkpoint.load_replay(folder)
        with checkpoint.that_fits(f"{folder} does not fit this configuration"):
            self._restore(state, replay)
        if replay is None and not learns_from_newest(self.parts):
            log.warning("the checkpoint has no replay: learning waits until it is warm again, and resume is not exact")

    def _restore(self, state: dict[str, Any], replay: dict[str, Any] | None) -> None:
        p, rank = self.parts, distributed.world()[0]
        p.algo.load_state_dict(state["algo"])
        p.attack.load_state_dict(state["attack"])
        self.clock.load_state_dict(state["clock"])
        self.window.load_state_dict(state["window"])
        self.metrics = dict(state.get("metrics", {}))
        p.streams.load_state_dict(state["streams"])
        now = f"step{self.clock.env_steps}"
        if state["env"] is not None:
            p.env.load_state_dict(state["env"])
        if state["eval_env"] is not None:
            try:
                self.eval_env.load_state_dict(state["eval_env"])
            except (ValueError, RuntimeError) as why:  # a continued run may be tested with another number of lanes
                log.info("the tests' random streams start over: %s", str(why).splitlines()[0])
                self.eval_env.reset(p.streams.env_seed(f"eval/{now}"))
        restore_globals(state["rng"])
        if rank:  # the saved state is rank 0's
            p.env.reset(p.streams.env_seed(f"env/{now}"))
            seed_globals(p.streams.global_seed(now))
        if replay is not None:
            self.replay.load_state_dict(replay)
        if self.stretches is not None and not rank:
            self.stretches.load_state_dict(state["stretches"], p.algo.policy(self.clock), p.streams["attack"])

    def close(self) -> None:
        self.parts.env.close()
        self.eval_env.close()


def open_run(cfg: DictConfig, run_dir: Path, config: dict[str, Any], found: Path | None) -> Run:
    """Build a run; continue from the checkpoint ``found`` if there is one. Nothing is written before everything is
    built and loaded. Raise ConfigError, WriteError."""
    rank, ranks = distributed.world()
    parts = build(cfg, cfg.train.n_envs // ranks)
    try:
        require_pieces(cfg.train.rollout, parts.algo, parts.attack)
        require_attacked(cfg, parts)
        require_sight(parts)
        replay_device = pick_device(cfg.replay.device or "cpu", "replay.device")
        origin = origin_of(parts.algo, config, cfg.init_from, found)
        pin = replay_device.type == "cpu" and parts.device.type == "cuda"
        sampler = make_sampler(cfg)
        capacity = 1 if learns_from_newest(parts) else cfg.replay.capacity
        replay = EpisodeReplay(capacity, parts.spec.episode_limit, parts.fields, replay_device, pin, sampler)
        eval_lanes = min(cfg.eval.n_envs, max(cfg.eval.episodes, cfg.eval.final_episodes))
        eval_env = testing_env(cfg, eval_lanes, parts)
    except BaseException:
        parts.env.close()
        raise
    run = Run(cfg, run_dir, parts, eval_env, replay, config, origin)
    try:
        if cfg.train.rollout is not None:
            run.stretches = Stretches(parts.env, parts.attack, parts.fields, cfg.train.rollout, parts.device)
        if found is not None:
            run.load(found)
        require_readable(run.state_dict())
        if rank == 0:
            if found is None:
                set_aside(run_dir)
            write_atomic(run_dir / "config.json", json.dumps(config, indent=1))
            write_atomic(run_dir / "meta.json", json.dumps(run.meta(), indent=1))
    except BaseException:
        run.close()
        raise
    return run


def say_start(run: Run, found: Path | None) -> None:
    """Log what is trained, and where it continues from."""
    if distributed.world()[0] == 0:
        report.header(run.dir, run.parts, run.replay, run.cfg.train.n_envs)
    if found is not None:
        log.info("continuing at step %s from %s", f"{run.clock.env_steps:,}", found)


@contextmanager
def saved_if_games_fail(run: Run) -> Iterator[None]:
    """Save before a GameError ends the run."""
    try:
        yield
    except GameError:
        run.save_progress()
        raise


def fit(cfg: DictConfig, run_dir: Path, draw: report.Draw | None = None) -> dict[str, Any]:
    """Train as ``cfg`` says, in ``run_dir``; return the final test results ({} if a signal stopped it). ``draw`` draws
    the learning curve at the end."""
    with tidied(run_dir, Path(cfg.runs_dir), keep_present=not made_by_hydra(run_dir)):
        validate(cfg)
        require_loggers(cfg)
        config = resolved(cfg)
        done = None if cfg.resume == "never" else report.read_done(run_dir, cfg.train.total_steps)
        if done is not None and holds(run_dir, config, cfg.resume):  # which needs no lock
            report.say_done(run_dir, done)
            return done["final"]
        with held(run_dir) if distributed.world()[0] == 0 else nullcontext():
            distributed.start(pick_device(cfg.device))
            found = find(run_dir, config, cfg.resume)
            with closing(open_run(cfg, run_dir, config, found)) as run:
                return train(run, found, draw)


def train(run: Run, found: Path | None, draw: report.Draw | None) -> dict[str, Any]:
    """Train an open run, continued from ``found``, to its end or until a signal; see ``fit``."""
    cfg, total, about = run.cfg, run.cfg.train.total_steps, LoggedRun(run.dir, run.config, run.clock.env_steps)
    with (
        logged_to(run.dir / "train.log") if distributed.world()[0] == 0 else nullcontext(),
        closing(Writer(run.dir, run.clock, lambda: Loggers(cfg, about))) as writer,
        StopRequest(then=lambda name: Doing.begin(STOPPING)) as stop,
        TrainProgress(cfg.log.progress if writer.active else "off", total, run.clock.env_steps) as progress,
        saved_if_games_fail(run),
    ):
        say_start(run, found)
        clock, timer = run.clock, report.Timer()
        scalars: dict[str, float] = {}
        if found is None:  # a checkpoint of step 0 comes after its row
            scalars |= writer.intervals("eval", run.evaluate(cfg.eval.episodes), clock)
            if cfg.checkpoint.at_start and writer.active:
                run.save(milestone=True)
        while clock.env_steps < total and not distributed.broadcast(bool(stop)):
            before = clock.env_steps
            with timer("collect_s"):
                fresh = run.collect()
            run.count(fresh)
            with timer("update_s"):
                run.metrics |= run.learn(fresh)

            if crossed(before, clock.env_steps, cfg.log.every):
                row = report.training_row(run.window, timer, run.metrics, run.replay, clock.env_steps)
                writer.write("metrics", row, clock)
                scalars |= row
            if crossed(before, clock.env_steps, cfg.eval.every):
                scalars |= writer.intervals("eval", run.evaluate(cfg.eval.episodes), clock)
            kept = crossed(before, clock.env_steps, cfg.checkpoint.milestone)
            if (kept or crossed(before, clock.env_steps, cfg.checkpoint.every)) and writer.active:
                run.save(milestone=kept)
            elif len(fresh) < run.parts.env.n_envs:  # a game has died; the next reset restarts it
                run.save_progress()
            progress.show(clock.env_steps, scalars)
        return finish(run, stop, writer, progress, draw)


def finish(
    run: Run, stop: StopRequest, writer: Writer, progress: TrainProgress, draw: report.Draw | None
) -> dict[str, Any]:
    """Save; after the last step also evaluate, draw the learning curve and log the results."""
    if writer.active and not run.save():
        raise checkpoint.CheckpointError(f"the networks of {run.dir} could not be saved; the same command tries again")
    progress.close()
    if stop:
        how = "the same command continues" + (", without resume=never" if run.cfg.resume == "never" else "")
        log.info("stopped by %s at step %s; %s", stop.name, f"{run.clock.env_steps:,}", how)
        return {}
    final = run.evaluate(run.cfg.eval.final_episodes)
    if writer.active:
        writer.intervals("eval", final, run.clock, final=True)
        report.finished(run.dir, final, run.clock, draw)
        if run.clock.updates == 0 and "batch_size" in run.cfg.algo:
            log.warning("no update was made: %s episodes were collected, which is less than algo.warmup_episodes or "
                        "algo.batch_size asks for", f"{run.clock.episodes:,}")  # fmt: skip
    return {name: interval.as_dict() for name, interval in final.items()}
