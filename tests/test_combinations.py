"""Every algorithm on every toy game: a few iterations learn something finite; switches; two ranks equal one process."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from algos.s2q.nets import CandidateSoftmax
from marl.core import distributed
from marl.core.types import EpisodeBatch
from marl.learn.algorithm import ValueAlgorithm
from marl.learn.mixers import QMix
from marl.run.build import factory
from marl.run.compose import choices
from marl.run.trainer import open_run
from tests.marl.learn.test_ppo import make_learner as make_actors
from tests.support.helpers import TINY, compose_train, make_learner, make_spec, newest_state, random_batch, rows, train

ELSEWHERE = {
    **dict.fromkeys(("ippo", "mappo"), "learn from what was just collected: tests/test_actors.py"),
    **dict.fromkeys((name for name in choices("algo") if name.startswith("ippo/")),
                    "learn from what was just collected: tests/algos/sbc/test_sbc_actors.py"),
    "frozen": "learns nothing: tests/marl/run/test_init_from.py",
    "bc": "learns not from what it plays: tests/algos/test_bc.py",
    **dict.fromkeys(("sbc", "sbc_null", "sbc_irrelevant", "sbc_two_stage", "fcp", "hsp", "hsp_partners", "mep",
                     "response"),
                    "need runs, or a game that can be blocked: tests/algos/sbc/test_sbc_run.py"),
    **dict.fromkeys(("sbc_table", "sbc_table_null", "sbc_table_irrelevant", "e3t_table", "sp_table"),
                    "are tables for one small game: tests/algos/sbc/test_sbc_table.py"),
}  # fmt: skip
ALGOS = [name for name in choices("algo") if name not in ELSEWHERE]
TOYS = [name for name in choices("env") if name.startswith("toy/")]
NEEDS = {"laies": ("algo.hooks.laies.external=[.*]",)}  # which features matter is for a person to say
SHORT = ("train.total_steps=120", "algo.epsilon.steps=100", "log.every=20", "eval.every=60", "checkpoint.every=60",
         "algo.learner.target_every=8")  # fmt: skip


pytestmark = pytest.mark.usefixtures("no_drawing")


def tensors(tree: Any) -> list[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        return [tree]
    values = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else ()
    return [tensor for value in values for tensor in tensors(value)]


def unchanged_networks(folder: Path, trained: dict[str, Any], *overrides: str) -> list[str]:
    """Networks whose weights are those of the untrained run that ``overrides`` describe."""
    run = open_run(compose_train(folder, *overrides), folder / "untrained", {}, None)
    run.close()
    nets = {name: net for name, net in run.parts.algo.networks().items() if list(net.parameters())}
    before = {name: [p.detach().clone() for p in net.parameters()] for name, net in nets.items()}
    run.parts.algo.load_state_dict(trained)
    return [n for n, net in nets.items() if all(map(torch.equal, before[n], net.parameters()))]


def assert_learns(folder: Path, *overrides: str) -> dict[str, Any]:
    """Train, then: every metric and every saved number is finite, and every network has moved."""
    final = train(folder / "run", *SHORT, *overrides)
    assert set(final) == {"win_rate", "return", "length"}
    written = rows(folder / "run", "metrics")
    assert written and all(math.isfinite(value) for row in written for value in row.values())
    assert written[-1]["updates"] > 0
    trained = newest_state(folder / "run")[0]["algo"]
    assert all(bool(torch.isfinite(t).all()) for t in tensors(trained) if t.is_floating_point())
    assert unchanged_networks(folder, trained, *TINY, *SHORT, *overrides) == []
    return trained


@pytest.mark.parametrize("env", TOYS)
@pytest.mark.parametrize("algo", ALGOS)
def test_every_algorithm_trains_on_every_toy_game(algo: str, env: str, tmp_path: Path) -> None:
    assert_learns(tmp_path, f"algo={algo}", f"env={env}", *NEEDS.get(algo, ()))


@pytest.mark.parametrize(
    "switches",
    [
        ("algo=qmix", "algo.agent.share_parameters=false"),
        ("algo=iql", "algo.agent.share_parameters=false", "algo.agent.agent_id=false"),
        ("algo=qmix", "algo.learner.optimizer=rmsprop"),
        ("algo=qplex", "algo.learner.tau=0.05", "algo.learner.target_every=null"),
        ("algo=vdn", "algo.learner.act_on=executed", "algo.learner.last_action=executed"),
        ("algo=qmix", "algo.learner.double_q=false", "algo.learner.td_lambda=0.0", "algo.agent.last_action=false"),
        ("algo=wqmix", "algo.learner.rule=ow", "algo.learner.target_source=qtot"),
        ("algo=s2q", "algo.comm=true", "algo.agent.share_parameters=false"),
        ("algo=s2q", "mixer@algo.mixer=qplex", "algo.execute=independent", "algo.learner.dedup=true"),
        ("algo=s2q", "mixer@algo.mixer=vdn", "algo.execute=oracle", "algo.K=3"),
        ("algo=s2q", "algo.execute=uniform", "algo.learner.w_c=1", "algo.learner.temperature_mode=relative"),
        ("algo=s2q", "algo.K=0", "algo.learner.weight0=ow"),
        ("algo=fim", "algo.hooks.fim.id_steps=30", "algo.hooks.fim.pretrain=5", "algo.hooks.fim.cog.delta=2.0"),
        (
            "algo=fim",
            "mixer@algo.mixer=vdn",
            "algo.hooks.fim.id_steps=30",
            "algo.hooks.fim.pretrain=5",
            "algo.hooks.fim.cog.delta=2.0",
            "algo.hooks.fim.model.kind=gru",
            "algo.hooks.fim.trace=per_agent",
        ),
        ("algo=fox", "agent@algo.agent=fox"),
        ("algo=fox", "agent@algo.agent=fox", "mixer@algo.mixer=qplex", "algo.agent.share_parameters=false"),
        ("algo=laies", "mixer@algo.mixer=qplex", "algo.hooks.laies.external=[cell]"),
        ("algo=count", "mixer@algo.mixer=none", "algo.hooks.count.features=['0:2']"),
        ("algo=vdn", "train.n_envs=1", "algo.batch_size=1", "algo.warmup_episodes=1", "replay.capacity=1"),
    ],
    ids=lambda switches: ",".join(s.split(".")[-1] for s in switches),
)
def test_switches(switches: tuple[str, ...], tmp_path: Path) -> None:
    trained = assert_learns(tmp_path, *switches)
    if "algo.learner.tau=0.05" in switches:
        online, target = trained["learner"]["agent"], trained["learner"]["target_agent"]
        assert any(not torch.equal(online[key], target[key]) for key in online), "a soft target lags behind"


def test_one_network_per_agent_is_more_parameters(tmp_path: Path) -> None:
    def parameters(*overrides: str) -> int:
        cfg = compose_train(tmp_path, "env=toy/corridor", *overrides)
        algo = factory(cfg.algo, "algo")(make_spec(n=3), "cpu", torch.Generator())
        assert isinstance(algo, ValueAlgorithm)
        return sum(p.numel() for p in algo.networks()["agent"].parameters())

    assert parameters("algo.agent.share_parameters=false") == 3 * parameters()


# two processes: each has half of the episodes, both end with the weights of one that has them all

SPEC = make_spec()
EPISODES, UPDATES = 8, 3


def learnt(kind: str, lanes: torch.Tensor) -> torch.Tensor:
    """Return weights, and the scale of S2Q's temperature, learnt from the episodes ``lanes`` bool [EPISODES]."""
    weights = learn(kind, [random_batch(SPEC, EPISODES, seed).lanes(lanes) for seed in range(UPDATES)])
    softmax, values = CandidateSoftmax(1.0, "relative", dedup=False), torch.arange(3.0 * EPISODES).view(EPISODES, 3)
    softmax.observe(values[lanes], torch.ones(int(lanes.sum()), dtype=torch.bool))
    return torch.cat([weights, softmax.scale[None]])


