"""FIM as a whole: traces and rewards by hand, the unchanged base learner, padding, refresh, checkpoints, runs,
errors."""

from __future__ import annotations

import copy
import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import algos.fim.hook
from algos.fim.schedule import RandomFirst
from algos.fim.trace import focus, team_reward, trace_metrics
from marl.core.types import ConfigError, EpisodeBatch
from marl.learn.mixers import VDN, QMix
from tests.support.fim_parts import additive, button_batch, make_fim
from tests.support.helpers import differences, make_learner, make_spec, newest_state, rows
from tests.support.helpers import train as train_tiny

SPEC = replace(make_spec(n=2, A=3, O=4, S=5, limit=8), state_names=("button", "clock", "wall", "x", "y"))
ONLY_BUTTON = {"delta": 0.7}


# weights and rewards


def test_weights_by_hand() -> None:
    """Two agents, two features, two steps. The first step's team influence is (0.5, 0.25)."""
    influence = torch.tensor([[[1.0, 0.0], [0.0, 0.5]], [[0.4, 0.4], [0.0, 0.0]]])[None]
    gain, e = focus(influence, "shared", "gain", 0.5, 2.0)
    assert e[0, 1, 0].tolist() == [0.5, 0.25]
    assert gain[0, 0].tolist() == influence[0, 0].tolist(), "nothing is traced at first"
    assert gain[0, 1, 0].tolist() == pytest.approx([0.4 * 2.0, 0.4 * 1.5])
    share, _ = focus(influence, "shared", "share", 0.5, 2.0)
    assert share[0, 1, 0].tolist() == pytest.approx([0.4 * 2.0 / 1.75, 0.4 * 1.5 / 1.75])
    product, _ = focus(influence, "shared", "product", 0.5, 2.0)  # after: 0.25 + 0.2 and 0.125 + 0.2
    assert product[0, 1, 0].tolist() == pytest.approx([0.4 * 0.45, 0.4 * 0.325])
    own, e = focus(influence, "per_agent", "gain", 0.5, 2.0)
    assert e[0, 1].tolist() == [[1.0, 0.0], [0.0, 0.5]]
    assert own[0, 1, 0].tolist() == pytest.approx([0.4 * 3.0, 0.4])


def test_without_gain_or_trace_influence_is_all() -> None:
    influence = torch.rand(2, 6, 3, 4, generator=torch.Generator().manual_seed(1))
    for form in ("gain", "share"):
        assert torch.equal(focus(influence, "shared", form, 0.9, 0.0)[0], influence)
    assert torch.equal(focus(influence, "off", "product", 0.9, 5.0)[0], influence)
    assert not torch.equal(focus(influence, "shared", "gain", 0.9, 1.0)[0], influence)


def test_shares_redistribute_and_gain_is_bounded() -> None:
    ones = torch.ones(1, 60, 2, 3)
    share, _ = focus(ones, "shared", "share", 0.9, 1.0)
    assert torch.allclose(share.mean(-1), torch.ones(1, 60, 2))
    gain, _ = focus(ones, "shared", "gain", 0.9, 1.0)
    assert 10.9 < gain.max() < 11.0  # 1 + 1 / (1 - 0.9)


def test_team_reward_by_hand() -> None:
    weighted = torch.tensor([[[[0.2, 0.1], [0.5, 0.0]], [[3.0, 0.0], [0.0, 0.0]]]])
    assert team_reward(weighted, 1.0).flatten().tolist() == pytest.approx([0.4, 1.0])


def test_focus_by_hand() -> None:
    """Traces (1, 1), then (3, 1) and (0, 2); a fourth step is padding."""
    e = torch.tensor([[1.0, 1.0], [3.0, 1.0], [0.0, 2.0], [9.0, 9.0]])[None, :, None]
    found = trace_metrics(e, torch.tensor([[True, True, True, False]]))
    quarter = -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    assert found["fim/trace_max"] == 3.0 and found["fim/switches"] == 1.0
    assert found["fim/focus_entropy"].item() == pytest.approx((math.log(2) + quarter + 0.0) / 3)


# the hook


def ready(batch: EpisodeBatch | None = None, **changes: Any) -> algos.fim.hook.FIM:
    """Make a hook that has chosen the button alone."""
    hook = make_fim(SPEC, **{"cog": ONLY_BUTTON, **changes})
    hook.annotate(button_batch(SPEC, 40) if batch is None else batch)
    hook.reward(button_batch(SPEC, 4), forward(button_batch(SPEC, 4)))
    return hook


