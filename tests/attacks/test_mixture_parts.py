"""Every attack as a part of a mixture: it trains, learns what it learns alone, resumes, is fitted and tested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from attacks.mixture import Mixture
from marl.core.config import resolved
from marl.core.protocols import Attack, Fitting, attacks_within
from marl.core.types import ConfigError
from marl.measure.fitting import fit_attack
from marl.measure.robustness import Cell
from marl.run.compose import choices
from marl.run.teams import evaluate_team, open_team
from marl.run.trainer import Run, open_run
from tests.attacks.ega.test_ega_turns import go_on
from tests.marl.run.test_run import assert_resumes_exactly
from tests.support.helpers import TINY, compose_train, differences, train
from tests.support.robustness_parts import column, entrant, fake, measured, setting

pytestmark = pytest.mark.usefixtures("no_drawing")

NAMES = [name for name in choices("attack") if name not in ("none", "mixture")]
EGA = ("learner.batch_size=2", "learner.hidden_dim=8", "budget=2", "behaviour_rows=4", "attacker_episodes=8",
       "team_episodes=8", "review_episodes=8", "generations=2")  # fmt: skip
IBAL = ("warmup_episodes=0", "k_max=1", "estimators.hidden_dim=16", "estimators.width=8", "estimators.group_width=8",
        "estimators.samples=16", "estimators.every=1", "estimators.fit_rounds=4")  # fmt: skip
PACKS = ("foresight.window=3", "foresight.ff_dim=16", "fit_episodes=8", "fit_updates=2")
SMALL: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("ega", "romance", "rarl", "rap"), EGA),
    **dict.fromkeys(("ibal", "ib"), IBAL),
    "atla": ("width=8", "period=2", "fit_episodes=8"),
    "wolfpack": PACKS,
    "curriculum": tuple(f"attack.{option}" for option in PACKS),
}


def alone(name: str) -> list[str]:
    return [f"attack={name}", *(f"attack.{option}" for option in SMALL.get(name, ()))]


def beside_random(name: str) -> list[str]:
    """Return the options of a mixture of random actions and this attack."""
    small = (f"attack.attacks.it.{option}" for option in SMALL.get(name, ()))
    return [
        "attack=mixture",
        "attack.weights.fgsm=0",
        f"+attack@attack.attacks.it={name}",
        "+attack.weights.it=1",
        *small,
    ]


def in_a_mixture_in_a_mixture(name: str) -> list[str]:
    small = (f"attack.attacks.inner.attacks.it.{option}" for option in SMALL.get(name, ()))
    return [
        "attack=mixture", "attack.weights.fgsm=0", "+attack@attack.attacks.inner=mixture", "+attack.weights.inner=2",
        f"+attack@attack.attacks.inner.attacks.it={name}", "+attack.attacks.inner.weights.it=2", *small,
    ]  # fmt: skip


def part(attack: Attack) -> Attack:
    """Return the attack ``it``, at whatever depth."""
    found = dict(attacks_within(attack))
    return next((one for name, one in found.items() if name.endswith("it")), attack)


def floats(tree: Any) -> dict[str, Any]:
    """Return the numbers that are learnt, of a state: no replay, no random streams."""
    if isinstance(tree, dict):
        return {key: floats(value) for key, value in tree.items() if key not in ("replay", "optimizer", "returns")}
    return {"": tree.clone()} if isinstance(tree, torch.Tensor) and tree.is_floating_point() else {}


def learns(folder: Path, options: list[str]) -> tuple[bool, bool]:
    """Train for some collections; return whether parameters of the attack moved, and whether the team learnt."""
    run: Run = open_run(compose_train(folder, *TINY, *options), folder / "run", {}, None)
    try:
        go_on(run, 1)
        attack = part(run.parts.attack)
        before = floats(attack.state_dict())
        go_on(run, 8)
        return differences(before, floats(attack.state_dict())) != [], run.clock.updates > 0
    finally:
        run.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_part_learns_in_a_mixture_what_learns_alone(name: str, tmp_path: Path) -> None:
    expected = (name in SMALL, True)
    assert learns(tmp_path / "inner", in_a_mixture_in_a_mixture(name)) == expected
    if name in SMALL:  # what learns nothing alone can learn nothing beside others
        assert learns(tmp_path / "alone", alone(name)) == expected
        assert learns(tmp_path / "beside", beside_random(name)) == expected


@pytest.mark.parametrize("name", NAMES)
def test_training_under_a_mixture_resumes_exactly(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_resumes_exactly(tmp_path, monkeypatch, *beside_random(name), "train.total_steps=400")


def test_parts_that_write_reports_write_them_under_their_name(tmp_path: Path) -> None:
    train(tmp_path / "run", *in_a_mixture_in_a_mixture("ibal"), "attack.attacks.inner.attacks.it.report_every=1")
    assert (tmp_path / "run" / "reports" / "inner" / "it" / "ibal_scores.csv").exists()


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train the victim of the tests below."""
    folder = tmp_path_factory.mktemp("victim") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("marl.show.plot.learning_curves", lambda groups, path: None)
        train(folder, "train.total_steps=100")
    return folder


