"""Each attack by itself, in hand-computed numbers: draws, timing, directions and what is hidden."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from attacks.base import choose_k, pick
from attacks.gradient import GradientAttack
from attacks.missing import Missing
from attacks.noise import Noise, RandomMask
from attacks.random import RandomActions
from attacks.single import SingleAgent
from marl.core.types import ConfigError, EnvSpec
from tests.support.attack_parts import Detached, Linear, corridor, look, play, spec_of
from tests.support.helpers import make_spec

STEP: dict[str, Any] = {"budget": None, "budget_unit": "step"}
ALWAYS: dict[str, Any] = {"rate": 1.0, "agents": None, "redraw": "step", **STEP}
FGSM: dict[str, Any] = {"epsilon": 0.1, "steps": 1, "step_size": 0.1, "random_start": False, **ALWAYS}


def begun(attack: Any, lanes: int = 1, victim: Any = None) -> Any:
    attack.begin(lanes, victim or Linear(), torch.Generator().manual_seed(0))
    return attack


# draws


def test_pick_is_uniform_over_what_is_allowed() -> None:
    u = torch.tensor([0.0, 0.24, 0.25, 0.5, 0.999, 1.0])
    allowed = torch.tensor([True, False, True, True, False, True])
    assert pick(u, allowed.expand(6, -1)).tolist() == [0, 0, 2, 3, 5, 5]
    assert pick(torch.tensor([0.7]), torch.zeros(1, 4, dtype=torch.bool)).tolist() == [0]


def test_choose_k_takes_the_smallest_allowed() -> None:
    u = torch.tensor([[0.9, 0.1, 0.5, 0.3]])
    allowed = torch.tensor([[True, False, True, True]])
    assert choose_k(u, allowed, 2).tolist() == [[False, False, True, True]]
    assert choose_k(u, allowed, 0).sum() == 0
    assert choose_k(u, allowed, 4).tolist() == allowed.tolist()


# random and single


def test_random_hits_each_agent_by_itself_and_draws_from_what_it_can_do() -> None:
    attack = begun(RandomActions(spec_of(A=4), "cpu", p=0.3, **STEP), 20_000)
    view = look(torch.zeros(20_000, 2, 3), torch.tensor([True, False, True, True]).expand(20_000, 2, 4))
    wanted, forced = attack.choose(view, torch.zeros(20_000, 2, dtype=torch.long))
    assert wanted.float().mean(0).tolist() == pytest.approx([0.3, 0.3], abs=0.012)
    assert (wanted[:, 0] & wanted[:, 1]).float().mean().item() == pytest.approx(0.09, abs=0.01)
    shares = torch.bincount(forced.flatten(), minlength=4) / forced.numel()
    assert shares.tolist() == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3], abs=0.012)


def single(start_p: float, duration: int, **budget: Any) -> SingleAgent:
    return SingleAgent(spec_of(), "cpu", start_p=start_p, duration=duration, **{**STEP, **budget})


def test_single_forces_the_worst_available_action() -> None:
    """Values (-1, 2) per agent: the worst is 0; where only 1 can be done, nothing happens and nothing starts."""
    attack = begun(single(1.0, 2), 2)
    view = look([[[0, 0, 1.0]] * 2] * 2, [[[True, True]] * 2, [[False, True]] * 2])
    executed, stored = attack.perturb_actions(view, torch.ones(2, 2, dtype=torch.long))
    assert stored["hit"].sum(1).tolist() == [1, 0] and executed.sum(1).tolist() == [1, 2]
    assert attack.left.tolist() == [2, 0] and attack.budget.spent.tolist() == [1, 0]


def test_single_plays_bursts() -> None:
    """A start and ``duration`` more steps, then idle again; one agent at a time, each equally often, the dead never."""
    attack, lanes = begun(single(0.2, 3), 4000), 4000
    alive = torch.tensor([True, True, False]).expand(lanes, -1)
    attack.spec = replace(attack.spec, n_agents=3)
    obs = torch.tensor([0, 0, 1.0]).expand(lanes, 3, 3)
    hits = []
    for t in range(12):
        _, stored = attack.perturb_actions(look(obs, torch.ones(lanes, 3, 2, dtype=torch.bool), alive, t=t),
                                           torch.ones(lanes, 3, dtype=torch.long))  # fmt: skip
        hits.append(stored["hit"])
    hit = torch.stack(hits, 1)  # [B, T, n]
    steps = hit.any(-1)
    assert (hit.sum(-1) <= 1).all() and not hit[..., 2].any()
    assert steps[:, 0].float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert hit.sum((0, 1))[:2].div(hit.sum()).tolist() == pytest.approx([0.5, 0.5], abs=0.02)
    first = steps[steps[:, :8].any(1)]
    at = first.byte().argmax(1)
    run = torch.stack([first.gather(1, (at + k)[:, None])[:, 0] for k in range(4)], 1)
    assert run.all(), "a start is followed by three more attacked steps"
    after = first[at < 8].gather(1, (at[at < 8] + 4)[:, None])
    assert after.float().mean().item() == pytest.approx(0.2, abs=0.03), "and then the lane is idle again"


# observations


def test_fgsm_by_hand() -> None:
    """q = (o0 - o2, o0/2 + 2 o2). At o = (1, 0, 0) action 0 is greedy; its cross-entropy falls with o0 / 2 - 3 o2, so
    o0 goes down, o2 up, and o1, which no value reads, stays. At o = (0, 0, 1) it is the other way round."""
    attack = begun(GradientAttack(spec_of(), "cpu", **FGSM))
    seen = attack.perturb_obs(look([[[1.0, 0, 0], [0, 0, 1.0]]]))
    torch.testing.assert_close(seen, torch.tensor([[[0.9, 0, 0.1], [0.1, 0, 0.9]]]))
    assert attack.perturb_actions(look([[[0.0] * 3] * 2]), torch.zeros(1, 2).long())[1]["hit"].all()


def test_fgsm_knows_what_is_available() -> None:
    """With one action there is no other to be lured to: nothing changes, and nothing is paid for."""
    attack = begun(GradientAttack(spec_of(), "cpu", **FGSM))
    view = look([[[1.0, 0, 0], [1.0, 0, 0]]], [[[True, True], [False, True]]])
    assert attack.perturb_obs(view)[0, 1].tolist() == [1.0, 0, 0]
    assert attack.hit.tolist() == [[True, False]]


def test_fgsm_stays_in_the_legal_range() -> None:
    attack = begun(GradientAttack(spec_of(low=0.95), "cpu", **FGSM))
    seen = attack.perturb_obs(look([[[1.0, 1.0, 1.0]] * 2]))
    assert seen[0, 0].tolist() == pytest.approx([1.1, 1.0, 0.95])  # greedy is action 1: -0.5, 0, 3


def test_pgd_stops_at_the_ball_and_starts_inside_it() -> None:
    steps = {**FGSM, "steps": 7, "step_size": 0.03}
    attack = begun(GradientAttack(spec_of(), "cpu", **steps))
    assert attack.perturb_obs(look([[[1.0, 0, 0]] * 2]))[0, 0].tolist() == pytest.approx([0.9, 0, 0.1])
    few = begun(GradientAttack(spec_of(), "cpu", **{**steps, "steps": 2}))
    assert few.perturb_obs(look([[[1.0, 0, 0]] * 2]))[0, 0].tolist() == pytest.approx([0.94, 0, 0.06])
    drawn = begun(GradientAttack(spec_of(), "cpu", **{**steps, "steps": 1, "random_start": True}), 500)
    off = drawn.perturb_obs(look([[[1.0, 0, 0]] * 2] * 500)) - torch.tensor([1.0, 0, 0])
    assert off.abs().max() <= 0.1 + 1e-6
    assert off[..., 1].min() < -0.08 and off[..., 1].max() > 0.08, "what no value reads stays where it started"


def test_a_victim_without_gradients_is_refused() -> None:
    attack = begun(GradientAttack(spec_of(), "cpu", **FGSM), victim=Detached())
    with pytest.raises(ConfigError, match="the values of Detached have no gradient in what it observes"):
        attack.perturb_obs(look([[[1.0, 0, 0]] * 2], victim=Detached()))


@pytest.mark.parametrize("make", [lambda: single(1.0, 1), lambda: GradientAttack(spec_of(), "cpu", **FGSM)])
def test_a_victim_without_values_is_refused(make: Any) -> None:
    with pytest.raises(ConfigError, match="reads the values of its victim; object shows none"):
        begun(make(), victim=object())


def test_observation_attacks_choose_steps_and_agents() -> None:
    """A quarter of the steps, one of the two living agents in each."""
    attack = begun(Noise(spec_of(n=3), "cpu", epsilon=0.5, **{**ALWAYS, "rate": 0.25, "agents": 1}), 4000)
    alive = torch.tensor([True, False, True]).expand(4000, -1)
    attack.perturb_obs(look(torch.zeros(4000, 3, 3), torch.ones(4000, 3, 2, dtype=torch.bool), alive))
    assert (attack.hit.sum(1) <= 1).all()
    assert attack.hit.float().mean(0).tolist() == pytest.approx([0.125, 0, 0.125], abs=0.02)


def test_noise_is_uniform_in_its_ball() -> None:
    attack = begun(Noise(spec_of(), "cpu", epsilon=0.5, **ALWAYS), 2000)
    off = attack.perturb_obs(look(torch.zeros(2000, 2, 3)))
    assert off.mean().abs() < 0.02 and off.std().item() == pytest.approx(0.5 / 3**0.5, abs=0.01)
    assert off.abs().max() <= 0.5


def test_masks_hide_a_share_of_the_features() -> None:
    """Two of five features read 0, or 2 where less is not legal; the same ones for a whole episode, or drawn anew."""
    wide: dict[str, Any] = {"share": 0.4, **ALWAYS}
    obs = torch.full((300, 2, 5), 3.0)
    for low, shown in ((-10.0, 0.0), (2.0, 2.0)):
        for redraw in ("episode", "step"):
            attack = begun(RandomMask(spec_of(O=5, low=low), "cpu", **{**wide, "redraw": redraw}), 300)
            seen, again = (attack.perturb_obs(look(obs)) for _ in range(2))
            assert ((seen == shown).sum(-1) == 2).all() and ((seen == 3.0).sum(-1) == 3).all()
            assert torch.equal(seen, again) == (redraw == "episode")
            assert (seen == shown).float().mean((0, 1)).tolist() == pytest.approx([0.4] * 5, abs=0.08)


# missing agents


def missing(spec: EnvSpec, mode: Any = "idle", agents: int = 1, **budget: Any) -> Missing:
    return Missing(spec, "cpu", agents=agents, mode=mode, **{**STEP, **budget})


def test_missing_agents_idle_for_the_whole_episode() -> None:
    batch = play(missing(corridor().spec, agents=2))
    gone = batch["hit"][:, 0]  # [B, n]
    assert (gone.sum(1) == 2).all() and len(set(map(tuple, gone.tolist()))) > 1
    assert torch.equal(batch["hit"], gone[:, None] & batch.alive & batch.filled[..., None])
    assert (batch.actions[batch["hit"]] == corridor().spec.idle_action).all()
    assert torch.equal(batch.actions[~batch["hit"]], batch.intended[~batch["hit"]])
    assert "obs_seen" not in batch


def test_removed_agents_are_not_seen() -> None:
    """The corridor's observation: own cell, (cell, alive) of each other one, time."""
    batch = play(missing(corridor().spec, "removed"))
    lane, gone = 3, int(batch["hit"][3, 0].byte().argmax())
    seen, real = batch["obs_seen"][lane, 0], batch.obs[lane, 0]  # [n, O]
    for agent in range(5):
        slot = 1 + 2 * (gone - (gone > agent))
        expected = real[agent].clone()
        if agent != gone:
            expected[slot : slot + 2] = 0.0
            assert real[agent, slot + 1] == 1.0, "it lives, and would be seen"
        assert torch.equal(seen[agent], expected)


