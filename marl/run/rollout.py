"""Decide which collections run as one compiled loop, and call it; all others take the loops of ``marl.run.collect`` and
``marl.run.stretch``.

The game, the policy and the attack each declare their compiled form (``marl.core.rolling``). Only a class's own
declaration counts, since a subclass, or a wrapper that forwards attributes, may do something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import Generator, Tensor

from marl.core.protocols import Attack, Policy, VectorEnv
from marl.core.rolling import NOTHING, SINGLE, Acting, Choice, Harm, Rolling, Seats, Span, declared, replaced
from marl.core.types import Carry, ConfigError, EpisodeBatch, Field, Obs, core_fields


class Terms(NamedTuple):
    """The arguments of a collection, compiled or not; see ``marl.run.collect.collect``."""

    explore: bool
    attacked: Tensor  # bool [B]
    policy_gen: Generator
    attack_gen: Generator
    seed: int | None
    redraw: int | None


class Redrawing(Protocol):
    """A game that can replace its random numbers once episodes have begun."""

    def redraw(self, seed: int) -> None: ...  # after ``reset``: what is still to be drawn comes from this seed

    def has_drawn(self) -> bool: ...  # since then, whether or not it has changed anything


def begin(env: VectorEnv, terms: Terms) -> Obs:
    """Begin an episode in every lane. Raise ConfigError if ``terms.redraw`` is given and the game cannot redraw."""
    now = env.reset(terms.seed)
    if terms.redraw is not None:
        if not hasattr(env, "redraw"):
            raise ConfigError(f"{type(env).__name__} cannot play an episode again with other random numbers")
        cast(Redrawing, env).redraw(terms.redraw)
    return now


class Form(NamedTuple):
    """The parts of a collection in their compiled form."""

    game: Rolling
    acting: Acting
    harm: Harm

    def choice(self, seats: Seats, gen: Generator) -> Choice:
        """Return how actions are chosen in one call of the loop; its random numbers are seeded from ``gen``."""
        draws = bool((seats.sampled | (seats.epsilon > 0)).any())
        shift = torch.empty(*seats.last.shape, 0) if seats.shift is None else seats.shift
        how = [one.contiguous().numpy() for one in (seats.network, seats.epsilon, seats.sampled, shift)]
        return Choice(how[0], how[1], how[2], how[3], self.acting.executed, draw_seed(gen) if draws else np.uint64(0))


def compiled_form(
    env: VectorEnv, policy: Policy, attack: Attack, fields: Mapping[str, Field], explore: bool
) -> Form | None:
    """Return the compiled form of a collection, None if it has none."""
    if not hasattr(type(env), "rollout") or not cast(Rolling, env).rolls or replaced(env):
        return None
    core = core_fields(env.spec)
    if any(fields.get(name) != field for name, field in core.items()):
        return None
    if any(name in fields and fields[name].per != "step" for name in env.spec.info_names):
        return None
    harm, acting = declared(attack, "compiled"), declared(policy, "compiled", explore)
    if harm is None or acting is None or acting.network is None or (harm.kind == SINGLE and not acting.alone):
        return None
    return Form(cast(Rolling, env), acting, harm)


def draw_seed(gen: Generator) -> np.uint64:
    """Draw a seed for the lanes' random streams."""
    return np.uint64(int(torch.randint(2**63 - 1, (), generator=gen, device=gen.device)))


def roll_on(
    form: Form, carry: Carry, row: Tensor, limit: Tensor, data: dict[str, Tensor], gen: Generator
) -> Tensor:  # fmt: skip
    """Continue the episodes of ``carry`` without an attack, lane b's by at most limit[b] steps, writing into row[b] of
    ``data``, which has zeros there, and into ``carry``. Return which lanes' episodes have ended, bool [B]."""
    seats, nobody = form.acting.seats(carry), torch.zeros(len(row), dtype=torch.bool)
    for name, value in seats.fields.items():
        if name in data:
            data[name][row[limit > 0]] = value[limit > 0]
    span = Span(*(one.numpy() for one in (row, limit, seats.last, seats.h)))
    network, choice = form.acting.network, form.choice(seats, gen)
    ended = form.game.rollout(network, choice, form.harm, nobody, np.uint64(0), span, data)
    seats.remember()
    return ended


def roll(form: Form, env: VectorEnv, policy: Policy, batch: EpisodeBatch, terms: Terms) -> EpisodeBatch:
    """Play one episode per lane, writing into the zeros of ``batch``; return it cut to the longest episode. See
    ``collect``."""
    seats = form.acting.seats(policy.begin(env.n_envs, terms.policy_gen))
    choice = form.choice(seats, terms.policy_gen)
    begin(env, terms)
    for name, value in seats.fields.items():
        if name in batch:
            batch[name].copy_(value)
    batch.attacked[:] = terms.attacked
    if form.harm.kind == NOTHING:
        touched, harm_seed = torch.zeros_like(batch.attacked), np.uint64(0)
    else:
        touched, harm_seed = batch.attacked, draw_seed(terms.attack_gen)
    limit = np.full(env.n_envs, env.spec.episode_limit)
    span = Span(np.arange(env.n_envs), limit, seats.last.numpy(), seats.h.numpy())
    form.game.rollout(form.acting.network, choice, form.harm, touched, harm_seed, span, batch.data)
    if "obs_seen" in batch:
        batch["obs_seen"].copy_(batch.obs)
    return batch.trim(int(batch.length.max()))
