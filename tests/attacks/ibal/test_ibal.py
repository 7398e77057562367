"""IBAL as an attack: what it leaves alone, what it hides and forces, and what it saves."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from attacks.ibal.attack import IBAL
from attacks.ibal.estimators import draw_groups
from envs.toys.games import Corridor
from marl.core.protocols import Fitting, NoAttack, Reporting
from marl.core.types import ConfigError, EnvSpec, EpisodeBatch
from marl.learn.mixers import VDN
from tests.support.attack_parts import Detached, Linear, look, spec_of
from tests.support.builders import make_victim
from tests.support.helpers import differences, make_learner
from tests.support.ibal_parts import fitted, make_attack, play, posts, posts_victim


@pytest.fixture
def attack(tmp_path: Path) -> IBAL:
    env = posts()
    return fitted(make_attack(env.spec, tmp_path, "attack.p_act=0.5"), env, posts_victim(env.spec))


def test_natural_lanes_and_episodes_are_left_alone(attack: IBAL) -> None:
    """Lanes that are not attacked, and k = 0, play bit for bit as without the attack."""
    victim, free = posts_victim(attack.spec), play(NoAttack(attack.spec, "cpu"), posts(64), posts_victim(attack.spec))
    batch = play(attack, posts(64), victim, off=20)
    natural = ~batch["ibal_group"].any(1)
    assert natural[:20].all() and natural[20:].any() and not natural[20:].all()
    for name in ("obs", "actions", "intended", "reward"):
        assert torch.equal(batch[name][natural], free[name][natural]), name
    assert torch.equal(batch["obs_seen"][natural], batch.obs[natural])
    assert not batch["hit"][natural].any() and not batch["ibal_mask"][natural].any()


def test_what_is_hidden_is_zero_the_rest_untouched_and_the_same_all_episode(attack: IBAL) -> None:
    """Also after the last step, which values are bootstrapped from."""
    batch = play(attack, posts(64), posts_victim(attack.spec))
    mask = batch["ibal_mask"]
    assert mask.any() and torch.equal(batch["obs_seen"], batch.obs * ~mask[:, None])
    for lane in batch["ibal_group"].any(1).nonzero().flatten().tolist():
        group = batch["ibal_group"][lane]
        for i in range(3):
            opposite = [j for j in range(3) if group[j] != group[i]]
            score = attack.floored()[i, opposite].sum(0)
            most = 3 * -(-len(opposite) // 2)  # three features describe each other agent
            assert int(mask[lane, i].sum()) == min(most, int((score > 0).sum()))
            assert score[mask[lane, i]].min() >= score[~mask[lane, i]].max()


def test_only_living_members_are_forced_and_only_to_what_is_available(tmp_path: Path) -> None:
    env = Corridor(5, 4, 3, True, 12, n_envs=64, seed=1)
    victim = posts_victim(env.spec)
    attack = make_attack(env.spec, tmp_path, "attack.k_max=2", "attack.p_act=1.0", "attack.obs_attack=false")
    batch = play(fitted(attack, env, victim), env, victim)
    forced, filled = batch.actions != batch.intended, batch.filled
    assert forced.any() and torch.equal(forced & filled[..., None], batch["hit"])
    assert not (forced & ~(batch["ibal_group"][:, None] & batch.alive)).any()
    assert (filled[..., None] & ~batch.alive).any(), "nobody died: this shows little"
    assert batch.avail.gather(3, batch.actions.long()[..., None])[filled].all()
    assert batch["ibal_group"].sum(1).unique().tolist() == [0, 1, 2]
    assert torch.equal(batch["obs_seen"][filled], batch.obs[filled])


def test_the_dead_are_left_alone_even_where_they_could_act(tmp_path: Path) -> None:
    """In most games they cannot, which would hide it."""
    options = ("attack.guidance=false", "attack.p_act=1.0", "attack.size=full")
    attack = make_attack(spec_of(), tmp_path, *options)
    attack.begin(200, Linear(), torch.Generator().manual_seed(0))
    alive = torch.arange(200)[:, None] % 2 == torch.arange(2)  # one of two
    view = look(torch.zeros(200, 2, 3), alive=alive)
    attack.perturb_obs(view)
    executed = attack.perturb_actions(view, torch.zeros(200, 2, dtype=torch.long))[0]
    assert executed[alive].any() and not executed[~alive].any()


def test_every_step_has_the_episodes_chance(tmp_path: Path) -> None:
    """With guidance off a hit is a uniform draw of four actions: three of four change something."""
    env = posts(200)
    attack = make_attack(env.spec, tmp_path, "attack.p_act=0.4", "attack.guidance=false", "attack.size=full",
                         "attack.obs_attack=false")  # fmt: skip
    batch = play(attack, env, posts_victim(env.spec))
    rate = (batch.actions != batch.intended)[batch.filled].any(-1).float().mean()
    assert float(rate) == pytest.approx(0.4 * 0.75, abs=0.04)
    assert not attack.needs_fit


def test_without_guidance_the_victims_memory_is_not_read(tmp_path: Path) -> None:
    """Of another width than the estimators', it is refused only where they are asked."""
    env = posts(64)
    victims = [make_victim(env.spec, seed=3, hidden_dim=width) for width in (16, 8)]
    options = ("attack.p_act=1.0", "attack.size=full", "attack.obs_attack=false")
    for victim in victims:
        attack = make_attack(env.spec, tmp_path, *options, "attack.guidance=false")
        batch = play(attack, env, victim, explore=False)
        assert batch["hit"].any()
    attack = make_attack(env.spec, tmp_path, *options)
    attack.estimators.rounds = 1
    with pytest.raises(ConfigError, match="hidden_dim=16 differs from the policy's hidden states, which have 8 units"):
        play(attack, env, victims[1])


