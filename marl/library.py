"""The framework from Python: what the scripts do, as functions that return their results (``import marl``).

Overrides are those of the command line, as strings. Bad input raises ConfigError with the line that a script prints.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from marl.core.annotations import typed
from marl.core.checks import require_at_least, require_name, require_within, require_writable
from marl.core.intervals import Interval, mean_interval
from marl.core.protocols import VectorEnv
from marl.core.seeding import globals_kept
from marl.core.types import Carry, ConfigError, EnvSpec, Obs
from marl.measure import board
from marl.measure import crossplay as crossplay_engine
from marl.measure import robustness as robustness_engine
from marl.measure.board import Board
from marl.measure.crossplay_scores import CrossMatrix
from marl.measure.robustness_scores import Matrix
from marl.run import build, teams
from marl.run.build import ComputeSettings, settings_kept
from marl.run.calls import configured, folders
from marl.run.compose import compose_with_choices, option
from marl.run.evaluate import summarise
from marl.run.folders import pick_checkpoint, read_config, run_folder
from marl.run.resume import called_as, spelled
from marl.run.trainer import fit
from marl.show.plot import run_curve
from marl.show.record import MOST_FPS, film, save_gif
from marl.show.report import page

__all__ = ["Board", "Run", "Team", "crossplay", "leaderboard", "load", "make_env", "report", "robustness", "train"]


@contextmanager
def _kept() -> Iterator[None]:
    """Restore the global generators, the numbers of threads and torch's determinism on exit."""
    with globals_kept(), settings_kept():
        yield


@dataclass(frozen=True)
class Run:
    """A training run that has ended: its folder, and the final test as 95% intervals by name (``win_rate``, ``return``,
    ``length``). ``scores`` is empty if a signal stopped it; the same call continues it."""

    dir: Path
    scores: dict[str, Interval]

    @property
    def finished(self) -> bool:
        return bool(self.scores)


@_kept()
@typed
def train(*overrides: str, dir: str | Path | None = None) -> Run:
    """Train a team and return its run.

    Args:
        overrides (str): as on the command line of ``scripts.train``: ``"algo=vdn"``, ``"env=toy/matrix"``,
            ``"train.total_steps=2000"``.
        dir (str | Path | None): the run folder; None: ``runs_dir/run_path``, as the script chooses it. A folder that
            holds the same run is continued, or returned at once if it is finished; that of another configuration is
            refused.

    Raises:
        ConfigError: for overrides that do not compose, options out of range, and a folder of another configuration.
    """
    require_name(dir=None if dir is None else str(dir))
    if dir is not None and not Path(dir).is_dir():
        require_writable("", dir=Path(dir))
    cfg, _ = compose_with_choices(overrides, "train")
    folder = Path(dir) if dir is not None else Path(cfg.runs_dir) / cfg.run_path
    with called_as(spelled("train", *overrides, dir=None if dir is None else str(dir))):
        final = fit(cfg, folder, run_curve)
    return Run(folder, {name: Interval.from_dict(values) for name, values in final.items()})


@typed
def make_env(name: str, n_envs: int = 1, seed: int = 0, **options: Any) -> VectorEnv:
    """Make the environment ``env=name`` with ``n_envs`` lanes.

    Args:
        name (str): a name of ``conf/env``, such as ``"skirmish/2s3z"``.
        n_envs (int): lanes.
        seed (int): of the lanes' random streams.
        options (Any): changes to its configuration, such as ``episode_limit=50``.

    Raises:
        ConfigError: for a name or an option that does not exist, and for values out of range.
    """
    require_at_least("", 1, n_envs=n_envs)
    require_at_least("", 0, seed=seed)
    cfg, _ = compose_with_choices([f"env={name}"], "evaluate")
    cfg.env = teams.with_options(cfg.env, options)
    return build.make_env(cfg, n_envs, seed)


@_kept()
@typed
def load(
    run: str | Path | Run, checkpoint: int | None = None, *, env: str | None = None,
    env_options: Mapping[str, Any] | None = None, act: str | None = None, device: str = "auto",
    threads: int | None = 1,
) -> Team:  # fmt: skip
    """Load a trained team from its run folder.

    Args:
        run (str | Path | Run): a run folder, what ``train`` returned, or ``"zoo:NAME"``, a team of the folder ``zoo``.
        checkpoint (int | None): environment step of the checkpoint; None: the newest.
        env (str | None): the environment to play in, a name of ``conf/env``; None: the one it was trained in.
        env_options (Mapping | None): changes to its configuration, such as ``{"ally_health": 0.85}``.
        act (str | None): how actors choose, ``"greedy"`` or ``"sample"``; None: as their training was tested.
        device (str): ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:K"``.
        threads (int | None): CPU threads; None: all.

    Raises:
        ConfigError: if the folder is not a run folder, has no such checkpoint, or does not fit the environment.
    """
    require_name(run=run if isinstance(run, str) else None)
    folder = run.dir if isinstance(run, Run) else run_folder(run)
    return Team(folder, checkpoint, env, device, threads, env_options or {}, act)


