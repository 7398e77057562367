"""The engine of Google Research Football 2.10 (module ``gfootball_engine``), without the Python environment around it.

The engine gets the same calls here as from that environment, which would also copy all observations once for each
agent. Scenarios are the package's own files.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from envs.adapters.football.referee import Ends
from envs.adapters.football.scene import NORMAL, Scene, read_scene

ENGINE = "gfootball_engine"
ACTIONS = (
    "idle", "left", "top_left", "top", "top_right", "right", "bottom_right", "bottom", "bottom_left", "long_pass",
    "high_pass", "short_pass", "shot", "sprint", "release_direction", "release_sprint", "sliding", "dribble",
    "release_dribble",
)  # fmt: skip
IDLE, LEFT, RIGHT, SHORT_PASS = (ACTIONS.index(name) for name in ("idle", "left", "right", "short_pass"))
PATIENCE, RUN_IN = 20, 30  # steps out of play after which play is forced to resume; and the ball carrier to run left
SCENARIOS = "_football_scenarios"  # our name for the package of scenario files


def scenario_folder() -> Path:
    """Return the folder of the scenario files: next to the engine if ``make football`` installed it, else in the
    package ``gfootball``, whose own modules are not imported."""
    found = importlib.util.find_spec(ENGINE)
    assert found is not None and found.origin is not None, "require_package comes first"
    engine = Path(found.origin).parent
    beside = engine / "scenarios"
    return beside if beside.is_dir() else engine.parent / "gfootball" / "scenarios"


def levels() -> list[str]:
    """Return the names of the scenarios that are installed."""
    return sorted(path.stem for path in scenario_folder().glob("*.py") if path.stem != "__init__")


def _load_level(level: str) -> ModuleType:
    if SCENARIOS not in sys.modules:
        folder = scenario_folder()
        where = importlib.util.spec_from_file_location(
            SCENARIOS, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert where is not None and where.loader is not None
        sys.modules[SCENARIOS] = importlib.util.module_from_spec(where)
        where.loader.exec_module(sys.modules[SCENARIOS])
    return importlib.import_module(f"{SCENARIOS}.{level}")


class Builder:
    """The interface that scenario files call, with the names that they use."""

    def __init__(self, lib: Any, seed: int) -> None:
        self.lib, self.seed = lib, seed
        self.made = lib.ScenarioConfig.make()
        self.team = self.made.left_team

    def config(self) -> Any:
        return self.made

    ScenarioConfig = config

    def EpisodeNumber(self) -> int:  # decides who kicks off in 5_vs_5; the seed alone has to decide everything
        return self.seed

    def SetTeam(self, team: Any) -> None:
        self.team = self.made.left_team if team == self.lib.e_Team.e_Left else self.made.right_team

    def AddPlayer(self, x: float, y: float, role: Any, lazy: bool = False, controllable: bool = True) -> None:
        self.team.append(self.lib.FormationEntry(x, y, role, lazy, controllable))

    def SetBallPosition(self, x: float, y: float) -> None:
        self.made.ball_position[0], self.made.ball_position[1] = x, y


class Engine:
    """A match of the scenario ``level``, in which ``n_agents`` players of the left team are controlled from outside.

    ``reset(seed)`` keeps nothing of earlier matches: seed and actions determine a match bit for bit.
    """

    def __init__(self, level: str, n_agents: int, physics_steps_per_frame: int) -> None:
        self.lib = importlib.import_module(ENGINE)
        self.level, self.n_agents = _load_level(level), n_agents
        self.moves = [getattr(self.lib.e_BackendAction, name) for name in ACTIONS]
        self.env = self.lib.GameEnv()
        self.env.game_config.physics_steps_per_frame = physics_steps_per_frame
        self.started = False

    def scenario(self, seed: int) -> Any:
        """Build the scenario's configuration; an empty team gets one keeper who stands still."""
        builder = Builder(self.lib, seed)
        self.level.build_scenario(builder)
        for team in (builder.made.left_team, builder.made.right_team):
            if len(team) == 0:
                builder.team = team
                builder.AddPlayer(-1.0, 0.42, self.lib.e_PlayerRole.e_PlayerRole_GK, True)
        config = builder.made
        config.real_time = False
        config.left_agents, config.right_agents = self.n_agents, 0
        if not config.deterministic:
            config.game_engine_random_seed = seed
            config.reverse_team_processing = bool(seed % 2)
        return config

    def reset(self, seed: int) -> tuple[Scene, Ends]:
        """Start a match; ``seed`` is at least 0 and below 2^31."""
        if not self.started:
            self.env.start_game()
            self.started = True
        config = self.scenario(seed)
        self.env.state = self.lib.GameState.game_running
        self.env.reset(config, False)
        self.waited = 0
        self._until_in_play()
        ends = Ends(
            config.end_episode_on_score, config.end_episode_on_out_of_play, config.end_episode_on_possession_change,
            config.game_duration,
        )  # fmt: skip
        return self.scene, ends

    def step(self, actions: np.ndarray) -> Scene:
        """Perform every agent's action, int [n], and advance to the next moment in play."""
        for agent, action in enumerate(actions.tolist()):
            self.env.perform_action(self.moves[_go_on(self.scene, agent, action, self.waited)], True, agent)
        self.env.step()
        self._until_in_play()
        self.waited = 0 if self.scene.mode == NORMAL else self.waited + 1
        return self.scene

    def _until_in_play(self) -> None:
        while not (info := self.env.get_info()).is_in_play:
            self.env.step()
        self.scene = read_scene(info, self.n_agents)


def _go_on(scene: Scene, agent: int, action: int, waited: int) -> int:
    """Return the action of ``agent``, or what it has to do once the ball has been out of play for too long."""
    if waited < PATIENCE:
        return action
    if waited == PATIENCE:
        return SHORT_PASS
    if scene.owner_team == 0 and scene.controlled[agent] == scene.owner:
        return RIGHT if waited < RUN_IN else LEFT
    return IDLE