def test_parts_and_chances_are_drawn_within_their_bounds(tmp_path: Path) -> None:
    spec = posts(n_agents=4).spec
    attack = make_attack(spec, tmp_path, "attack.k_max=2", "attack.guidance=false")
    attack.curriculum.p_max = 0.8
    attack.begin(10000, posts_victim(spec), torch.Generator().manual_seed(0))
    assert attack.group.sum(1).max() == 2
    sizes = torch.bincount(attack.group.sum(1), minlength=3)
    assert ((sizes - 3333).abs() < 200).all()
    assert 0.5 <= attack.p.min() < 0.51 and 0.79 < attack.p.max() <= 0.8
    attack.schedule = False
    attack.begin(100, posts_victim(spec), torch.Generator().manual_seed(0))
    assert (attack.p == 0.5).all()


def test_eight_lanes_draw_what_eight_single_ones_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = posts(n_agents=4)
    victim, gen = posts_victim(env.spec), torch.Generator()
    attack = fitted(make_attack(env.spec, tmp_path, "attack.k_max=2"), env, victim)
    attack.curriculum.p_max = 0.9
    together, alone = [torch.Generator().manual_seed(b) for b in range(8)], []

    def rows_of(gens: list[torch.Generator]) -> None:
        draw = lambda self, *shape: torch.stack([torch.rand(*shape, generator=g) for g in gens])  # noqa: E731
        monkeypatch.setattr(IBAL, "uniform", draw)

    rows_of(together)
    attack.begin(8, victim, gen)
    mask, p, group = attack.mask, attack.p, attack.group
    for b in range(8):
        rows_of([torch.Generator().manual_seed(b)])
        attack.begin(1, victim, gen)
        alone.append((attack.mask[0], attack.p[0], attack.group[0]))
    assert group.any() and mask.any() and len(p.unique()) == 8
    for several, single in zip((mask, p, group), zip(*alone, strict=True), strict=True):
        assert torch.equal(several, torch.stack(single))


