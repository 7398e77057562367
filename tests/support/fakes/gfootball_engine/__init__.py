"""Stand-in for the football engine: the names, calls and oddities that ``envs/adapters/football/engine.py`` relies on.

The match is a caricature. Agent ``i`` moves the left player ``1 + i``; "right" and "left" move it by 0.1, whoever is
at the ball takes it along, and "shot" by its owner is a goal. "sliding" puts the ball out of play for one engine step,
in a free kick that lasts until "short_pass". The ball begins at a place drawn from the engine's seed. A scenario with
``left_team_difficulty = 1`` is leaky: the first place of the ball also depends on the match before.
"""

from types import SimpleNamespace

import numpy as np

NAMES = (
    "idle left top_left top top_right right bottom_right bottom bottom_left long_pass high_pass short_pass shot sprint "
    "release_direction release_sprint sliding dribble release_dribble"
)
e_BackendAction = SimpleNamespace(**{name: name for name in NAMES.split()})
e_PlayerRole = SimpleNamespace(e_PlayerRole_GK="GK", e_PlayerRole_CB="CB", e_PlayerRole_CM="CM")
e_Team = SimpleNamespace(e_Left="left", e_Right="right")
GameState = SimpleNamespace(game_created=0, game_running=1)


def FormationEntry(x, y, role, lazy, controllable):
    return SimpleNamespace(x=x, y=y, role=role, lazy=lazy, controllable=controllable)


class ScenarioConfig:
    @staticmethod
    def make():
        return SimpleNamespace(
            left_team=[], right_team=[], ball_position=[0.0, 0.0], deterministic=True, real_time=True, left_agents=-1,
            right_agents=-1, game_engine_random_seed=42, reverse_team_processing=None, left_team_difficulty=0.5,
            game_duration=3000, end_episode_on_score=False, end_episode_on_out_of_play=False,
            end_episode_on_possession_change=False,
        )  # fmt: skip


class GameEnv:
    played = 0  # engine steps of all matches before

    def __init__(self):
        self.game_config = SimpleNamespace(physics_steps_per_frame=1)
        self.state, self.started, self.actions = GameState.game_created, 0, []

    def start_game(self):
        self.started += 1

    def reset(self, config, animations):
        assert self.started == 1 and self.state == GameState.game_running and animations is False
        self.config, self.clock, self.halted, self.mode, self.goals = config, 0, 2, 0, [0, 0]
        self.left = np.array([(p.x, p.y) for p in config.left_team])
        self.right = np.array([(-p.x, -p.y) for p in config.right_team])
        leak = self.played if config.left_team_difficulty == 1 else 0
        draw = np.random.default_rng([config.game_engine_random_seed, leak]).uniform(0, 0.01)
        self.ball = np.array([config.ball_position[0] + draw, config.ball_position[1]])

    def perform_action(self, action, left, player):
        assert left is True and action in NAMES.split()
        self.actions.append((player, action))
        here = self.left[1 + player]
        owns = bool(np.abs(here - self.ball).max() < 0.05)
        way = {"right": 0.1, "left": -0.1}.get(action, 0.0)
        here[0] += way
        if owns:
            self.ball[0] += way
        if owns and action == "shot":
            self.goals[0] += 1
        if action == "sliding":
            self.mode, self.halted = 3, 1
        if action == "short_pass":
            self.mode = 0

    def step(self):
        self.clock += self.halted == 0
        self.halted, GameEnv.played = max(0, self.halted - 1), GameEnv.played + 1

    def get_info(self):
        def side(team):
            return [SimpleNamespace(position=(x, y), direction=(0.01, 0.02)) for x, y in team]

        near = [k for k, here in enumerate(self.left) if np.abs(here - self.ball).max() < 0.05]
        return SimpleNamespace(
            ball_position=(*self.ball, 0.5), ball_direction=(0.01, 0.0, 0.0), left_team=side(self.left),
            right_team=side(self.right), ball_owned_team=0 if near else -1, ball_owned_player=near[0] if near else -1,
            left_controllers=[SimpleNamespace(controlled_player=1 + i) for i in range(self.config.left_agents)],
            game_mode=self.mode, left_goals=self.goals[0], right_goals=self.goals[1], step=self.clock,
            is_in_play=self.halted == 0,
        )  # fmt: skip