def forward(batch: EpisodeBatch) -> Any:
    torch.manual_seed(0)
    return make_learner(SPEC, VDN(SPEC)).forward(batch)


def test_the_button_is_chosen_and_nothing_is_paid_before() -> None:
    hook, batch = make_fim(SPEC, cog=ONLY_BUTTON), button_batch(SPEC, 40)
    small = batch.lanes(torch.arange(3))
    hook.annotate(small)
    assert small.filled.sum() < 60 and hook.reward(batch, forward(batch)) == 0.0
    assert {k: float(v) for k, v in hook.update(batch, forward(batch)).items()} == {
        "fim/id_steps": float(small.filled.sum()), "fim/n_cog": 0.0,
    }  # fmt: skip
    hook.annotate(batch)
    reward = hook.reward(batch, forward(batch))
    assert isinstance(reward, Tensor) and reward.shape == (40, 8, 1)
    assert hook.found is not None and hook.found.selected.tolist() == [True, False, False, False, False]
    assert hook.memory.batches == [], "not needed any more"
    assert reward.min() >= 0 and reward.max() <= 0.5 * 1.0 and reward.sum() > 0
    assert not reward[~batch.filled[:, :-1]].any()


def test_reward_by_hand() -> None:
    """An additive model: agent 0's action 1 pushes the button by 0.9, agent 1's actions do nothing; all available."""
    hook, batch = ready(tau=0.1, eta=0.5), button_batch(SPEC, 4)
    table = torch.zeros(2, 3, 5)
    table[0, 1, 0] = 0.9
    additive(hook.dynamics, table)
    batch.data["avail"][:] = True
    batch.data["filled"][0, :3], batch.data["filled"][0, 3:] = True, False
    batch.data["alive"][:] = True
    batch.data["actions"][0, :3, 0] = torch.tensor([1, 1, 0], dtype=torch.int16)
    reward = hook.reward(batch, forward(batch))
    assert isinstance(reward, Tensor)
    # I = 0.9 - 0 - 0.1 where pushed, |0 - (0.9 + 0) / 2| - 0.1 elsewhere; the team's mean is half of that
    e1, e2 = 0.4, 0.5 * 0.4 + 0.4
    expected = [0.5 * 0.4, 0.5 * 0.4 * (1 + e1), 0.5 * 0.175 * (1 + e2), 0.0]
    assert reward[0, :4, 0].tolist() == pytest.approx(expected, rel=1e-4)
    batch.data["alive"][0, 1] = False  # nobody alive: no influence, and the trace decays
    reward = hook.reward(batch, forward(batch))
    assert isinstance(reward, Tensor)
    assert reward[0, 1:3, 0].tolist() == pytest.approx([0.0, 0.5 * 0.175 * (1 + 0.5 * 0.4)], rel=1e-4)


def test_padding_changes_no_reward() -> None:
    hook, batch = ready(), button_batch(SPEC, 12)
    noisy, padded = copy.deepcopy(batch), torch.arange(9) > batch.length[:, None]
    noisy.data["state"][padded], noisy.data["obs"][padded], noisy.data["avail"][padded] = 7.0, 7.0, True
    noisy.data["actions"][~batch.filled] = 2
    noisy.data["alive"][padded] = True
    fwd = forward(batch)
    assert padded.any() and torch.allclose(hook.reward(batch, fwd), hook.reward(noisy, fwd), atol=1e-6)


def learn(hooks: list[Any], mixer: Any, updates: int = 4) -> Tensor:
    torch.manual_seed(0)
    learner = make_learner(SPEC, mixer(SPEC), hooks)
    for seed in range(updates):
        batch = button_batch(SPEC, 12, seed)
        for hook in hooks:
            hook.annotate(batch)
        learner.update(batch)
    return torch.cat([p.detach().flatten() for p in learner.parameters])


@pytest.mark.parametrize("mixer", [VDN, lambda spec: QMix(spec, embed_dim=4, hypernet_dim=4)])
def test_scale_0_is_the_base_learner_bit_for_bit(mixer: Any) -> None:
    off, on = make_fim(SPEC, cog=ONLY_BUTTON, scale=0.0), make_fim(SPEC, cog=ONLY_BUTTON, scale=0.5)
    plain = learn([], mixer)
    assert torch.equal(learn([off], mixer), plain) and len(off.dims) == 1, "the model was trained all the same"
    assert not torch.equal(learn([on], mixer), plain)


