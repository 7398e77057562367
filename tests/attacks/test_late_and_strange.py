"""Late actions, traitors, attacks that end early and Gaussian noise, in hand-computed numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from attacks.curriculum import BudgetCurriculum
from attacks.delay import Delay
from attacks.missing import Missing
from attacks.mixture import Mixture
from attacks.noise import Noise
from attacks.random import RandomActions
from attacks.recovery import Recovery
from attacks.traitor import Traitor
from marl.core.config import plain
from marl.core.protocols import NoAttack, View, attacks_within
from marl.core.types import Clock, ConfigError, EnvSpec, Obs
from marl.measure.entrants import by_content
from marl.run.evaluate import evaluate
from marl.run.teams import load_trained, run_policy
from marl.run.trainer import fit
from tests.attacks.test_attacks import ALWAYS, STEP, begun
from tests.support.attack_parts import Linear, look, spec_of
from tests.support.helpers import compose_train, make_spec

TINY = ("env=mds_mini", "env.episode_limit=6", "train.n_envs=8", "train.rollout=null", "eval.episodes=4",
        "eval.final_episodes=4", "eval.n_envs=4", "log.to=[]", "algo.agent.hidden_dim=8")  # fmt: skip
A = 4
PAIR = replace(make_spec(n=2, A=A), idle_action=0)


def step_of(avail: Any = None, t: int = 0) -> View:
    can = torch.ones(1, 2, A, dtype=torch.bool) if avail is None else torch.as_tensor(avail)[None]
    obs = Obs(torch.zeros(1, 2, 3), torch.zeros(1, 1), can, torch.ones(1, 2, dtype=torch.bool))
    return View(t, obs, {}, torch.ones(1, dtype=torch.bool), Linear())


def late(
    intended: list[list[int]], avail: dict[int, Any] | None = None, spec: EnvSpec = PAIR, **options: Any
) -> list[list[int]]:
    """Return what is executed, step by step, of what one lane's two agents intend."""
    attack = begun(Delay(spec, "cpu", **{"steps": 2, "agents": None, **STEP, **options}))
    done = []
    for t, actions in enumerate(intended):
        executed, extras = attack.perturb_actions(step_of((avail or {}).get(t), t), torch.tensor([actions]))
        assert torch.equal(extras["hit"], executed != torch.tensor([actions]))
        done.append(executed[0].tolist())
    return done


def test_actions_arrive_late() -> None:
    wanted = [[1, 2], [2, 3], [3, 1], [1, 1], [2, 2]]
    assert late(wanted) == [[0, 0], [0, 0], [1, 2], [2, 3], [3, 1]]
    assert late(wanted, spec=make_spec(n=2, A=A))[:3] == [[1, 2], [2, 3], [1, 2]], "no idling: what it chose just now"
    assert late(wanted, steps=1)[1:] == wanted[:-1]


def test_a_late_action_that_is_no_longer_available_is_none() -> None:
    gone = [[True, False, True, True], [True, True, True, True]]
    assert late([[1, 2], [2, 3], [3, 1]], {2: gone})[2] == [0, 2]


def test_late_agents_stay_the_same_within_an_episode_and_a_budget_ends_it() -> None:
    wanted = [[1, 2], [2, 3], [3, 1], [1, 2], [2, 3]]
    done = late(wanted, agents=1)
    same = [[d == w for d, w in zip(a, b, strict=True)] for a, b in zip(done, wanted, strict=True)]
    assert [all(column) for column in zip(*same, strict=True)].count(True) == 1, "one is always on time"
    assert late(wanted, budget=3) == [[0, 0], [0, 0], [1, 2], *wanted[3:]], "three steps were attacked"


def traitor(**options: Any) -> Traitor:
    return Traitor(spec_of(), "cpu", **{"agents": 1, "plays": "worst", "policy": None, **STEP, **options})


def test_a_traitor_does_what_the_team_values_least() -> None:
    obs = [[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]]  # values (1, 0.5) and (-1, 2): worst are 1 and 0
    both = begun(traitor(agents=2))
    executed, extras = both.perturb_actions(look(obs), torch.tensor([[0, 0]]))
    assert executed.tolist() == [[1, 0]] and extras["hit"].tolist() == [[True, False]], "what it intends is no hit"
    one = begun(traitor(), lanes=200)
    played = [one.perturb_actions(look(obs * 200), torch.tensor([[0, 1]] * 200))[0] for _ in range(3)]
    seats = one.drawn.chosen
    assert (seats.sum(1) == 1).all() and 60 < int(seats[:, 0].sum()) < 140
    for executed in played:
        assert torch.equal(executed != torch.tensor([0, 1]), seats), "its seats stay its own"


