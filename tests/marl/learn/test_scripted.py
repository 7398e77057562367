"""Scripted partners: what they do, in which games, and that the populations of conf/partners can be evaluated."""

from __future__ import annotations

from pathlib import Path

import numba
import pytest
import torch
import yaml

from envs.toys.games import Corridor
from marl.core.config import resolved
from marl.core.protocols import NoAttack
from marl.core.seeding import Streams
from marl.core.types import ConfigError, Obs, core_fields
from marl.learn.scripted import Idle, RandomPlay
from marl.measure.crossplay import game_spec, seat
from marl.measure.entrants import Entrant, Tree
from marl.measure.partners import read_populations
from marl.run.collect import collect
from marl.run.teams import load_policy
from scripts.main import CONF
from tests.support.crossplay_parts import setting
from tests.support.helpers import compose_train, make_spec


def game(env: str) -> Tree:
    return resolved(compose_train(Path("unused"), f"env={env}"))["env"]


def population(name: str, env: str) -> list[Entrant]:
    tree = yaml.safe_load((CONF / "partners" / f"{name}.yaml").read_text())
    return [one.entrant for one in read_populations(tree, game(env), env)]


def test_random_play_is_uniform_over_what_is_available() -> None:
    spec, gen = make_spec(n=1, A=4), torch.Generator().manual_seed(0)
    avail = torch.tensor([True, False, True, True]).expand(9000, 1, 4)
    obs = Obs(torch.zeros(9000, 1, 7), torch.zeros(9000, 6), avail, torch.ones(9000, 1, dtype=torch.bool))
    actions, _, _ = RandomPlay(spec, "cpu").act(obs, {}, explore=False, gen=gen)
    assert (torch.bincount(actions.flatten(), minlength=4) / 9000).tolist() == pytest.approx(
        [1 / 3, 0, 1 / 3, 1 / 3], abs=0.02
    )


def test_who_does_nothing_does_nothing() -> None:
    env = Corridor(n_agents=2, length=5, spread=3, fatal=False, episode_limit=6, n_envs=4)
    idle, streams = Idle(env.spec, "cpu"), Streams(0)
    batch = collect(env, idle, NoAttack(env.spec, "cpu"), core_fields(env.spec), explore=True,
                    attacked=torch.zeros(4, dtype=torch.bool), policy_gen=streams["explore"],
                    attack_gen=streams["attack"], device="cpu")  # fmt: skip
    assert torch.equal(batch.state[:, 0, :2], batch.state[:, 5, :2]) and (batch.actions == env.spec.idle_action).all()
    with pytest.raises(ConfigError, match="doing nothing"):
        Idle(make_spec(), "cpu")


def test_walkers_meet_in_the_smallest_spread(tmp_path: Path) -> None:
    """The goals are two steps from the centre. If both agents go west, they head for the same cell and are sent back
    for ever. If each has its own goal, both are covered from the second step on: 19 steps at 1."""
    numba.set_num_threads(1)
    west, east = population("mds_mini", "mds_mini")
    where = setting(tmp_path, episodes=2, n_envs=2)
    assert seat([west, east], where).play(lambda done: None)["return"] == [19.0, 19.0]
    assert seat([east, west], where).play(lambda done: None)["return"] == [19.0, 19.0]
    assert seat([west, west], where).play(lambda done: None)["return"] == [0.0, 0.0]


def test_every_convention_of_the_full_spread_is_optimal_with_itself(tmp_path: Path) -> None:
    where = setting(tmp_path, episodes=1, n_envs=1)
    for player in population("mds", "mds"):
        assert seat([player] * 4, where).play(lambda done: None)["return"] == [990.0]


def test_walkers_stay_in_their_game(tmp_path: Path) -> None:
    (west, _), spec = population("mds_mini", "mds_mini"), game_spec(resolved(compose_train(tmp_path, "env=mds"))["env"])
    for wrong, words in ((make_spec(), "Spread only"), (spec, "goals must be 4 cells")):
        with pytest.raises(ConfigError, match=words):
            load_policy(west.opens, wrong, torch.device("cpu"), Streams(0))


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "policy").glob("*.yaml")))
def test_every_policy_of_a_script_plays(name: str) -> None:
    tree = yaml.safe_load((CONF / "policy" / f"{name}.yaml").read_text())
    if name in ("pymarl", "run"):  # need files: tests/marl/measure/test_importers.py, test_late_and_strange.py
        return
    env = game({"cooks": "overcooked/cramped_room", "fighters": "skirmish/3m"}.get(name, "mds_mini"))
    tree |= {"goals": [[0, 2], [4, 2]]} if name == "walkers" else {}
    (partner,) = read_populations({"p": {"policies": {name: tree}}}, env, "game")
    policy = load_policy(partner.entrant.opens, game_spec(env), torch.device("cpu"), Streams(0))
    assert policy.begin(2, torch.Generator()).keys() <= {"memory"}


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "partners").glob("*.yaml")))
def test_every_population_can_be_read(name: str) -> None:
    env = {"mds": "mds", "overcooked": "overcooked/cramped_room"}.get(name, "mds_mini")
    assert bool(population(name, env)) == (name != "none")
