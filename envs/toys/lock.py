"""The formation lock: what opens it is how two agents stand relative to each other; where they are does not matter.

A test of FoX's claim (Jo, Lee, Yeom, Han 2024; ``docs/fox.md``) that counts of formations drive exploration where
counts of joint positions are too diluted: the number of locations sets the dilution, and with one location both counts
are the same. The game is our own; the form "chains" follows no published game either.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from PIL import Image, ImageDraw

from envs.kernels.compiled import rule
from envs.kernels.game import LaneGame
from envs.kernels.lanes import LANE, Outputs, allocate_outputs, begin_episode, end_step, lane_kernels, rests
from envs.kernels.rng import below
from marl.core.checks import require_at_least, require_choice, require_within
from marl.core.types import EnvSpec

AGENTS = 2
EVENTS = ("formation", "positions")
Form = Literal["offset", "chains"]
Wrong = Literal["slip", "reset"]
CELL_PIXELS = 24


class Rules(NamedTuple):
    key: np.ndarray  # int64 [2, depth]; the right action of each agent at each notch
    cells: int
    drift: int
    limit: int
    goal_reward: float
    chains: bool
    reset: bool


class Board(NamedTuple):
    lanes: np.ndarray  # LANE [B]
    location: np.ndarray  # int64 [B]; of both agents, on the ring
    place: np.ndarray  # int64 [B, 2]; of each agent, relative to the location


@rule
def moved(place: int, right: bool, depth: int, reset: bool) -> int:
    """Return where a step leads: one place on if ``right``, else one back or, with ``reset``, to the start."""
    if right:
        return min(place + 1, depth)
    return 0 if reset else max(place - 1, 0)


@rule
def turn(rules: Rules, place: np.ndarray, actions: np.ndarray) -> None:
    """Move the agents whose places are ``place`` [2]. At the end of its chain an agent stays."""
    depth = rules.key.shape[1]
    if rules.chains:
        for i in range(AGENTS):
            if place[i] < depth:
                place[i] = moved(place[i], actions[i] == rules.key[i, place[i]], depth, rules.reset)
    else:
        notch = place[1]  # agent 0 stays where the location is
        right = actions[0] == rules.key[0, notch] and actions[1] == rules.key[1, notch]
        place[1] = moved(notch, right, depth, rules.reset)


@rule
def wander(rules: Rules, board: Board, b: int) -> None:
    """Move the location of lane ``b`` by up to ``drift`` cells either way."""
    if rules.cells > 1 and rules.drift > 0:
        shift = below(board.lanes[b], 2 * rules.drift + 1) - rules.drift
        board.location[b] = (board.location[b] + shift) % rules.cells


@rule
def observe_lane(rules: Rules, board: Board, out: Outputs, b: int) -> None:
    """Write the state (both places, the location) and the observations: own place, the location, and which notch the
    agent turns next, as a one-hot."""
    place, depth = board.place[b], rules.key.shape[1]
    location = board.location[b] / rules.cells
    for i in range(AGENTS):
        row = out.obs[b, i]
        row[:] = 0.0
        row[0], row[1] = place[i] / depth, location
        row[2 + place[i if rules.chains else 1]] = 1.0
        out.state[b, i] = place[i] / depth
    out.state[b, AGENTS] = location


@rule
def reset_lane(rules: Rules, board: Board, out: Outputs, seed: np.uint64, reseed: bool, b: int) -> None:
    begin_episode(board.lanes[b], out, seed, reseed, b)
    board.location[b] = below(board.lanes[b], rules.cells) if rules.cells > 1 else 0
    board.place[b] = 0
    observe_lane(rules, board, out, b)


@rule
def step_lane(rules: Rules, board: Board, out: Outputs, actions: np.ndarray, b: int) -> None:
    lane, place, depth = board.lanes[b], board.place[b], rules.key.shape[1]
    if rests(lane, out, b):
        return
    turn(rules, place, actions[b])
    wander(rules, board, b)
    offset = place[1] - place[0]
    out.events[b, 0] = offset
    out.events[b, 1] = (board.location[b] * (depth + 1) + place[0]) * (depth + 1) + place[1]
    won = abs(offset) == depth
    out.reward[b] = rules.goal_reward if won else 0.0
    end_step(lane, out, won, won, rules.limit, b)
    observe_lane(rules, board, out, b)


KERNELS = lane_kernels(reset_lane, step_lane, observe_lane)


class FormationLock(LaneGame):
    """Two agents share a location on a ring of ``cells`` cells, sampled for every episode, which moves by up to
    ``drift`` cells in each step, whatever they do. The lock opens, pays ``goal_reward`` and ends the episode when their
    places are ``depth`` apart; everything else pays 0, and the clock (``episode_limit``) truncates.

    ``form`` offset: agent 0 stays at the location and agent 1 stands ``offset`` cells further on. Each offset has one
    right pair of actions, which moves agent 1 one cell on; any other pair is wrong. ``form`` chains: each agent has a
    chain of its own with one right action at each place. A ``wrong`` step slips one place back, or resets to the first.
    The right actions are sampled once from the seed ``key``, the same in all lanes and for all seeds.

    Observation [2 + depth + 1]: own place and location, scaled to 0..1, and a one-hot of the offset (chains: of the own
    place). State [3]: both places, location. ``Step.info``: "formation", the difference of the places, and "positions",
    a number for location and places. Raises ConfigError.
    """

    def __init__(
        self, depth: int, cells: int, drift: int, n_actions: int, form: Form, wrong: Wrong, key: int,
        goal_reward: float, episode_limit: int, *, n_envs: int, seed: int = 0,
    ) -> None:  # fmt: skip
        require_at_least("", 1, depth=depth, episode_limit=episode_limit, n_envs=n_envs)
        require_at_least("", 0, drift=drift, key=key)
        require_at_least("", 2, n_actions=n_actions)
        require_within("", 1, 2**24, cells=cells)
        require_choice("", get_args(Form), form=form)
        require_choice("", get_args(Wrong), wrong=wrong)
        keys = np.random.default_rng(key).integers(n_actions, size=(AGENTS, depth))
        rules = Rules(keys, cells, drift, episode_limit, float(goal_reward), form == "chains", wrong == "reset")
        self.depth, self.chains, self.key = depth, form == "chains", torch.from_numpy(keys)
        spec = build_spec(depth, n_actions, form, episode_limit)
        board = Board(np.zeros(n_envs, LANE), np.zeros(n_envs, np.int64), np.zeros((n_envs, AGENTS), np.int64))
        happened = np.zeros((n_envs, len(EVENTS)), np.int64)
        info = {name: happened[:, k] for k, name in enumerate(EVENTS)}
        out = Outputs(**allocate_outputs(spec, n_envs), events=happened)
        super().__init__(spec, rules, KERNELS, board, out, info, n_envs, seed)

    def standing(self, lane: int = 0) -> tuple[int, int, int]:
        """Return a lane's location and the places of both agents."""
        first, second = self._board.place[lane].tolist()
        return int(self._board.location[lane]), first, second

    def render(self, lane: int = 0) -> np.ndarray:
        """Draw a row of places per agent, the last one yellow, and below them the ring as a line with the location."""
        location, *places = self.standing(lane)
        side, width = CELL_PIXELS, CELL_PIXELS * (self.depth + 1)
        image = Image.new("RGB", (width + 1, side * (AGENTS + 1) + 1), "white")
        pen = ImageDraw.Draw(image)
        for i, place in enumerate(places):
            for x in range(self.depth + 1):
                box = (side * x, side * i, side * (x + 1), side * (i + 1))
                pen.rectangle(box, outline="lightgray", fill="khaki" if x == self.depth else None)
            left, top = side * place + 3, side * i + 3
            pen.ellipse((left, top, left + side - 6, top + side - 6), fill="royalblue", outline="black")
        middle = side * AGENTS + side // 2
        pen.line((0, middle, width, middle), fill="gray")
        at = round(location / self._rules.cells * (width - 4))
        pen.rectangle((at, middle - 5, at + 4, middle + 5), fill="peru", outline="black")
        return np.array(image)

    def agent_places(self, lane: int = 0) -> np.ndarray:
        """Return centres and radii in the picture, f64 [2, 3]."""
        side, (_, *places) = CELL_PIXELS, self.standing(lane)
        return np.array([[side * (p + 0.5), side * (i + 0.5), side / 2 - 3] for i, p in enumerate(places)])


def build_spec(depth: int, n_actions: int, form: Form, episode_limit: int) -> EnvSpec:
    notches = tuple(f"{'offset' if form == 'offset' else 'own place'} is {k}" for k in range(depth + 1))
    names = ("own place", "location", *notches)
    O = len(names)  # noqa: E741
    about = torch.zeros(AGENTS, AGENTS, O, dtype=torch.bool)
    for i in range(AGENTS):
        about[i, i, :2] = True
        about[i, i if form == "chains" else slice(None), 2:] = True
    options: dict[str, Any] = {"action_names": tuple(f"turn {a}" for a in range(n_actions)), "info_names": EVENTS}
    return EnvSpec(
        AGENTS, n_actions, O, AGENTS + 1, episode_limit, torch.zeros(O), torch.ones(O),
        about=about, obs_names=names, state_names=("agent 0 place", "agent 1 place", "location"), **options,
    )  # fmt: skip