def test_making_and_training_a_hook_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    hook = make_fim(SPEC, seed=None, cog=ONLY_BUTTON)
    assert torch.equal(torch.rand(4), expected)
    torch.manual_seed(3)
    for seed in range(3):
        batch = button_batch(SPEC, 20, seed)
        hook.annotate(batch)
        fwd = type("Fwd", (), {"q": torch.zeros(20, 9, 2, 3)})()
        hook.reward(batch, fwd)
        hook.update(batch, fwd)
    assert len(hook.dims) == 1 and torch.equal(torch.rand(4), expected)


def test_nothing_moves_then_a_refresh_finds_what_does() -> None:
    """Random play that never presses the button chooses nothing and the base learner goes on; later play finds it."""
    still = button_batch(SPEC, 40)
    still.state[..., 0] = 0.0
    hook = ready(still, refresh_every=50)
    assert not len(hook.dims) and hook.reward(still, forward(still)) == 0.0
    fresh = button_batch(SPEC, 40, seed=1)
    hook.annotate(fresh)
    assert isinstance(hook.reward(fresh, forward(fresh)), Tensor) and hook.dims.tolist() == [0]
    scale = hook.found.scale[0].item() if hook.found else 0.0
    hook.annotate(still)
    hook.annotate(still)
    hook.reward(still, forward(still))
    assert hook.dims.tolist() == [0] and hook.found and hook.found.scale[0].item() == scale, "never taken away"


def test_a_rule_says_where_it_could_not_judge_random_play(caplog: pytest.LogCaptureFixture) -> None:
    still = button_batch(SPEC, 40)
    still.state[..., 0] = 0.0
    hook = ready(still, refresh_every=50, scale="rule")
    fresh = button_batch(SPEC, 40, seed=1)
    hook.annotate(fresh)
    hook.reward(fresh, forward(fresh))
    assert hook.judged is not None and "these episodes are not random play" in caplog.text


def test_without_refresh_what_never_moved_is_never_found() -> None:
    still = button_batch(SPEC, 40)
    still.state[..., 0] = 0.0
    hook = ready(still)
    for seed in range(3):
        hook.annotate(button_batch(SPEC, 40, seed))
    assert hook.reward(still, forward(still)) == 0.0


def test_annealing_by_hand() -> None:
    hook, batch = ready(anneal_steps=100), button_batch(SPEC, 5)
    batch.data["reward"][:] = 0.0
    assert hook.anneal.start is None or hook.anneal.start == hook.anneal.seen
    hook.anneal.start = None
    hook.annotate(batch)
    assert hook.anneal.factor() == 1.0, "nothing was won"
    batch.data["reward"][0, 0] = 1.0
    hook.annotate(batch)
    assert hook.anneal.factor() == 1.0
    batch.data["reward"][:] = 0.0
    hook.annotate(batch)
    assert hook.anneal.factor() == pytest.approx(1 - int(batch.filled.sum()) / 100)


def test_annealing_begins_with_the_first_success_beside_any_number_of_failures() -> None:
    """Lanes that lose at the same time do not hide it."""
    hook, batch = ready(anneal_steps=100), button_batch(SPEC, 5)
    batch.data["reward"][:] = 0.0
    batch.data["reward"][:, 0] = -1.0
    hook.anneal.start = None
    hook.annotate(batch)
    assert hook.anneal.start is None
    batch.data["reward"][3, 0] = 1.0
    hook.annotate(batch)
    assert hook.anneal.start == hook.anneal.seen


@pytest.mark.parametrize(
    "changes",
    [
        {"trace": "off"},
        {"trace": "per_agent", "trace_form": "share"},
        {"trace_form": "product", "influence": "sq"},
        {"average": "policy", "temperature": 0.5},
        {"model": {"kind": "gru", "inputs": "state"}},
        {"model": {"batch_size": None, "event_frac": 0.0, "slow_every": 2, "predict": "state"}},
        {"cog": {"normaliser": "mean", "delta": 5.0}},
        {"cog": {"normaliser": "quantile", "delta": 5.0}},
    ],
)
def test_every_switch_pays_something_finite_of_its_own(changes: dict[str, Any]) -> None:
    batch = button_batch(SPEC, 12)
    plain, other = ready().reward(batch, forward(batch)), ready(**changes).reward(batch, forward(batch))
    assert isinstance(plain, Tensor) and isinstance(other, Tensor)
    assert torch.isfinite(other).all() and (other >= 0).all() and not torch.equal(plain, other)


