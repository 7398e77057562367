"""Decide which collections run as one compiled loop, and call it; all others take the loops of ``marl.run.collect`` and
``marl.run.stretch``.

The game, the policy and the attack each declare their compiled form (``marl.core.rolling``). Only a class's own
declaration counts, since a subclass, or a wrapper that forwards attributes, may do something else.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import Generator, Tensor

from marl.core.protocols import Attack, Policy, VectorEnv
from marl.core.rolling import NOTHING, Acting, Choice, Harm, Rolling, Span
from marl.core.types import ConfigError, EpisodeBatch, Field, Obs, core_fields


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

    def choice(self, gen: Generator) -> Choice:
        """Return how actions are chosen in one call of the loop; its random numbers are seeded from ``gen``."""
        _, executed, epsilon, sampled = self.acting
        return Choice(epsilon, sampled, executed, draw_seed(gen) if sampled or epsilon > 0 else np.uint64(0))


def declared(thing: Any, name: str, *args: Any) -> Any:
    """Call the method ``name`` that the class of ``thing`` itself declares, with ``args``, and return its result; None
    if the class declares none, or if methods have been replaced on ``thing``."""
    return None if replaced(thing) or name not in vars(type(thing)) else vars(type(thing))[name](thing, *args)


def replaced(thing: Any) -> bool:
    """Return whether a method has been replaced on this object alone."""
    return any(inspect.isroutine(getattr(type(thing), name, None)) for name in vars(thing))


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
    return None if harm is None or acting is None else Form(cast(Rolling, env), acting, harm)


def draw_seed(gen: Generator) -> np.uint64:
    """Draw a seed for the lanes' random streams."""
    return np.uint64(int(torch.randint(2**63 - 1, (), generator=gen, device=gen.device)))


def whole_episodes(env: VectorEnv, form: Form) -> Span:
    """Return the span of episodes that have just begun and are played to their end, lane b's in row b."""
    B, n = env.n_envs, env.spec.n_agents
    h = np.zeros((B, n, form.acting.network.last.shape[1]), np.float32)
    return Span(np.arange(B), np.full(B, env.spec.episode_limit), np.full((B, n), -1), h)


def roll_on(form: Form, span: Span, data: dict[str, Tensor], gen: Generator) -> Tensor:
    """Continue the episodes of ``span`` without an attack, writing into the zeros of ``data``; return which lanes'
    episodes have ended, bool [B]."""
    nobody = torch.zeros(len(span.row), dtype=torch.bool)
    return form.game.rollout(form.acting.network, form.choice(gen), form.harm, nobody, np.uint64(0), span, data)


def roll(form: Form, env: VectorEnv, batch: EpisodeBatch, terms: Terms) -> EpisodeBatch:
    """Play one episode per lane, writing into the zeros of ``batch``; return it cut to the longest episode. See
    ``collect``."""
    choice = form.choice(terms.policy_gen)
    begin(env, terms)
    batch.attacked[:] = terms.attacked
    if form.harm.kind == NOTHING:
        touched, harm_seed = torch.zeros_like(batch.attacked), np.uint64(0)
    else:
        touched, harm_seed = batch.attacked, draw_seed(terms.attack_gen)
    form.game.rollout(form.acting.network, choice, form.harm, touched, harm_seed, whole_episodes(env, form), batch.data)
    if "obs_seen" in batch:
        batch["obs_seen"].copy_(batch.obs)
    return batch.trim(int(batch.length.max()))
