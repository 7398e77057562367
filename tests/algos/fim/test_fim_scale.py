"""FIM's scale by rule: by hand, beside a twin that takes the mean of one step, recorded, kept, and as a run has it."""

from __future__ import annotations

import copy
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from algos.fim.hook import FIM
from algos.fim.memory import JUDGED
from algos.fim.scale import Judged, ScaleRule, episode_returns, judged_episodes
from marl.core.types import ConfigError, EpisodeBatch
from marl.learn.mixers import VDN
from tests.support.fim_parts import additive, button_batch, make_fim
from tests.support.helpers import compose_train, make_learner, make_spec, rows, train

SPEC = replace(make_spec(n=2, A=3, O=4, S=5, limit=8), state_names=("button", "clock", "wall", "x", "y"))
ONLY_BUTTON = {"delta": 0.7}
RULE = ScaleRule(margin=2.5, least=0.02, most=10.0)


def forward(batch: EpisodeBatch) -> Any:
    torch.manual_seed(0)
    return make_learner(SPEC, VDN(SPEC)).forward(batch)


def identified(**changes: Any) -> FIM:
    """Make a hook that has chosen the button alone."""
    hook = make_fim(SPEC, **{"cog": ONLY_BUTTON, "scale": "rule", **changes})
    hook.annotate(button_batch(SPEC, 40))
    hook.reward(button_batch(SPEC, 4), forward(button_batch(SPEC, 4)))
    return hook


@pytest.mark.parametrize(
    ("paid", "returns", "scale", "penalty", "capped"),
    [
        ([1.24, 0.4], [-1.0, -0.5], 2.5 / 0.82, 1.0, False),  # the largest loss counts, not the mean
        ([0.5, 0.5], [-3.0, 10.0], 15.0, 3.0, False),
        ([0.25, 0.25], [-3.0, 10.0], 30.0, 3.0, False),  # just within the cap
        ([0.24, 0.24], [-3.0, 10.0], 30.0, 3.0, True),
        ([500.0, 500.0], [-1.0, 0.0], 0.02, 1.0, False),  # 0.005 would do
        ([1.0, 2.0], [0.0, 10.0], 0.02, 0.0, False),  # failing costs nothing
        ([0.0, 0.0], [-1.0, -1.0], 10.0, 1.0, True),
        ([0.0, 0.0], [0.0, 1.0], 0.02, 0.0, False),
    ],
)
def test_the_rule_by_hand(paid: list[float], returns: list[float], scale: float, penalty: float, capped: bool) -> None:
    found = RULE.judge(torch.tensor(paid), torch.tensor(returns))
    assert (found.scale, found.penalty, found.episodes) == (pytest.approx(scale), pytest.approx(penalty), 2)
    assert found.bonus == pytest.approx(sum(paid) / 2) and found.capped is capped


def two_episodes() -> EpisodeBatch:
    """Make an episode of three steps that returns -1 and one of one step that returns -0.5; everything is available.
    Agent 0 plays 1 1 0, and 1."""
    batch = button_batch(SPEC, 2)
    batch.data["avail"][:], batch.data["alive"][:] = True, True
    batch.data["filled"] = torch.arange(9) < torch.tensor([[3], [1]])
    batch.data["actions"][:, :3, 0] = torch.tensor([[1, 1, 0], [1, 0, 0]], dtype=torch.int16)
    batch.data["reward"] = torch.full((2, 9), 7.0)  # noise where nothing is filled
    batch.data["reward"][0, :3], batch.data["reward"][1, 0] = torch.tensor([0.0, 1.0, -2.0]), -0.5
    return batch


def pushing(hook: FIM) -> FIM:
    """Let agent 0's action 1 be predicted to push the button by 0.9 and nothing else to do anything."""
    table = torch.zeros(2, 3, 5)
    table[0, 1, 0] = 0.9
    additive(hook.dynamics, table)
    return hook


def test_what_episodes_pay_by_hand() -> None:
    """I = 0.9 - 0.1 where agent 0 pushed, 0.45 - 0.1 where it did not, half of it for the team; e = 0.4, then 0.6:
    0.4 + 0.4 * 1.4 + 0.175 * 1.6 = 1.24 in the first episode, 0.4 in the second."""
    hook = pushing(identified(tau=0.1, eta=0.5))
    hook.judge(two_episodes())
    assert hook.judged is not None
    assert hook.judged.bonus == pytest.approx((1.24 + 0.4) / 2, rel=1e-4) and hook.judged.penalty == 1.0
    assert hook.judged.scale == pytest.approx(2.5 / 0.82, rel=1e-4)
    reward = hook.reward(two_episodes(), forward(two_episodes()))
    assert isinstance(reward, Tensor)
    assert reward[0, :3, 0].tolist() == pytest.approx([x * 2.5 / 0.82 for x in (0.4, 0.56, 0.28)], rel=1e-4)
    assert reward.sum((1, 2)).mean() == pytest.approx(2.5), "the bonus of an episode is 2.5 penalties, as asked for"


class OneStep(FIM):
    """A broken twin: it compares the penalty with the mean bonus of one step."""

    def judge(self, episodes: EpisodeBatch) -> None:
        few = judged_episodes(episodes)
        each = self.paid(few, None).reward[..., 0][few.filled[:, :-1]]
        self.judged = self.rule.judge(each, episode_returns(few))


