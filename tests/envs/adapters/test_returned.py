"""What a game returns is checked on the way in: each kind of fault has a game here that commits it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from pettingzoo import ParallelEnv

from envs.adapters.gym import GymGame, _MakeGym
from envs.adapters.pettingzoo import ParallelGame, _MakeParallel
from envs.adapters.returned import MASK_NAMES, Bounds, flag, mask_row, number, unpack
from envs.adapters.worker import View


class Walk(ParallelEnv):
    """Two agents see the time and are paid 1 each in every one of five steps; keywords replace what it returns."""

    metadata = {"name": "walk"}  # noqa: RUF012
    render_mode = None
    possible_agents = ["p", "q"]  # noqa: RUF012

    def __init__(self, **changes: Any) -> None:
        self.changes, self.resets = changes, 0

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return self.changes.get("space", spaces.Box(0, 9, (1,), np.float32))

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return spaces.Discrete(2)

    def part(self, name: str, value: Any) -> Any:
        change = self.changes.get(name, value)
        return change(value) if callable(change) else change

    def seen(self) -> Any:
        return self.part("observations", {a: np.array([self.t], np.float32) for a in self.possible_agents})

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.t, self.agents, self.resets = 0, list(self.possible_agents), self.resets + 1
        return self.part("reset", (self.seen(), self.part("infos", {a: {} for a in self.agents})))

    def step(self, actions: dict[str, int]) -> Any:
        self.t += 1
        who, over = list(self.agents), self.t >= 5
        if over and not self.changes.get("keeps"):
            self.agents = []
        no = dict.fromkeys(who, False)
        rewards = self.part("rewards", dict.fromkeys(who, 1.0))
        terminations = self.part("terminations", dict.fromkeys(who, over))
        infos = self.part("infos", {a: {} for a in who})
        return self.part("step", (self.seen(), rewards, terminations, no, infos))

    def state(self) -> np.ndarray:
        return self.part("gives", np.full(3, self.t, np.float32))


def play(state: str = "concat", noop: int | None = None, **changes: Any) -> tuple[list[float], View, ParallelGame]:
    """Play at most ten steps of action 1; return the rewards, the last view and the game."""
    game = ParallelGame(Walk(**changes), "sum", state, 20, noop)
    spec = game.spec
    view = View(
        np.zeros((spec.n_agents, spec.obs_dim), np.float32), np.zeros(spec.state_dim, np.float32),
        np.zeros((spec.n_agents, spec.n_actions), bool), np.zeros(spec.n_agents, bool),
    )  # fmt: skip
    game.reset(0, view)
    earned = []
    for _ in range(10):
        outcome = game.step(np.ones(spec.n_agents, np.int64), view)
        earned.append(outcome.reward)
        if outcome.terminated or outcome.truncated:
            break
    return earned, view, game


def test_a_game_that_keeps_its_promises_is_played() -> None:
    earned, view, game = play()
    assert earned == [2.0] * 5 and not view.alive.any() and game.spec.idle_action is None


def test_an_ending_in_the_flags_counts_although_the_agents_stay() -> None:
    assert play(keeps=True)[0] == [2.0] * 5


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"terminations": lambda was: {a: [False] * 2 for a in was}}, "terminations of p must be one flag"),
        ({"terminations": [False, False]}, "terminations must be a mapping"),
        ({"terminations": {"p": False}}, "terminations must have an entry for each agent; q is missing"),
        ({"rewards": 1.0}, "rewards must be a mapping with an entry for each agent, got 1.0"),
        ({"rewards": {"p": None, "q": 1.0}}, "the reward of p must be a number, got None"),
        ({"rewards": {"p": 1.0, "q": np.nan}}, "the reward of q must be finite, got nan"),
        ({"rewards": {"p": 1.0}}, "rewards must have an entry for each agent; q is missing"),
        ({"observations": {"p": np.zeros(1, np.float32)}}, "observations must have an entry for each agent; q is"),
        (
            {"observations": lambda was: {a: np.zeros(2, np.float32) for a in was}},
            r"agent 0 must have the shape \(1,\)",
        ),
        ({"observations": lambda was: {a: v * np.nan for a, v in was.items()}}, "agent 0 must be finite, got nan in"),
        (
            {"infos": lambda was: {a: {"action_mask": np.ones(3)} for a in was}},
            "action mask of agent 0 must be 2 flags",
        ),
        ({"infos": lambda was: {a: {"action_mask": [0.5, 1]} for a in was}}, "action mask of agent 0 must be 2 flags"),
        ({"infos": 3}, "infos must be a mapping"),
        ({"infos": {"p": "fine"}}, "the info of p must be a mapping, got 'fine'"),
        ({"infos": {"p": np.zeros(2)}}, r"the info of p must be a mapping, got array\(\[0., 0.\]\)"),
        ({"infos": {"q": {"won": [False] * 2}}}, r"'won' in the info of q must be one flag, .*, got \[False, False\]"),
        ({"reset": lambda was: was[0]}, r"reset must return \(observations, infos\); this game returned one dict"),
        ({"step": lambda was: was[:4]}, "this game returned 4 values: an older API?"),
    ],
)
def test_a_part_of_the_wrong_form_is_refused_by_name(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        play(**changes)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (np.zeros(0), "the state has no features; choose env.state=concat"),
        (lambda was: was if was[0] < 2 else was[:2], "must give 3 finite numbers"),
        (lambda was: was / (was < 2), "must give 3 finite numbers"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_a_state_of_the_wrong_form_is_refused(state: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        play("env", gives=state)


@pytest.mark.parametrize("name", MASK_NAMES)
def test_masks_are_found_under_their_usual_names_in_the_info(name: str) -> None:
    _, view, game = play(infos=lambda was: {a: {name: np.array([0, 1], np.int8)} for a in was})
    game.reset(0, view)
    assert view.avail.tolist() == [[False, True]] * 2


@pytest.mark.parametrize(("obs", "mask"), [("obs", "avail_actions"), ("observations", "action_mask")])
def test_masks_are_found_beside_the_observation(obs: str, mask: str) -> None:
    space = spaces.Dict({obs: spaces.Box(0, 9, (1,), np.float32), mask: spaces.MultiBinary(2)})
    _, view, game = play(space=space, observations=lambda was: {a: {obs: v, mask: [0, 1]} for a, v in was.items()})
    game.reset(0, view)
    assert view.avail.tolist() == [[False, True]] * 2 and game.spec.obs_dim == 1


def test_a_mask_beside_something_else_is_refused() -> None:
    space = spaces.Dict({"picture": spaces.Box(0, 9, (1,), np.float32), "action_mask": spaces.MultiBinary(2)})
    with pytest.raises(ValueError, match="must be under observation, observations, obs; this game has"):
        play(space=space)


def test_a_noop_that_only_the_dead_may_play_is_no_idle_action() -> None:
    masked = {"infos": lambda was: {a: {"action_mask": [0, 1]} for a in was}}
    assert play(noop=0, **masked)[2].spec.idle_action is None
    assert play(noop=0)[2].spec.idle_action == 0


def test_a_gymnasium_noop_that_not_all_may_play_is_no_idle_action() -> None:
    for mask, idle in ([[1, 1], [1, 1]], 0), ([[1, 1], [0, 1]], None):
        assert GymGame(Joint(info={"action_mask": mask}), "sum", 20, 0).spec.idle_action == idle


def test_a_game_that_is_built_anew_is_not_reset_before_it_is_played() -> None:
    make = _MakeGym(Joint, {"info": {"action_mask": [[0, 1], [0, 1]]}}, "sum", 20, 0)
    games = [make() for _ in range(3)]
    assert [game.env.resets for game in games] == [1, 0, 0]
    assert [game.spec.idle_action for game in games] == [None] * 3
    make_walk = _MakeParallel(Walk, {}, "sum", "env", 20, 1)
    walks = [make_walk() for _ in range(3)]
    assert [game.env.resets for game in walks] == [1, 0, 0]
    assert [(game.spec.state_dim, game.spec.idle_action) for game in walks] == [(3, 1)] * 3


@pytest.mark.parametrize("noop", [-1, 2, 7])
def test_a_noop_that_is_no_action_is_refused(noop: int) -> None:
    says = rf"noop_action={noop} must be within \[0, 1\], or null for none"
    with pytest.raises(ValueError, match=says):
        play(noop=noop)
    with pytest.raises(ValueError, match=says):
        GymGame(Joint(), "sum", 20, noop)


def test_a_game_of_turns_is_refused() -> None:
    class Turns:
        possible_agents = ("p",)

        def agent_iter(self) -> None: ...

    with pytest.raises(ValueError, match="this is an AECEnv, whose agents act in turns; give a ParallelEnv"):
        ParallelGame(Turns(), "sum", "concat", 20, None)


class Joint(gymnasium.Env[Any, Any]):
    """One step for two agents that returns what it is told to."""

    action_space = spaces.MultiDiscrete([2, 2])
    observation_space = spaces.Box(0, 9, (2, 1), np.float32)

    def __init__(self, **changes: Any) -> None:
        given = {"observations": np.ones((2, 1), np.float32), "reward": 1.0, "terminated": True, "truncated": False}
        self.result, self.resets = {**given, "info": {}, **changes}, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.resets += 1
        return np.ones((2, 1), np.float32), self.result["info"] or {}

    def step(self, action: Any) -> Any:
        return tuple(self.result.values())


def one_step(**changes: Any) -> Any:
    game = GymGame(Joint(**changes), "sum", 20, None)
    view = View(np.zeros((2, 1), np.float32), np.zeros(2, np.float32), np.zeros((2, 2), bool), np.zeros(2, bool))
    game.reset(0, view)
    return game.step(np.zeros(2, np.int64), view)


def test_one_reward_or_one_for_each_agent() -> None:
    assert one_step().reward == 1.0 and one_step(reward=[1.0, 2.5]).reward == 3.5
    assert one_step(reward=np.array(2.0)).reward == 2.0 and one_step(terminated=np.array([1])).terminated


def test_success_is_one_flag_of_any_kind() -> None:
    for won in (True, np.True_, np.array([True]), 1, 1.0):
        assert one_step(info={"won": won}).won and one_step(info={"is_success": won, "won": None}).won
    assert not one_step(info={"won": np.array([0.0]), "battle_won": None}).won and not one_step().won


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"terminated": [True, True]}, r"terminated must be one flag, true or false, got \[True, True\]"),
        ({"truncated": {"__all__": False}}, "truncated must be one flag"),
        ({"terminated": 0.5}, "terminated must be one flag"),
        ({"reward": [1.0, 2.0, 3.0]}, "rewards must be one number, or 2"),
        ({"reward": None}, "the reward must be a number, got None"),
        ({"reward": np.inf}, "the reward must be finite, got inf"),
        ({"info": None}, "info must be a mapping, got None"),
        ({"info": {"won": [False, False]}}, r"'won' in info must be one flag, true or false, got \[False, False\]"),
        ({"info": {"battle_won": np.array([False, False])}}, r"'battle_won' in info must be one flag"),
        ({"info": {"won": True, "is_success": {"p": False, "q": False}}}, "'is_success' in info must be one flag"),
        ({"info": {"action_mask": [[1, 1]]}}, "the action mask must have 2 rows"),
        ({"info": {"action_mask": {"p": [1, 1], "q": [1, 1]}}}, "the action mask must have 2 rows"),
        ({"info": {"action_mask": 1}}, "the action mask must have 2 rows"),
        ({"info": {"action_mask": np.array(1)}}, "the action mask must have 2 rows"),
        ({"observations": np.ones((3, 1), np.float32)}, "observations must be 2, one for each agent"),
    ],
)
def test_a_gymnasium_game_is_held_to_the_same(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        one_step(**changes)


def test_values_outside_their_bounds_are_said_once_and_kept(caplog: pytest.LogCaptureFixture) -> None:
    """Once for each agent and space, in however many lanes and episodes."""
    row, wide = np.array([0.5, 12.0], np.float32), np.array([-1.0, 12.0], np.float32)
    for _ in range(3):
        bounds = Bounds()
        bounds.check(1, row, np.zeros(2, np.float32), np.ones(2, np.float32))
        bounds.check(2, wide, np.zeros(2, np.float32), np.ones(2, np.float32))
    first, second = (record.getMessage() for record in caplog.records)
    assert "agent 1, feature 1: the game shows 12, its space allows [0, 1]" in first
    assert "agent 2, feature 0 and 1 more: the game shows -1" in second
    assert row.tolist() == [0.5, 12.0]


def test_what_counts_as_a_flag_a_number_and_a_mask() -> None:
    assert flag(np.bool_(True), "x") and not flag(0, "x") and flag(np.array([1.0]), "x")
    assert number(np.array([2]), "x") == 2.0 and number(True, "x") == 1.0
    assert mask_row([1, 0], 2, "x").tolist() == [True, False] and unpack((1, 2), ("a", "b"), "reset") == (1, 2)