@pytest.mark.parametrize("kind", ["traitor", "missing", "delay"])
def test_agents_that_are_not_on_the_map_are_not_drawn(kind: str) -> None:
    """They could not be hit, and the episode would pass for an attacked one. Who dies later stays the one drawn."""
    spec = replace(spec_of(), idle_action=0)
    made = {
        "traitor": lambda: traitor(plays="random"),
        "missing": lambda: Missing(spec, "cpu", agents=1, mode="idle", **STEP),
        "delay": lambda: Delay(spec, "cpu", steps=1, agents=1, **STEP),
    }
    attack = begun(made[kind](), lanes=50)
    absent = torch.tensor([[False, True]] * 25 + [[True, False]] * 25)
    assert torch.equal(attack.drawn.among(absent), absent)
    assert torch.equal(attack.drawn.among(torch.zeros_like(absent)), absent)


def test_a_traitor_may_be_any_policy() -> None:
    """It remembers from step to step, and is told what was executed."""

    class Counting:
        told: Any = None

        def begin(self, n_envs: int, gen: Any) -> Any:
            return {"count": torch.zeros(n_envs, dtype=torch.long)}

        def act(self, obs: Obs, carry: Any, *, explore: bool, gen: Any) -> Any:
            return (carry["count"] % 2)[:, None].expand(-1, 2), {"count": carry["count"] + 1}, {}

        def after(self, carry: Any, intended: Any, executed: Any) -> Any:
            Counting.told = executed
            return carry

    attack = begun(traitor(agents=2, plays="policy", policy=lambda spec, device: Counting()))
    done = []
    for _ in range(3):
        view = look([[[0.0] * 3] * 2])
        executed, _ = attack.perturb_actions(view, torch.tensor([[0, 1]]))
        attack.after_step(view, executed, None)
        done.append(executed[0].tolist())
        assert torch.equal(Counting.told, executed)
    assert done == [[0, 0], [1, 1], [0, 0]]
    for plays, policy, message in (("policy", None, "needs one"), ("worst", lambda *_: None, "has none")):
        with pytest.raises(ConfigError, match=f"attack.policy: a traitor with plays={plays} {message}"):
            traitor(plays=plays, policy=policy)


def test_an_attack_that_ends_leaves_the_rest_of_the_episode_alone() -> None:
    spec = spec_of()  # episodes of five steps at most
    attack = begun(Recovery(spec, "cpu", share=0.5, attack=lambda *to: RandomActions(*to, p=1.0, **STEP)), lanes=50)
    hits = []
    for t in range(5):
        view = look([[[0.0] * 3] * 2] * 50, t=t)
        executed, extras = attack.perturb_actions(view, torch.zeros(50, 2, dtype=torch.long))
        attack.after_step(view, executed, None)
        hits.append(bool(extras["hit"].any()))
    assert hits == [True, True, True, False, False]
    assert [name for name, _ in attacks_within(attack)] == ["", "attack"]


def fought(won: list[bool], attacked: list[bool] | None = None) -> Any:
    """Return a collection of one-step episodes, of which these were won and attacked, as a curriculum reads it."""
    flags = torch.tensor(won if attacked is None else attacked) | (attacked is None)
    return SimpleNamespace(won=torch.tensor(won), attacked=flags, reward=torch.tensor(won).float()[:, None])


def budget_curriculum(*budgets: int, **options: Any) -> BudgetCurriculum:
    given: dict[str, Any] = {"success": 0.5, "success_return": None, "window": 4, **options}
    inner = given.pop("attack", lambda *to: RandomActions(*to, p=1.0, **STEP))
    return BudgetCurriculum(spec_of(), "cpu", attack=inner, budgets=budgets, **given)


