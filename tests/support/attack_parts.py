"""The contract of attacks, rule by rule, on a corridor where agents die and lanes end at different times.

A ``Make`` gives a fresh attack for a spec with so much budget (None: without a limit) in this unit. Attacks that have
no budget keep all rules but those in ``OF_BUDGETS``.
"""

from __future__ import annotations

import contextlib
import io
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from attacks.base import Attack, LaneDraws, NoAttack, View
from envs.streams import lane_keys
from envs.toys.games import Corridor
from marl.core.protocols import Fitting
from marl.core.types import Clock, EnvSpec, EpisodeBatch, Obs, core_fields
from marl.learn.mixers import QMix
from marl.learn.policy import EpsilonGreedy
from marl.learn.replay import EpisodeReplay
from marl.run.collect import collect
from tests.support.builders import make_victim
from tests.support.helpers import differences

LANES, AGENTS = 8, 5
Make = Callable[..., Attack]  # (spec, budget=None, unit="step")


def corridor(lane: int | None = None) -> Corridor:
    """Build all lanes, or one of them as an environment of its own."""
    size = {"n_agents": AGENTS, "length": 4, "spread": 3, "fatal": True, "episode_limit": 12}
    env = Corridor(**size, n_envs=LANES if lane is None else 1, seed=1)
    if lane is not None:
        env.streams.key[:] = lane_keys(LANES, 1)[lane]
    return env


def corridor_victim(spec: EnvSpec) -> EpsilonGreedy:
    """Build a team that acts differently everywhere; some of its agents die at the right end."""
    mixer = partial(QMix, embed_dim=8, hypernet_dim=8)
    return make_victim(spec, mixer, scale=4.0, bias=[-4.0, -2.0, 1.0, 2.0], act_on="executed")


def play(attack: Attack, attacked: list[bool] | None = None, env: Any = None, victim: Any = None) -> EpisodeBatch:
    """Play one greedy episode per lane; the attack's generator begins at the same number every time."""
    env = env or corridor()
    lanes = torch.tensor(attacked or [True] * env.n_envs)
    return collect(
        env, victim or corridor_victim(env.spec), attack, core_fields(env.spec) | attack.fields(), explore=False,
        attacked=lanes, policy_gen=torch.Generator().manual_seed(0), attack_gen=torch.Generator().manual_seed(0),
        device="cpu",
    )  # fmt: skip


class Rows:
    """Draws for ``LaneDraws``: lane b's numbers come from a generator of its own."""

    def __init__(self, lanes: list[int]) -> None:
        self.gens = [torch.Generator().manual_seed(1000 + lane) for lane in lanes]

    def __call__(self, draw: Callable[..., Tensor], *shape: int) -> Tensor:
        return torch.stack([draw(shape, generator=gen) for gen in self.gens])


@contextlib.contextmanager
def drawing_rows(lanes: list[int]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        rows = Rows(lanes)
        patch.setattr(LaneDraws, "uniform", lambda attack, *shape: rows(torch.rand, *shape))
        patch.setattr(LaneDraws, "normal", lambda attack, *shape: rows(torch.randn, *shape))
        yield


class Linear:
    """A victim whose values are linear in what is seen: q_a = w_a . o for agents that all see three numbers."""

    weights = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.0, 2.0]])  # [A, O]

    def __init__(self) -> None:
        self.asked = 0

    def q_values(self, obs: Tensor, carry: Any) -> Tensor:
        self.asked += 1
        return obs @ self.weights.T

    def begin(self, *_: Any) -> Any: ...
    def act(self, *_: Any, **__: Any) -> Any: ...
    def after(self, *_: Any) -> Any: ...
    def q_total(self, *_: Any, **__: Any) -> Any: ...
    def params(self) -> Any: ...
    def q_with(self, *_: Any) -> Any: ...


def spec_of(n: int = 2, A: int = 2, O: int = 3, low: float = -10.0) -> EnvSpec:  # noqa: E741
    return EnvSpec(n, A, O, 1, 5, torch.full((O,), low), torch.full((O,), 10.0))


def look(obs: Any, avail: Any = None, alive: Any = None, victim: Any = None, t: int = 0) -> View:
    """Return the view of one step of ``len(obs)`` lanes, all attacked."""
    seen = torch.as_tensor(obs, dtype=torch.float32)
    B, n, _ = seen.shape
    can = torch.ones(B, n, 2, dtype=torch.bool) if avail is None else torch.as_tensor(avail)
    lives = torch.ones(B, n, dtype=torch.bool) if alive is None else torch.as_tensor(alive)
    return View(t, Obs(seen, torch.zeros(B, 1), can, lives), {}, torch.ones(B, dtype=torch.bool), victim or Linear())


class Detached(Linear):
    """A victim whose values have no gradient."""

    def q_values(self, obs: Tensor, carry: Any) -> Tensor:
        return super().q_values(obs.detach(), carry)


def fit(attack: Attack) -> None:
    """Let an attack learn about a frozen victim, as evaluations do; with the same draws wherever it is called."""
    assert isinstance(attack, Fitting)
    spec, policy = corridor().spec, corridor_victim(corridor().spec)
    replay = EpisodeReplay(100, spec.episode_limit, core_fields(spec) | attack.fields())
    with attack.fitting(), drawing_rows(list(range(LANES))):
        while attack.needs_fit:
            episodes = play(attack, victim=policy)
            replay.add(episodes)
            attack.update(replay, episodes, policy, Clock())


