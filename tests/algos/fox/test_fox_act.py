"""Whether FoX's formations repeat, as the log and a metric say it, and acting on latents that are drawn."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from algos.fox import FoX
from algos.fox.hook import say_distinct
from algos.fox.policy import SampledLatent
from marl.core.types import Clock, ConfigError, Obs
from marl.learn.policy import EpsilonGreedy
from tests.support.fox_parts import add_fields, collected, make_fox
from tests.support.helpers import compose_train, make_spec, random_batch, rows, train

SPEC = make_spec()


# the share of distinct formations


def walked(algo: FoX, distances: list[float]) -> None:
    """Let two agents in one dimension be as far apart as ``distances`` says, in one episode of training."""
    batch = random_batch(make_spec(n=2, O=1, limit=len(distances) - 1), 1)
    add_fields(algo, batch)
    one = torch.tensor(distances)
    batch.data["obs"] = torch.stack([one, torch.zeros_like(one)], -1)[None, ..., None]
    batch.data["length"] = torch.tensor([len(distances) - 1], dtype=torch.int16)
    batch.data["filled"] = torch.arange(len(distances))[None] < len(distances) - 1
    algo.annotate(batch)


def line_team(**changes: Any) -> FoX:
    return make_fox(make_spec(n=2, O=1, limit=3), beta2=0.0, bits=1, **changes)


def test_the_share_of_distinct_formations_by_hand(caplog: pytest.LogCaptureFixture) -> None:
    """Distances 1 1 2 1 | 3 1 1 1 | ...: of the first eight formations three are distinct; later ones do not count."""
    algo = line_team(calib_steps=6)
    caplog.set_level(logging.INFO)
    walked(algo, [1.0, 1.0, 2.0, 1.0])
    assert algo.fox.distinct < 0 and not caplog.messages, "four are not six yet"
    walked(algo, [3.0, 1.0, 1.0, 1.0])
    assert algo.fox.distinct == 3 / 8
    walked(algo, [4.0, 5.0, 6.0, 7.0])
    assert algo.fox.distinct == 3 / 8 and len(caplog.messages) == 1
    assert caplog.messages[0].startswith("fox: 0.375 of the first 8 formations are distinct")


@pytest.mark.parametrize(
    ("share", "level", "says"),
    [
        (0.9, "WARNING", "hardly tell rare from common; give algo.fox.decimals or algo.fox.bits a smaller number"),
        (0.301, "WARNING", "hardly tell"),
        (0.3, "INFO", "0.3 of the first 1,000 formations are distinct"),
        (0.02, "INFO", "0.02 of the first"),
        (0.019, "WARNING", "each is soon common and the bonus fades"),
    ],
)
def test_shares_outside_the_fit_are_warned_of(
    share: float, level: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    say_distinct(share, 1000)
    (record,) = caplog.records
    assert record.levelname == level and says in record.getMessage() and "\n" not in record.getMessage()


def test_without_calibration_nothing_is_said_or_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    algo = make_fox(SPEC, calib_steps=0)
    facts = algo.learner.update(collected(algo, 6))
    assert "fox/calib_distinct" not in facts and not caplog.messages


def test_the_metric_outlives_a_checkpoint() -> None:
    algo, other = make_fox(SPEC, calib_steps=10), make_fox(SPEC, calib_steps=10)
    first = algo.learner.update(collected(algo, 6))["fox/calib_distinct"]
    assert 0 < float(first) <= 1
    state = copy.deepcopy(algo.state_dict())
    other.load_state_dict(state)
    assert torch.equal(other.learner.update(collected(other, 6, 1))["fox/calib_distinct"], first)
    del state["learner"]["hooks"][0]["calib"]  # as a checkpoint of an earlier version
    other.load_state_dict(state)
    assert other.fox.distinct < 0


# acting on drawn latents


def seen(seed: int) -> Obs:
    gen = torch.Generator().manual_seed(seed)
    obs = torch.randn(40, SPEC.n_agents, SPEC.obs_dim, generator=gen)
    alive = torch.ones(40, SPEC.n_agents, dtype=torch.bool)
    return Obs(obs, torch.zeros(40, SPEC.state_dim), alive[..., None].expand(-1, -1, SPEC.n_actions), alive)


def acts(algo: FoX, explore: bool, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return what the team plays in two steps, and its hidden state."""
    policy, gen = algo.policy(Clock()), torch.Generator().manual_seed(seed)
    carry, played = policy.begin(40, gen), []
    for step in range(2):
        actions, carry, _ = policy.act(seen(step), carry, explore=explore, gen=gen)
        carry = policy.after(carry, actions, actions)
        played.append(actions)
    return torch.stack(played), carry["h"]


