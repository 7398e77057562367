"""Scripted cooks: their conventions make soup in every kitchen where they can, and each does what it should."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numba
import pytest
import torch
from torch import Generator, Tensor

from envs.overcooked import Overcooked
from envs.overcooked.cooks import Cooks
from envs.overcooked.layout import parse
from envs.overcooked.pieces import Cook, Item
from envs.overcooked.records import INTERACT, STAY
from marl.core.config import resolved
from marl.core.protocols import Policy
from marl.core.seeding import Streams
from marl.core.types import ConfigError
from marl.learn.lineup import Lineup
from marl.learn.scripted import Idle, RandomPlay
from marl.measure.beforehand import game_spec
from marl.run.teams import load_policy
from tests.marl.learn.test_scripted import population
from tests.support.helpers import compose_train, make_spec
from tests.support.overcooked_parts import LAYOUTS, kitchen, set_up

HABITS = {"carrier": (True, False), "server": (False, True), "cook": (True, True)}
N, S, E, W = range(4)
ONION, DISH, SOUP = Item("onion"), Item("dish"), Item("soup", 3)
COOKING, DONE = Item("soup", 3, 0, 5), Item("soup", 3, 0, 20)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


def make(name: str, env: Overcooked, pot: str = "nearest") -> Policy:
    if name == "idle":
        return Idle(env.spec, "cpu")
    fills, serves = HABITS[name]
    return Cooks(env.spec, "cpu", fills=fills, serves=serves, pot=pot)


def shift(
    env: Overcooked, one: Policy, two: Policy, steps: int = 400, gen: Generator | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return rewards [steps, B], actions [steps, B, 2] and states [steps, B, S]; check that every action is
    available."""
    gen = gen or Generator().manual_seed(0)
    team = Lineup([one, two], torch.tensor([[0, 1]]).expand(env.n_envs, -1))
    obs, carry = env.reset(), team.begin(env.n_envs, gen)
    rewards, done, states = [], [], []
    for _ in range(steps):
        actions, carry, _ = team.act(obs, carry, explore=False, gen=gen)
        assert bool(obs.avail.gather(2, actions[..., None]).all())
        carry = team.after(carry, actions, actions)
        done.append(actions.clone())
        states.append(obs.state.clone())
        step = env.step(actions)
        rewards.append(step.reward.clone())
        obs = step.next
    return torch.stack(rewards), torch.stack(done), torch.stack(states)


def soups(layout: str, one: str, two: str, pots: tuple[str, str] = ("nearest", "nearest"), **changes: bool) -> float:
    """Count the deliveries in an episode; check that there is one in every 120 steps."""
    env = kitchen(layout=layout, **changes)
    rewards = shift(env, make(one, env, pots[0]), make(two, env, pots[1]))[0][:, 0]
    if rewards.any():
        when = [0, *rewards.nonzero().flatten().tolist(), len(rewards)]
        assert max(b - a for a, b in pairwise(when)) < 120, f"they got stuck: {when}"
    return float(rewards.sum()) / 20


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "forced_coordination"])
def test_pairs_deliver_wherever_both_reach_everything(layout: str) -> None:
    for one, two in (("carrier", "server"), ("server", "carrier"), ("cook", "cook"), ("cook", "carrier"),
                     ("server", "cook")):  # fmt: skip
        assert soups(layout, one, two) >= 4, (one, two)
    assert soups(layout, "cook", "cook", ("first", "last")) >= 4
    assert soups(layout, "cook", "cook", ("first", "first")) >= 4, "both at one pot"


def test_where_each_reaches_a_part_two_who_do_it_all_deliver() -> None:
    """Onions and dishes are behind the counter: the cook there hands both over, a carrier hands over onions only."""
    assert soups("forced_coordination", "cook", "cook") >= 5
    assert soups("forced_coordination", "cook", "carrier") == 0


def test_one_is_enough_unless_the_other_stands_in_the_only_place() -> None:
    """The second player starts before the only dishes of the ring, the first before those of the cramped room."""
    assert soups("cramped_room", "cook", "idle") >= 4 and soups("cramped_room", "idle", "cook") == 0
    assert soups("coordination_ring", "idle", "cook") >= 4 and soups("coordination_ring", "cook", "idle") == 0
    assert soups("asymmetric_advantages", "cook", "idle") >= 4
    assert soups("cramped_room", "carrier", "idle") == soups("cramped_room", "server", "idle") == 0


def test_full_pots_are_started_where_they_do_not_start_by_themselves() -> None:
    for one, two in (("carrier", "server"), ("cook", "cook")):
        assert soups("cramped_room", one, two, auto_cook=False) >= 4


def choice(
    name: str, one: Cook, things: dict[tuple[int, int], Item], layout: str = "cramped_room", pot: str = "nearest",
    two: Cook | None = None,
) -> int:  # fmt: skip
    """Return the first player's first action."""
    env = set_up(one, two or Cook(3, 2, "S"), things, layout=layout)
    cook, gen = make(name, env, pot), Generator()
    obs = env.arrange(env.cooks(), env.things())
    return int(cook.act(obs, cook.begin(1, gen), explore=False, gen=gen)[0][0, 0])


