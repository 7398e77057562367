"""A lineup: which policy acts for which agent, what each policy sees and remembers, and that a lineup of one policy
behaves like the policy itself."""

from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor

from envs.toys.games import KStepMatrixGame
from marl.core.protocols import NoAttack
from marl.core.types import Carry, ConfigError, Field, Obs, core_fields
from marl.learn.lineup import Lineup
from marl.learn.mixers import VDN
from marl.learn.policy import EpsilonGreedy
from marl.run.collect import collect
from tests.support.helpers import make_learner

B, N = 3, 2


class Constant:
    """Plays ``action`` everywhere; records how often it acted, the lanes that it saw, and the last joint action."""

    def __init__(self, action: int) -> None:
        self.action, self.asked = action, list[list[float]]()

    def begin(self, n_envs: int, gen: Generator) -> Carry:
        return {"steps": torch.zeros(n_envs, dtype=torch.long), "last": torch.zeros(n_envs, N, dtype=torch.long)}

    def act(self, obs: Obs, carry: Carry, *, explore: bool, gen: Generator) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        self.asked.append(obs.state[:, 0].tolist())
        mark = torch.full((len(obs.obs),), float(self.action))
        return torch.full((len(obs.obs), N), self.action), carry | {"steps": carry["steps"] + 1}, {"mark": mark}

    def after(self, carry: Carry, intended: Tensor, executed: Tensor) -> Carry:
        return carry | {"last": executed}


def lanes() -> Obs:
    """Return observations whose state is the lane's number."""
    state = torch.arange(float(B))[:, None]
    return Obs(torch.zeros(B, N, 1), state, torch.ones(B, N, 9, dtype=torch.bool), torch.ones(B, N, dtype=torch.bool))


ASSIGN = torch.tensor([[0, 1], [1, 1], [1, 0]])


def test_each_agent_gets_its_own_policys_action() -> None:
    policies, gen = [Constant(5), Constant(7), Constant(8)], torch.Generator()
    lineup = Lineup(policies, ASSIGN)
    carry = lineup.begin(B, gen)
    actions, carry, fields = lineup.act(lanes(), carry, explore=True, gen=gen)
    assert actions.tolist() == [[5, 7], [7, 7], [7, 5]]
    assert policies[0].asked == [[0.0, 2.0]], "one call, on the lanes that it plays in"
    assert policies[1].asked == [[0.0, 1.0, 2.0]]
    assert policies[2].asked == [], "nobody plays it"
    assert torch.equal(fields["assign"], ASSIGN)
    assert fields["mark"].tolist() == [7.0, 7.0, 7.0], "of two policies in a lane the later one counts"
    assert carry["0.steps"].tolist() == [1, 0, 1]
    assert carry["1.steps"].tolist() == [1, 1, 1]
    assert carry["2.steps"].tolist() == [0, 0, 0]


def test_memories_are_separate_and_earlier_ones_stay() -> None:
    lineup, gen = Lineup([Constant(5), Constant(7)], ASSIGN), torch.Generator()
    first = lineup.begin(B, gen)
    actions, second, _ = lineup.act(lanes(), first, explore=True, gen=gen)
    third = lineup.after(second, actions, actions + 1)
    assert first["0.steps"].tolist() == [0, 0, 0], "the earlier carry is unchanged"
    assert second["0.last"].tolist() == [[0, 0]] * 3
    assert third["0.last"].tolist() == [[6, 8], [0, 0], [8, 6]]
    assert third["1.last"].tolist() == [[6, 8], [8, 8], [8, 6]]
    assert Lineup.of(third, 0, torch.tensor([2]))["last"].tolist() == [[8, 6]]
    assert Lineup.of(third, 1).keys() == {"steps", "last"}


def test_a_drawn_assignment_is_new_in_every_episode() -> None:
    def draw(n_envs: int, gen: Generator) -> Tensor:
        return torch.randint(2, (n_envs, N), generator=gen)

    lineup, gen = Lineup([Constant(5), Constant(7)], draw), torch.Generator().manual_seed(0)
    drawn = [lineup.begin(B, gen)["assign"] for _ in range(8)]
    assert any(not torch.equal(one, drawn[0]) for one in drawn)
    actions, _, _ = lineup.act(lanes(), lineup.begin(B, gen) | {"assign": drawn[0]}, explore=True, gen=gen)
    assert torch.equal(actions, torch.tensor([5, 7])[drawn[0]])


def test_one_policy_alone_and_twins_are_the_policy_itself() -> None:
    """Whole episodes agree bit for bit; twins in different seats share weights, hence greedy actions."""
    env = KStepMatrixGame("climb", "climb", [1, 1], 4, n_envs=B)
    learner = make_learner(env.spec, VDN(env.spec))
    policy = EpsilonGreedy(learner.agent, learner.mixer, 0.5, "executed")
    fields = core_fields(env.spec) | {"assign": Field((N,), torch.long, "episode")}

    def play(chosen: EpsilonGreedy | Lineup, explore: bool) -> dict[str, Tensor]:
        gen = torch.Generator().manual_seed(3)
        return collect(
            env, chosen, NoAttack(env.spec, "cpu"), fields, explore=explore, attacked=torch.zeros(B, dtype=torch.bool),
            policy_gen=gen, attack_gen=gen, device="cpu", seed=1,
        ).data  # fmt: skip

    alone = Lineup([policy], torch.zeros(B, N, dtype=torch.long))
    for explore, other in ((True, alone), (False, alone), (False, Lineup([policy, policy], ASSIGN))):
        expected, found = play(policy, explore), play(other, explore)
        assert all(torch.equal(expected[name], found[name]) for name in core_fields(env.spec))
    assert torch.equal(play(Lineup([policy, policy], ASSIGN), True)["assign"], ASSIGN)


def test_bad_assignments_are_refused() -> None:
    gen = torch.Generator()
    with pytest.raises(ConfigError, match="at least one policy"):
        Lineup([], ASSIGN)
    with pytest.raises(ConfigError, match=r"assign has 3 lanes; there are 4"):
        Lineup([Constant(1), Constant(2)], ASSIGN).begin(4, gen)
    with pytest.raises(ConfigError, match=r"assign names policy 1; there are 0\.\.0"):
        Lineup([Constant(1)], ASSIGN).begin(B, gen)
    with pytest.raises(ConfigError, match=r"assign names policy -1"):
        Lineup([Constant(1)], -ASSIGN).begin(B, gen)
