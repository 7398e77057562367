"""Compiled rollouts: the same episodes as the general loop plays, chosen only where all parts have a compiled form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import pytest
import torch
from torch import Tensor

from attacks.missing import Missing
from attacks.random import RandomActions
from envs.grid.foraging import Foraging
from envs.grid.mds import MultiDestinationSpread
from envs.grid.spread import Spread
from envs.skirmish.env import Skirmish
from envs.toys.games import Corridor
from marl.core.protocols import Attack, NoAttack
from marl.core.types import EpisodeBatch, Field, Obs, core_fields
from marl.learn import acting
from marl.learn.agents import FeedForwardAgent, RecurrentAgent
from marl.learn.learner import best_available
from marl.learn.policy import EpsilonGreedy
from marl.run import collect as general
from marl.run.collect import collect
from marl.run.rollout import compiled_form
from tests.support.builders import make_victim
from tests.support.grid_games import hunt, push, spread
from tests.support.overcooked_parts import kitchen

B = 6
GAMES: dict[str, Callable[..., Any]] = {
    "push": push, "spread": spread, "hunt": hunt, "overcooked": kitchen,
    "foraging": lambda n_envs, seed: Foraging(8, 3, 2, 1, 2, False, 8, 0.0, 0, 25, n_envs=n_envs, seed=seed),
    "mds": lambda n_envs, seed: MultiDestinationSpread(
        5, 2, [[0, 0], [4, 4]], [0.0, 1.0, 3.0], 12, n_envs=n_envs, seed=seed
    ),
    "skirmish": lambda n_envs, seed: Skirmish("3m", n_envs, seed=seed),
}  # fmt: skip
OBSERVED = ("obs", "state", "avail", "alive", "obs_seen")
BUDGET: dict[str, Any] = {"budget": 5, "budget_unit": "agent_action"}


def fields_of(env: Any, step_info: bool = True) -> dict[str, Field]:
    """Core fields, all of ``Step.info``, and two that only attacks fill."""
    n = env.spec.n_agents
    info = {k: Field(tuple(env._info[k].shape[1:]), env._info[k].dtype) for k in env.spec.info_names if step_info}
    return core_fields(env.spec) | info | {"hit": Field((n,), torch.bool), "obs_seen": Field((n, env.spec.obs_dim))}


def play(env: Any, policy: Any, attack: Attack | None = None, fields: Any = None, **options: Any) -> EpisodeBatch:
    given: dict[str, Any] = {"explore": False, "attacked": torch.arange(env.n_envs) % 3 > 0, "device": "cpu"}
    gens = {name: torch.Generator().manual_seed(7) for name in ("policy_gen", "attack_gen")}
    harm = attack if attack is not None else NoAttack(env.spec, "cpu")
    return collect(env, policy, harm, fields or fields_of(env), **{**given, **gens, **options})


def require_same(one: EpisodeBatch, two: EpisodeBatch) -> None:
    """Compare all that belongs to an episode, bit by bit; what comes after it is zero in a compiled rollout."""
    slots, length = torch.arange(one.horizon + 1), one.length.long()[:, None]
    assert one.data.keys() == two.data.keys()
    for name, field in one.fields.items():
        a, b = one[name], two[name]
        assert a.shape == b.shape and a.dtype == b.dtype, name
        if field.per == "step":
            mine = slots <= length if name in OBSERVED else slots < length
            assert not b[~mine].any(), f"{name} after the end"
            a, b = a[mine], b[mine]
        assert torch.equal(a, b), name


def agent_of(spec: Any, kind: type[RecurrentAgent] = RecurrentAgent, **changes: Any) -> RecurrentAgent:
    options = {"hidden_dim": 16, "share_parameters": True, "last_action": True, "agent_id": True}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        agent = kind(spec, **{**options, **changes})
    with torch.no_grad():
        for p in agent.parameters():
            p.mul_(3.0)
    return agent


@pytest.mark.parametrize("game", GAMES)
def test_greedy_rollouts_equal_the_general_loop_bit_for_bit(game: str) -> None:
    """Twice in a row: the second pair of episodes begins from the random streams that the first has left."""
    here, there = (GAMES[game](n_envs=B, seed=4) for _ in range(2))
    policy = make_victim(here.spec, scale=3.0)
    assert compiled_form(here, policy, NoAttack(here.spec, "cpu"), fields_of(here), False) is not None
    for _ in range(2):
        require_same(play(there, policy, compiled=False), play(here, policy))
    assert torch.equal(here.state_dict()["rng"], there.state_dict()["rng"])
    require_same(play(there, policy, compiled=False, seed=9), play(here, policy, seed=9))


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("kind", [RecurrentAgent, FeedForwardAgent])
@pytest.mark.parametrize("inputs", [(True, True), (True, False), (False, True), (False, False)])
def test_every_network_acts_as_its_equations_say(kind: type[RecurrentAgent], share: bool, inputs: tuple) -> None:
    """Hidden states to rounding, actions exactly, over steps that feed them back, against ``step`` in torch."""
    env = spread(n_envs=B, seed=4)
    agent = agent_of(env.spec, kind, share_parameters=share, last_action=inputs[0], agent_id=inputs[1])
    gen = torch.Generator().manual_seed(0)
    h, last = agent.initial(B), torch.full((B, env.spec.n_agents), -1)
    for _ in range(5):
        obs = torch.randn(B, env.spec.n_agents, env.spec.obs_dim, generator=gen)
        avail = torch.rand(B, env.spec.n_agents, env.spec.n_actions, generator=gen) < 0.6
        avail[..., 0] = True
        network = acting.network_of(agent)
        assert network is not None
        with torch.no_grad():
            q, expected = agent.step(agent.inputs(obs, last), h)
        last, h = acting.act(network, obs, avail, last, h)
        assert torch.equal(last, best_available(q, avail))
        torch.testing.assert_close(h, expected, atol=2e-6, rtol=1e-5)
    here, there = (spread(n_envs=B, seed=4) for _ in range(2))
    policy = EpsilonGreedy(agent, make_victim(env.spec).mixer, 0.0, "intended")
    require_same(play(there, policy, compiled=False), play(here, policy))


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="needs two threads")
def test_threads_act_alike(one_thread: None) -> None:
    env = spread(n_envs=B, seed=4)
    plain = play(env, make_victim(env.spec, scale=3.0), compiled=False, seed=4)
    numba.set_num_threads(2)
    require_same(plain, play(env, make_victim(env.spec, scale=3.0), seed=4))
    assert torch.equal(plain.intended, play(env, make_victim(env.spec, scale=3.0), compiled=False, seed=4).intended)


def test_a_field_of_another_form_than_the_games_gets_the_numbers() -> None:
    """``formation`` is int64 [B] in the game; a plug-in may declare it in float32."""
    numbers = play(spread(n_envs=B, seed=4), make_victim(spread(n_envs=B).spec, scale=3.0))["formation"]
    assert numbers.dtype == torch.int64 and len(numbers.unique()) > 1
    env = spread(n_envs=B, seed=4)
    fields = fields_of(env) | {"formation": Field((), torch.float32)}
    found = play(env, make_victim(env.spec, scale=3.0), fields=fields)["formation"]
    assert found.dtype == torch.float32 and torch.equal(found, numbers.float())


def test_changed_weights_are_read_anew() -> None:
    env = spread(n_envs=B, seed=4)
    policy = make_victim(env.spec, bias=[9.0, 0, 0, 0, 0], scale=0.0)
    assert not play(env, policy).intended.any() and not play(env, policy, compiled=False).intended.any()
    with torch.no_grad():
        policy.agent.fc_out.bias.copy_(torch.tensor([0.0, 0, 0, 0, 9.0]))
    for compiled in (True, False):
        batch = play(env, policy, compiled=compiled)
        assert (batch.intended[batch.filled] == 4).all()


def test_weights_that_change_within_an_episode_are_read_anew() -> None:
    env = spread(n_envs=B, seed=4)
    policy, gen = make_victim(env.spec, bias=[9.0, 0, 0, 0, 0], scale=0.0), torch.Generator()
    now, carry = env.reset(), policy.begin(B, gen)
    first = policy.act(now, carry, explore=False, gen=gen)[0]
    with torch.no_grad():
        policy.agent.fc_out.bias.copy_(torch.tensor([0.0, 0, 0, 0, 9.0]))
    assert not first.any() and (policy.act(now, carry, explore=False, gen=gen)[0] == 4).all()


def test_exploration_is_uniform_over_what_is_available() -> None:
    """All weights are zero: the best action is the last of 5. With epsilon 0.4 it has 0.6 + 0.4 / 5 = 0.68 of all
    choices, and each other one 0.08 (9,600 choices: four standard deviations are 0.02 and 0.011)."""
    env = spread(n_envs=80, seed=4)
    policy = make_victim(env.spec, bias=[0.0, 0, 0, 0, 9.0], scale=0.0, epsilon=0.4)
    chosen = play(env, policy, explore=True).intended[:, :-1].flatten().long()
    share = chosen.bincount(minlength=5) / len(chosen)
    assert len(chosen) == 80 * 30 * 4
    assert share[4].item() == pytest.approx(0.68, abs=0.02) and share[:4].tolist() == pytest.approx(
        [0.08] * 4, abs=0.011
    )


def test_what_is_drawn_depends_on_the_seed_and_the_lane_alone(one_thread: None) -> None:
    def drawn(lanes: int = B, seed: int = 7) -> EpisodeBatch:
        env = hunt(n_envs=lanes, seed=4)
        gen = torch.Generator().manual_seed(seed)
        return play(env, make_victim(env.spec, epsilon=0.5), explore=True, policy_gen=gen)

    first = drawn()
    require_same(first, drawn())
    assert torch.equal(first.intended[:2, :5], drawn(lanes=2).intended[:, :5])
    assert not torch.equal(first.intended[:, :5], drawn(seed=8).intended[:, :5])
    assert len({tuple(row.flatten().tolist()) for row in first.intended[:, :5]}) == B, "lanes have streams of their own"
    if numba.config.NUMBA_NUM_THREADS > 1:
        numba.set_num_threads(2)
        require_same(first, drawn())


def test_greedy_play_draws_nothing_and_exploration_goes_on() -> None:
    env = spread(n_envs=B, seed=4)
    policy, gen = make_victim(env.spec, epsilon=0.5), torch.Generator().manual_seed(1)
    before = gen.get_state()
    play(env, policy, policy_gen=gen)
    assert torch.equal(gen.get_state(), before)
    one, two = (play(env, policy, explore=True, policy_gen=gen).intended for _ in range(2))
    assert not torch.equal(one, two)


def test_a_collection_is_repeated_from_saved_streams() -> None:
    """What a checkpoint holds of the game and of both generators is all that the next collection depends on."""
    gens = {name: torch.Generator().manual_seed(7) for name in ("policy_gen", "attack_gen")}

    def next_batch(env: Any) -> EpisodeBatch:
        harm = RandomActions(env.spec, "cpu", p=0.3, budget=None, budget_unit="step")
        return play(env, make_victim(env.spec, epsilon=0.5), harm, explore=True, **gens)

    env = hunt(n_envs=B, seed=4)
    first = next_batch(env)
    streams, states = env.state_dict(), {name: gen.get_state() for name, gen in gens.items()}
    second = next_batch(env)
    again = hunt(n_envs=B, seed=99)
    again.load_state_dict(streams)
    for name, gen in gens.items():
        gen.set_state(states[name])
    require_same(second, next_batch(again))
    assert not torch.equal(first.intended[:, :5], second.intended[:, :5])


# ------------------------------------------------------------------------------------------------ who can


class Timid(EpsilonGreedy):
    """Acts otherwise than its parent, of which it inherits everything else."""

    def act(self, obs: Obs, carry: Any, *, explore: bool, gen: Any) -> tuple[Tensor, Any, dict[str, Tensor]]:
        return torch.zeros_like(carry["last"]), carry, {}


class Doubled(RecurrentAgent):
    def step(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        q, h = super().step(x, h)
        return -q, h


class Harder(RandomActions):
    """Chooses otherwise than its parent."""


class Slippery(Spread):
    def step(self, actions: Tensor) -> Any:
        return super().step(torch.zeros_like(actions))


class Wrapped:
    """Passes on whatever it has not, as ``envs.wrappers.StateBlock`` does."""

    def __init__(self, env: Any) -> None:
        self.env = env

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)


def test_only_what_a_class_says_of_itself_counts() -> None:
    env = spread(n_envs=B, seed=4)
    policy, none, fields = make_victim(env.spec), NoAttack(env.spec, "cpu"), core_fields(env.spec)
    assert compiled_form(env, policy, none, fields, False) is not None
    timid = Timid(policy.agent, policy.mixer, 0.0, "intended")
    doubled = EpsilonGreedy(agent_of(env.spec, Doubled), policy.mixer, 0.0, "intended")
    harder = Harder(env.spec, "cpu", p=0.5, **BUDGET)
    hidden = Missing.compiled(Missing(env.spec, "cpu", agents=1, mode="idle", **BUDGET))
    slippery: Any = Slippery.__new__(Slippery)
    slippery.__dict__.update(env.__dict__)
    once = fields | {"positions": Field((), torch.int64, "episode")}
    corridor: Any = Corridor(2, 4, 2, True, 12, n_envs=2)
    assert hidden is not None
    assert compiled_form(env, timid, none, fields, False) is None
    assert compiled_form(env, doubled, none, fields, False) is None
    assert compiled_form(env, policy, harder, fields, False) is None
    assert compiled_form(slippery, policy, none, fields, False) is None
    assert compiled_form(Wrapped(env), policy, none, fields, False) is None  # type: ignore[arg-type]
    assert compiled_form(env, policy, none, once, False) is None, "its newest value is the general loop's to say"
    assert compiled_form(corridor, policy, none, fields, False) is None
    assert not play(env, timid).intended.any(), "and the general path plays it"
    changed = make_victim(env.spec)
    changed.act = timid.act  # type: ignore[method-assign]
    assert compiled_form(env, changed, none, fields, False) is None
    q_greedy = play(spread(n_envs=B, seed=4), doubled).intended
    assert torch.equal(q_greedy, play(spread(n_envs=B, seed=4), doubled, compiled=False).intended)


def test_one_who_watches_is_called_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    env, seen = spread(n_envs=B, seed=4), []
    policy = make_victim(env.spec)
    batch = play(env, policy, watch=lambda moment: seen.append(moment.t))
    assert seen == list(range(batch.horizon))
    monkeypatch.setattr(general, "roll", lambda *_, **__: pytest.fail("was compiled"))
    play(env, policy, watch=lambda moment: None)
    play(env, policy, compiled=False)