@pytest.mark.parametrize("seen", [1, 3])
def test_a_checkpoint_continues_exactly(seen: int) -> None:
    """A hook is restored whether it was saved while identifying or afterwards."""
    options: dict[str, Any] = {"cog": ONLY_BUTTON, "refresh_every": 90, "anneal_steps": 50}
    old, new = make_fim(SPEC, **options), make_fim(SPEC, **options)

    def play(hook: algos.fim.hook.FIM, seed: int) -> dict[str, Any]:
        batch = button_batch(SPEC, 10, seed)
        hook.annotate(batch)
        fwd = forward(batch)
        return {"r": torch.as_tensor(hook.reward(batch, fwd)), **hook.update(batch, fwd)}

    for seed in range(seen):
        play(old, seed)
    assert (old.found is None) == (seen == 1)
    new.load_state_dict(copy.deepcopy(old.state_dict()))
    for seed in range(seen, seen + 4):
        assert differences(play(old, seed), play(new, seed)) == []
    assert differences(old.state_dict(), new.state_dict()) == [] and len(new.dims) == 1


def test_exploration_waits_for_identification() -> None:
    schedule = RandomFirst(1.0, 0.0, 100, hold=50)
    assert [schedule(t) for t in (0, 50, 100, 150, 999)] == [1.0, 1.0, 0.5, 0.0, 0.0]


BUTTONS = ("algo=fim", "env=toy/corridor", "algo.hooks.fim.id_steps=40", "algo.hooks.fim.pretrain=10",
           "algo.hooks.fim.cog.delta=2.0", "algo.hooks.fim.model.hidden_dim=8")  # fmt: skip


@pytest.mark.parametrize("more", [(), ("mixer@algo.mixer=qplex", "algo.hooks.fim.refresh_every=60")])
def test_a_run_that_goes_on_later_equals_one_that_did_not_stop(
    more: tuple[str, ...], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("marl.show.plot.learning_curves", lambda groups, path: None)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train_tiny(whole, *BUTTONS, *more, "train.total_steps=240")
    train_tiny(broken, *BUTTONS, *more, "train.total_steps=120")
    torch.manual_seed(99)
    train_tiny(broken, *BUTTONS, *more, "train.total_steps=240")
    (a, replay_a), (b, replay_b) = newest_state(whole), newest_state(broken)
    assert differences(a, b) == [] and differences(replay_a, replay_b) == []
    row = rows(whole, "metrics")[-1]
    assert row == rows(broken, "metrics")[-1] and row["fim/n_cog"] > 0 and row["fim/r_int"] > 0
    with open(whole / "reports" / "fim_cog.csv", encoding="utf8") as file:
        table = list(csv.DictReader(file))
    assert sum(line["selected"] == "True" for line in table) == row["fim/n_cog"]
    assert table[0]["name"] == "agent 0 cell" and (whole / "reports" / "fim_cog.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"influence": "cubic"}, "fim.influence=cubic is not known; choose one of abs, sq"),
        ({"average": "all"}, "fim.average=all is not known; choose one of uniform, policy"),
        ({"trace": "on"}, "fim.trace=on is not known; choose one of off, shared, per_agent"),
        ({"trace_form": "sum"}, "fim.trace_form=sum is not known; choose one of gain, share, product"),
        ({"eta": 1.0}, r"fim.eta=1.0 must be within \[0, 1\)"),
        ({"scale": -1.0}, "fim.scale=-1.0 must be at least 0"),
        ({"r_clip": 0.0}, "fim.r_clip=0.0 must be above 0"),
        ({"id_steps": 10**12}, "fim.id_steps=1000000000000 needs .* GiB"),
        ({"cog": {"delta": "largest"}}, "cog.delta=largest must be auto_gap or a number above h_min"),
        ({"cog": {"normaliser": "std"}}, "cog.normaliser=std is not known"),
        ({"cog": {"candidates": ["box"]}}, "cog.candidates='box' names no state feature; there are button, clock"),
        ({"model": {"kind": "cnn"}}, "model.kind=cnn is not known; choose one of mlp, gru"),
        ({"model": {"event_frac": 2.0}}, r"model.event_frac=2.0 must be within \[0, 1\]"),
        ({"model": {"batch_size": 0}}, "model.batch_size=0 must be at least 1"),
        ({"anneal_steps": 0}, "anneal.steps=0 must be at least 1"),
    ],
)
def test_bad_options_are_one_clear_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_fim(SPEC, **changes)


def test_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"algo\.hooks\.fim does not run under torchrun"):
        make_fim(SPEC)