def learn(kind: str, batches: list[EpisodeBatch]) -> torch.Tensor:
    torch.manual_seed(0)
    if kind == "ppo":
        actors = make_actors(SPEC, optimizer="rmsprop", normalise_advantage=True, normalise_value=True)
        for batch in batches:
            actors.update(batch, 0.01, 1.0, torch.Generator())
        return torch.cat([p.detach().flatten() for net in actors.networks().values() for p in net.parameters()])
    learner = make_learner(SPEC, QMix(SPEC, embed_dim=8, hypernet_dim=8), optimizer="rmsprop", grad_clip=1.0)
    for batch in batches:
        learner.update(batch)
    return torch.cat([p.detach().flatten() for p in learner.parameters])


def one_rank(rank: int, kind: str, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    half = torch.arange(EPISODES) % 2 == rank
    weights = learnt(kind, half)
    facts = (distributed.world(), distributed.total(rank + 1), distributed.broadcast(rank == 0))
    assert facts == ((rank, 2), 3, True), facts
    assert distributed.greatest(torch.tensor([rank, -rank])).tolist() == [1, 0]
    torch.save(weights, f"{folder}/weights{rank}.pt")
    distributed.stop()


@pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo")
@pytest.mark.parametrize("kind", ["qmix", "ppo"])
def test_two_ranks_make_the_updates_of_one_process(kind: str, tmp_path: Path) -> None:
    """Their episodes have different lengths: a mean of the ranks' means would be another gradient."""
    context = mp.get_context("spawn")  # a fork of a process with OpenMP threads may not compute
    ranks = [context.Process(target=one_rank, args=(rank, kind, str(tmp_path))) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
        assert rank.exitcode == 0
    first, second = (torch.load(tmp_path / f"weights{rank}.pt", weights_only=True) for rank in range(2))
    assert torch.equal(first, second)
    whole = learnt(kind, torch.ones(EPISODES, dtype=torch.bool))
    assert (first - whole).abs().max() < 1e-5
    alone = learnt(kind, torch.arange(EPISODES) % 2 == 0)
    assert (first - alone).abs().max() > 1e-3, "the other half must matter for this test to mean something"
