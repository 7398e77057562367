"""Shared by all environments: the rejection of unavailable actions, and ``check_env``.

``check_env`` enforces the contract of ``marl.core.protocols.VectorEnv`` by playing random available actions, with early
and masked resets, finished lanes and forbidden actions mixed in. A violation is a ``ContractError`` that names a rule.
"""

from __future__ import annotations

import contextlib
import inspect
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from marl.core.games import NEEDED, spec_fault
from marl.core.protocols import Locating, VectorEnv
from marl.core.types import EnvSpec, Obs, Step

Frame = dict[str, Tensor]  # all inputs and outputs of one step; the leading dimension of every tensor is B

RULES = {
    "spec": "sizes are positive; bounds, names and `about` have the lengths that EnvSpec states",
    "parts": "it has what VectorEnv lists, and as many lanes as asked for; reset takes seed and mask, by name, and "
    "returns an Obs; step returns a Step",
    "tensors": "every tensor has the promised type, shape and device; numbers are finite",
    "avail": "every agent has an available action; a dead one has the no-op where there is one",
    "bounds": "observations lie within [obs_low, obs_high]",
    "flags": "terminated and truncated are never both true",
    "won": "info holds 'won', bool [B]",
    "info": "info holds what spec.info_names names",
    "limit": "no episode lasts longer than episode_limit steps",
    "finished": "a finished lane gives reward 0, has nobody alive and does not change until it is reset",
    "mask": "a masked reset restarts the named lanes and leaves the others as they were",
    "inputs": "the caller's tensors are not written to",
    "unavailable": "an unavailable action raises ValueError with lane, agent and action, and changes nothing",
    "seed": "the same seed and actions give the same tensors; reset(seed) restarts the streams",
    "lanes": "lane b has its own stream and does not depend on the number of lanes",
    "resume": "state_dict at an episode's edge restores the same future, through torch.load(weights_only=True)",
    "render": "render gives uint8 [height, width, 3]; agent_places, where there is one, floats [n, 3]",
    "close": "close may be called twice",
}


class ContractError(AssertionError):
    """An environment broke the rule named by ``rule``, a key of ``RULES``."""

    def __init__(self, rule: str, found: str) -> None:
        super().__init__(f"[{rule}] {found} (rule: {RULES[rule]})")
        self.rule = rule


def require(holds: Any, rule: str, found: str) -> None:
    """Raise ``ContractError`` unless ``holds`` (a bool or a 0-d bool tensor)."""
    if not bool(holds):
        raise ContractError(rule, found)


def refuse_unavailable(actions: Tensor, avail: Tensor, running: Tensor, names: Sequence[str] = ()) -> None:
    """Raise ValueError for the first unavailable action of a running lane; finished lanes ignore their actions.

    ``actions`` long [B, n], ``avail`` bool [B, n, A], ``running`` bool [B]; ``names`` [A] makes the message readable.
    """
    lanes, n_agents, n_actions = avail.shape
    if actions.shape != (lanes, n_agents):
        raise ValueError(f"actions have shape {list(actions.shape)}, expected [{lanes}, {n_agents}]")
    inside = (actions >= 0) & (actions < n_actions)
    legal = inside & avail.gather(2, actions.long().clamp(0, n_actions - 1).unsqueeze(2)).squeeze(2)
    wrong = ~legal & running[:, None]
    if wrong.any():
        lane, agent = wrong.nonzero()[0].tolist()
        action = int(actions[lane, agent])
        open_ = [f"{a} ({names[a]})" if names else str(a) for a in avail[lane, agent].nonzero().flatten().tolist()]
        raise ValueError(
            f"lane {lane}, agent {agent}: action {action} is not available; available are {', '.join(open_)}"
        )


