"""Collecting whole episodes: every lane plays one, in lockstep, until all are done (the published PyMARL settings)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from marl.protocols import Attack, Policy, VectorEnv, View
from marl.types import EpisodeBatch, Field, Obs


@dataclass
class Moment:
    """A step that the environment is about to make."""

    t: int
    env: VectorEnv
    intended: Tensor  # long [B, n]
    executed: Tensor  # long [B, n]
    hit: Tensor  # bool [B, n]; whom the attack has hit
    running: Tensor  # bool [B]


Watcher = Callable[[Moment], None]


def empty_batch(fields: dict[str, Field], n_envs: int, episode_limit: int, device: torch.device) -> EpisodeBatch:
    """Zeros for ``n_envs`` episodes of ``episode_limit`` transitions."""
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
    if "obs_seen" in batch:
        batch["obs_seen"][:, t] = obs.obs  # until an attack says otherwise; nothing is attacked after the last step


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
) -> EpisodeBatch:
    """One episode per lane, as a batch on the environment's device, cut to the longest episode.

    ``fields`` are the core fields and those that the algorithm and the attack declare; whatever ``policy.act`` and
    ``attack.perturb_actions`` return under these names is stored. ``attacked`` bool [B] marks the lanes that the attack
    may touch. ``device`` is where the policy lives. ``watch`` is called before every step (recording).
    """
    B, limit = env.n_envs, env.spec.episode_limit
    batch = empty_batch(fields, B, limit, env.device)
    per_step = {name for name, f in fields.items() if f.per == "step"}
    running = torch.ones(B, dtype=torch.bool, device=env.device)
    attacked = attacked.to(device)
    carry = policy.begin(B, policy_gen)
    attack.begin(B, policy, attack_gen)
    now = env.reset()
    for t in range(limit):
        _store_observation(batch, t, now)
        view = View(t, now.to(device), carry, running.to(device) & attacked, policy)
        seen = attack.perturb_obs(view)
        seen_obs = Obs(seen, view.obs.state, view.obs.avail, view.obs.alive)
        intended, carry, extras = policy.act(seen_obs, carry, explore=explore, gen=policy_gen)
        executed, attack_extras = attack.perturb_actions(view, intended)
        carry = policy.after(carry, intended, executed)
        actions = executed.to(env.device)
        if watch is not None:
            hit = attack_extras.get("hit", torch.zeros_like(intended, dtype=torch.bool))
            watch(Moment(t, env, intended, executed, hit, running))

        step = env.step(actions)
        stored = {"actions": actions, "intended": intended, "reward": step.reward, "terminated": step.terminated}
        stored |= {"filled": running, "obs_seen": seen, **extras, **attack_extras}
        for name, value in stored.items():
            if name in per_step:
                batch[name][:, t] = value.to(env.device)
            elif name in fields:
                batch[name][:] = value.to(env.device)
        batch["length"].add_(running)
        batch["won"].logical_or_(running & step.info["won"])
        attack.after_step(view, executed, step)
        running = running & ~(step.terminated | step.truncated)
        now = step.next
        if not running.any():
            break
    _store_observation(batch, t + 1, now)
    batch.attacked[:] = attacked.to(env.device)
    batch.reward.masked_fill_(~batch.filled, 0.0)
    batch.terminated.logical_and_(batch.filled)
    return batch.trim(t + 1)