def test_missing_for_some_steps_only() -> None:
    batch = play(missing(corridor().spec, "removed", budget=3))
    assert (batch["hit"].any(-1).sum(1) == batch.length.clamp(max=3)).all()
    late = batch.filled[:, 3:-1]
    assert torch.equal(batch["obs_seen"][:, 3:-1][late], batch.obs[:, 3:-1][late])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: RandomActions(s, "cpu", p=1.5, **STEP), r"attack\.p=1\.5 must be within \[0, 1\]"),
        (lambda s: RandomActions(s, "cpu", p=0.1, budget=-1, budget_unit="step"), r"attack\.budget=-1 must be at"),
        (lambda s: RandomActions(s, "cpu", p=0.1, budget=1, budget_unit="hour"), r"budget_unit=hour is not known"),
        (lambda s: single(0.1, -1), r"attack\.duration=-1 must be at least 0"),
        (lambda s: GradientAttack(s, "cpu", **{**FGSM, "epsilon": 0.0}), r"attack\.epsilon=0\.0 must be above 0"),
        (lambda s: GradientAttack(s, "cpu", **{**FGSM, "steps": 0}), r"attack\.steps=0 must be at least 1"),
        (lambda s: Noise(s, "cpu", epsilon=1.0, **{**ALWAYS, "agents": 9}),
         r"attack\.agents=9 must be within \[0, 3\], the team's size, or null"),
        (lambda s: Noise(s, "cpu", epsilon=1.0, **{**ALWAYS, "redraw": "day"}), r"redraw=day is not known"),
        (lambda s: RandomMask(s, "cpu", share=2.0, **ALWAYS), r"attack\.share=2\.0 must be within \[0, 1\]"),
        (lambda s: missing(s), r"attack=missing needs an action that does nothing \(idle_action\)"),
        (lambda s: missing(replace(s, idle_action=0), "removed"), r"attack\.mode=removed needs .*mode=idle works"),
        (lambda s: missing(replace(s, idle_action=0), "gone"), r"attack\.mode=gone is not known; choose one of idle"),
    ],
)  # fmt: skip
def test_bad_input(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(make_spec())