@pytest.mark.parametrize(
    ("name", "cook", "things", "action", "why"),
    [
        ("carrier", Cook(1, 1, "N"), {}, W, "turns to the onions"),
        ("carrier", Cook(1, 1, "W"), {}, INTERACT, "takes one"),
        ("carrier", Cook(1, 1, "W", ONION), {}, E, "brings it to the pot"),
        ("carrier", Cook(2, 1, "N", ONION), {(2, 0): Item("soup", 2)}, INTERACT, "fills it"),
        ("carrier", Cook(2, 1, "N", ONION), {(2, 0): COOKING}, STAY, "waits for the next soup"),
        ("carrier", Cook(1, 2, "W"), {(2, 0): DONE}, STAY, "dishes are not its business"),
        ("carrier", Cook(1, 2, "W", DISH), {(2, 0): DONE}, INTERACT, "puts down what it has no use for"),
        ("carrier", Cook(2, 2, "N"), {(2, 3): ONION}, S, "an onion on a counter is as good"),
        ("server", Cook(1, 2, "S"), {(2, 0): Item("soup", 2)}, STAY, "nothing cooks yet"),
        ("server", Cook(1, 2, "S"), {(2, 0): COOKING}, INTERACT, "a dish"),
        ("server", Cook(1, 2, "S", DISH), {(2, 0): COOKING}, STAY, "it would stand in the way"),
        ("server", Cook(1, 1, "S", DISH), {(2, 0): Item("soup", 3, 0, 15)}, E, "three quarters done"),
        ("server", Cook(2, 1, "N", DISH), {(2, 0): DONE}, INTERACT, "out of the pot"),
        ("server", Cook(2, 2, "N", SOUP), {}, E, "to the window"),
        ("server", Cook(1, 2, "S"), {(0, 2): DISH, (2, 0): Item("soup", 1)}, STAY, "nor now"),
        ("server", Cook(1, 1, "W"), {(1, 0): SOUP}, N, "somebody laid a soup down"),
        ("cook", Cook(1, 2, "S"), {(2, 0): Item("soup", 2)}, N, "onions first"),
        ("cook", Cook(1, 2, "S"), {(2, 0): COOKING}, INTERACT, "then a dish"),
        ("cook", Cook(1, 1, "N", ONION), {(2, 0): DONE}, INTERACT, "puts the onion down for that"),
        ("cook", Cook(1, 2, "W", DISH), {}, INTERACT, "and the dish where there is no soup"),
    ],
)  # fmt: skip
def test_what_comes_next(name: str, cook: Cook, things: dict[tuple[int, int], Item], action: int, why: str) -> None:
    assert choice(name, cook, things) == action


def test_a_pot_of_ones_own() -> None:
    """Two pots in the ring, both used from its corner: (3, 0) to the north, (4, 1) to the east."""
    corner = Cook(3, 1, "E", ONION)
    here = {"layout": "coordination_ring", "two": Cook(1, 3)}
    assert choice("cook", corner, {}, **here) == INTERACT, "the nearest is the one it faces"
    assert choice("cook", corner, {}, pot="first", **here) == N
    assert choice("cook", corner, {}, pot="last", **here) == INTERACT
    assert choice("cook", corner, {(4, 1): COOKING}, **here) == N
    assert choice("carrier", corner, {(4, 1): COOKING}, pot="last", **here) == STAY


def test_an_idle_cook_makes_room_for_a_partner_that_faces_it() -> None:
    for way, moves in (("W", True), ("S", False)):
        action = choice("carrier", Cook(2, 1, "N", ONION), {(2, 0): COOKING}, two=Cook(3, 1, way))
        assert (action != STAY) == moves


def test_lanes_do_not_know_of_each_other() -> None:
    """With a random partner every lane differs from the others, and plays as it does alone."""

    class Replayed(RandomPlay):
        """A policy that plays the same random actions [T, B] again, for the lanes that it is made for."""

        def __init__(self, env: Overcooked, script: Tensor) -> None:
            super().__init__(env.spec, "cpu")
            self.script, self.t = script, 0

        def act(self, obs, carry, *, explore, gen):  # type: ignore[no-untyped-def]
            self.t += 1
            return self.script[self.t - 1][:, None].expand(-1, 2), carry, {}

    script = torch.randint(6, (80, 3), generator=Generator().manual_seed(1))
    together = kitchen(3, layout="coordination_ring")
    _, actions, _ = shift(together, make("cook", together), Replayed(together, script), 80)
    assert (actions[:, 0, 0] != actions[:, 1, 0]).any()
    for lane in range(3):
        alone = kitchen(1, layout="coordination_ring")
        _, own, _ = shift(alone, make("cook", alone), Replayed(alone, script[:, lane : lane + 1]), 80)
        assert torch.equal(own[:, 0], actions[:, lane])


def test_they_see_the_state_whatever_the_observations(tmp_path: Path) -> None:
    """The population of conf/partners in a kitchen with features: as with planes."""
    names = [agent.label for agent in population("overcooked", "overcooked/cramped_room")]
    assert names == ["carrier", "server", "cook", "cook_first", "cook_last"]
    planes, features = kitchen(), kitchen(obs="features")
    ways = [shift(env, make("cook", env), make("server", env), 60)[1] for env in (planes, features)]
    assert torch.equal(*ways)


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    carrier = population("overcooked", "overcooked/cramped_room")[0]
    mds = game_spec(resolved(compose_train(tmp_path, "env=mds"))["env"])
    for wrong in (make_spec(), mds):
        with pytest.raises(ConfigError, match="Overcooked only"):
            load_policy(carrier.opens, wrong, torch.device("cpu"), Streams(0))
    spec = kitchen().spec
    with pytest.raises(ConfigError, match="nothing to do"):
        Cooks(spec, "cpu", fills=False, serves=False, pot="nearest")
    with pytest.raises(ConfigError, match="pot must be one of nearest, first, last, got middle"):
        Cooks(spec, "cpu", fills=True, serves=True, pot="middle")


def test_the_plan_is_the_kitchen() -> None:
    for layout in LAYOUTS:
        env = kitchen(layout=layout)
        again = parse(env.spec.floor_plan)
        assert (again.terrain == env.layout.terrain).all()
        assert (again.width, again.start, again.reach) == (env.layout.width, env.layout.start, env.layout.reach)