def check_env(make: Callable[[int, int], VectorEnv], steps: int | None = None, seed: int = 1) -> None:
    """Raise ``ContractError`` if the environments that ``make(n_envs, seed)`` builds break a rule of the contract.

    ``steps`` is the length of each of the eight passes; by default two whole episodes and a little more.
    """
    with contextlib.ExitStack() as stack:

        def build(n_envs: int) -> VectorEnv:
            env = make(n_envs, seed)
            missing = [name for name in (*NEEDED, "state_dict", "load_state_dict", "render") if not hasattr(env, name)]
            require(not missing, "parts", f"{type(env).__name__} lacks {', '.join(missing)}")
            stack.callback(env.close)
            require(env.n_envs == n_envs, "parts", f"it has {env.n_envs} lanes, {n_envs} were asked for")
            for name in ("seed", "mask"):
                named = inspect.signature(env.reset).parameters
                require(name in named, "parts", f"reset takes {', '.join(named) or 'nothing'}, not {name}")
            return env

        first = build(5)
        check_spec(first.spec)
        steps = steps or 2 * first.spec.episode_limit + 10
        played = play(first, steps)
        _same(played, play(first, steps, reset_seed=seed), "seed", "reset(seed) after some episodes")
        second = build(5)
        _same(played, play(second, steps), "seed", "a second environment with the same seed")
        _same(played, play(second, steps, reset_seed=seed, provoke=True), "unavailable", "after refused actions")
        for n_envs in (1, 2):
            _same(played, play(build(n_envs), steps), "lanes", f"{n_envs} lanes instead of 5")
        _check_own_streams(first, seed)
        if first.resumable:
            _check_resume(first, second, steps)
        picture = first.render(0)
        flat = isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim == 3
        require(flat and picture.shape[2] == 3, "render", f"got {type(picture)} {getattr(picture, 'shape', '')}")
        if isinstance(first, Locating):
            places = first.agent_places(0)
            good = places.shape == (first.spec.n_agents, 3) and bool(np.isfinite(places).all())
            require(good, "render", f"agent_places gives {places.tolist()}")
    try:
        first.close()
    except Exception as error:
        raise ContractError("close", f"the second close() raised {error!r}") from error


def check_spec(spec: EnvSpec) -> None:
    """Check only the rule "spec", for code that builds a spec."""
    fault = spec_fault(spec)
    require(fault is None, "spec", fault or "")


def play(env: VectorEnv, steps: int, *, reset_seed: int | None = None, provoke: bool = False) -> list[Frame]:
    """Play ``steps`` random steps; return every tensor. A lane's actions depend only on its index, so that lanes can be
    compared between calls.

    Finished lanes are stepped once or twice more before their masked reset; now and then a running one is reset early.
    """
    lanes = torch.arange(env.n_envs)
    dice = [np.random.default_rng([7, lane]) for lane in range(env.n_envs)]
    obs = _snapshot(env, env.reset(seed=reset_seed))
    running = torch.ones(env.n_envs, dtype=torch.bool)
    age, frames = torch.zeros(env.n_envs, dtype=torch.long), []
    for t in range(steps):
        actions = torch.stack([_pick(obs["avail"][b], dice[b]) for b in range(env.n_envs)]).to(env.device)
        if provoke:
            _check_refusal(env, actions, obs["avail"], running, out_of_range=t % 2 == 0)
        kept = actions.clone()
        step = env.step(actions)
        require(isinstance(step, Step), "parts", f"step returned a {type(step).__name__}, not a Step")
        require(torch.equal(actions, kept), "inputs", f"step {t} changed the action tensor")
        frame = {f"from_{key}": value for key, value in obs.items()} | {"actions": kept.cpu()}
        frame |= _snapshot(env, step.next) | _check_step(env, step)
        _check_finished(obs, frame, ~running)
        age += 1
        ended = running & (frame["terminated"] | frame["truncated"])
        late = running & ~ended & (age >= env.spec.episode_limit)
        require(not late.any(), "limit", f"lane {late.int().argmax()} runs on after {env.spec.episode_limit} steps")
        frames.append(frame)
        age[ended] = 0
        running &= ~ended
        obs = {key: frame[key] for key in obs}
        cut = torch.tensor([rng.random() < 0.02 for rng in dice])
        due = torch.where(running, cut, age > lanes % 2)
        if due.any():
            obs = _check_masked_reset(env, obs, due)
            running, age = running | due, age.masked_fill(due, 0)
    return frames


