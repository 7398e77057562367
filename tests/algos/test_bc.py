"""Clones: loss and held-out games by hand, play, learning, and games of people."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import numba
import pytest
import torch
from torch import Generator

from algos.bc import Clone, CloneNet, ClonePolicy, check_fit, split_games
from envs.overcooked.layout import parse
from envs.overcooked.trials import NEEDS, HumanTrials, same_kitchen, trials
from marl.core.demonstrations import Demonstrations
from marl.core.types import Clock, ConfigError, EnvSpec, Obs
from tests.support.helpers import TINY, command, compose_train, make_spec, newest_state, run_dir
from tests.support.overcooked_parts import kitchen

OPTIONS: dict[str, Any] = {"hidden": [8], "lr": 0.01, "batch_size": 16, "episodes_per_update": 0.05, "held_out": 0.2,
                           "unstuck": 0}  # fmt: skip
ABSENT = [name for name in NEEDS if importlib.util.find_spec(name) is None]


class Creed:
    """Demonstrators who play the action whose number is the first feature, in games of ten decisions."""

    def __init__(self, *, features: int, actions: int, env: Any = None, split: str = "train") -> None:
        self.features, self.actions = features, actions

    def load(self, spec: EnvSpec) -> Demonstrations:
        gen = torch.Generator().manual_seed(1)
        obs = torch.randn(200, self.features, generator=gen)
        actions = torch.randint(self.actions, (200,), generator=gen)
        obs[:, 0] = actions.float()
        avail = torch.ones(200, self.actions, dtype=torch.bool)
        return Demonstrations(obs, avail, actions, torch.arange(200) // 10)


def clone(spec: EnvSpec, features: int = 7, actions: int = 5, **changes: Any) -> Clone:
    torch.manual_seed(0)
    gen = torch.Generator().manual_seed(0)
    return Clone(spec, "cpu", gen, demos=lambda: Creed(features=features, actions=actions), **{**OPTIONS, **changes})


def look(policy: ClonePolicy, obs: torch.Tensor, carry: Any, gen: Generator) -> tuple[torch.Tensor, Any]:
    """Act on obs [B, n, O] with every action available."""
    lanes, n, _ = obs.shape
    avail = torch.ones(lanes, n, policy.spec.n_actions, dtype=torch.bool)
    seen = Obs(obs, obs[:, 0], avail, torch.ones(lanes, n, dtype=torch.bool))
    actions, carry, _ = policy.act(seen, carry, explore=False, gen=gen)
    return actions, policy.after(carry, actions, actions)


def constant(spec: EnvSpec, logits: list[float]) -> CloneNet:
    """Make a clone whose network ignores its input."""
    net = CloneNet(spec, [4]).requires_grad_(False)
    last = net.layers[-1]
    assert isinstance(last, torch.nn.Linear)
    last.weight.zero_()
    last.bias.copy_(torch.tensor(logits))
    return net


def test_the_loss_by_hand() -> None:
    """Logits 0, ln 2, ln 3 give probabilities 1/6, 2/6, 3/6; without the last action 1/3 and 2/3."""
    spec = make_spec(A=3)
    made = clone(spec, actions=3)
    made.net = constant(spec, [0.0, math.log(2), math.log(3)])
    every, two = torch.ones(3, dtype=torch.bool), torch.tensor([True, True, False])
    batch = Demonstrations(torch.randn(2, 7), torch.stack([every, two]), torch.tensor([0, 1]), torch.zeros(2).long())
    loss, accuracy = made.loss(batch)
    assert float(loss) == pytest.approx((math.log(6) + math.log(3 / 2)) / 2) and float(accuracy) == 0.5


def test_it_draws_its_actions_also_in_tests() -> None:
    spec = make_spec(n=2, A=3)
    policy, gen = ClonePolicy(constant(spec, [0.0, math.log(2), math.log(3)]), spec, 0), torch.Generator()
    actions, _ = look(policy, torch.randn(6000, 2, 7), policy.begin(6000, gen.manual_seed(3)), gen)
    shares = torch.bincount(actions.flatten(), minlength=3) / 12000
    assert shares.tolist() == pytest.approx([1 / 6, 2 / 6, 3 / 6], abs=0.02)


def test_an_agent_that_sees_the_same_tries_what_it_has_not_tried() -> None:
    """A clone that is nearly certain of action 0 sees the same from the second step on. After two more such steps it
    plays another action, then a third one; a new observation ends that. The other agent's observation changes every
    time."""
    spec = make_spec(n=2, A=3)
    policy, gen = ClonePolicy(constant(spec, [50.0, 0.0, 0.0]), spec, 2), torch.Generator().manual_seed(0)
    carry, played = policy.begin(1, gen), []
    for step in range(8):
        obs = torch.full((1, 2, 7), 1.0 if step < 6 else 2.0)
        obs[0, 1] = float(step)
        actions, carry = look(policy, obs, carry, gen)
        played.append(actions[0].tolist())
    first = [one for one, _ in played]
    assert first[:2] == [0, 0] and sorted(first[2:4]) == [1, 2] and first[4] == 0, "all tried: any will do"
    assert first[6:] == [0, 0] and [two for _, two in played] == [0] * 8
    never = ClonePolicy(policy.net, spec, 0)
    carry = never.begin(1, gen)
    for _ in range(6):
        actions, carry = look(never, torch.ones(1, 2, 7), carry, gen)
        assert actions.tolist() == [[0, 0]]


def test_whole_games_are_held_out() -> None:
    demos = Creed(features=7, actions=5).load(make_spec())
    known, unknown = split_games(demos, 0.2)
    assert sorted(set(known.game.tolist())) == list(range(16)) and set(unknown.game.tolist()) == {16, 17, 18, 19}
    assert len(known) == 160 and torch.equal(unknown.obs, demos.obs[160:])
    two = demos.take(demos.game < 2)
    for share in (0.01, 0.99):
        assert [len(part) for part in split_games(two, share)] == [10, 10], "one at least, never all"
    with pytest.raises(ConfigError, match="of 1 game"):
        split_games(demos.take(demos.game < 1), 0.5)


def test_it_learns_the_rule_and_what_is_held_out_shows_it() -> None:
    made, clock = clone(make_spec(), lr=0.03, episodes_per_update=0.02), Clock()
    results = []
    for _ in range(10):
        clock.count(2, 0)
        results.append(made.update(None, None, clock))  # type: ignore[arg-type]
    first, last = results[0], results[-1]
    assert clock.updates == 1000 and float(first["bc/held_out_loss"]) > float(last["bc/held_out_loss"])
    assert float(last["bc/held_out_accuracy"]) > 0.85 and float(last["bc/loss"]) < 0.3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"held_out": 0.0}, r"held_out=0.0 must be within \(0, 1\)"), ({"held_out": 1.0}, "held_out=1.0"),
        ({"unstuck": -1}, "unstuck=-1"),
        ({"batch_size": 0}, "batch_size=0"), ({"episodes_per_update": 0.0}, "episodes_per_update=0.0"),
    ],
)  # fmt: skip
def test_sizes_out_of_range_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        clone(make_spec(), **changes)


def test_demonstrations_of_another_game_are_refused() -> None:
    for made in (clone(make_spec(), features=6), clone(make_spec(), actions=4)):
        with pytest.raises(ConfigError, match="the game has 7 and 5"):
            made.update(None, None, Clock())  # type: ignore[arg-type]
    demos = Creed(features=7, actions=5).load(make_spec())
    demos.avail[3, demos.actions[3]] = False
    with pytest.raises(ConfigError, match="decision 3 of the demonstrations was not available"):
        check_fit(demos, make_spec())


# runs of clones

GIVEN = ("algo=bc", "algo.demos._target_=tests.algos.test_bc.Creed", "+algo.demos.features=4", "+algo.demos.actions=4",
         "algo.hidden=[8]", "algo.episodes_per_update=4")  # fmt: skip
SHORT = tuple(one for one in TINY if not one.startswith(("algo.", "agent@")))


def test_a_clone_is_a_run_as_any_other(tmp_path: Path) -> None:
    """A clone is trained, resumed with the same result as without a stop, and plays in cross-play."""
    whole = compose_train(tmp_path / "whole", *SHORT, *GIVEN)
    ends = []
    for folder, steps in ((tmp_path / "whole", (400,)), (tmp_path / "parts", (200, 400))):
        for total in steps:
            command("train", *SHORT, *GIVEN, f"runs_dir={folder}", f"train.total_steps={total}", "log.progress=off")
        ends.append(newest_state(run_dir(compose_train(folder, *SHORT, *GIVEN)))[0]["algo"]["clone"])
    assert ends[0].keys() == ends[1].keys() and all(torch.equal(ends[0][k], ends[1][k]) for k in ends[0])
    command("crossplay", f"runs='{run_dir(whole)}'", f"out={tmp_path / 'out'}", "episodes=4",
            f"+partners.human.runs='{tmp_path}/parts/**'")  # fmt: skip


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in NEEDS else find(name, *a))
    line = refused_last(capsys, tmp_path, "env=overcooked/cramped_room")
    assert "make overcooked" in line and "overcooked_ai_py and pandas" in line
    assert "overcooked only, not in Corridor" in refused_last(capsys, tmp_path)


def refused_last(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> str:
    """Return the last line of a training that is refused once it starts to learn."""
    with pytest.raises(SystemExit) as left:
        command("train", *SHORT, "algo=bc", *arguments, f"runs_dir={folder}", "log.progress=off", "train.n_envs=1")
    assert left.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_kitchens_are_known_by_their_tiles() -> None:
    here = parse("XXPXX/O  2O/X1  X/XDXSX")
    assert same_kitchen(here, parse("XXPXX/O1 2O/X   X/XDXSX")), "other starts"
    assert not same_kitchen(here, parse("XXPXX/O  2O/X1  X/XSXDX"))
    assert not same_kitchen(here, parse("XXPXXX/O   2O/X1   X/XDXSXX"))


@pytest.mark.skipif(bool(ABSENT), reason=f"not installed: {', '.join(ABSENT)} (make overcooked)")
def test_the_games_of_people_as_demonstrations() -> None:
    numba.set_num_threads(1)
    env = kitchen(obs="features")
    demos = HumanTrials(lambda n_envs: kitchen(n_envs=n_envs, obs="features"), "test").load(env.spec)
    table = trials("test")
    games = table[table["layout_name"] == "cramped_room"]
    assert len(demos) == 2 * len(games) and len(demos.game.unique()) == games["workerid_num"].nunique()
    check_fit(demos, env.spec)
    assert 0.3 < float((demos.actions == 4).float().mean()) < 0.8, "people wait about half of the time"
    env.reset()
    start = env.arrange(env.cooks(), {}).obs[0]
    assert torch.equal(demos.obs[:2], start), "games begin at the start"
    with pytest.raises(ConfigError, match="no games of people in this kitchen"):
        HumanTrials(lambda n_envs: kitchen(n_envs=n_envs, grid="XPX/O1S/X2X/XDX"), "test").load(env.spec)
    with pytest.raises(ConfigError, match="split=half"):
        trials("half")
