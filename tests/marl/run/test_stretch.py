"""Stretches: pieces of episodes join without a seam, flags mean what they mean for whole ones, resume is exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from marl.core.protocols import NoAttack
from marl.core.types import Clock, ConfigError, EpisodeBatch, Obs, Step, core_fields
from marl.learn.actor import log_policy
from marl.learn.learner import gather_actions
from marl.learn.ppo import PPO
from marl.run import checkpoint
from marl.run.build import build, make_env
from marl.run.collect import collect
from marl.run.stretch import Stretches
from marl.run.trainer import Run, fit
from tests.support.helpers import compose_train, differences, make_spec, newest_state, rows

TINY = (
    "train.rollout=5", "train.n_envs=6", "train.total_steps=600", "eval.every=150", "eval.episodes=4",
    "eval.final_episodes=4", "eval.n_envs=4", "log.every=60", "checkpoint.every=120", "log.to=[]",
    "algo.agent.hidden_dim=8", "algo.critic.hidden_dim=8", "algo.learner.epochs=2", "algo.learner.minibatches=2",
)  # fmt: skip
GAMES = {
    "corridor": ("env=toy/corridor",),
    "spread": ("env=spread", "env.episode_limit=12"),
    "kitchen": ("env=overcooked/cramped_room", "env.episode_limit=13"),
    "battle": ("env=skirmish/3m",),
    "chain": ("env=toy/kstep",),
    "shifting": ("env=toy/shift",),
    "posts": ("env=posts", "env.episode_limit=7"),
    "lock": ("env=lock", "env.cells=5", "env.episode_limit=7"),
    "blocked": ("env=mds_mini_blocked", "env.env.episode_limit=13"),
}

NOBODY = torch.zeros(6, dtype=torch.bool)  # is attacked
ATTACKS = {
    "random": ("attack=random", "attack.p=0.7", "attack.budget=2"),
    "missing": ("attack=missing",),
    "single": ("attack=single", "attack.start_p=0.5", "attack.duration=2", "attack.budget=3"),
    "noise": ("attack=noise", "attack.redraw=episode", "attack.agents=1"),
    "rand_obs": ("attack=rand_obs",),
    "fgsm": ("attack=fgsm",),
    "gauss": ("attack=gauss", "attack.rate=0.5"),
    "delay": ("attack=delay", "attack.steps=2", "attack.agents=1"),
}

pytestmark = pytest.mark.usefixtures("no_drawing")


class Counting:
    """Two lanes whose episodes last 3 and 4 steps; the first terminates, the second is truncated. Observations are
    1000 x lane + 100 x episode + step."""

    def __init__(self) -> None:
        self.spec, self.n_envs, self.device, self.resumable = make_spec(1, 2, 1, 1, 4), 2, torch.device("cpu"), True
        self.episode, self.t = torch.full((2,), -1), torch.zeros(2, dtype=torch.long)

    def look(self) -> Obs:
        seen = (1000 * torch.arange(2) + 100 * self.episode + self.t).float()
        return Obs(seen[:, None, None], seen[:, None], torch.ones(2, 1, 2, dtype=torch.bool), torch.ones(2, 1).bool())

    def reset(self, seed: int | None = None, mask: torch.Tensor | None = None) -> Obs:
        where = torch.ones(2, dtype=torch.bool) if mask is None else mask
        self.episode[where] += 1
        self.t[where] = 0
        return self.look()

    def step(self, actions: torch.Tensor) -> Any:
        self.t += 1
        ended = self.t >= torch.tensor([3, 4])
        lanes = torch.tensor([True, False])
        reward = self.t.float()
        return Step(self.look(), reward, ended & lanes, ended & ~lanes, {"won": ended & lanes})


class Remembering:
    """A policy that counts its steps within an episode in its carry."""

    def begin(self, n_envs: int, gen: torch.Generator) -> dict[str, torch.Tensor]:
        return {"count": torch.zeros(n_envs, 1)}

    def act(self, obs: Obs, carry: Any, *, explore: bool, gen: torch.Generator) -> Any:
        return torch.zeros(len(obs.obs), 1, dtype=torch.long), {"count": carry["count"] + 1}, {}

    def after(self, carry: Any, intended: torch.Tensor, executed: torch.Tensor) -> Any:
        return carry


def test_pieces_by_hand() -> None:
    env = Counting()
    stretches = Stretches(env, NoAttack(env.spec, "cpu"), core_fields(env.spec), 5, env.device)
    given = (Remembering(), torch.zeros(2, dtype=torch.bool), torch.Generator(), torch.Generator())
    first = stretches.collect(*given)
    # lane 0: 3 steps of episode 0, 2 of episode 1; lane 1: 4 steps of episode 0, 1 of episode 1
    assert first.length.tolist() == [3, 4, 2, 1]
    assert first.filled.sum(1).tolist() == [3, 4, 2, 1]
    assert first.obs[0, :4, 0, 0].tolist() == [0, 1, 2, 3] and first.obs[2, :3, 0, 0].tolist() == [100, 101, 102]
    assert first.obs[1, :5, 0, 0].tolist() == [1000, 1001, 1002, 1003, 1004]  # the last one is there to bootstrap from
    assert first.terminated.nonzero().tolist() == [[0, 2]], "lane 1 was truncated, the others are cut"
    assert first.reward[1].tolist() == [1, 2, 3, 4, 0]
    assert first.won.tolist() == [True, False, False, False]
    assert first["begin_count"].flatten().tolist() == [0, 0, 0, 0]
    assert [stretches.ended[name].tolist() for name in ("return", "length", "won")] == [[6, 10], [3, 4], [True, False]]
    second = stretches.collect(*given)
    assert second.length.tolist() == [1, 3, 3, 2, 1]  # episodes 1, 1, 2, 2 and 3 of lanes 0, 1, 0, 1, 0
    assert second.obs[:, 0, 0, 0].tolist() == [102, 1101, 200, 1200, 300]
    assert second["begin_count"].flatten().tolist() == [2, 1, 0, 0, 0]
    assert stretches.ended["length"].tolist() == [3, 4, 3] and stretches.ended["return"].tolist() == [6, 10, 6]


def test_no_piece_has_room_for_more_steps_than_an_episode() -> None:
    env = Counting()
    stretches = Stretches(env, NoAttack(env.spec, "cpu"), core_fields(env.spec), 50, env.device)
    found = stretches.collect(Remembering(), torch.zeros(2, dtype=torch.bool), torch.Generator(), torch.Generator())
    assert found.horizon == env.spec.episode_limit < 50
    assert int(found.length.sum()) == 100, "every step of both lanes is kept"


class Dying(Counting):
    """The second lane's game dies at the third step of its first episode."""

    def step(self, actions: torch.Tensor) -> Step:
        step = super().step(actions)
        step.info["lost"] = (self.t == 3) & (self.episode == 0) & torch.tensor([False, True])
        return step


