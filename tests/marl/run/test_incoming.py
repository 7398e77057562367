"""A batched game that breaks its contract is named as the culprit: lane, agent, step, part, value, rule."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from envs.skirmish import Skirmish
from envs.toys.games import Corridor
from marl.core.protocols import NoAttack
from marl.core.types import ConfigError, GameError, Obs, Step, core_fields
from marl.learn.scripted import RandomPlay
from marl.run.build import make_env
from marl.run.collect import collect
from marl.run.incoming import Incoming
from marl.run.stretch import Stretches
from tests.support.broken import AutoReset, Endless, GymnasiumReset, GymnasiumStep, PaysTheFinished, Sound
from tests.support.helpers import command


class Game(Corridor):
    """A corridor for two whose third step ``change`` alters, and whose observations ``alter`` does."""

    def __init__(
        self, change: Callable[[Step], Step] = lambda step: step, alter: Callable[[Obs], Obs] = lambda obs: obs,
        n_envs: int = 4, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(n_agents=2, length=9, spread=3, fatal=False, episode_limit=6, n_envs=n_envs, seed=seed)
        self.change, self.alter, self.steps = change, alter, 0

    def step(self, actions: Tensor) -> Step:
        step = super().step(actions)
        self.steps += 1
        return replace(self.change(step), next=self.alter(step.next)) if self.steps == 3 else step


def put(name: str, place: tuple[int, ...], value: Any) -> dict[str, Callable[[Obs], Obs]]:
    def alter(obs: Obs) -> Obs:
        tensor = getattr(obs, name).clone()
        tensor[place] = value
        return replace(obs, **{name: tensor})

    return {"alter": alter}


def play(env: Any) -> Any:
    nobody = torch.zeros(env.n_envs, dtype=torch.bool)
    gens = {"policy_gen": torch.Generator(), "attack_gen": torch.Generator()}
    policy = RandomPlay(env.spec, torch.device("cpu"))
    attack = NoAttack(env.spec, "cpu")
    return collect(env, policy, attack, core_fields(env.spec), explore=True, attacked=nobody, device="cpu", **gens)


NAN = float("nan")
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "nan seen": (put("obs", (2, 1, 0), NAN), "lane 2, agent 1, feature 0, step 3: obs must be finite; .* returned nan"),
    "infinite state": (put("state", (3, 1), torch.inf), "lane 3, feature 1.*, step 3: state must be finite.*inf"),
    "no action": (put("avail", (1, 0), False), "lane 1, agent 0, step 3: avail must have at least one available"),
    "short obs": ({"alter": lambda o: replace(o, obs=o.obs[..., :1])}, r"step 3: obs must be float32 \[4, 2, \d+\]"),
    "obs of NumPy": ({"alter": lambda o: replace(o, obs=o.obs.numpy())}, r"a torch\.Tensor, .*a numpy\.ndarray$"),
    "reward in a list": ({"change": lambda s: replace(s, reward=s.reward.tolist())}, r"reward .* returned a list$"),
    "obs of one agent": ({"alter": lambda o: replace(o, obs=o.obs[:, :1])}, r"obs must be .* returned float32 \[4, 1"),
    "double state": ({"alter": lambda o: replace(o, state=o.state.double())}, "state must be float32 .* float64"),
    "long mask": ({"alter": lambda o: replace(o, avail=o.avail.repeat(1, 1, 2))}, "avail must be bool"),
    "alive in numbers": ({"alter": lambda o: replace(o, alive=o.alive.long())}, "alive must be bool .* int64"),
    "reward per agent": ({"change": lambda s: replace(s, reward=s.reward[:, None].repeat(1, 2))}, r"reward .*\[4, 2\]"),
    "nan reward": ({"change": lambda s: replace(s, reward=s.reward * NAN)}, "lane 0, step 2: reward must be finite"),
    "flags per agent": ({"change": lambda s: replace(s, terminated=s.terminated[:, None])}, r"terminated .* \[4, 1\]"),
    "numbers as flags": ({"change": lambda s: replace(s, truncated=s.truncated.float())}, "truncated must be bool"),
    "both": (
        {"change": lambda s: replace(s, terminated=torch.ones(4).bool(), truncated=torch.ones(4).bool())},
        "lane 0, step 2: terminated and truncated must not both be true",
    ),
    "no won": ({"change": lambda s: replace(s, info={})}, "step 2: info must hold 'won'; it holds nothing"),
    "won of all": ({"change": lambda s: replace(s, info={"won": torch.ones(1).bool()})}, r"info\['won'\] must be"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_what_breaks_the_contract_is_named(kind: str) -> None:
    changes, words = WRONG[kind]
    with pytest.raises(GameError) as raised:
        play(Game(**changes))
    assert re.search(words, str(raised.value)), raised.value
    assert "\n" not in str(raised.value)


BROKEN: dict[type[Sound], str] = {
    GymnasiumReset: r"step 0: reset\(\) and Step.next must be Obs\(obs, .* returned a tuple",
    GymnasiumStep: r"step 0: step\(\) must be Step\(next, .* returned a tuple",
    Endless: "the episode goes on after 8 steps, its episode_limit; end it there, as truncated",
}


@pytest.mark.parametrize("twin", BROKEN)
def test_games_of_other_contracts_are_named(twin: type[Sound]) -> None:
    with pytest.raises(GameError, match=BROKEN[twin]):
        for _ in range(20):
            play(twin(4, 0))


@pytest.mark.parametrize("twin", [AutoReset, PaysTheFinished])
def test_games_that_do_not_wait_are_said_once(twin: type[Sound], caplog: pytest.LogCaptureFixture) -> None:
    Incoming.warned.discard(twin)
    for _ in range(10):
        play(twin(4, 0))
    (record,) = caplog.records
    assert f"{twin.__name__} gives a reward, or has somebody alive, where an episode has ended" in record.getMessage()


def test_an_episode_without_end_is_named_in_stretches_too() -> None:
    env = Endless(4, 0)
    stretches = Stretches(env, NoAttack(env.spec, "cpu"), core_fields(env.spec), 30, env.device)
    policy, nobody = RandomPlay(env.spec, torch.device("cpu")), torch.zeros(4, dtype=torch.bool)
    with pytest.raises(GameError, match="the episode goes on after 8 steps"):
        stretches.collect(policy, nobody, torch.Generator(), torch.Generator())


WRONG_PARTS = {
    "OtherLanes": "n_envs=2 lanes were asked for, it has 8",
    "WithoutDevice": "WithoutDevice lacks device",
    "WrongNames": "env.state_names has 4 entries, expected none or 5",
    "WrongAbout": r"env.about is not bool \[2, 2, 4\]",
}


@pytest.mark.parametrize("twin", WRONG_PARTS)
def test_a_game_that_lacks_a_part_is_refused_before_it_is_played(twin: str) -> None:
    env = {"_target_": f"tests.support.broken.{twin}", "_partial_": True}
    with pytest.raises(ConfigError, match=WRONG_PARTS[twin]):
        make_env(OmegaConf.create({"env": env}), 2, 0)


def test_a_sound_game_is_played_and_a_vouched_one_is_left_alone() -> None:
    assert int(play(Game()).length.max()) > 3
    vouched = Game(**put("obs", (2, 1, 0), NAN))
    vouched.vouched = True  # type: ignore[attr-defined]
    assert play(vouched).obs.isnan().any()
    assert Skirmish.vouched


class Empty(Corridor):
    """A game of other sizes than it says."""

    def __init__(self, part: str, *, n_envs: int, seed: int) -> None:
        super().__init__(n_agents=2, length=9, spread=3, fatal=False, episode_limit=6, n_envs=n_envs, seed=seed)
        self.spec, self.closed = replace(self.spec, **{part: 0}), CLOSED.append

    def close(self) -> None:
        self.closed(self.spec)


CLOSED: list[Any] = []


@pytest.mark.parametrize("part", ["n_agents", "n_actions", "episode_limit"])
def test_a_game_without_agents_actions_or_steps_is_refused_and_closed(part: str) -> None:
    CLOSED.clear()
    env = {"_target_": f"{__name__}.Empty", "_partial_": True, "part": part}
    with pytest.raises(ConfigError, match=f"env.{part}=0 must be at least 1"):
        make_env(OmegaConf.create({"env": env}), 2, 0)
    assert len(CLOSED) == 1


class Nan(Corridor):
    """A game of the command line that shows a number that is none after some steps."""

    steps = 0

    def step(self, actions: Tensor) -> Step:
        step = super().step(actions)
        self.steps += 1
        return replace(step, next=put("obs", (0, 0, 0), NAN)["alter"](step.next)) if self.steps == 3 else step


def test_the_command_ends_with_the_games_fault_and_not_with_the_learning_rate(tmp_path: Any, capsys: Any) -> None:
    game = ("env=toy/corridor", "env._target_=tests.marl.run.test_incoming.Nan", "train.n_envs=4", "eval.n_envs=4")
    with pytest.raises(SystemExit) as ended:
        command("train", *game, "eval.episodes=4", f"runs_dir={tmp_path}", "log.to=[]")
    assert ended.value.code == 1
    assert "error: lane 0, agent 0, feature 0, step 3: obs must be finite" in capsys.readouterr().err