def loud(**changes: Any) -> FoX:
    """Make a team whose values hang on the latent: what is drawn decides."""
    algo = make_fox(SPEC, **changes)
    with torch.no_grad():
        algo.learner.agent.fc_out.formation.weight.normal_()
    return algo


def test_the_default_is_the_policy_of_the_base_learner() -> None:
    assert type(loud().policy(Clock())) is EpsilonGreedy
    assert torch.equal(acts(loud(), True, 1)[0], acts(loud(), True, 2)[0]), "epsilon is 0, and nothing else is drawn"


@pytest.mark.parametrize(("act", "greedy_differs"), [("explore", False), ("sample", True)])
def test_drawn_latents_decide_in_training_and_only_as_published_in_tests(act: str, greedy_differs: bool) -> None:
    mean, drawn = loud(), loud(act=act)
    assert not torch.equal(acts(mean, True)[0], acts(drawn, True)[0])
    assert torch.equal(acts(drawn, True, 1)[0], acts(drawn, True, 1)[0]), "from the policy's own stream"
    assert torch.equal(acts(mean, False)[0], acts(drawn, False)[0]) != greedy_differs


def test_without_the_heads_weight_a_drawn_latent_changes_nothing_bit_for_bit() -> None:
    mean, drawn = make_fox(SPEC), make_fox(SPEC, act="sample")
    for algo in (mean, drawn):
        with torch.no_grad():
            algo.learner.agent.fc_out.formation.weight.zero_()
    (a, h), (b, g) = acts(mean, False), acts(drawn, False)
    assert torch.equal(a, b) and torch.allclose(h, g, atol=1e-6)


def test_what_a_latent_adds_by_hand() -> None:
    """A standard deviation of e^0 = 1 in every latent: the head's weights times the noise, and no bias."""
    algo = loud(act="sample")
    heads, policy = algo.learner.agent.fc_out, algo.policy(Clock())
    assert isinstance(policy, SampledLatent)
    with torch.no_grad():
        heads.encoder.logvar.weight.zero_()
        heads.encoder.logvar.bias.zero_()
    h = torch.randn(5, SPEC.n_agents, heads.encoder.trunk[0].in_features)
    noise = torch.randn(5, SPEC.n_agents, 4, generator=torch.Generator().manual_seed(3))
    found = policy.surplus(h, torch.Generator().manual_seed(3))
    z = heads.encoder.mean(h)
    assert torch.allclose(found, heads.formation(z + noise) - heads.formation(z), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"act": "always"}, "algo.act=always is not known; choose one of mean, explore, sample"),
        ({"act": "sample", "heads": False}, "algo.act=sample needs an agent with latents: agent@algo.agent=fox"),
        ({"calib_steps": -1}, "fox.calib_steps=-1 must be at least 0"),
    ],
)
def test_bad_options_are_one_clear_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_fox(SPEC, **changes)


def test_a_run_samples_and_says_whether_formations_repeat(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    train(tmp_path, "algo=fox", "agent@algo.agent=fox", "algo.act=sample", "algo.fox.aware.samples=2",
          "algo.fox.calib_steps=50", "train.total_steps=160")  # fmt: skip
    row = rows(tmp_path, "metrics")[-1]
    assert 0 < row["fox/calib_distinct"] <= 1
    assert sum("formations are distinct" in message for message in caplog.messages) == 1


def test_the_awareness_reward_of_small_games_is_in_proportion_to_what_is_published() -> None:
    """Published is 0.02 where a won episode returns 20; these games pay 10."""
    for study in ("spread_small", "pushbox_small"):
        assert compose_train(Path("runs"), f"experiment={study}/fox").algo.fox.beta2 == 0.01
