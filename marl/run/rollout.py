"""Which collections are one compiled loop, and how that is called; all others are the loops of ``marl.run.collect`` and
``marl.run.stretch``.

The game, the policy and the attack each declare their compiled form (``marl.core.rolling``): only what a class says of
itself counts, since a subclass, or a wrapper that passes attributes on, may do something else.
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
    """What a collection is made with, in either way; see ``marl.run.collect.collect``."""

    explore: bool
    attacked: Tensor  # bool [B]
    policy_gen: Generator
    attack_gen: Generator
    seed: int | None
    redraw: int | None


class Redrawing(Protocol):
    """A game in which episodes that have begun can go on with other random numbers than they began with."""

    def redraw(self, seed: int) -> None: ...  # after ``reset``: what is still to be drawn comes from this seed

    def has_drawn(self) -> bool: ...  # since then, whether or not it has changed anything


def begin(env: VectorEnv, terms: Terms) -> Obs:
    """Begin an episode in every lane. Raise ConfigError where the game cannot draw the rest of it anew."""
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
        """Return how actions are chosen in one call; what is drawn then begins from ``gen``."""
        _, executed, epsilon, sampled = self.acting
        return Choice(epsilon, sampled, executed, draw_seed(gen) if sampled or epsilon > 0 else np.uint64(0))


def declared(thing: Any, name: str, *args: Any) -> Any:
    """Return what the class of ``thing`` itself declares under ``name``, called on it with ``args``; None if it
    declares nothing, and where ``thing`` has got methods of its own."""
    return None if replaced(thing) or name not in vars(type(thing)) else vars(type(thing))[name](thing, *args)


def replaced(thing: Any) -> bool:
    """Return whether somebody has replaced a method of this one object."""
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
    """Play on in the lanes of ``span``, without an attack, into the zeros of ``data``; return whose episodes have
    ended, bool [B]."""
    nobody = torch.zeros(len(span.row), dtype=torch.bool)
    return form.game.rollout(form.acting.network, form.choice(gen), form.harm, nobody, np.uint64(0), span, data)


def roll(form: Form, env: VectorEnv, batch: EpisodeBatch, terms: Terms) -> EpisodeBatch:
    """Play one episode per lane into the zeros of ``batch``; return it cut to the longest. See ``collect``."""
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