class Team:
    """A trained team. ``dir`` is its run folder, ``spec`` the sizes of the game that it plays."""

    def __init__(
        self, dir: Path, checkpoint: int | None, env: str | None, device: str, threads: int | None,
        env_options: Mapping[str, Any], act: str | None,
    ) -> None:  # fmt: skip
        self.dir, self.checkpoint, self._act = dir, checkpoint, act
        self._env, self._device, self._threads, self._options = env, device, threads, dict(env_options)
        read_config(dir)
        pick_checkpoint(dir, checkpoint)
        self._player: teams.Team | None = None
        self._settings: ComputeSettings | None = None  # with which the player computes
        self._carry: Carry | None = None
        self._lanes = 0
        with closing((player := self._open(1, 0, None)).env):
            self.spec: EnvSpec = player.env.spec

    def __repr__(self) -> str:
        n, actions = self.spec.n_agents, self.spec.n_actions
        return f"<Team of {self.dir}: {n} agents, {actions} actions, {self.spec.obs_dim} observation features>"

    def _open(self, n_envs: int, seed: int, attack: str | None) -> teams.Team:
        words = [f"env={self._env}"] if self._env is not None else []
        words += [f"attack={attack}"] if attack is not None else []
        cfg, _ = compose_with_choices(words, "evaluate")
        cfg.run, cfg.checkpoint, cfg.seed, cfg.act = str(self.dir), self.checkpoint, seed, self._act
        cfg.device, cfg.threads, cfg.env_options = self._device, self._threads, self._options
        return teams.open_team(cfg, n_envs)

    @_kept()
    @typed
    def evaluate(
        self, episodes: int = 100, *, attack: str | None = None, seed: int = 0, n_envs: int = 32
    ) -> dict[str, Interval]:
        """Play test episodes and return 95% intervals by name (``win_rate``, ``return``, ``length``), as
        ``scripts.evaluate`` does with the same arguments.

        Args:
            episodes (int): how many.
            attack (str | None): a name of ``conf/attack``; None: no attack.
            seed (int): of the episodes.
            n_envs (int): lanes played at once.
        """
        require_at_least("", 1, episodes=episodes, n_envs=n_envs)
        team = self._open(min(n_envs, episodes), seed, attack)
        with closing(team.env):
            results = teams.evaluate_team(team, episodes)
        attacked = ("hits", "hit_actions") if "hit" in team.fields else ()
        return summarise(results) | {name: mean_interval(results[name]) for name in attacked}

    @_kept()
    @typed
    def record(self, path: str | Path, episodes: int = 1, *, seed: int = 0, fps: float = 8.0) -> Path:
        """Record test episodes as an animated GIF and return its path.

        Args:
            path (str | Path): where to write it; must end in ``.gif``.
            episodes (int): how many.
            seed (int): of the episodes.
            fps (float): steps per second.
        """
        path = Path(path)
        if path.suffix.lower() != ".gif":
            raise ConfigError(f"path={path} must end in .gif")
        require_at_least("", 1, episodes=episodes)
        require_within("", 1, MOST_FPS, fps=fps)
        require_writable("", files=True, path=path)
        team = self._open(1, seed, None)
        with closing(team.env):
            frames, _ = film(team, episodes)
        save_gif(frames, path, fps)
        return path

    @torch.no_grad()
    def act(self, obs: Obs) -> Tensor:
        """Return the team's actions long [B, n], chosen as in tests, for observations of ``make_env(...)``. The team
        remembers the episode so far.

        Call ``reset`` before the first step of new episodes. Raise ValueError if the number of lanes changes within an
        episode.
        """
        if self._player is None:
            with _kept():
                self._player = self._open(1, 0, None)
                self._settings = ComputeSettings.now()
            self._player.env.close()
        policy, gen = self._player.policy, self._player.streams["eval"]
        lanes = len(obs.state)
        with settings_kept(self._settings):
            if self._carry is None:
                self._carry, self._lanes = policy.begin(lanes, gen), lanes
            if lanes != self._lanes:
                raise ValueError(f"obs has {lanes} lanes, the episode began with {self._lanes}; call reset() first")
            actions, carry, _ = policy.act(obs.to(self._player.device), self._carry, explore=False, gen=gen)
            self._carry = policy.after(carry, actions, actions)
        return actions.cpu()

    def reset(self) -> None:
        """Forget the episode that ``act`` remembers."""
        self._carry = None


