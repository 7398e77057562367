"""Published settings, as numbers that a run would use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from marl.run.compose import choices
from tests.support.helpers import compose_train

ON_BATTLES = [name for name in choices("experiment") if name.endswith(("_smac", "_smacv2")) or "smac_" in name]
OURS = {"smac_small"}


def values(cfg: DictConfig, *keys: str) -> list[Any]:
    return [OmegaConf.select(cfg, key) for key in keys]


LEARNER = tuple(f"algo.learner.{key}" for key in ("lr", "optimizer_eps", "target_every", "tau", "td_lambda"))
REST = ("train.n_envs", "algo.batch_size", "algo.episodes_per_update", "algo.epsilon.steps", "algo.agent.hidden_dim")


@pytest.mark.parametrize(
    ("experiment", "battle", "learner", "rest"),
    [
        ("smac_published", "5m_vs_6m", [0.001, 1e-8, 200, None, 0.6], [8, 128, 8, 100_000, 64]),
        ("smac_published", "6h_vs_8z", [0.001, 1e-8, 200, None, 0.3], [8, 128, 8, 500_000, 64]),
        ("smac_published", "3s5z_vs_3s6z", [0.001, 1e-8, 200, None, 0.6], [8, 128, 8, 100_000, 256]),
        ("smac_sample_efficient", "3m", [0.001, 1e-8, 200, None, 0.5], [4, 64, 4, 100_000, 64]),
        ("smac_sample_efficient", "5m_vs_6m", [0.001, 1e-8, 200, None, 0.3], [4, 64, 4, 100_000, 64]),
        ("smac_sample_efficient", "6h_vs_8z", [0.001, 1e-8, 200, None, 0.3], [4, 64, 4, 500_000, 64]),
        ("s2q_smac", "corridor", [0.001, 1e-8, 200, None, 0.6], [8, 128, 8, 100_000, 64]),
        ("s2q_smac", "6h_vs_8z", [0.001, 1e-8, 200, None, 0.6], [8, 128, 8, 500_000, 64]),
        ("fox_smac", "8m", [0.0005, 1e-5, 200, None, 0.0], [1, 32, 1, 50_000, 64]),
        ("fim_smac", "corridor", [0.001, 1e-5, 200, None, 0.6], [8, 128, 8, 100_000, 64]),
        ("fim_smac", "6h_vs_8z", [0.001, 1e-5, 200, None, 0.3], [8, 128, 8, 500_000, 64]),
        ("fim_smac", "3s5z_vs_3s6z", [0.001, 1e-5, 200, None, 0.6], [4, 64, 4, 100_000, 64]),
        ("wall_smac", "8m", [0.0005, 1e-5, 200, None, 0.0], [8, 32, 1, 1, 64]),
    ],
)
def test_published_numbers(experiment: str, battle: str, learner: list[Any], rest: list[Any], tmp_path: Path) -> None:
    cfg = compose_train(tmp_path, f"experiment={experiment}", f"env=skirmish/{battle}")
    assert values(cfg, *LEARNER) == learner and values(cfg, *REST) == rest


@pytest.mark.parametrize(
    ("experiment", "learner", "rest", "ends"),
    [
        ("fox_football", [0.0005, 1e-5, 200, None, 0.0], [1, 8, 1, 50_000, 64], ["fox", True, 150]),
        ("s2q_football", [0.001, 1e-8, 200, None, 0.6], [8, 128, 8, 100_000, 256], ["goals", True, 150]),
    ],
)
def test_published_numbers_of_football(
    experiment: str, learner: list[Any], rest: list[Any], ends: list[Any], tmp_path: Path
) -> None:
    cfg = compose_train(tmp_path, f"experiment={experiment}")
    assert values(cfg, *LEARNER) == learner and values(cfg, *REST) == rest
    assert values(cfg, "env.reward", "env.timeout_is_terminal", "env.episode_limit") == ends
    assert values(cfg, "env.scale_directions", "env.observe", "env.checkpoints") == [1.0, "last", False]


FIELDS = {  # of S2Q's table: agents, opponents seen, limit, line
    "academy_3_vs_1_with_keeper": (3, 2, 150, 0.0),
    "academy_counterattack_hard": (4, 3, 150, 0.0),
    "academy_corner": (10, 11, 150, -0.1),
    "academy_run_pass_and_shoot_with_keeper": (2, 2, 150, 0.0),
    "5_vs_5": (4, 5, 300, -0.15),
}


@pytest.mark.parametrize("scenario", FIELDS)
def test_published_scenarios_of_football(scenario: str, tmp_path: Path) -> None:
    env = compose_train(tmp_path, f"env=football/{scenario}").env
    assert env.level == scenario and (env.agents, env.enemies, env.episode_limit, env.pos_limit) == FIELDS[scenario]


@pytest.mark.parametrize("experiment", [name for name in ON_BATTLES if name not in OURS])
def test_a_time_out_is_the_end_in_every_published_experiment_on_battles(experiment: str, tmp_path: Path) -> None:
    given = () if experiment in {"wall_smac", "ibal_smac"} else ("init_from=null",)
    assert compose_train(tmp_path, f"experiment={experiment}", *given).env.timeout_is_terminal is True


def test_our_own_default_is_cut_off_by_a_time_out(tmp_path: Path) -> None:
    assert compose_train(tmp_path).env.timeout_is_terminal is False


def test_exceptions_by_map(tmp_path: Path) -> None:
    for battle, pack in {"2s3z": 2, "8m": 3, "MMM": 4}.items():
        assert compose_train(tmp_path, "experiment=wall_smac", f"env=skirmish/{battle}").attack.pack_size == pack
    for battle, (budget, lr) in {"2s3z": (8, 0.0004), "3m": (4, 0.0004), "8m": (5, 0.0002), "MMM": (8, 0.0002)}.items():
        cfg = compose_train(tmp_path, "experiment=romance_smac", f"env=skirmish/{battle}", "init_from=x")
        assert (cfg.attack.budget, cfg.algo.learner.lr) == (budget, lr)
    for battle, budget in {"2s3z": 12, "3m": 8, "MMM": 12}.items():
        assert compose_train(tmp_path, "experiment=wall_smac", f"env=skirmish/{battle}").attack.budget == budget
    for team, share in {"terran_5_vs_5": 0.5, "protoss_5_vs_5": 1.0, "zerg_5_vs_5": 1.0, "zerg_10_vs_10": 0.5}.items():
        assert compose_train(tmp_path, "experiment=s2q_smacv2", f"env=skirmish/{team}").env.surrounded == share


def test_the_slow_model_of_laies_is_copied_every_200_episodes_at_any_rhythm(tmp_path: Path) -> None:
    every = []
    for given in ((), ("algo.episodes_per_update=8",), ("algo.episodes_per_update=300",)):
        model = compose_train(tmp_path, "algo=laies", *given).algo.hooks.laies.model
        every.append(model.slow_every)
    assert every == [50, 25, 1]
    table = compose_train(tmp_path, "experiment=sparse_battle_small/laies").algo.hooks.laies.model
    assert table.slow_every == 25  # as it was made
