"""Which collections are one compiled loop, and how that is called; all others are ``marl.run.collect``'s own loop.

The game, the policy and the attack each declare their compiled form (``marl.core.rolling``): only what a class says of
itself counts, since a subclass, or a wrapper that passes attributes on, may do something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Generator, Tensor

from marl.core.protocols import Attack, Policy, VectorEnv
from marl.core.rolling import NOTHING, Choice, Harm, Rolling
from marl.core.types import EpisodeBatch, Field, core_fields


class Form(NamedTuple):
    """The parts of a collection in their compiled form."""

    game: Rolling
    network: Any
    epsilon: float
    executed: bool
    harm: Harm


def declared(thing: Any, name: str) -> Any:
    """Return what the class of ``thing`` itself declares under ``name``, called on it; None if it declares nothing."""
    return vars(type(thing))[name](thing) if name in vars(type(thing)) else None


def compiled_form(env: VectorEnv, policy: Policy, attack: Attack, fields: Mapping[str, Field]) -> Form | None:
    """Return the compiled form of a collection, None if it has none."""
    if not hasattr(type(env), "rollout") or not cast(Rolling, env).rolls:
        return None
    core = core_fields(env.spec)
    if any(fields.get(name) != field for name, field in core.items()):
        return None
    if any(name in fields and fields[name].per != "step" for name in env.spec.info_names):
        return None
    harm, acting = declared(attack, "compiled"), declared(policy, "compiled")
    if harm is None or acting is None:
        return None
    network, epsilon, executed = acting
    return Form(cast(Rolling, env), network, epsilon, executed, harm)


def word(gen: Generator) -> np.uint64:
    """Draw a seed for the lanes' random streams."""
    return np.uint64(int(torch.randint(2**63 - 1, (), generator=gen, device=gen.device)))


def roll(
    form: Form, env: VectorEnv, batch: EpisodeBatch, *, explore: bool, attacked: Tensor, policy_gen: Generator,
    attack_gen: Generator, seed: int | None,
) -> EpisodeBatch:  # fmt: skip
    """Play one episode per lane into the zeros of ``batch``; return it cut to the longest. See ``collect``."""
    epsilon = float(form.epsilon) if explore else 0.0
    choice = Choice(epsilon, word(policy_gen) if epsilon > 0 else np.uint64(0), form.executed)
    harmless = form.harm.kind == NOTHING
    env.reset(seed)
    batch.attacked[:] = attacked
    hurt = torch.zeros_like(batch.attacked) if harmless else batch.attacked
    form.game.rollout(form.network, choice, form.harm, hurt, np.uint64(0) if harmless else word(attack_gen), batch.data)
    if "obs_seen" in batch:
        batch["obs_seen"].copy_(batch.obs)
    return batch.trim(int(batch.length.max()))
