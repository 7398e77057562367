"""Victims that play by a script and attacks whose effect can be told beforehand, for the robustness matrix."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from attacks.base import as_victim
from envs.toys.games import Corridor
from marl.core.protocols import NoAttack, View
from marl.core.types import Carry, EnvSpec, Field, Obs, Step
from marl.measure.entrants import Entrant
from marl.measure.matrix import Outcome, measure, read_cell
from marl.measure.robustness import Cell, Setting, plan_cell
from marl.measure.robustness_scores import Matrix, Row, Score, score_rows
from marl.measure.suite import Column

CALLS: Counter[str] = Counter()  # rounds that were begun, by the attack's class
MATRIX = {"_target_": "envs.toys.games.MatrixGame", "_partial_": True, "payoff": [[8, 2], [4, 0]]}
CORRIDOR = {"_target_": "envs.toys.games.Corridor", "_partial_": True, "n_agents": 2, "length": 5, "spread": 3,
            "fatal": False, "episode_limit": 12}  # fmt: skip
NONE = {"_target_": "marl.core.protocols.NoAttack", "_partial_": True}


class Scripted:
    """Always the same joint action; with none given, right to the end and press once everybody can."""

    def __init__(self, spec: EnvSpec, device: Any, *, actions: list[int] | None) -> None:
        self.actions = None if actions is None else torch.tensor(actions)

    def begin(self, n_envs: int, gen: Generator) -> Carry:
        return {}

    def act(self, obs: Obs, carry: Carry, *, explore: bool, gen: Generator) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        if self.actions is not None:
            return self.actions.expand(len(obs.state), -1).clone(), carry, {}
        there = obs.avail[..., Corridor.PRESS]
        wait = torch.where(there.all(1, keepdim=True), Corridor.PRESS, Corridor.STAY)
        return torch.where(obs.avail[..., Corridor.RIGHT], Corridor.RIGHT, wait), carry, {}

    def after(self, carry: Carry, intended: Tensor, executed: Tensor) -> Carry:
        return carry


class Fake(NoAttack):
    """Counts the rounds that it begins, and attacks with ``hit``."""

    def fields(self) -> dict[str, Field]:
        return {"hit": Field((self.spec.n_agents,), torch.bool)}

    def begin(self, n_envs: int, victim: Any, gen: Generator) -> None:
        CALLS[type(self).__name__] += 1


class Trip(Fake):
    """Lanes with even numbers: the first ``agents`` agents play action ``to``, where they can."""

    def __init__(self, spec: EnvSpec, device: Any, *, agents: int, to: int) -> None:
        super().__init__(spec, device)
        self.agents, self.to = agents, to

    def perturb_actions(self, view: View, intended: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        even = torch.arange(len(intended)) % 2 == 0
        hit = (even & view.active)[:, None] & (torch.arange(intended.shape[1]) < self.agents) & (intended != self.to)
        hit &= view.obs.avail[..., self.to]
        return torch.where(hit, self.to, intended), {"hit": hit}


class Tax(Trip):
    """The first agent of as many lanes as its ``budget`` plays action ``to``."""

    def __init__(self, spec: EnvSpec, device: Any, *, budget: int | None, to: int) -> None:
        super().__init__(spec, device, agents=1, to=to)
        self.budget = budget

    def perturb_actions(self, view: View, intended: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        struck = torch.arange(len(intended)) < (len(intended) if self.budget is None else self.budget)
        hit = (struck & view.active)[:, None] & (torch.arange(intended.shape[1]) < 1) & (intended != self.to)
        return torch.where(hit, self.to, intended), {"hit": hit}


class Peek(Fake):
    """Cannot do without its victim's values."""

    def begin(self, n_envs: int, victim: Any, gen: Generator) -> None:
        as_victim(victim, "peek")


class Interrupting(Fake):
    """Ctrl-C in the middle of its first round."""

    def begin(self, n_envs: int, victim: Any, gen: Generator) -> None:
        super().begin(n_envs, victim, gen)
        os.kill(os.getpid(), signal.SIGINT)