def test_a_budget_grows_when_the_team_wins_under_the_present_one() -> None:
    attack = budget_curriculum(1, 3)
    clock = Clock()

    def hits() -> int:
        begun(attack, lanes=1)
        view = look([[[0.0] * 3] * 2])
        stay = torch.zeros(1, 2, dtype=torch.long)
        return sum(bool(attack.perturb_actions(view, stay)[1]["hit"].any()) for _ in range(8))

    def after(won: list[bool], attacked: list[bool] | None = None) -> float:
        return float(attack.update(None, fought(won, attacked), None, clock)["attack/budget"])  # type: ignore[arg-type]

    assert hits() == 1
    assert after([True, True, True]) == 1, "three episodes are not the window"
    assert after([False, False]) == 1, "two of the last four are not more than half"
    assert after([True, True, True], [False, False, False]) == 1, "episodes without attack say nothing"
    assert after([True]) == 1 and after([True]) == 1
    kept = attack.state_dict()
    assert after([True]) == 3 and hits() == 3
    assert after([True] * 8) == 3, "the last budget stays"
    other = budget_curriculum(1, 3)
    other.load_state_dict(kept)
    assert other.level == 0 and float(other.update(None, fought([True]), None, clock)["attack/budget"]) == 3  # type: ignore[arg-type]


def test_what_cannot_grow_is_refused() -> None:
    for budgets in ((), (4, 2), (2, 2), (-1, 2)):
        with pytest.raises(ConfigError, match=r"attack\.budgets=.* must be numbers that rise"):
            budget_curriculum(*budgets)
    with pytest.raises(ConfigError, match="NoAttack has no budget that could grow"):
        budget_curriculum(1, attack=NoAttack)
    with pytest.raises(ConfigError, match="Mixture has no budget that could grow"):
        budget_curriculum(1, attack=mixed(NoAttack))
    attack = budget_curriculum(3, attack=mixed(NoAttack, lambda *to: RandomActions(*to, p=1.0, **STEP)))
    assert [budget.limit for budget in attack.limited] == [3], "a mixture has no budget of its own"


def mixed(*parts: Any) -> Any:
    return lambda *to: Mixture(*to, attacks=dict(enumerate(parts)), weights=dict.fromkeys(range(len(parts)), 1.0))  # type: ignore[arg-type]


def test_gaussian_noise_has_its_deviation() -> None:
    noise = begun(Noise(spec_of(low=-100.0), "cpu", epsilon=0.5, shape="gaussian", **ALWAYS), lanes=4000)
    seen = noise.perturb_obs(look([[[0.0] * 3] * 2] * 4000))
    assert float(seen.std()) == pytest.approx(0.5, abs=0.01) and float(seen.abs().max()) > 1.0
    with pytest.raises(ConfigError, match="shape=round is not known; choose one of uniform, gaussian"):
        Noise(spec_of(), "cpu", epsilon=0.5, shape="round", **ALWAYS)  # type: ignore[arg-type]


@pytest.mark.usefixtures("no_drawing")
def test_what_learns_to_harm_a_team_can_be_its_traitor(tmp_path: Path) -> None:
    """A best response to the team that is paid what the team loses, then a seat of the team is its own."""
    fit(compose_train(tmp_path, "algo=vdn", *TINY, "train.total_steps=240", "algo.batch_size=8"), tmp_path / "team")
    against = ("algo=ippo/response", f"algo.runs=[{tmp_path}/team]", "+hook@algo.hooks.against=against")
    fit(compose_train(tmp_path, *against, *TINY, "train.total_steps=240"), tmp_path / "foe")
    given = ("attack.plays=policy", "+policy@attack.policy=run", f"attack.policy.run={tmp_path}/foe")
    attack = compose_train(tmp_path, *TINY, "attack=traitor", *given).attack
    parts, clock = load_trained(tmp_path / "team", {"attack": attack}, 4)
    gens = (torch.Generator().manual_seed(0), torch.Generator().manual_seed(1))
    found = evaluate(parts.env, parts.algo.policy(clock), parts.attack, parts.fields, episodes=4, policy_gen=gens[0],
                     attack_gen=gens[1], device=parts.device)  # fmt: skip
    assert int(found["hits"].sum()) > 0
    key = by_content({"attack": plain(attack)})
    fit(compose_train(tmp_path, *against, *TINY, "train.total_steps=480"), tmp_path / "foe")
    assert by_content({"attack": plain(attack)}) != key, "a cell is measured again when the traitor has learnt more"
    with pytest.raises(ConfigError, match="run=nowhere is not a run folder"):
        by_content({"policy": {"_target_": "marl.run.teams.run_policy", "run": "nowhere"}})
    with pytest.raises(ConfigError, match="has no member 3: "):
        run_policy(parts.spec, "cpu", run=str(tmp_path / "team"), step=None, member=3, act=None)
    parts.env.close()