def fresh(make: Make, *budget: Any, seed: int = 0) -> Attack:
    """Build a new attack whose first weights, if it has any, come from ``seed``."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make(corridor().spec, *budget)


def about_hit(spec: EnvSpec, hit: Tensor) -> Tensor:
    """Mark features, bool [..., n, O], that an attack on ``hit`` bool [..., n] may change: all features of the hit
    agents, and what others see of them."""
    assert spec.about is not None
    return hit[..., None] | torch.einsum("ijo,...j->...io", spec.about.float(), hit.float()).bool()


def inactive(make: Make) -> None:
    """Check that lanes that are not attacked are as they are without the attack."""
    attacked = [lane % 2 == 0 for lane in range(LANES)]
    batch, free = play(fresh(make), attacked), play(NoAttack(corridor().spec, "cpu"))
    off = ~torch.tensor(attacked)
    T = min(batch.horizon, free.horizon)
    for name in core_fields(corridor().spec):
        if name != "attacked":
            assert torch.equal(batch.trim(T)[name][off], free.trim(T)[name][off]), name
    assert torch.equal(batch.policy_obs[off], batch.obs[off])
    assert batch["hit"].any(), "nothing was attacked: the contract means nothing"
    assert not batch["hit"][off].any() and not batch["hit"][~batch.filled].any()


def honest(make: Make) -> None:
    """Check that changed agents count as hit; executed actions are available; the dead are left alone."""
    spec = corridor().spec
    batch = play(fresh(make))
    filled = batch.filled
    assert batch.avail.gather(-1, batch.actions.long()[..., None])[filled].all(), "an action was not available"
    hit = batch["hit"]
    assert not (hit & ~batch.alive).any(), "somebody dead was attacked"
    assert not ((batch.actions != batch.intended) & ~hit).any(), "an action changed without a hit"
    changed = batch.policy_obs != batch.obs
    assert not (changed & ~about_hit(spec, hit))[filled].any(), "an observation changed without a hit"
    assert (~batch.alive[:, :-1] & filled[:, :-1, None]).any(), "nobody died: the contract means nothing"


def budget(make: Make) -> None:
    """Check that no episode spends more than the budget in its unit."""
    for unit in ("step", "agent_action"):
        for limit in (1, 4):
            attack = fresh(make, limit, unit)
            for _ in range(2):
                hit = play(attack)["hit"]
                spent = hit.any(-1).sum(1) if unit == "step" else hit.sum((1, 2))
                assert spent.max() <= limit, f"{int(spent.max())} spent of {limit}, by {unit}"
                assert spent.any(), "nothing was attacked: the contract means nothing"


def bounds(make: Make) -> None:
    """Check that shown observations are legal, and within the ball of attacks that have one."""
    attack = fresh(make)
    batch = play(attack)
    spec, seen = corridor().spec, batch.policy_obs
    assert ((seen >= spec.obs_low) & (seen <= spec.obs_high)).all(), "out of the legal range"
    radius = getattr(attack, "epsilon", None)
    if radius is not None:
        assert (seen - batch.obs).abs().max() <= radius + 1e-6, "outside the ball"
        assert (seen - batch.obs).abs().max() > 0.5 * radius


def lanes(make: Make) -> None:
    """Check that eight lanes play as eight single ones do with the same draws; their order does not matter."""
    with drawing_rows(list(range(LANES))):
        together = play(fresh(make))
    for lane in range(LANES):
        with drawing_rows([lane]):
            alone = play(fresh(make), env=corridor(lane))
        length = int(alone.length[0])
        assert length == together.length[lane]
        for name in ("actions", "intended", "hit"):
            assert torch.equal(alone[name][0, :length], together[name][lane, :length]), (name, lane)
        torch.testing.assert_close(alone.policy_obs[0, :length], together.policy_obs[lane, :length])


def victim(make: Make) -> None:
    """Check that the victim is only read: parameters, gradients, flags and mode stay as they were."""
    policy = corridor_victim(corridor().spec)
    nets = [policy.agent, policy.mixer]
    before = [p.detach().clone() for net in nets for p in net.parameters()]
    modes = [module.training for net in nets for module in net.modules()]
    play(fresh(make), victim=policy)
    parameters = [p for net in nets for p in net.parameters()]
    assert all(map(torch.equal, before, parameters)), "parameters changed"
    assert all(p.requires_grad and p.grad is None for p in parameters), "gradients or their flags changed"
    assert modes == [module.training for net in nets for module in net.modules()], "the mode changed"


def off(make: Make) -> None:
    """Check that a budget of 0 gives the natural run, bit for bit."""
    spec = corridor().spec
    free = play(NoAttack(spec, "cpu"))
    for unit in ("step", "agent_action"):
        batch = play(fresh(make, 0, unit))
        assert not batch["hit"].any() and batch.horizon == free.horizon
        assert differences({name: batch[name] for name in free.data}, free.data) == []
        assert torch.equal(batch.policy_obs, batch.obs)


def state(make: Make) -> None:
    """Check that a saved and loaded attack goes on as the first one does, and saves only tensors and builtins."""
    first, second = fresh(make), fresh(make, seed=1)
    play(first)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    try:
        saved = torch.load(file, weights_only=True)
    except pickle.UnpicklingError as error:
        raise AssertionError("more is saved than tensors and builtins") from error
    second.load_state_dict(saved)
    assert differences(play(first).data, play(second).data) == []


def repeats(make: Make) -> None:
    """Check that the same draws give the same attack: no ambient randomness, nothing kept between episodes."""
    attack = fresh(make)
    torch.manual_seed(0)
    first = play(attack).data
    torch.manual_seed(1)
    assert differences(first, play(attack).data) == []


RULES: dict[str, Callable[[Make], None]] = {
    rule.__name__: rule for rule in (inactive, honest, budget, bounds, lanes, victim, off, state, repeats)
}
OF_BUDGETS = ("budget", "off")