def test_a_piece_of_a_game_that_died_is_left_out_and_its_lane_begins_anew() -> None:
    env = Dying()
    stretches = Stretches(env, NoAttack(env.spec, "cpu"), core_fields(env.spec), 5, env.device)
    batch = stretches.collect(Remembering(), torch.zeros(2, dtype=torch.bool), torch.Generator(), torch.Generator())
    assert batch.length.tolist() == [3, 2, 2] and batch.obs[:, 0, 0, 0].tolist() == [0, 100, 1100]
    assert stretches.ended["length"].tolist() == [3], "what was lost is no episode"


def make(name: str, tmp_path: Path, *more: str) -> tuple[Any, Stretches]:
    cfg = compose_train(tmp_path, "algo=ippo", *GAMES[name], *TINY, *more)
    parts = build(cfg, cfg.train.n_envs)
    return parts, Stretches(parts.env, parts.attack, parts.fields, cfg.train.rollout, parts.device)


@pytest.mark.parametrize("name", GAMES)
def test_a_recurrent_team_is_unrolled_as_it_was_played(name: str, tmp_path: Path) -> None:
    parts, stretches = make(name, tmp_path)
    assert isinstance(parts.algo, PPO)
    policy, agent = parts.algo.policy(Clock()), parts.algo.learner.agent
    said: list[torch.Tensor] = []

    class Noted:
        def begin(self, *args: Any) -> Any:
            return policy.begin(*args)

        def act(self, obs: Obs, carry: Any, **how: Any) -> Any:
            actions, after, extras = policy.act(obs, carry, **how)
            logits, _ = agent.step(agent.inputs(obs.obs, carry["last"]), carry["h"])
            said.append(gather_actions(log_policy(logits, obs.avail), actions).detach())
            return actions, after, extras

        def after(self, *args: Any) -> Any:
            return policy.after(*args)

    for _ in range(4):  # the later ones begin in the middle of episodes
        said.clear()
        batch = stretches.collect(Noted(), NOBODY, parts.streams["explore"], parts.streams["attack"])
        rows_, data, _ = parts.algo.learner.prepare(batch)
        played = rows_.spread(data["log_p"])[batch.filled].sum(1).sort().values
        assert torch.allclose(played, torch.cat(said).sum(1).sort().values, atol=1e-4)
        assert int(batch.filled.sum()) == 6 * 5
    if name not in ("chain", "shifting"):  # whose episodes last a step or two
        assert bool((batch["begin_last"] >= 0).any()), "some pieces do not begin an episode"