def _pick(avail: Tensor, rng: np.random.Generator) -> Tensor:
    """Sample an available action per agent uniformly, long [n]."""
    return torch.from_numpy((rng.random(tuple(avail.shape)) * avail.numpy()).argmax(-1))


def _snapshot(env: VectorEnv, obs: Obs) -> Frame:
    """Check types, shapes and values of the four tensors and return copies of them on the CPU."""
    require(isinstance(obs, Obs), "parts", f"an observation is a {type(obs).__name__}, not an Obs")
    spec, B = env.spec, env.n_envs
    frame = {
        "obs": _typed(env, "obs", obs.obs, torch.float32, (B, spec.n_agents, spec.obs_dim)),
        "state": _typed(env, "state", obs.state, torch.float32, (B, spec.state_dim)),
        "avail": _typed(env, "avail", obs.avail, torch.bool, (B, spec.n_agents, spec.n_actions)),
        "alive": _typed(env, "alive", obs.alive, torch.bool, (B, spec.n_agents)),
    }
    require(frame["avail"].any(-1).all(), "avail", "an agent has no available action")
    if spec.noop_action is not None:
        noop = frame["avail"][..., spec.noop_action]
        require((noop | frame["alive"]).all(), "avail", "a dead agent may not do the no-op")
    if spec.idle_action is not None:
        idle = frame["avail"][..., spec.idle_action]
        require((idle | ~frame["alive"]).all(), "avail", "a living agent may not do the idle action")
    low, high = spec.obs_low.cpu() - 1e-5, spec.obs_high.cpu() + 1e-5
    outside = (frame["obs"] < low) | (frame["obs"] > high)
    if outside.any():
        lane, agent, feature = outside.nonzero()[0].tolist()
        value = frame["obs"][lane, agent, feature]
        raise ContractError("bounds", f"lane {lane}, agent {agent}, feature {feature} is {value:.6g}")
    return frame


