"""On a GPU every algorithm and every attack trains, resumes and is tested: on a pretended one
(``tests/support/pretend.py``), and with ``-m cuda`` on a real one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_map

from marl.core.types import ConfigError, EpisodeBatch
from marl.run import checkpoint
from marl.run.evaluate import evaluate
from marl.run.teams import load_trained
from marl.run.trainer import fit
from tests.algos.test_bc import GIVEN
from tests.attacks.test_attack_contract import ATTACKS, MORE
from tests.support.helpers import TINY, compose_train, newest_state
from tests.support.pretend import OnGpu, pretended_gpu
from tests.test_combinations import ALGOS, NEEDS, tensors

Machine = Callable[[], AbstractContextManager[None]]
pytestmark = pytest.mark.usefixtures("no_drawing")

# the pretended GPU itself


def faults(here: torch.Tensor, there: torch.Tensor, net: torch.nn.Module) -> dict[str, Callable[[], Any]]:
    """Return what torch refuses on a machine with a GPU; ``there`` and ``net`` are on it."""
    on_gpu, on_cpu = torch.Generator("cuda"), torch.Generator()
    index, index_there = torch.tensor([0, 1]), torch.tensor([0, 1], device="cuda")
    return {
        "sum": lambda: here + there,
        "in place": lambda: here.add_(there),
        "cat": lambda: torch.cat([here, there]),
        "stack of numbers": lambda: torch.stack([here.sum(), there.sum()]),
        "where": lambda: torch.where(here > 0, there, there),
        "layer": lambda: net(here),
        "numpy": lambda: there.numpy(),
        "asarray": lambda: np.asarray(there),
        "gather": lambda: there.gather(0, index),
        "indices": lambda: here[index_there],
        "values at indices": lambda: here.__setitem__(index, there[:2]),
        "generator of the gpu": lambda: torch.rand(3, generator=on_gpu),
        "generator of the cpu": lambda: torch.rand(3, generator=on_cpu, device="cuda"),
    }


def fine(here: torch.Tensor, there: torch.Tensor, net: torch.nn.Module) -> dict[str, Callable[[], Any]]:
    """Return what torch does on a machine with a GPU."""
    gen = torch.Generator("cuda")
    return {
        "number": lambda: there * torch.tensor(2.0),
        "copy": lambda: here.copy_(there),
        "slice": lambda: here.__setitem__(slice(0, 2), there[:2]),
        "indices of the cpu": lambda: there[torch.tensor([0, 1])],
        "to": lambda: here.to("cuda") + there,
        "cpu": lambda: (here + there.cpu()).numpy(),
        "item": lambda: float(there.sum()) + there.tolist()[0],
        "generator": lambda: torch.rand(2, generator=gen, device=gen.device) + there[:2],
        "backward": lambda: net(there).sum().backward(),
    }


def cases() -> dict[tuple[str, str], Callable[[], Any]]:
    """Return every case on fresh tensors, by kind and name."""
    here, there, net = torch.ones(3), torch.ones(3, device="cuda"), torch.nn.Linear(3, 2).to("cuda")
    return {(kind.__name__, name): case for kind in (faults, fine) for name, case in kind(here, there, net).items()}


with pretended_gpu():
    NAMES = list(cases())


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_the_pretended_gpu_keeps_torchs_rules(kind: str, name: str) -> None:
    with pretended_gpu():
        case = cases()[kind, name]
        if kind == "fine":
            case()
        else:
            with pytest.raises((RuntimeError, TypeError), match=r"cuda|cpu"):
                case()


def test_networks_move_and_nothing_stays_pretended() -> None:
    with pretended_gpu():
        net = torch.nn.GRU(2, 3).to("cuda")
        out, _ = net(torch.ones(4, 1, 2, device="cuda"))
        out.sum().backward()
        assert all(isinstance(p, torch.nn.Parameter) and p.is_cuda and p.grad.is_cuda for p in net.parameters())
        assert out.device == torch.device("cuda", 0) and not out.cpu().is_cuda
    assert not torch.ones(3).is_cuda and torch.cuda.device_count() == 0 and torch.Generator().device.type == "cpu"


# runs

SHORT = ("device=cuda", "train.n_envs=4", "eval.n_envs=4", "eval.episodes=4", "eval.final_episodes=4", "eval.every=60",
         "checkpoint.every=60", "log.every=20")  # fmt: skip
LEARNER = ("algo.batch_size=4", "algo.warmup_episodes=4", "algo.epsilon.steps=100", "algo.learner.target_every=2")
NO_LEARNER = tuple(option for option in TINY if not option.startswith(("algo.", "agent@")))
MINI = ("env=mds_mini", "env.episode_limit=5")
SETUPS: dict[str, tuple[str, ...]] = {
    **{f"algo={name}": (f"algo={name}", *NEEDS.get(name, ())) for name in ALGOS},
    **{f"attack={name}": (f"attack={name}", "env.n_agents=4", *MORE.get(name, ())) for name in ATTACKS},
    "s2q with messages": ("algo=s2q", "algo.comm=true", "algo.agent.share_parameters=false"),
    "fim that has found features": ("algo=fim", "algo.hooks.fim.id_steps=30", "algo.hooks.fim.pretrain=5",
                                    "algo.hooks.fim.cog.delta=2.0"),
    "agents without memory": ("algo=qmix", "agent@algo.agent=mlp"),
    "agents of their own": ("algo=qmix", "algo.agent.share_parameters=false"),
    "a replay on the gpu": ("algo=qmix", "replay.device=cuda"),
    "a battle": ("algo=qmix", "env=skirmish/3m", "attack=random"),
    "sets to avoid": ("algo=sbc", *MINI, "algo.sets.family=goals", "algo.sets.m_max=1", "algo.sets.refresh_steps=40",
                      "algo.p_self=0.1"),
    "a partner by script": ("algo=response", *MINI, "+policy@algo.policies.still=idle"),
    "tables": ("algo=sbc_table", *MINI, "env.size=3", "env.goals=[[0,1],[2,1]]"),
    "a clone": GIVEN,
}  # fmt: skip


def on_gpu(folder: Path, *overrides: str) -> None:
    """Train a tiny run on the GPU."""
    learns = not any(name in overrides for name in ("algo=sbc_table", "algo=bc", "algo=frozen"))
    options = (*(TINY if learns else NO_LEARNER), *SHORT, *(LEARNER if learns else ()), *overrides)
    assert fit(compose_train(folder.parent, *options), folder)


MACHINES = pytest.mark.parametrize(
    "machine", [pretended_gpu, pytest.param(nullcontext, marks=pytest.mark.cuda)], ids=["pretended", "real"]
)


@MACHINES
@pytest.mark.parametrize("setup", SETUPS)
def test_a_run_trains_resumes_and_is_tested(setup: str, machine: Machine, tmp_path: Path) -> None:
    with machine():
        for steps in (60, 120):
            on_gpu(tmp_path / "run", *SETUPS[setup], f"train.total_steps={steps}")
        parts, clock = load_trained(tmp_path / "run", {}, 4)
        assert clock.env_steps >= 120 and parts.device.type == "cuda"
        assert all(p.is_cuda for net in parts.algo.networks().values() for p in net.parameters())
        results = evaluate(
            parts.env, parts.algo.policy(clock), parts.attack, parts.fields, episodes=4,
            policy_gen=parts.streams["eval"], attack_gen=parts.streams["eval_attack"], device=parts.device,
        )  # fmt: skip
        parts.env.close()
    assert len(results["return"]) == 4
    state = newest_state(tmp_path / "run")[0]
    assert not any(isinstance(tensor, OnGpu) for tensor in tensors(state)), "a file holds plain tensors"


@MACHINES
def test_runs_that_begin_from_others(machine: Machine, tmp_path: Path) -> None:
    """A team goes on elsewhere, is attacked without learning, and is answered."""
    earlier = tmp_path / "earlier"
    with machine():
        on_gpu(earlier, "algo=vdn", "train.total_steps=60")
        on_gpu(tmp_path / "later", "algo=vdn", "train.total_steps=60", f"init_from={earlier}")
        for steps in (60, 120):
            total = f"train.total_steps={steps}"
            on_gpu(tmp_path / "frozen", "algo=frozen", f"algo.run={earlier}", "attack=atla", total)
            on_gpu(tmp_path / "answer", "algo=response", f"algo.runs=[{earlier}]", total)
    assert newest_state(tmp_path / "answer")[0]["clock"]["updates"] > 0


def test_a_mixture_of_devices_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What these tests are for: an environment that is given the GPU's tensors, and a learner that forgets to move."""
    with pretended_gpu():
        on_gpu(tmp_path / "run", "algo=vdn", "train.total_steps=60")
        with monkeypatch.context() as patch:
            load = checkpoint.load_state
            patch.setattr(checkpoint, "load_state", lambda folder: tree_map(to_gpu, load(folder)))
            with pytest.raises(ConfigError, match="convert cuda:0 device type tensor to numpy"):
                on_gpu(tmp_path / "run", "algo=vdn", "train.total_steps=120")
        with monkeypatch.context() as patch:
            patch.setattr(EpisodeBatch, "to", lambda self, device: self)
            with pytest.raises(RuntimeError, match="all tensors must be on one device"):
                on_gpu(tmp_path / "run", "algo=vdn", "train.total_steps=120")


def to_gpu(value: Any) -> Any:
    return value.to("cuda") if isinstance(value, torch.Tensor) else value