def test_the_mean_of_one_step_gives_another_scale() -> None:
    hook = pushing(identified(tau=0.1, eta=0.5))
    hook.__class__ = OneStep
    hook.judge(two_episodes())
    assert hook.judged is not None and hook.judged.scale == pytest.approx(2.5 / 0.41, rel=1e-4)
    reward = hook.reward(two_episodes(), forward(two_episodes()))
    assert isinstance(reward, Tensor) and reward.sum((1, 2)).mean() == pytest.approx(5.0), "twice what was asked for"


def test_empty_lanes_are_not_judged_and_256_episodes_are_enough() -> None:
    batch = two_episodes()
    batch.data["filled"][0] = False
    assert len(judged_episodes(batch)) == 1 and episode_returns(judged_episodes(batch)).tolist() == [-0.5]
    many = button_batch(SPEC, 300)
    assert len(judged_episodes(many)) == 256


def test_what_was_judged_is_said_logged_written_and_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    hook, batch = identified(), button_batch(SPEC, 6)
    hook.reward(batch, forward(batch))
    judged = hook.judged
    assert judged is not None and judged.episodes == 40 and judged.bonus > 0
    (line,) = [message for message in caplog.messages if "by rule" in message]
    assert line == judged.said() and f"scale {judged.scale:.3g} by rule, from 40 episodes" in line
    facts = hook.update(batch, forward(batch))
    assert float(facts["fim/scale"]) == pytest.approx(judged.scale)
    assert float(facts["fim/random_bonus"]) == pytest.approx(judged.scale * judged.bonus)
    assert float(facts["fim/penalty"]) == pytest.approx(judged.penalty)
    hook.report(tmp_path)
    assert json.loads((tmp_path / "fim_scale.json").read_text()) == vars(judged)
    other = make_fim(SPEC, cog=ONLY_BUTTON, scale="rule")
    other.load_state_dict(copy.deepcopy(hook.state_dict()))
    assert other.judged == judged
    again = other.reward(batch, forward(batch))
    assert isinstance(again, Tensor) and torch.equal(again, torch.as_tensor(hook.reward(batch, forward(batch))))


def test_a_scale_once_judged_stays_when_features_are_searched_again() -> None:
    hook = identified(refresh_every=50)
    judged = hook.judged
    for seed in range(3):
        hook.annotate(button_batch(SPEC, 40, seed + 1))
        hook.reward(button_batch(SPEC, 4), forward(button_batch(SPEC, 4)))
    assert hook.judged is judged is not None


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (
            Judged(2.0, 1.25, 1.0, 9, False),
            "scale 2 by rule, from 9 episodes: an episode of random play is paid 2.5 on average",
        ),
        (Judged(0.02, 1.25, 0.0, 9, False), "no episode of random play lost anything"),
        (Judged(10.0, 0.01, 1.0, 9, True), "is paid 0.1 on average and loses 1 at most; this is the cap"),
    ],
)
def test_what_the_log_says(found: Judged, says: str) -> None:
    assert says in found.said() and "\n" not in found.said()


def test_a_given_scale_is_not_judged_and_needs_no_more_memory() -> None:
    fixed, ruled = identified(scale=0.5), identified()
    assert fixed.judged is None and fixed.present_scale() == 0.5
    assert not set(JUDGED) & set(fixed.memory.fields) and set(JUDGED) <= set(ruled.memory.fields)
    facts = fixed.update(button_batch(SPEC, 4), forward(button_batch(SPEC, 4)))
    assert float(facts["fim/scale"]) == 0.5 and "fim/penalty" not in facts


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": "auto"}, "fim.scale=auto must be rule or a number of at least 0"),
        ({"scale": "rule", "margin": -1.0}, "fim.margin=-1.0 must be at least 0"),
        ({"scale": "rule", "most_scale": -1.0}, "fim.most_scale=-1.0 must be at least 0"),
        ({"scale": "rule", "least_scale": -1.0}, "fim.least_scale=-1.0 must be at least 0"),
    ],
)
def test_bad_options_are_one_clear_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_fim(SPEC, **changes)


def test_the_rule_is_the_default_and_a_run_records_it(tmp_path: Path) -> None:
    assert compose_train(tmp_path, "experiment=fim_smac", "algo=fim").algo.hooks.fim.scale == "rule"
    assert compose_train(tmp_path, "experiment=sparse_battle_small/fim").algo.hooks.fim.scale == "rule"
    assert compose_train(tmp_path, "experiment=pushbox_small/fim").algo.hooks.fim.scale == 0.1
    train(tmp_path, "algo=fim", "env=toy/corridor", "algo.hooks.fim.id_steps=40", "algo.hooks.fim.pretrain=10",
          "algo.hooks.fim.cog.delta=2.0", "algo.hooks.fim.model.hidden_dim=8", "algo.hooks.fim.tau=0",
          "train.total_steps=160")  # fmt: skip
    assert rows(tmp_path, "metrics")[-1]["fim/scale"] == pytest.approx(0.02)
    assert json.loads((tmp_path / "reports" / "fim_scale.json").read_text())["scale"] == 0.02