def test_a_round_trip_repeats_and_playing_changes_nothing(attack: IBAL, tmp_path: Path) -> None:
    victim, file = posts_victim(attack.spec), io.BytesIO()
    torch.save(attack.state_dict(), file)

    def saved() -> Any:
        file.seek(0)
        return torch.load(file, weights_only=True)

    other = make_attack(attack.spec, tmp_path, "attack.p_act=0.5")
    other.load_state_dict(saved())
    first, second = play(attack, posts(100), victim), play(other, posts(100), victim)
    assert first["hit"].any() and differences(first.data, second.data) == []
    assert differences(attack.state_dict(), saved()) == []  # not the tensors that the other one has made its own


@pytest.mark.parametrize("options", [(), ("attack.per_agent=true", "attack.n_masked=2")])
def test_masks_do_not_ask_which_side_is_which_or_who_has_which_number(options: tuple[str, ...], tmp_path: Path) -> None:
    """Swapped sides give the same masks, renumbered agents the renumbered ones; blinding one side alone does not."""
    gen = torch.Generator().manual_seed(0)
    attack = make_attack(posts(n_agents=5).spec, tmp_path, "attack.k_max=2", *options)
    scores = attack.estimators.scores
    scores.weight.fill_(1.0)
    scores.total = torch.rand(scores.total.shape, generator=gen)
    M, group = scores.total, draw_groups(torch.rand(40, 5, generator=gen), torch.arange(40) % 2 + 1)
    masks = attack.masks(group)
    assert masks.any(-1).all() and torch.equal(attack.masks(~group), masks)
    order = torch.tensor([3, 0, 4, 1, 2])
    scores.total = M[order][:, order]
    assert torch.equal(attack.masks(group[:, order]), masks[:, order])
    attack.symmetric = False
    assert not torch.equal(attack.masks(~group), attack.masks(group))


def test_it_hides_nothing_that_it_knows_nothing_about(tmp_path: Path) -> None:
    """Unfitted, and in training during the warm-up, it is silent; fitted, it is not."""
    env = posts()
    attack, victim = make_attack(env.spec, tmp_path, "attack.size=full", "attack.p_act=1.0"), posts_victim(env.spec)
    assert isinstance(attack, Fitting) and attack.needs_fit and attack.fitted == 0.0
    assert not play(attack, env, victim)["hit"].any()
    fitted(attack, env, victim)
    assert not attack.needs_fit and attack.fitted == 1.0 and attack.estimators.rounds == 20
    assert play(attack, env, victim)["hit"].any()
    attack.warmup_episodes = attack.seen + 1
    assert play(attack, env, victim)["hit"].any(), "no team is trained"
    assert attack.take_turn(), "the team learns"
    assert not play(attack, env, victim)["hit"].any()


def test_own_features_can_be_protected(tmp_path: Path) -> None:
    env = posts(64)
    attack = make_attack(env.spec, tmp_path, "attack.protect_own=true", "attack.guidance=false", "attack.n_masked=15",
                         "attack.size=full")  # fmt: skip
    mask = play(attack, env, posts_victim(env.spec))["ibal_mask"]
    assert not mask[..., :6].any() and mask[..., 6:].all()


def test_what_describes_the_other_side_can_be_hidden_and_nothing_else(tmp_path: Path) -> None:
    """Without a number all of it, which needs no estimator; features 0 to 5 are an agent's own."""
    env = posts()
    assert env.spec.about is not None
    group = torch.tensor([[True, False, False], [False, False, False]])
    for guidance in ("true", "false"):
        options = (f"attack.guidance={guidance}", "attack.hide=other_side")
        attack = make_attack(env.spec, tmp_path, *options)
        mask = attack.masks(group)
        assert torch.equal(mask[0, 0], env.spec.about[0, 1:].any(0)) and not mask[0, 0, :6].any()
        assert all(torch.equal(mask[0, i], env.spec.about[i, 0]) for i in (1, 2))
        assert not mask[1].any(), "nobody is on the other side"
        one = make_attack(env.spec, tmp_path, *options, "attack.n_masked=1", "attack.symmetric=false")
        begun = play(one, env, posts_victim(env.spec))["ibal_mask"]
        assert begun.sum(-1).max() <= 1
        one.n_envs = len(group)
        few = one.masks(group)
        assert few[0].sum(-1).tolist() == [1, 0, 0] and not (few & ~mask).any()
    with pytest.raises(ConfigError, match=r"attack\.hide=other_side: the environment does not say"):
        make_attack(EnvSpec(**{**vars(env.spec), "about": None}), tmp_path, "attack.hide=other_side")