@_kept()
@typed
def robustness(runs: str | Path | Run | Sequence[Any], suite: str = "quick", *overrides: str, **options: Any) -> Matrix:
    """Measure trained teams against the attacks of a suite, and return the matrix.

    Args:
        runs (str | Path | Run | Sequence): run folders, patterns, or what ``train`` returned.
        suite (str): a name of ``conf/suite``: the columns.
        overrides (str): as on the command line of ``scripts.robustness``, such as ``"env=skirmish/2s3z"``.
        options (Any): its keys, such as ``episodes=200``, ``jobs=2``, ``out="outputs/nb"``.

    ``marl.show.robustness_report`` shows the matrix as a table (``show``) and writes its files (``write``).
    """
    cfg, chosen = configured("robustness", runs, [f"suite={suite}", *overrides], options)
    with called_as(spelled("robustness", folders(runs), suite, *overrides, **options)):
        return robustness_engine.run(cfg, chosen["suite"], chosen.get("env"), option)


@_kept()
@typed
def leaderboard(
    file: str | Path = "leaderboard.json", runs: str | Path | Run | Sequence[Any] | None = None,
    suite: str = "ensemble", *overrides: str, **options: Any,
) -> Board:  # fmt: skip
    """Read a leaderboard, add trained teams to it, or measure its entries again, and return the board.

    Without ``runs`` and ``imports`` the board is read. With them and ``by="Our group"`` they are measured and added,
    and the file is replaced in one step. With them and ``check=True`` every entry whose weights are among them is
    measured again in its own setting, and the file stays as it is; ``board.wrong`` has the entries that disagree.

    Args:
        file (str | Path): the JSON file of the board.
        runs (str | Path | Run | Sequence | None): run folders, patterns, or what ``train`` returned.
        suite (str): a name of ``conf/suite``: the columns of what is added.
        overrides (str): as on the command line of ``scripts.leaderboard``, such as ``"suite.budget=12"``.
        options (Any): its keys, such as ``by="Our group"``, ``check=True``, ``episodes=200``, ``jobs=2``.

    Raises:
        ConfigError: for a file that is not a leaderboard, runs that do not exist, teams to add without ``by``, and
            options out of range, before anything is measured.

    ``marl.show.leaderboard`` prints a board (``show``) and a check (``show_check``).
    """
    given = {"file": file, **options}
    cfg, chosen = configured("leaderboard", runs, [f"suite={suite}", *overrides], given)
    arguments = (str(file), None if runs is None else folders(runs), suite, *overrides)
    with called_as(spelled("leaderboard", *arguments, **options)):
        return board.run(cfg, chosen["suite"], option)


@_kept()
@typed
def crossplay(
    runs: str | Path | Run | Sequence[Any], partners: str = "none", *overrides: str, **options: Any
) -> CrossMatrix:
    """Let trained teams play with each other and with partners that they never met, and return the matrix.

    Args:
        runs (str | Path | Run | Sequence): run folders, patterns, or what ``train`` returned.
        partners (str): a name of ``conf/partners``: populations of held-out partners.
        overrides (str): as on the command line of ``scripts.crossplay``, such as ``"env=mds"``.
        options (Any): its keys, such as ``episodes=200``, ``jobs=2``, ``out="outputs/nb"``.

    ``marl.show.crossplay_report`` shows the matrix as tables (``show``) and writes its files (``write``).
    """
    cfg, chosen = configured("crossplay", runs, [f"partners={partners}", *overrides], options)
    with called_as(spelled("crossplay", folders(runs), partners, *overrides, **options)):
        return crossplay_engine.run(cfg, chosen.get("env"))


@_kept()
@typed
def report(
    runs: str | Path | Run | Sequence[Any], out: str | Path = "report.html", *overrides: str, **options: Any
) -> Path:
    """Write a study as one page of HTML, and return its path.

    Args:
        runs (str | Path | Run | Sequence): run folders, patterns, or what ``train`` returned.
        out (str | Path): the page; must end in ``.html``.
        overrides (str): as on the command line of ``scripts.report``, such as ``"attack=random"``.
        options (Any): its keys, such as ``robustness="outputs/robustness"``, ``episodes=0``, ``title="Our study"``.

    Raises:
        ConfigError: for runs and matrices that do not exist or cannot be read, options out of range, and if plotly
            is not installed.
    """
    cfg, _ = configured("report", runs, [*overrides], {"out": out, **options})
    with called_as(spelled("report", folders(runs), str(out), *overrides, **options)):
        return page.make(cfg)
