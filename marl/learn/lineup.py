"""``Lineup``: several policies play as one team; in each lane every agent is assigned to one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from marl.core.protocols import Policy
from marl.core.rolling import Acting, Seats, declared
from marl.core.types import Carry, ConfigError, Obs
from marl.learn.acting import stack

Assign = Tensor | Callable[[int, Generator], Tensor]


def seat(team: Seats, own: Tensor, policy: Seats) -> Seats:
    """Return the seats of ``team`` with those of the agents ``own`` bool [B, n] replaced by those of a policy."""
    lanes, known, shift = own.any(1), team.fields, team.shift
    if policy.shift is not None:
        shift = torch.where(own[..., None], policy.shift, torch.zeros_like(team.h) if shift is None else shift)
    return Seats(
        torch.where(own, policy.last, team.last), torch.where(own[..., None], policy.h, team.h),
        torch.where(own, policy.network, team.network),
        epsilon=torch.where(own, policy.epsilon, team.epsilon),
        sampled=torch.where(own, policy.sampled, team.sampled),
        shift=shift,
        fields=known | {name: in_lanes(lanes, value, known.get(name)) for name, value in policy.fields.items()},
        parts=(*team.parts, (own, policy)),
    )  # fmt: skip


def in_lanes(lanes: Tensor, value: Tensor, other: Tensor | None) -> Tensor:
    """Return ``value`` [B, *] in ``lanes`` bool [B], elsewhere ``other`` (None: zeros)."""
    where = lanes.view(-1, *[1] * (value.dim() - 1))
    return torch.where(where, value, torch.zeros_like(value) if other is None else other)


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

    def seated(self, carry: Carry, explore: bool) -> Tensor:
        """Return which policy plays which agent in the episodes of ``carry``, long [B, n]."""
        return carry["assign"]

    def compiled(self, explore: bool) -> Acting | None:
        """Return how the team acts, for ``marl.run.rollout``: None if a policy has no compiled form, or if their
        networks differ too much to be stacked."""
        forms: list[Acting | None] = [declared(policy, "compiled", explore) for policy in self.policies]
        known = [form for form in forms if form is not None]
        trained = [form for form in known if form.network is not None]  # the others play at random
        if len(known) < len(forms) or len({form.executed for form in trained}) != 1:
            return None
        network = stack([form.network for form in trained])
        if network is None:
            return None

        def seats(carry: Carry) -> Seats:
            return self._combined(carry, self.seated(carry, explore), known)

        return Acting(network, trained[0].executed, seats, alone=False)

    def _combined(self, carry: Carry, assign: Tensor, forms: Sequence[Acting]) -> Seats:
        """Return the seats of all agents, each from the policy that plays it; policies that play nobody are left
        out."""
        shape, first, H = assign.shape, 0, next(form.network.last.shape[1] for form in forms if form.network)
        whole = Seats(
            torch.full(shape, -1), torch.zeros(*shape, H), torch.zeros_like(assign),
            epsilon=torch.ones(shape, dtype=torch.float64), sampled=torch.zeros(shape, dtype=torch.bool),
            fields={},
        )  # fmt: skip
        for k, form in enumerate(forms):
            own = assign == k  # [B, n]
            if form.network is not None:
                if own.any():
                    part = form.seats(self.of(carry, k))
                    whole = seat(whole, own, part._replace(network=part.network + first))
                first += len(form.network.first)
        return whole._replace(fields=whole.fields | {"assign": assign})

    def act(self, obs: Obs, carry: Carry, *, explore: bool, gen: Generator) -> tuple[Tensor, Carry, dict[str, Tensor]]:
        assign = self.seated(carry, explore)
        carry = carry | {"assign": assign}
        actions, fields = torch.zeros_like(assign), dict[str, Tensor]()
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
        return actions, carry, fields | {"assign": assign}

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