def test_one_side_alone_can_be_blinded(tmp_path: Path) -> None:
    env = posts(64)
    attack = make_attack(env.spec, tmp_path, "attack.symmetric=false", "attack.guidance=false", "attack.size=full")
    batch = play(attack, env, posts_victim(env.spec))
    assert torch.equal(batch["ibal_mask"].any(-1), batch["ibal_group"])


def test_noise_may_take_the_place_of_zero(tmp_path: Path) -> None:
    env = posts(64)
    attack = make_attack(env.spec, tmp_path, "attack.noise=0.3", "attack.guidance=false", "attack.size=full")
    batch = play(attack, env, posts_victim(env.spec))
    mask = batch["ibal_mask"][:, None].expand_as(batch.obs)
    assert torch.equal(batch["obs_seen"][~mask], batch.obs[~mask])
    moved = (batch["obs_seen"] - batch.obs)[mask]
    assert moved.abs().max() > 0.2 and (moved != 0).float().mean() > 0.4  # at a bound half of the noise is cut
    assert (batch["obs_seen"] <= env.spec.obs_high).all() and (batch["obs_seen"] >= env.spec.obs_low).all()


def blind(tmp_path: Path, mask: Any, victim: Any = None, **changes: Any) -> IBAL:
    """Two agents that see three numbers each; ``mask`` [2, 3] says what an attack with FGSM hides."""
    options = ("attack.fgsm=0.1", "attack.guidance=false", "attack.action_attack=false", "attack.n_masked=1")
    attack = make_attack(spec_of(**changes), tmp_path, *options)
    attack.begin(1, victim or Linear(), torch.Generator())
    attack.mask = torch.tensor([mask], dtype=torch.bool)
    return attack


def test_fgsm_on_hidden_features_by_hand(tmp_path: Path) -> None:
    """q = (o0 - o2, o0/2 + 2 o2). At (1, 0, 0) action 0 is greedy: o0 goes down, o2 up; at (0, 0, 1) it is the other
    way round. Only what is hidden moves, and nothing of the dead, or out of the legal range."""
    seen = torch.tensor([[[1.0, 0, 0], [0, 0, 1.0]]])
    shown = blind(tmp_path, [[1, 0, 0], [0, 1, 1]]).perturb_obs(look(seen))
    torch.testing.assert_close(shown, torch.tensor([[[0.9, 0, 0], [0, 0, 0.9]]]))
    shown = blind(tmp_path, [[0, 1, 1], [1, 0, 0]]).perturb_obs(look(seen, alive=[[True, False]]))
    torch.testing.assert_close(shown, torch.tensor([[[1.0, 0, 0.1], [0, 0, 1.0]]]))
    high = blind(tmp_path, [[1, 0, 1]] * 2, low=0.95).perturb_obs(look([[[1.0, 1.0, 1.0]] * 2]))
    assert high[0, 0].tolist() == pytest.approx([1.1, 1.0, 0.95])  # greedy is action 1


def test_fgsm_needs_values_and_their_gradients(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="attack: ibal with fgsm reads the values of its victim; object shows none"):
        blind(tmp_path, [[1, 1, 1]] * 2, victim=object())
    attack = blind(tmp_path, [[0, 0, 0]] * 2)  # before anything is hidden
    with pytest.raises(ConfigError, match="attack: ibal with fgsm: the values of Detached have no gradient in what it"):
        attack.perturb_obs(look([[[1.0, 0, 0]] * 2], victim=Detached()))


