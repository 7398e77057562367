"""Partners from populations by hand: who is drawn, returns with each; MEP's bonus; hidden and fading rewards."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from algos.sbc.mep import Diverse
from algos.sbc.policies import NoisyPolicy, draw_epsilon
from algos.sbc.population import BestResponse
from algos.sbc.rewards import Fading, HiddenReward
from algos.sbc.roles import RoleLearner
from algos.sbc.wishing import Wishing
from marl.core.types import Clock, ConfigError, EpisodeBatch
from marl.learn.mixers import VDN
from marl.learn.policy import LinearSchedule
from tests.support.helpers import LEARNER, clock_after, make_agent, make_spec
from tests.support.sbc_parts import blocking_spec, role_batch

SPEC = blocking_spec()
CELL: dict[str, Any] = {"info": "cell", "size": 4, "numbered": True, "paid_for": "own"}


def best_response(teams: int, priority: float) -> BestResponse:
    """Make a best response to teams that come from no run."""
    algo = object.__new__(BestResponse)
    algo.priority, algo.memory, algo.n_agents, algo.p_self, algo.alone = priority, 0.9, 3, 0.0, False
    algo.returns = torch.full((teams,), -torch.inf)
    return algo


def earned(assign: list[list[int]], returns: list[float]) -> EpisodeBatch:
    batch = role_batch(SPEC, len(returns))
    reward = torch.zeros(len(returns), batch.horizon + 1)
    reward[:, 0] = torch.tensor(returns)
    return EpisodeBatch(batch.data | {"assign": torch.tensor(assign), "reward": reward}, batch.fields)


def test_hard_teams_are_drawn_first_and_unmet_ones_before_them() -> None:
    algo = best_response(3, priority=2.0)
    algo.observe(earned([[1, 0, 0], [0, 1, 1], [0, 0, 2], [0, 0, 0]], [4.0, 8.0, 2.0, 99.0]))
    assert algo.returns.tolist() == [6.0, 2.0, -math.inf], "an episode of egos alone is nobody's"
    assert algo.weights().tolist() == pytest.approx([1 / 14, 4 / 14, 9 / 14])
    algo.observe(earned([[0, 1, 0]], [16.0]))
    assert algo.returns[:2].tolist() == pytest.approx([0.9 * 6 + 0.1 * 16, 2.0])
    assert best_response(4, priority=0.0).weights().tolist() == [0.25] * 4
    gen = torch.Generator().manual_seed(0)
    assign = algo.assign(5000, gen)
    team = assign.amax(1)
    assert ((assign == 0) | (assign == team[:, None])).all(), "one team a lane"
    shares = torch.bincount(team, minlength=4)[1:] / 5000
    assert shares.tolist() == pytest.approx([1 / 14, 4 / 14, 9 / 14], abs=0.03)
    assert (assign == 0).any(1).all() and (assign == 0).sum(1).unique().tolist() == [1, 2]
    algo.alone = True
    assert ((algo.assign(500, gen) == 0).sum(1) == 1).all()


def test_epsilons_are_drawn_for_every_lane() -> None:
    drawn = draw_epsilon(2000, [0.05, 0.3], torch.Generator().manual_seed(0))
    assert drawn.shape == (2000, 1) and sorted({round(v, 3) for v in drawn.flatten().tolist()}) == [0.05, 0.3]
    assert float(drawn.mean()) == pytest.approx(0.175, abs=0.01)


# MEP


def diverse(alpha: float = 2.0, temperature: float = 0.5, relative: bool = False) -> Diverse:
    torch.manual_seed(0)
    algo = Diverse(
        SPEC, "cpu", torch.Generator(), members=2, alpha=alpha, temperature=temperature, relative=relative,
        agent=make_agent, mixer=VDN,
        learner=lambda *a, device: RoleLearner(*a, device=device, **LEARNER), hooks={},
        epsilon=LinearSchedule(1.0, 0.1, 10), batch_size=4, warmup_episodes=4, episodes_per_update=4,
    )  # fmt: skip
    for k, team in enumerate(algo.teams):  # values of the five actions, whatever is seen
        torch.nn.init.zeros_(team.agent.fc_out.weight)
        team.agent.fc_out.bias.data = torch.tensor([[1.0, 0, 0, 0, 0], [0.0, 2.0, 0, 0, 0]][k])
    return algo


def test_the_bonus_is_minus_the_log_of_the_populations_probability() -> None:
    algo, batch = diverse(), role_batch(SPEC, 4)
    avail = torch.zeros_like(batch.avail)
    avail[..., :2] = True  # two actions: the members' odds are e^(1 / 0.5) and e^(-2 / 0.5)
    actions = torch.zeros_like(batch.actions)
    actions[:, :, 2] = 1
    batch = EpisodeBatch(batch.data | {"avail": avail, "actions": actions, "intended": actions}, batch.fields)
    p = (1 / (1 + math.exp(-2.0)) + 1 / (1 + math.exp(4.0))) / 2  # of action 0
    expected = -2.0 * (2 * math.log(p) + math.log(1 - p)) / 3
    bonus = algo.bonus(batch)
    assert torch.allclose(bonus[batch.filled], torch.tensor(expected))
    assert (bonus[~batch.filled] == 0).all()
    assert (diverse(alpha=0.0).bonus(batch) == 0).all()


def test_a_relative_temperature_is_in_units_of_the_gap_between_values() -> None:
    """The members' values are 1, 0, ... and 0, 2, 0, ...: gaps 1 and 2, so that 0.5 means 0.5 and 1.0; a scale of all
    values changes nothing."""
    batch = role_batch(SPEC, 4)
    batch.data["avail"] = torch.zeros_like(batch.avail)
    batch.data["avail"][..., :2] = True
    batch.data["intended"] = torch.zeros_like(batch.intended)
    p = (1 / (1 + math.exp(-1 / 0.5)) + 1 / (1 + math.exp(2 / 1.0))) / 2  # of action 0
    for scale in (1.0, 0.01):
        algo = diverse(relative=True)
        for team in algo.teams:
            team.agent.fc_out.bias.data *= scale
        bonus = algo.bonus(batch)
        assert torch.allclose(bonus[batch.filled], torch.tensor(-2.0 * math.log(p))), scale
    flat = diverse()
    for team in flat.teams:
        team.agent.fc_out.bias.data *= 0.01
    assert torch.allclose(flat.bonus(batch)[batch.filled], torch.tensor(2.0 * math.log(2)), atol=0.02), "uniform"


def test_members_learn_from_their_own_episodes_only() -> None:
    algo, batch = diverse(), role_batch(SPEC, 6)
    batch = EpisodeBatch(batch.data | {"assign": torch.ones_like(batch.assign)}, batch.fields)

    class Stored:
        def __len__(self) -> int:
            return 6

        def sample(self, *_: Any) -> EpisodeBatch:
            return batch

    before = [[p.clone() for p in team.agent.parameters()] for team in algo.teams]
    algo.update(Stored(), batch, clock_after(6))  # type: ignore[arg-type]
    moved = [
        any(not torch.equal(p, q) for p, q in zip(old, team.agent.parameters(), strict=True))
        for old, team in zip(before, algo.teams, strict=True)
    ]
    assert moved == [False, True]
    assign = algo.assign(50, torch.Generator().manual_seed(0))
    assert (assign == assign[:, :1]).all() and assign.unique().tolist() == [0, 1]
    for name in ("2", "-1", "none"):
        with pytest.raises(ConfigError, match=rf"member '{name}' is not known; there are 0\.\.1"):
            algo.member(name)
    assert isinstance(NoisyPolicy(algo.member("1"), [0.0]).policy, type(algo.member("0")))


# rewards


def test_hidden_wishes_are_paid_per_agent_and_replace_the_reward_in_part() -> None:
    spec, batch = replace(SPEC, info_names=("cell", "events")), role_batch(SPEC, 3)
    batch.data["cell"][:, 0] = torch.tensor([3, -1, 1])
    batch.data["reward"][:, 0] = 4.0
    numbered = HiddenReward(
        spec, info="cell", size=4, numbered=True, wishes={"3": [5.0], 1: [-2.0]}, team_weight=[0.1], paid_for="all"
    )  # type: ignore[dict-item]
    assert numbered.reward(batch, None)[:, 0, 0].tolist() == pytest.approx([5.0 - 2.0 - 0.9 * 4.0] * 3)  # type: ignore[arg-type]
    events = torch.zeros(3, batch.horizon + 1, 3, 2, dtype=torch.bool)
    events[:, 0, 0] = True
    events[:, 0, 2, 1] = True
    flags = HiddenReward(
        spec, info="events", size=2, numbered=False, wishes={0: [1.0], 1: [10.0]}, team_weight=[1.0], paid_for="all"
    )
    given = EpisodeBatch(batch.data | {"events": events}, batch.fields)
    assert flags.reward(given, None)[:, 0, 0].tolist() == [21.0] * 3  # type: ignore[arg-type]
    assert flags.fields()["events"].shape == (3, 2) and numbered.fields()["cell"].shape == (3,)


def test_hidden_wishes_are_paid_for_the_wishing_seat_alone() -> None:
    """Agent 0 is in cell 3 and agent 2 in cell 1; the seat that wishes is agent 0, agent 2, nobody."""
    spec, batch = replace(SPEC, info_names=("cell",)), role_batch(SPEC, 3)
    batch.data["cell"][:, 0] = torch.tensor([3, -1, 1])
    batch.data["reward"][:, 0] = 4.0
    batch.data["assign"] = torch.tensor([[1, 0, 0], [0, 0, 1], [0, 0, 0]])
    hook = HiddenReward(
        spec, info="cell", size=4, numbered=True, wishes={3: [5.0], 1: [-2.0]}, team_weight=[0.1], paid_for="own"
    )
    found = hook.reward(batch, None)[:, 0, 0].tolist()  # type: ignore[arg-type]
    assert found == pytest.approx([5.0 - 0.9 * 4.0, -2.0 - 0.9 * 4.0, -0.9 * 4.0])


def wishing(wish: float) -> Wishing:
    torch.manual_seed(0)
    hidden = partial(
        HiddenReward, info="cell", size=4, numbered=True, wishes={k: [wish] for k in range(4)}, team_weight=[1.0],
        paid_for="own",
    )  # fmt: skip
    return Wishing(
        SPEC, "cpu", torch.Generator(), agent=make_agent, mixer=VDN, hooks={"hidden": hidden},
        learner=lambda *a, device: RoleLearner(*a, device=device, **LEARNER), epsilon=LinearSchedule(1.0, 0.1, 10),
        batch_size=4, warmup_episodes=4, episodes_per_update=1,
    )  # fmt: skip


def test_one_seat_wishes_and_its_helper_learns_from_the_true_reward() -> None:
    batch, seats = role_batch(SPEC, 6), wishing(0.0).assign(3000, torch.Generator().manual_seed(0))
    assert (seats.sum(1) == 1).all() and (seats.float().mean(0) - 1 / 3).abs().max() < 0.03, "one seat, any of them"
    batch.data["assign"] = seats[:6]
    batch.data["cell"][:] = 1
    learnt = {}
    for wish in (0.0, 5.0):
        algo = wishing(wish)
        metrics = algo.learn(batch, Clock())
        assert {"loss/td", "wishes/loss/td"} <= metrics.keys()
        nets = algo.networks()
        learnt[wish] = {
            name: [p.detach().clone() for p in nets[name].parameters()] for name in ("agent", "wishes_agent")
        }
    assert all(map(torch.equal, learnt[0.0]["agent"], learnt[5.0]["agent"])), "wishes are not the helper's"
    assert not all(map(torch.equal, learnt[0.0]["wishes_agent"], learnt[5.0]["wishes_agent"]))


def test_the_two_policies_of_hsp_can_be_played_and_saved() -> None:
    first, second = wishing(1.0), wishing(1.0)
    batch = role_batch(SPEC, 6)
    batch.data["assign"] = first.assign(6, torch.Generator().manual_seed(0))
    batch.data["cell"][:] = 1
    first.learn(batch, Clock())
    second.load_state_dict(first.state_dict())
    for name in ("wishes", "helper"):
        mine, other = (algo.member(name).agent.parameters() for algo in (first, second))  # type: ignore[attr-defined]
        assert all(map(torch.equal, mine, other))
    with pytest.raises(ConfigError, match="member 'team' is not known; there are wishes, helper"):
        first.member("team")


def test_wishes_are_drawn_once_and_kept() -> None:
    def made(seed: int) -> HiddenReward:
        torch.manual_seed(seed)
        return HiddenReward(
            SPEC, info="cell", size=4, numbered=True, wishes={k: [-20.0, 0.0, 10.0] for k in range(4)},
            team_weight=[0.1, 1.0], paid_for="own",
        )  # fmt: skip

    assert torch.equal(made(1).weight, made(1).weight)
    assert any(not torch.equal(made(1).weight, made(k).weight) for k in range(2, 6))
    other = made(2)
    other.load_state_dict(made(1).state_dict())
    assert torch.equal(other.weight, made(1).weight) and other.team_weight == made(1).team_weight


def test_bonuses_fade_and_stored_ones_keep_their_share() -> None:
    spec, batch = replace(SPEC, info_names=("shaped",)), role_batch(SPEC, 3)
    hook = Fading(spec, info="shaped", steps=4 * int(batch.length.sum()))
    shares = []
    for _ in range(6):
        fresh = EpisodeBatch(batch.data | {"shaped": torch.ones(3, batch.horizon + 1, 3)}, batch.fields)
        hook.annotate(fresh)
        shares.append(float(hook.reward(fresh, None)[0, 0, 0]))  # type: ignore[arg-type]
    assert shares == pytest.approx([3.0, 2.25, 1.5, 0.75, 0.0, 0.0])


def test_bonuses_are_shared_or_each_agents_own() -> None:
    spec, batch = replace(SPEC, info_names=("shaped",)), role_batch(SPEC, 3)
    own = torch.tensor([1.0, 2.0, 5.0]).expand(3, batch.horizon + 1, 3).clone()
    for paid_for, expected in (("all", [8.0]), ("own", [1.0, 2.0, 5.0])):
        hook = Fading(spec, info="shaped", steps=10**9, paid_for=paid_for)  # type: ignore[arg-type]
        fresh = EpisodeBatch(batch.data | {"shaped": own.clone()}, batch.fields)
        hook.annotate(fresh)
        found = hook.reward(fresh, None)  # type: ignore[arg-type]
        assert found.shape == (3, batch.horizon, len(expected)) and found[0, 0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fading(make_spec(), info="shaped", steps=5), "'shaped' is not told by .*; it tells nothing"),
        (lambda: Fading(SPEC, info="cell", steps=0), "steps=0"),
        (lambda: Fading(SPEC, info="cell", steps=1, paid_for="one"), "one of own, all"),  # type: ignore[arg-type]
        (lambda: HiddenReward(SPEC, wishes={4: [1.0]}, team_weight=[1.0], **CELL),
         r"wishes\.4 must be an index in 0\.\.3"),
        (lambda: HiddenReward(SPEC, wishes={}, team_weight=[], **CELL), "team_weight"),
        (lambda: HiddenReward(SPEC, wishes={}, team_weight=[1.0], **{**CELL, "paid_for": "one"}), "one of own, all"),
    ],
)  # fmt: skip
def test_bad_options_of_rewards_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