def test_whole_episodes_are_what_stretches_as_long_as_they_collect(tmp_path: Path) -> None:
    parts, stretches = make("spread", tmp_path, "train.rollout=12", "env.goal_reward=0")
    other, _ = make("spread", tmp_path, "env.goal_reward=0")
    policy = parts.algo.policy(Clock())
    pieces = stretches.collect(policy, NOBODY, torch.Generator().manual_seed(0), torch.Generator())
    whole = collect(
        other.env, policy, NoAttack(other.spec, "cpu"), other.fields, explore=True, attacked=torch.zeros(6).bool(),
        policy_gen=torch.Generator().manual_seed(0), attack_gen=torch.Generator(), device="cpu",
    )  # fmt: skip
    assert int(whole.length.min()) == 12
    assert [name for name in core_fields(parts.spec) if not torch.equal(pieces[name], whole[name])] == []


@pytest.mark.parametrize("name", GAMES)
def test_a_game_goes_on_from_the_middle_of_episodes(name: str, tmp_path: Path) -> None:
    cfg = compose_train(tmp_path, *GAMES[name])
    env: Any = make_env(cfg, 3, 5)
    gen = torch.Generator().manual_seed(0)

    def play(env: Any, now: Obs, steps: int, gen: torch.Generator) -> list[torch.Tensor]:
        seen = []
        for _ in range(steps):
            noise = torch.rand(now.avail.shape, generator=gen).masked_fill(~now.avail, -1.0)
            step = env.step(noise.argmax(-1))
            seen += [step.next.obs.clone(), step.next.state.clone(), step.reward.clone(), step.terminated.clone()]
            over = step.terminated | step.truncated
            now = env.reset(mask=over) if over.any() else step.next
        return seen

    play(env, env.reset(), 17, gen)
    saved, word = env.midway_state(), gen.get_state()
    expected = play(env, env.load_midway_state(saved), 30, gen)
    other: Any = make_env(cfg, 3, 99)
    found = play(other, other.load_midway_state(saved), 30, torch.Generator().set_state(word))
    assert all(map(torch.equal, expected, found))


