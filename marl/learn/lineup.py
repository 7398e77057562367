"""``Lineup``: several policies play as one team; in each lane every agent is assigned to one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from marl.core.protocols import Policy
from marl.core.types import Carry, ConfigError, Obs

Assign = Tensor | Callable[[int, Generator], Tensor]


class Lineup:
    """Policy ``assign[b, i]`` of ``policies`` plays agent ``i`` in lane ``b``.

    ``assign`` is long [B, n], or a function that samples one as ``assign(n_envs, gen)`` at the start of every episode.
    Each policy acts once per step, on exactly the lanes in which it has an agent. It sees and remembers all agents of
    those lanes, as if it played the whole team; its actions for the agents of other policies are discarded.

    Carry: ``assign``, and the carry of policy k as ``k.<name>``. ``act`` also returns the field ``assign`` and the
    policies' own fields in the lanes that they play (zeros elsewhere; where two policies give the same field, the later
    one counts). Raises ConfigError if there are no policies, or if ``assign`` has the wrong number of lanes or names a
    policy that does not exist.
    """

    def __init__(self, policies: Sequence[Policy], assign: Assign) -> None:
        if not policies:
            raise ConfigError("a lineup needs at least one policy, got none")
        self.policies, self.assign = list(policies), assign

    def begin(self, n_envs: int, gen: Generator) -> Carry:
        carry = {
            f"{k}.{name}": value
            for k, policy in enumerate(self.policies)
            for name, value in policy.begin(n_envs, gen).items()
        }
        assign = self.assign if isinstance(self.assign, Tensor) else self.assign(n_envs, gen)
        if len(assign) != n_envs:
            raise ConfigError(f"assign has {len(assign)} lanes; there are {n_envs}")
        if assign.min() < 0 or assign.max() >= len(self.policies):
            wrong = int(assign.min() if assign.min() < 0 else assign.max())
            raise ConfigError(f"assign names policy {wrong}; there are 0..{len(self.policies) - 1}")
        return carry | {"assign": assign}

    def act(self, obs: Obs, carry: Carry, *, explore: bool, gen: Generator) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        assign, carry = carry["assign"], dict(carry)
        actions, fields = torch.zeros_like(assign), {"assign": assign}
        for k, policy in enumerate(self.policies):
            own = assign == k  # [B, n]
            lanes = own.any(1).nonzero().flatten()
            if len(lanes) == 0:
                continue
            seen = Obs(obs.obs[lanes], obs.state[lanes], obs.avail[lanes], obs.alive[lanes])
            chosen, after, extras = policy.act(seen, self.of(carry, k, lanes), explore=explore, gen=gen)
            actions[lanes] = torch.where(own[lanes], chosen, actions[lanes])
            self._remember(carry, k, lanes, after)
            for name, value in extras.items():
                if name not in fields:
                    fields[name] = value.new_zeros(len(assign), *value.shape[1:])
                fields[name] = fields[name].index_copy(0, lanes, value)
        return actions, carry, fields

    def after(self, carry: Carry, intended: Tensor, executed: Tensor) -> Carry:
        assign, carry = carry["assign"], dict(carry)
        for k, policy in enumerate(self.policies):
            lanes = (assign == k).any(1).nonzero().flatten()
            if len(lanes) > 0:
                after = policy.after(self.of(carry, k, lanes), intended[lanes], executed[lanes])
                self._remember(carry, k, lanes, after)
        return carry

    @staticmethod
    def of(carry: Carry, k: int, lanes: Tensor | None = None) -> Carry:
        """Return the carry of policy ``k``, in ``lanes`` (long; None: all)."""
        mine = {name.removeprefix(f"{k}."): value for name, value in carry.items() if name.startswith(f"{k}.")}
        return mine if lanes is None else {name: value[lanes] for name, value in mine.items()}

    @staticmethod
    def _remember(carry: Carry, k: int, lanes: Tensor, after: Carry) -> None:
        """Write the new carry of policy ``k`` in ``lanes`` into ``carry``; replace tensors instead of changing them in
        place."""
        for name, value in after.items():
            carry[f"{k}.{name}"] = carry[f"{k}.{name}"].index_copy(0, lanes, value)