class Student(Trip):
    """Once it has watched ``rounds`` rounds, it knows what agent 0 plays, and has it play the other action."""

    def __init__(self, spec: EnvSpec, device: Any, *, rounds: int) -> None:
        super().__init__(spec, device, agents=1, to=0)
        self.rounds, self.watched, self.studying = rounds, 0, False
        self.seen, self.drawn = torch.tensor(-1), torch.zeros(2)

    @property
    def needs_fit(self) -> bool:
        return self.watched < self.rounds

    @property
    def fitted(self) -> float:
        return self.watched / self.rounds

    @contextmanager
    def fitting(self) -> Iterator[None]:
        CALLS["fits"] += 1
        self.studying = True
        yield
        self.studying = False

    def fields(self) -> dict[str, Field]:
        return super().fields() | ({"note": Field(())} if self.studying else {})

    def perturb_actions(self, view: View, intended: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        self.to = int(1 - self.seen)
        if self.studying:
            return intended, {"hit": torch.zeros_like(view.obs.alive), "note": intended[:, 0].float() + 1}
        return super().perturb_actions(view, intended)

    def update(self, replay: Any, fresh: Any, victim: Any, clock: Any) -> dict[str, Tensor]:
        assert len(replay) == min(clock.episodes, replay.capacity)
        self.drawn = torch.rand(2)  # as dropout does, and networks that are made late
        self.seen, self.watched = fresh["note"][:, 0].mode().values.long() - 1, self.watched + 1
        return {"student/seen": self.seen.float()}

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen, "watched": self.watched, "drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen, self.watched = state["seen"], state["watched"]


class Gambler(Trip):
    """Each fit teaches it to trip as many lanes as ``SKILLS`` says next; at once, it trips ``haste`` lanes."""

    SKILLS: list[int] = []  # noqa: RUF012 - shared on purpose

    def __init__(self, spec: EnvSpec, device: Any, *, haste: int) -> None:
        super().__init__(spec, device, agents=1, to=1)
        self.skill, self.haste, self.at_once = -1, haste, False

    @property
    def needs_fit(self) -> bool:
        return self.skill < 0

    @property
    def fitted(self) -> float:
        return float(not self.needs_fit)

    @contextmanager
    def fitting(self) -> Iterator[None]:
        CALLS["fits"] += 1
        yield

    def perturb_actions(self, view: View, intended: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        lanes = self.haste if self.at_once else self.skill
        hit = (view.active & (torch.arange(len(intended)) < lanes))[:, None] & torch.tensor([True, False])
        return torch.where(hit, 1, intended), {"hit": hit}

    def update(self, replay: Any, fresh: Any, victim: Any, clock: Any) -> dict[str, Tensor]:
        self.skill = self.SKILLS.pop(0)
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {"skill": self.skill, "at_once": self.at_once}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.skill, self.at_once = state["skill"], state["at_once"]


class Blind(Student, Peek):
    """A student that cannot do without its victim's values."""


class Counting(Corridor):
    """A corridor whose starts depend on how many steps were played before, as in games that draw in between."""

    def step(self, actions: Tensor) -> Step:
        self.streams.key[self.running.numpy()] += 1
        return super().step(actions)


class Starts(Trip):
    """Remembers where episodes began."""

    SEEN: list[Tensor] = []  # noqa: RUF012 - shared on purpose

    def perturb_obs(self, view: View) -> Tensor:
        if view.t == 0:
            self.SEEN.append(view.obs.state.clone())
        return view.obs.obs


def fake(name: str, **options: Any) -> dict[str, Any]:
    return {"_target_": f"tests.support.robustness_parts.{name}", "_partial_": True, **options}


def entrant(
    actions: list[int] | None, label: str = "scripted", seed: int = 0, env: Any = MATRIX, task: str = "matrix"
) -> Entrant:
    policy = fake("Scripted", actions=actions)
    opens = {"run": None, "policy": policy, "checkpoint": None}
    return Entrant(task, label, seed, {"policy": label}, opens, policy, env)


def column(name: str, attack: dict[str, Any], fit: str | None = None, **env: Any) -> Column:
    return Column(name, attack, fit, env)


def setting(out: Path, episodes: int = 6, n_envs: int = 4, seed: int = 0) -> Setting:
    return Setting(episodes, n_envs, seed, fit_envs=4, fit_replay=8, device="cpu", threads=1, out=out)


NATURAL = column("natural", NONE)
TRIP = column("trip", fake("Trip", agents=1, to=1))
BOTH = column("both", fake("Trip", agents=2, to=1))


def plan(entrants: list[Entrant], columns: list[Column], where: Setting, references: Any = ()) -> list[list[Cell]]:
    return [[plan_cell(one, column, where, list(references), entrants) for column in columns] for one in entrants]


def measured(
    entrants: list[Any], columns: list[Any], where: Setting, references: Any = ()
) -> tuple[list[Row], Outcome]:
    """Return the rows of a matrix after one pass in this process."""
    cells = plan(entrants, columns, where, references)
    outcome = measure([cell for row in cells for cell in row], 1)
    found = [{c.name: read_cell(cell, outcome) for c, cell in zip(columns, row, strict=True)} for row in cells]
    return score_rows(entrants, found, "natural", "win_rate"), outcome


def matrix(rows: list[Row], metric: str = "win_rate", complete: bool = True) -> Matrix:
    return Matrix("suite", rows, list(rows[0].cells), "natural", metric, 6, complete, {"commit": "c0ffee", "seed": 0})


def score(row: Row, name: str) -> Score:
    cell = row.cells[name]
    assert isinstance(cell, Score), cell
    return cell