def opened(team: Path, folder: Path, options: list[str]) -> dict[str, Any]:
    """Return what opens the trained team under an attack."""
    attack = resolved(compose_train(folder, "env=toy/corridor", *options).attack)
    where = {"device": "cpu", "threads": 1, "seed": 3, "env": None, "env_options": {}}
    return {"run": str(team), "policy": None, "checkpoint": None, "attack": attack, **where}


@pytest.mark.parametrize("make", [beside_random, in_a_mixture_in_a_mixture])
@pytest.mark.parametrize("name", [name for name in NAMES if name in SMALL])
def test_a_part_is_fitted_as_if_it_were_alone(name: str, make: Any, team: Path, tmp_path: Path) -> None:
    told: list[float] = []
    expected = fit_attack(opened(team, tmp_path, alone(name)), 8, 32, told.append)
    found = fit_attack(opened(team, tmp_path, make(name)), 8, 32, told.append)
    state = found["attack"]["it"] if make is beside_random else found["attack"]["inner"]["it"]
    assert differences(state, expected["attack"]) == [] and found["clock"] == expected["clock"]
    assert told[-1] == 1.0


def test_a_mixture_of_two_that_learn_fits_both(team: Path, tmp_path: Path) -> None:
    options = [*beside_random("atla"), "+attack@attack.attacks.more=wolfpack", "+attack.weights.more=1",
               *(f"attack.attacks.more.{option}" for option in SMALL["wolfpack"])]  # fmt: skip
    told: list[float] = []
    found = fit_attack(opened(team, tmp_path, options), 8, 32, told.append)
    assert found["attack"]["it"]["learnt_from"] == 8 and found["attack"]["more"]["foresight"] is not None
    assert found["clock"]["episodes"] == 16 and told == sorted(told) and told[-1] == 1.0


@pytest.mark.parametrize("name", NAMES)
def test_teams_are_tested_under_a_mixture(name: str, team: Path, tmp_path: Path) -> None:
    """Fitted first where that is needed; about half of the episodes are under each part."""
    opens = opened(team, tmp_path, beside_random(name))
    tested = open_team(OmegaConf.create(opens), 8)
    if any(isinstance(one, Fitting) for _, one in attacks_within(tested.attack)):
        tested.attack.load_state_dict(fit_attack(opens, 8, 32, lambda done: None)["attack"])
    assert not any(one.needs_fit for _, one in attacks_within(tested.attack) if isinstance(one, Fitting))
    results = evaluate_team(tested, 16)
    tested.env.close()
    assert isinstance(tested.attack, Mixture) and set(tested.attack.chosen.tolist()) == {0, 2}
    assert len(results["won"]) == 16 and results["hits"].sum() > 0


# an attack that must be fitted is not measured without, wherever it is


def wrapped(attack: dict[str, Any], weight: float = 1.0) -> dict[str, Any]:
    parts = {"it": attack, "trip": fake("Trip", agents=1, to=1)}
    mixture = {"_target_": "attacks.mixture.Mixture", "_partial_": True}
    return {**mixture, "attacks": parts, "weights": {"it": weight, "trip": 1.0}}


@pytest.mark.parametrize(("depth", "where"), [(1, "it"), (2, "it/it"), (3, "it/it/it")])
def test_an_unfitted_part_is_refused_at_any_depth(depth: int, where: str, tmp_path: Path) -> None:
    attack = fake("Student", rounds=2)
    for _ in range(depth):
        attack = wrapped(attack)
    rows, outcome = measured([entrant([0, 0])], [column("raw", attack)], setting(tmp_path))
    assert outcome.complete
    assert rows[0].cells["raw"] == f"not possible: Student ({where}) must be fitted first: its column needs fit=victim"
    rows, _ = measured([entrant([0, 0])], [column("fitted", attack, fit="victim")], setting(tmp_path))
    assert not isinstance(rows[0].cells["fitted"], str)


def test_a_part_that_is_never_drawn_needs_no_fit_and_takes_no_turn(team: Path, tmp_path: Path) -> None:
    options = [*beside_random("ega"), "attack.attacks.it.team_episodes=0", "attack.weights.it=0"]
    assert learns(tmp_path, options) == (False, True)
    opens = opened(team, tmp_path, options)
    cell = Cell("raw", "0", tmp_path / "0", opens, None, setting(tmp_path, episodes=8))
    assert len(cell.play(lambda done: None)["won"]) == 8


def test_a_mixture_of_attacks_that_have_nothing_to_fit_is_refused(team: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Mixture has nothing to fit"):
        fit_attack(opened(team, tmp_path, beside_random("single")), 8, 32, lambda done: None)