def test_what_is_hidden_reads_the_nearest_legal_value_to_zero(tmp_path: Path) -> None:
    env = posts(64)
    spec = replace(env.spec, obs_low=torch.full_like(env.spec.obs_low, 0.25))
    attack = make_attack(spec, tmp_path, "attack.guidance=false", "attack.size=full")
    batch = play(attack, env, posts_victim(env.spec))
    mask = batch["ibal_mask"][:, None].expand_as(batch.obs) & batch.filled[..., None, None]
    assert mask.any() and (batch["obs_seen"][mask] == 0.25).all()


@pytest.mark.parametrize("context, width", [("hidden", 16), ("obs", 15), ("state", 12), ("joint", 48)])
def test_contexts(context: str, width: int, tmp_path: Path) -> None:
    """What the models condition on while playing is what is found again in the stored episodes."""
    env = posts()
    attack = make_attack(env.spec, tmp_path, f"attack.estimators.context={context}", "attack.p_act=1.0",
                         "attack.size=full")  # fmt: skip
    victim = posts_victim(env.spec)
    fitted(attack, env, victim)
    found, now = [], attack.estimators.now

    def listen(view: Any, shown: torch.Tensor, lanes: torch.Tensor) -> torch.Tensor:
        found.append(now(view, shown, lanes))
        return found[-1]

    attack.estimators.now = listen  # type: ignore[method-assign]
    batch = play(attack, env, victim)
    stored = attack.estimators.stored(batch, victim)
    assert stored.shape == (16, 6, 3, width)
    torch.testing.assert_close(torch.stack(found, 1), stored, rtol=1e-4, atol=1e-5)


def test_a_policy_with_other_hidden_states_is_refused(tmp_path: Path) -> None:
    env = posts()
    attack = make_attack(env.spec, tmp_path, "attack.estimators.hidden_dim=7")
    with pytest.raises(ConfigError, match="hidden_dim=7 differs from the policy's hidden states, which have 16 units"):
        fitted(attack, env, posts_victim(env.spec))


@pytest.mark.parametrize(
    "override, message",
    [
        ("attack.k_max=2", r"k_max=2 must be within \[0, 1\], half of 3 agents"),
        ("attack.size=some", "size=some is not known; choose one of random, full"),
        ("attack.p_act=1.5", r"p_act=1.5 must be within \[0, 1\], or null"),
        ("attack.n_masked=16", r"n_masked=16 must be within \[0, 15\], or null"),
        ("attack.noise=-1.0", "noise=-1.0 must be at least 0"),
        ("attack.fgsm=0.0", "fgsm=0.0 must be above 0, or null"),
        (("attack.fgsm=0.1", "attack.noise=0.2"), "noise=0.2 and attack.fgsm=0.1: hidden features show only one"),
    ],
)
def test_bad_options_are_refused(override: str | tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        make_attack(posts().spec, tmp_path, *([override] if isinstance(override, str) else override))


def test_protection_needs_to_know_what_features_describe(tmp_path: Path) -> None:
    spec = EnvSpec(**{**vars(posts().spec), "about": None})
    with pytest.raises(ConfigError, match="does not say what its features describe"):
        make_attack(spec, tmp_path, "attack.protect_own=true")


def test_values_are_fitted_at_intended_actions_and_what_was_seen(attack: IBAL) -> None:
    """The loss does not change with what was executed, and does with what was hidden."""
    batch = play(attack, posts(32), posts_victim(attack.spec))
    assert (batch.actions != batch.intended).any()

    def loss(**changes: torch.Tensor) -> float:
        torch.manual_seed(0)
        learner = make_learner(attack.spec, VDN(attack.spec))
        return float(learner.update(EpisodeBatch({**batch.data, **changes}, batch.fields))["loss/td"])

    assert loss() == loss(actions=batch.intended)
    assert loss() != loss(intended=batch.actions)
    assert loss() != loss(obs_seen=batch.obs) and loss() == loss(obs=torch.zeros_like(batch.obs))


def test_it_satisfies_the_reporting_seam(attack: IBAL) -> None:
    assert isinstance(attack, Reporting)