def _typed(env: VectorEnv, name: str, value: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    require(isinstance(value, Tensor), "tensors", f"{name} is {type(value)}")
    found = f"{name} is {value.dtype} {list(value.shape)} on {value.device}"
    fits = value.dtype == dtype and value.shape == shape and value.device == env.device
    require(fits, "tensors", f"{found}, expected {dtype} {list(shape)} on {env.device}")
    require(not value.is_floating_point() or value.isfinite().all(), "tensors", f"{name} is not finite")
    return value.detach().cpu().clone()


def _check_step(env: VectorEnv, step: Step) -> Frame:
    """Check reward, flags and info and return them as a frame."""
    require("won" in step.info, "won", f"info has {sorted(step.info)}")
    for name, value in step.info.items():
        require(isinstance(value, Tensor), "tensors", f"info[{name}] is a {type(value).__name__}")
    won = step.info["won"]
    require(won.dtype == torch.bool and won.shape == (env.n_envs,), "won", f"it is {won.dtype} {list(won.shape)}")
    named = set(env.spec.info_names)
    require(named <= step.info.keys(), "info", f"info has {sorted(step.info)}, the spec names {sorted(named)}")
    frame = {"reward": _typed(env, "reward", step.reward, torch.float32, (env.n_envs,))}
    for name in ("terminated", "truncated"):
        frame[name] = _typed(env, name, getattr(step, name), torch.bool, (env.n_envs,))
    both = frame["terminated"] & frame["truncated"]
    require(not both.any(), "flags", f"both in lane {both.int().argmax()}")
    for key, value in step.info.items():
        frame[f"info_{key}"] = _typed(env, f"info[{key}]", value, value.dtype, (env.n_envs, *value.shape[1:]))
    return frame


def _check_finished(before: Frame, after: Frame, finished: Tensor) -> None:
    """Check the rule "finished" in the lanes that had ended before this step."""
    lanes = finished.nonzero().flatten().tolist()
    for b in lanes:
        require(after["reward"][b] == 0, "finished", f"lane {b} has reward {after['reward'][b]:.6g}")
        require(not after["alive"][b].any(), "finished", f"lane {b} has someone alive")
        for name in ("obs", "state"):
            require(torch.equal(before[name][b], after[name][b]), "finished", f"{name} of lane {b} changed")


def _check_masked_reset(env: VectorEnv, before: Frame, due: Tensor) -> Frame:
    """Reset the lanes ``due`` and check that the others look as before."""
    mask = due.to(env.device)
    after = _snapshot(env, env.reset(mask=mask))
    require(torch.equal(mask.cpu(), due), "inputs", "reset changed the mask")
    require(after["alive"][due].any(-1).all(), "mask", "nobody is alive in a lane that was reset")
    for name, value in after.items():
        require(torch.equal(value[~due], before[name][~due]), "mask", f"{name} changed in a lane that was not named")
    return after


def _check_refusal(env: VectorEnv, actions: Tensor, avail: Tensor, running: Tensor, *, out_of_range: bool) -> None:
    """Submit one forbidden action in a running lane and check that a ValueError names it."""
    forbidden = ~avail & running[:, None, None]
    if out_of_range and running.any():
        lane, agent, action = int(running.nonzero()[-1]), 0, env.spec.n_actions
    elif forbidden.any():
        lane, agent, action = forbidden.nonzero()[-1].tolist()
    else:
        return
    bad = actions.clone()
    bad[lane, agent] = action
    try:
        env.step(bad)
    except ValueError as error:
        named = all(str(number) in str(error) for number in (lane, agent, action))
        require(named, "unavailable", f"the message does not name lane {lane}, agent {agent}, action {action}: {error}")
    else:
        raise ContractError("unavailable", f"lane {lane}, agent {agent}: action {action} was accepted")


def _check_own_streams(env: VectorEnv, seed: int) -> None:
    """Check that lanes do not all start the same if a lane's episodes start differently: they would share a stream."""
    starts = [_snapshot(env, env.reset(seed=seed if episode == 0 else None))["state"] for episode in range(4)]
    random = any(not torch.equal(start[0], starts[0][0]) for start in starts)
    alike = all(torch.equal(start, start[:1].expand_as(start)) for start in starts)
    require(not (random and alike), "lanes", "episodes begin at random, but in every lane alike")


def _check_resume(env: VectorEnv, other: VectorEnv, steps: int) -> None:
    """Play ``env`` to the end of its episodes, save, restore in ``other``, and compare what both play next."""
    obs, running, rng = env.reset(), torch.ones(env.n_envs, dtype=torch.bool), np.random.default_rng(8)
    while running.any():
        step = env.step(torch.stack([_pick(avail, rng) for avail in obs.avail.cpu()]).to(env.device))
        obs, running = step.next, running & ~(step.terminated | step.truncated).cpu()
    stored = io.BytesIO()
    torch.save(env.state_dict(), stored)
    stored.seek(0)
    try:
        state = torch.load(stored, weights_only=True)
    except Exception as error:
        first_line = str(error).split("\n")[0]
        raise ContractError("resume", f"the state is not made of tensors and builtins: {first_line}") from error
    other.load_state_dict(state)
    _same(play(env, steps), play(other, steps), "resume", "restored environment")


def _same(expected: list[Frame], found: list[Frame], rule: str, what: str) -> None:
    """Check that all tensors of all steps are equal in the lanes that both have."""
    for t, (one, two) in enumerate(zip(expected, found, strict=True)):
        lanes = min(len(one["reward"]), len(two["reward"]))
        require(one.keys() == two.keys(), rule, f"{what}: different fields at step {t}")
        for name in one:
            differ = (one[name][:lanes] != two[name][:lanes]).reshape(lanes, -1).any(1)
            require(not differ.any(), rule, f"{what}: {name} differs at step {t} in lane {differ.int().argmax()}")
