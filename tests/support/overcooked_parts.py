"""Kitchens with the values of their configurations, and the ``overcooked-ai`` package to compare them with."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import yaml

from envs.overcooked import Overcooked
from envs.overcooked.env import WAYS
from envs.overcooked.pieces import Cook, Item
from marl.core.types import Step
from scripts.main import CONF

LAYOUTS = ("cramped_room", "asymmetric_advantages", "coordination_ring", "forced_coordination", "counter_circuit")
NEEDS = ("overcooked_ai_py", "gym", "tqdm")
ABSENT = [name for name in NEEDS if importlib.util.find_spec(name) is None]
NAMES = {"counter_circuit": "counter_circuit_o_1order"}  # where the package uses another name


def settings(layout: str) -> dict[str, Any]:
    """Return what env=overcooked/<layout> says."""
    options = yaml.safe_load((CONF / "options" / "env" / "overcooked.yaml").read_text())
    given = {**options["base"], **options[layout]}
    return {key: value for key, value in given.items() if not key.startswith("_")}


def kitchen(n_envs: int = 1, seed: int = 0, layout: str = "cramped_room", **changes: Any) -> Overcooked:
    return Overcooked(**{**settings(layout), **changes}, n_envs=n_envs, seed=seed)


def set_up(one: Cook, two: Cook, things: dict[tuple[int, int], Item] | None = None, **changes: Any) -> Overcooked:
    env = kitchen(**changes)
    env.reset()
    env.arrange([one, two], things or {})
    return env


def play(env: Overcooked, *joint: Sequence[int]) -> Step:
    for actions in joint:
        step = env.step(torch.tensor([list(actions)]))
    return step


class Package:
    """One game of the package, stepped directly and translated to our types.

    With ``auto_cook`` it follows the classic rules: empty hands start nothing, and a third ingredient starts the soup
    in the same step.
    """

    def __init__(self, grid: str | None, name: str, auto_cook: bool, orders: Sequence[Sequence[int]], counters: bool):
        if not hasattr(np, "Inf"):
            np.Inf = np.inf  # the package is older than numpy 2
        from overcooked_ai_py.mdp import overcooked_mdp
        from overcooked_ai_py.mdp.actions import Action
        from overcooked_ai_py.planning.planners import MotionPlanner

        self.lib, self.actions, self.auto_cook = overcooked_mdp, Action.INDEX_TO_ACTION, auto_cook
        if grid is None:
            self.mdp = overcooked_mdp.OvercookedGridworld.from_layout_name(NAMES.get(name, name))
        else:
            recipes = [{"ingredients": ["onion"] * onions + ["tomato"] * tomatoes} for onions, tomatoes in orders]
            options = {"start_all_orders": recipes, "layout_name": name}
            self.mdp = overcooked_mdp.OvercookedGridworld.from_grid(grid.split("\n"), options)
        goals = self.mdp.get_counter_locations() if counters else []
        self.planner = SimpleNamespace(motion_planner=MotionPlanner(self.mdp, goals))
        self.state = self.mdp.get_standard_start_state()

    def step(self, actions: Sequence[int]) -> tuple[float, list[float], dict[str, list[bool]]]:
        """Step the game; return reward, bonuses and events."""
        chosen = [self.actions[action] for action in actions]
        for i, player in enumerate(self.state.players):
            ahead = (player.position[0] + player.orientation[0], player.position[1] + player.orientation[1])
            at_pot = self.mdp.get_terrain_type_at_pos(ahead) == "P"
            if self.auto_cook and actions[i] == 5 and at_pot and not player.has_object():
                chosen[i] = self.actions[4]
        self.state, info = self.mdp.get_state_transition(self.state, chosen)
        for thing in self.state.objects.values():
            if self.auto_cook and thing.name == "soup" and thing.is_idle and len(thing.ingredients) == 3:
                thing.begin_cooking()
                thing.cook()
        return sum(info["sparse_reward_by_agent"]), info["shaped_reward_by_agent"], info["event_infos"]

    def _item(self, thing: Any, in_pot: bool = False) -> Item | None:
        if thing is None:
            return None
        if thing.name != "soup":
            return Item(thing.name)
        onions = thing.ingredients.count("onion")
        return Item("soup", onions, len(thing.ingredients) - onions, thing._cooking_tick if in_pot else -1)

    def cooks(self) -> list[Cook]:
        ways = {(0, -1): "N", (0, 1): "S", (1, 0): "E", (-1, 0): "W"}
        return [Cook(*p.position, ways[p.orientation], self._item(p.held_object)) for p in self.state.players]

    def things(self) -> dict[tuple[int, int], Item]:
        pots = set(self.mdp.get_pot_locations())
        return {place: self._item(thing, place in pots) for place, thing in self.state.objects.items()}

    def arrange(self, cooks: Sequence[Cook], things: dict[tuple[int, int], Item]) -> None:
        """Put the game into the position that ``Overcooked.arrange`` takes."""
        directions = dict(zip(WAYS, ((0, -1), (0, 1), (1, 0), (-1, 0)), strict=True))
        players = [self.lib.PlayerState((c.x, c.y), directions[c.way], self._object((c.x, c.y), c.held)) for c in cooks]
        objects = {place: self._object(place, item) for place, item in things.items()}
        orders = {"bonus_orders": self.mdp.start_bonus_orders, "all_orders": self.mdp.start_all_orders}
        self.state = self.lib.OvercookedState(players, objects, **orders)

    def _object(self, place: tuple[int, int], item: Item | None) -> Any:
        if item is None:
            return None
        if item.name != "soup":
            return self.lib.ObjectState(item.name, place)
        done = place not in self.mdp.get_pot_locations()
        return self.lib.SoupState.get_soup(place, item.onions, item.tomatoes, item.ticks, finished=done)

    def observe(self, horizon: int) -> tuple[np.ndarray, np.ndarray]:
        """Planes [2, W, H, 26] and features [2, 96]."""
        planes = np.stack(self.mdp.lossless_state_encoding(self.state, horizon))
        return planes, np.stack(self.mdp.featurize_state(self.state, self.planner))
