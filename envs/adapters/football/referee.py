"""When a football episode is over, and what a step pays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from envs.adapters.football.scene import NORMAL, Scene
from envs.adapters.worker import Outcome

Reward = Literal["goals", "fox", "mean"]
GOAL, FAILURE = 100.0, -1.0  # of reward=fox
RINGS, RING_PAYS = 10, 0.1


@dataclass(frozen=True)
class Rules:
    """Options of an episode; see ``envs.adapters.football.game.Football``."""

    episode_limit: int
    pos_limit: float | None
    reward: Reward
    checkpoints: bool
    timeout_is_terminal: bool


@dataclass(frozen=True)
class Ends:
    """When the scenario itself ends: on a goal, the ball out of play, the other team in possession, its own clock."""

    on_score: bool
    on_out_of_play: bool
    on_possession_change: bool
    duration: int


class Referee:
    """The referee of one episode with ``n_agents`` agents: ``begin`` at its start, ``judge`` after every step."""

    def __init__(self, rules: Rules, n_agents: int) -> None:
        self.rules, self.n_agents = rules, n_agents

    def begin(self, ends: Ends) -> None:
        self.ends = ends
        self.steps = self.lead = self.rings = 0
        self.mode = self.possession = -1  # of the previous step: unknown

    def judge(self, scene: Scene) -> Outcome:
        """Return reward and flags of the step that led to ``scene``. If the task ends exactly at the time limit, the
        step is terminated, not truncated."""
        self.steps += 1
        lead = scene.goals[0] - scene.goals[1]
        change, self.lead = lead - self.lead, lead
        over = self._is_over(scene)
        late = self.steps >= self.rules.episode_limit or scene.step >= self.ends.duration
        reward = self._pay(change, over or late) + self._pay_rings(scene, change)
        terminated = over or (late and self.rules.timeout_is_terminal)
        return Outcome(reward, terminated, late and not terminated, change > 0)

    def _is_over(self, scene: Scene) -> bool:
        """Apply the scenario's own end conditions and ``pos_limit``, the line that ball and agents must not pass."""
        ends, line = self.ends, self.rules.pos_limit
        over = ends.on_score and max(scene.goals) > 0
        over |= ends.on_out_of_play and self.mode == NORMAL and scene.mode != NORMAL
        self.mode = scene.mode
        if scene.owner_team >= 0:
            over |= ends.on_possession_change and scene.owner_team == 1 - self.possession
            self.possession = scene.owner_team
        if line is not None:
            over |= bool(scene.ball[0] < line or (scene.left[-self.n_agents :, 0] < line).any())
        return bool(over)

    def _pay(self, change: int, last: bool) -> float:
        if self.rules.reward == "goals":
            return float(self.n_agents * change)
        if self.rules.reward == "mean":
            return float(change)
        return GOAL if change > 0 else FAILURE if last else 0.0

    def _pay_rings(self, scene: Scene, change: int) -> float:
        """Pay for each ring around the goal that the ball reaches for the first time in an agent's possession, and on a
        goal for all that are left: the package's checkpoints, counted once for the team."""
        if not self.rules.checkpoints:
            return 0.0
        before = self.rings
        if change > 0:
            self.rings = RINGS
        elif scene.owner_team == 0 and scene.owner in scene.controlled:
            distance = math.hypot(scene.ball[0] - 1, scene.ball[1])
            while self.rings < RINGS and distance <= 0.99 - 0.8 / (RINGS - 1) * self.rings:
                self.rings += 1
        return RING_PAYS * (self.rings - before)
