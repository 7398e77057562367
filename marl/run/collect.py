"""Collect whole episodes: every lane plays one, until all are done (as in published PyMARL settings).

The loop in this file serves every game, policy and attack. Where all three have a compiled form, ``marl.run.rollout``
plays the same episodes in one compiled loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from marl.core.protocols import Attack, Policy, VectorEnv, View
from marl.core.types import ConfigError, EpisodeBatch, Field, GameError, Obs, Step
from marl.run.incoming import Incoming, form_of
from marl.run.rollout import Terms, begin, compiled_form, roll

ATTEMPTS = 5  # to play a round of episodes in which no game dies


@dataclass
class Moment:
    """The state of a collection just before the environment makes a step."""

    t: int
    env: VectorEnv
    intended: Tensor  # long [B, n]
    executed: Tensor  # long [B, n]
    hit: Tensor  # bool [B, n]; agents that the attack has hit
    running: Tensor  # bool [B]
    earned: Tensor  # f32 [B], the rewards so far


Watcher = Callable[[Moment], None]


def empty_batch(fields: dict[str, Field], n_envs: int, episode_limit: int, device: torch.device) -> EpisodeBatch:
    """Allocate zeros for ``n_envs`` episodes of ``episode_limit`` transitions."""
    data = {
        name: torch.zeros(
            (n_envs, episode_limit + 1, *f.shape) if f.per == "step" else (n_envs, *f.shape),
            dtype=f.dtype,
            device=device,
        )
        for name, f in fields.items()
    }
    return EpisodeBatch(data, fields)


def _store_observation(batch: EpisodeBatch, t: int, obs: Obs) -> None:
    batch.obs[:, t] = obs.obs
    batch.state[:, t] = obs.state
    batch.avail[:, t] = obs.avail
    batch.alive[:, t] = obs.alive


def _store_step(batch: EpisodeBatch, t: int, values: dict[str, Tensor]) -> None:
    """Store those values of step ``t`` that the batch has a field for; an episode field keeps its newest value."""
    for name, value in values.items():
        if name in batch.fields:
            place = batch[name][:, t] if batch.fields[name].per == "step" else batch[name]
            place.copy_(value)


def perturbed(attack: Attack, view: View) -> Tensor:
    """Return what ``attack`` shows instead of the observations, [B, n, O]. Raise ConfigError if its shape or type
    differs, or if it is not finite: networks would silently learn from it."""
    obs, seen = view.obs.obs, attack.perturb_obs(view)
    if seen is obs:
        return seen
    if seen.shape != obs.shape or seen.dtype != obs.dtype:
        raise ConfigError(
            f"{type(attack).__name__}.perturb_obs returned {form_of(tuple(seen.shape), seen.dtype)}; observations are "
            f"{form_of(tuple(obs.shape), obs.dtype)}"
        )
    if not bool(torch.isfinite(seen).all()):
        raise ConfigError(f"{type(attack).__name__}.perturb_obs returned numbers that are not finite, at step {view.t}")
    return seen


def collect(
    env: VectorEnv,
    policy: Policy,
    attack: Attack,
    fields: dict[str, Field],
    *,
    explore: bool,
    attacked: Tensor,
    policy_gen: Generator,
    attack_gen: Generator,
    device: torch.device | str,
    watch: Watcher | None = None,
    seed: int | None = None,
    redraw: int | None = None,
    compiled: bool = True,
) -> EpisodeBatch:
    """Play one episode per lane; return them as a batch on the environment's device, cut to the longest episode.

    ``fields`` are the core fields and those that the algorithm and the attack declare; the batch stores the values that
    ``policy.act``, ``attack.perturb_actions`` and the environment's ``info_names`` give under these names. ``attacked``
    bool [B] marks the lanes that the attack may touch. The attack also perturbs the observation after a lane's last
    step, from which values are bootstrapped. ``device`` is the policy's device. ``watch`` is called before every step.
    A ``seed`` restarts the lanes' random streams, and ``redraw`` is the seed for what the game draws once the episodes
    have begun (None: the streams continue). ``compiled`` false always takes the general loop. Episodes that the
    environment has lost (``info["lost"]``) are left out: the batch may be smaller, or empty. Raises GameError if the
    game breaks its contract.
    """
    terms = Terms(explore, attacked, policy_gen, attack_gen, seed, redraw)
    batch = empty_batch(fields, env.n_envs, env.spec.episode_limit, env.device)
    form = compiled_form(env, policy, attack, fields, explore) if compiled and watch is None else None
    if form is None:
        return _in_lockstep(env, policy, attack, batch, terms, device, watch)
    return roll(form, env, policy, batch, terms)


def _in_lockstep(
    env: VectorEnv, policy: Policy, attack: Attack, batch: EpisodeBatch, terms: Terms, device: torch.device | str,
    watch: Watcher | None,
) -> EpisodeBatch:  # fmt: skip
    """Play with the general loop, writing into the zeros of ``batch``: lanes whose episode has ended wait, and what is
    stored for them after its end is meaningless."""
    B, limit, fields = env.n_envs, env.spec.episode_limit, batch.fields
    running = torch.ones(B, dtype=torch.bool, device=env.device)
    ended = torch.zeros_like(running)  # in the previous step: values are bootstrapped from the current observation
    attacked = terms.attacked.to(device)
    carry = policy.begin(B, terms.policy_gen)
    attack.begin(B, policy, terms.attack_gen)
    incoming, now = Incoming(env), begin(env, terms)
    incoming.observation(0, now)
    for t in range(limit):
        _store_observation(batch, t, now)
        view = View(t, now.to(device), carry, (running | ended).to(device) & attacked, policy)
        seen = perturbed(attack, view)
        view.active = running.to(device) & attacked
        seen_obs = Obs(seen, view.obs.state, view.obs.avail, view.obs.alive)
        intended, carry, extras = policy.act(seen_obs, carry, explore=terms.explore, gen=terms.policy_gen)
        executed, attack_extras = attack.perturb_actions(view, intended)
        carry = policy.after(carry, intended, executed)
        actions = executed.to(env.device)
        if watch is not None:
            hit = attack_extras.get("hit", torch.zeros_like(intended, dtype=torch.bool))
            watch(Moment(t, env, intended, executed, hit, running, batch["reward"].sum(1)))
        _store_step(batch, t, {"obs_seen": seen})  # may be the game's own tensor, which the step overwrites
        step = env.step(actions)
        incoming.step(t, step)
        incoming.waiting(t, step, running)
        stored = {name: step.info[name] for name in env.spec.info_names}
        stored |= {"actions": actions, "intended": intended, "reward": step.reward, "terminated": step.terminated}
        stored |= {"filled": running, **extras, **attack_extras}
        _store_step(batch, t, stored)
        batch["length"].add_(running)
        batch["won"].logical_or_(running & step.info["won"])
        attack.after_step(view, executed, step)
        ended = running & (step.terminated | step.truncated)
        running = running & ~ended
        now = step.next
        if not running.any():
            break
    incoming.limit(t, ~running, batch.length)
    _store_observation(batch, t + 1, now)
    if "obs_seen" in fields:
        view = View(t + 1, now.to(device), carry, (running | ended).to(device) & attacked, policy)
        batch["obs_seen"][:, t + 1] = perturbed(attack, view).to(env.device)
    batch.attacked[:] = attacked.to(env.device)
    batch.reward.masked_fill_(~batch.filled, 0.0)
    batch.terminated.logical_and_(batch.filled)
    if "hit" in fields:
        batch["hit"][~batch.filled] = False
    return _whole_episodes(batch.trim(t + 1), step)


def _whole_episodes(batch: EpisodeBatch, last: Step) -> EpisodeBatch:
    """Return the episodes that no game's death has cut short, according to the last step of a collection."""
    lost = last.info.get("lost")
    return batch if lost is None or not lost.any() else batch.lanes(~lost)


def collect_whole(env: VectorEnv, *args: Any, **kwargs: Any) -> EpisodeBatch:
    """Collect like ``collect``, and again if a game has died. Raise GameError after ``ATTEMPTS`` rounds."""
    for _ in range(ATTEMPTS):
        batch = collect(env, *args, **kwargs)
        if len(batch) == env.n_envs:
            return batch
    raise GameError(f"games have died in {ATTEMPTS} rounds of episodes one after the other")