@pytest.mark.parametrize(
    ("name", "attack"), [*((name, ()) for name in GAMES), *(("spread", a) for a in ATTACKS.values())]
)
def test_a_resumed_run_is_the_same_bit_for_bit(
    name: str, attack: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(folder: Path) -> None:
        fit(compose_train(folder.parent, "algo=ippo", *GAMES[name], *TINY, *attack), folder)

    train(tmp_path / "whole")
    calls, stop_after = 0, 7
    learn = Run.learn

    def killed(self: Run, fresh: EpisodeBatch) -> Any:
        nonlocal calls
        calls += 1
        if calls > stop_after:
            raise KeyboardInterrupt
        return learn(self, fresh)

    monkeypatch.setattr(Run, "learn", killed)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut")
    found = checkpoint.newest(tmp_path / "cut" / "checkpoints")
    assert found is not None and found[1]["exact"] is True
    monkeypatch.setattr(Run, "learn", learn)
    train(tmp_path / "cut")
    for file in ("metrics", "eval"):
        assert rows(tmp_path / "cut", file) == rows(tmp_path / "whole", file)
    assert differences(newest_state(tmp_path / "cut")[0], newest_state(tmp_path / "whole")[0]) == []


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_episode_has_a_budget_and_draws_of_its_own(attack: str, tmp_path: Path) -> None:
    ends_early = ("env.n_agents=2", "env.length=3", "env.spread=3", "env.fatal=false")  # so lanes fall out of step
    parts, stretches = make("corridor", tmp_path, *ends_early, *ATTACKS[attack])
    policy, half = parts.algo.policy(Clock()), torch.arange(6) < 3
    found: list[dict[str, torch.Tensor]] = []
    before = torch.zeros(0)
    for k in range(40):
        batch = stretches.collect(policy, half, parts.streams["explore"], parts.streams["attack"])
        assert not batch["hit"][~batch.attacked].any()
        if attack in ("missing", "noise"):  # who is hit was drawn once, and does not change when other lanes begin
            assert int(batch["hit"].any(1).sum(1).max()) <= 1
        if "obs_seen" in batch and k:
            assert torch.equal(batch["obs_seen"][:6, 0], before), "what was bootstrapped from is what is acted on next"
            assert bool(((batch["obs_seen"] == batch.obs) | batch.attacked[:, None, None, None]).all())
        before = stretches.seen.clone()
        found.append(dict(stretches.ended))
    ended = {name: torch.cat([one[name] for one in found]) for name in found[0]}
    assert len(set(ended["length"].tolist())) > 5, "lanes must begin their episodes at different times"
    assert not ended["hits"][~ended["attacked"]].any()
    hits = ended["hits"][ended["attacked"]]
    assert len(hits) > 20 and float((hits > 0).float().mean()) > 0.3, "later episodes are attacked as well"
    budget = {"random": 2, "single": 3}.get(attack)
    assert budget is None or int(ended["hit_actions" if attack == "single" else "hits"].max()) <= budget


def test_rows_between_ends_of_episodes_say_nothing_of_episodes(tmp_path: Path) -> None:
    fit(compose_train(tmp_path, "algo=ippo", *GAMES["kitchen"], *TINY, "log.every=30"), tmp_path / "run")
    written = rows(tmp_path / "run", "metrics")
    assert len({"train/return" in row for row in written}) == 2, "episodes of 13 steps end in some stretches of 5"
    assert all(row["train/length"] == 13 for row in written if "train/return" in row)
    assert written[-1]["episodes"] == 6 * (600 // 6 // 13)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("algo=qmix",), r"train.rollout=5 .* ValueAlgorithm learns from whole ones: use algo=ippo or algo=mappo"),
        (("algo=ippo", "attack=mixture"), "train.rollout=5: Mixture begins its episodes in all lanes at once"),
        (
            ("algo=ippo", "attack=random", "attack._target_=tests.support.broken.LearnsInPieces"),
            "train.rollout=5 .* LearnsInPieces learns from whole ones",
        ),
        (("algo=ippo", "train.rollout=0"), "train.rollout=0"),
        (("algo=ippo", "train.rollout=100000000000"), "train.rollout=100000000000 steps of every lane need .* GiB"),
    ],
)
def test_what_needs_whole_episodes_is_refused_before_anything_is_written(
    overrides: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(compose_train(tmp_path, "env=toy/corridor", "train.rollout=5", *overrides), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()
