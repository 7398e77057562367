"""Collect stretches of a fixed number of steps from every lane (``train.rollout``), without waiting for whole episodes.

An episode that is unfinished at the end of a stretch continues in the next one. A stretch returns pieces of episodes
(``marl.run.pieces``).
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from marl.core.memory import require_room
from marl.core.protocols import Algorithm, Attack, NoAttack, Policy, VectorEnv, View, attacks_within
from marl.core.rolling import NOTHING
from marl.core.seeding import restore
from marl.core.types import Carry, ConfigError, EpisodeBatch, Field, Obs, Step, episode_bytes
from marl.run.collect import perturbed
from marl.run.incoming import Incoming
from marl.run.pieces import Pieces, begin_fields
from marl.run.rollout import Form, compiled_form, roll_on


@runtime_checkable
class Pausing(Protocol):
    """A game whose unfinished episodes can be saved and restored."""

    def midway_state(self) -> dict[str, Any]: ...

    def load_midway_state(self, state: dict[str, Any]) -> Obs: ...  # what agents see


def require_pieces(rollout: int | None, algo: Algorithm, attack: Attack) -> None:
    """Raise ConfigError if stretches are asked for but the algorithm, one of its hooks or the attack needs whole
    episodes. Algorithms and hooks declare this in ``whole_because``: a reason, or None."""
    if rollout is None:
        return
    if not getattr(algo, "takes_pieces", False):
        raise ConfigError(
            f"train.rollout={rollout} collects parts of episodes; {type(algo).__name__} learns from whole ones: use "
            "algo=ippo or algo=mappo, or train.rollout=null"
        )
    for what in (algo, *getattr(algo, "hooks", ())):
        reason = getattr(what, "whole_because", None)
        if reason is not None:
            raise ConfigError(
                f"train.rollout={rollout} collects parts of episodes; {type(what).__name__} learns from whole ones, "
                f"since {reason}; use train.rollout=null"
            )
    if in_hand(attack) is None:
        raise ConfigError(
            f"train.rollout={rollout}: {type(attack).__name__} begins its episodes in all lanes at once, and stretches "
            "do not; use train.rollout=null (an attack whose class names what it remembers in in_hand may be stretched)"
        )
    for name, part in attacks_within(attack):
        if type(part).update is not NoAttack.update:
            which = type(part).__name__ + f" ({name})" * bool(name)
            raise ConfigError(
                f"train.rollout={rollout} collects parts of episodes; {which} learns from whole ones: use "
                "train.rollout=null"
            )


def in_hand(attack: Attack) -> tuple[str, ...] | None:
    """Return the names of the tensors (lane first) that hold an attack's memory of the unfinished episodes; None if its
    own class does not name them (an inherited list may be incomplete)."""
    return vars(type(attack)).get("in_hand")


def _copied(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in values.items()}


class Memory:
    """An attack's memory of the unfinished episodes."""

    def __init__(self, attack: Attack) -> None:
        self.attack, self.names = attack, in_hand(attack) or ()

    def _owner(self, name: str) -> tuple[Any, str]:
        owner, _, last = f".{name}".rpartition(".")
        return (getattr(self.attack, owner[1:]) if owner else self.attack), last

    def read(self) -> dict[str, Tensor]:
        """Return copies of the tensors that exist so far, by name."""
        found = ((name, getattr(*self._owner(name), None)) for name in self.names)
        return {name: value.clone() for name, value in found if value is not None}

    def write(self, values: dict[str, Tensor], where: Tensor | None = None) -> None:
        """Restore values, of all lanes or of those in ``where`` bool [B]."""
        for name, value in values.items():
            owner, last = self._owner(name)
            if where is not None:
                value = torch.where(where.view(-1, *[1] * (value.dim() - 1)), value, getattr(owner, last))
            setattr(owner, last, value)


class Stretches:
    """A collector of ``steps`` steps per lane at a time; ``ended`` holds the results of the episodes that ended in the
    newest stretch: ``return``, ``length``, ``won``, ``attacked``, ``hits`` and ``hit_actions``, each [K]. ``fields``
    are those of the run. Raises ConfigError if so many steps do not fit in memory."""

    def __init__(
        self, env: VectorEnv, attack: Attack, fields: dict[str, Field], steps: int, device: torch.device
    ) -> None:
        require_room("train.rollout", steps, episode_bytes(fields, 1) * env.n_envs, "steps of every lane", env.device)
        self.env, self.attack, self.fields, self.steps, self.device = env, attack, fields, steps, device
        self.incoming, self.memory = Incoming(env), Memory(attack)
        self.now: Obs | None = None
        self.pieces: Pieces | None = None  # the newest; the next stretch reuses their memory
        self.carry: Carry = {}
        self.seen = torch.zeros(0)  # [B, n, O] what the policy is shown of ``now``
        long, flag = torch.zeros(env.n_envs, dtype=torch.long), torch.zeros(env.n_envs, dtype=torch.bool)
        self.totals = {"return": torch.zeros(env.n_envs), "won": flag.clone(), "attacked": flag.clone()}
        self.totals |= {name: long.clone() for name in ("length", "hits", "hit_actions")}
        self.ended: dict[str, Tensor] = {}

    def collect(
        self, policy: Policy, attacked: Tensor, policy_gen: Generator, attack_gen: Generator, *, compiled: bool = True
    ) -> EpisodeBatch:
        """Play a stretch with exploration; return its pieces. Episodes that begin in it are attacked in the lanes
        ``attacked`` bool [B]. Pieces of games that have died are left out. ``compiled`` false always takes the general
        loop."""
        everywhere = torch.ones(self.env.n_envs, dtype=torch.bool)
        if self.now is None:
            self.carry = policy.begin(self.env.n_envs, policy_gen)
            self._restart(policy, everywhere, attacked, policy_gen, attack_gen)
        assert self.now is not None
        if self.pieces is None:
            fields = self.fields | begin_fields(self.carry)
            longest = min(self.steps, self.env.spec.episode_limit)
            self.pieces = Pieces(fields, self.env.n_envs, longest, self.env.device)
        self.pieces.clear()
        self._begin_pieces(everywhere)
        form = compiled_form(self.env, policy, self.attack, self.fields, explore=True) if compiled else None
        if form is not None and form.harm.kind == NOTHING:
            ended = self._roll(form, policy, attacked, policy_gen, attack_gen)
        else:
            ended = self._in_lockstep(policy, attacked, policy_gen, attack_gen)
        none = {name: value[:0] for name, value in self.totals.items()}
        self.ended = {name: torch.cat([one[name] for one in (none, *ended)]) for name in none}
        return self.pieces.batch()

    def _in_lockstep(
        self, policy: Policy, attacked: Tensor, policy_gen: Generator, attack_gen: Generator
    ) -> list[dict[str, Tensor]]:
        """Play the stretch with the general loop; return the results of the episodes that end."""
        assert self.pieces is not None
        ended = []
        for t in range(self.steps):
            step = self._step(policy, t, policy_gen)
            over, lost = step.terminated | step.truncated, step.info.get("lost")
            self.incoming.limit(t, over, self.totals["length"])
            done = over.cpu() if lost is None else (over & ~lost).cpu()
            if lost is not None and lost.any():
                self.pieces.drop(lost)
                over = over | lost
            if over.any():
                ended.append({name: value[done] for name, value in self.totals.items()})
                self._restart(policy, over.cpu(), attacked, policy_gen, attack_gen)
                if t + 1 < self.steps:
                    self._begin_pieces(over.cpu())
        return ended

    def _roll(
        self, form: Form, policy: Policy, attacked: Tensor, policy_gen: Generator, attack_gen: Generator
    ) -> list[dict[str, Tensor]]:
        """Play the stretch in compiled loops, without an attack; each takes lanes to the end of their episode or of the
        stretch. Return the results of the episodes that end."""
        assert self.pieces is not None and self.now is not None
        left = torch.full((self.env.n_envs,), self.steps)  # steps that each lane still has to play
        going, ended = left > 0, []
        while going.any():
            place, data = self.pieces.place, self.pieces.data
            over = roll_on(form, self.carry, place, left * going, data, policy_gen) & going
            rows = place[going]
            self.totals["return"][going] += data["reward"][rows].sum(1)
            self.totals["length"][going] += data["length"][rows]
            self.totals["won"][going] |= data["won"][rows]
            left[going] -= data["length"][rows]
            self.seen = self._show(self.now, 0, policy, going)
            if over.any():
                ended.append({name: value[over] for name, value in self.totals.items()})
                self._restart(policy, over, attacked, policy_gen, attack_gen)
            going = over & (left > 0)
            self._begin_pieces(going)
        self.pieces.show_all()
        return ended

    def _show(self, obs: Obs, t: int, policy: Policy, where: Tensor) -> Tensor:
        """Return what the policy is shown [B, n, O], perturbed in those of the lanes ``where`` bool [B] that are
        attacked."""
        active = (where & self.totals["attacked"]).to(self.device)
        return perturbed(self.attack, View(t, obs.to(self.device), self.carry, active, policy))

    def _restart(
        self, policy: Policy, where: Tensor, attacked: Tensor, policy_gen: Generator, attack_gen: Generator
    ) -> None:
        """Begin new episodes in the lanes ``where`` bool [B]: reset game, policy, attack and tallies there."""
        lanes, begun = self.env.n_envs, where.to(self.device)
        all_new = self.now is None
        now = self.env.reset(mask=None if all_new else where.to(self.env.device))
        self.incoming.observation(0, now)
        for name, value in policy.begin(lanes, policy_gen).items():
            self.carry[name] = torch.where(begun.view(-1, *[1] * (value.dim() - 1)), value, self.carry[name])
        for value in self.totals.values():
            value[where] = 0
        self.totals["attacked"][where] = attacked[where]
        kept = {} if all_new else self.memory.read()
        self.attack.begin(lanes, policy, attack_gen)
        seen = self._show(now, 0, policy, where)
        self.memory.write(kept, ~begun)
        self.now, self.seen = now, seen if all_new else torch.where(begun[:, None, None], seen, self.seen)

    def _begin_pieces(self, where: Tensor) -> None:
        assert self.pieces is not None and self.now is not None
        lanes = where.nonzero()[:, 0].to(self.env.device)
        self.pieces.begin(lanes, self.now, self.seen, self.carry)
        self.pieces.data["attacked"][self.pieces.place[lanes]] = self.totals["attacked"].to(self.env.device)[lanes]

    def _step(self, policy: Policy, t: int, gen: Generator) -> Step:
        """Make step ``t`` of the stretch in every lane and store it."""
        assert self.now is not None and self.pieces is not None
        now, everywhere = self.now.to(self.device), torch.ones(self.env.n_envs, dtype=torch.bool)
        view = View(t, now, self.carry, self.totals["attacked"].to(self.device), policy)
        shown = Obs(self.seen, now.state, now.avail, now.alive)
        intended, carry, extras = policy.act(shown, self.carry, explore=True, gen=gen)
        executed, harm = self.attack.perturb_actions(view, intended)
        self.carry = policy.after(carry, intended, executed)
        step = self.env.step(executed.to(self.env.device))
        self.incoming.step(t, step)
        self.attack.after_step(view, executed, step)
        self.seen = self._show(step.next, t + 1, policy, everywhere)
        self.pieces.add(step, self.seen, {"actions": executed, "intended": intended, **extras, **harm})
        self.now = step.next
        self.totals["return"] += step.reward.cpu()
        self.totals["length"] += 1
        self.totals["won"] |= step.info["won"].cpu()
        if "hit" in harm:
            self.totals["hits"] += harm["hit"].any(-1).cpu()
            self.totals["hit_actions"] += harm["hit"].sum(-1).cpu()
        return step

    @property
    def pausing(self) -> bool:
        """Return whether unfinished episodes can be saved."""
        return isinstance(self.env, Pausing)

    def state_dict(self) -> dict[str, Any] | None:
        """Return the unfinished episodes; None before the first stretch, or if the game cannot be saved mid-episode."""
        if self.now is None or not isinstance(self.env, Pausing):
            return None
        state = {"game": self.env.midway_state(), "carry": _copied(self.carry), "totals": _copied(self.totals)}
        return state | {"attack": self.memory.read(), "seen": self.seen.clone()}

    def load_state_dict(self, state: dict[str, Any] | None, policy: Policy, attack_gen: Generator) -> None:
        """Continue the unfinished episodes; if they were not saved, new ones begin."""
        if state is None or not isinstance(self.env, Pausing):
            return
        saved = attack_gen.get_state()
        self.attack.begin(self.env.n_envs, policy, attack_gen)
        restore(attack_gen, saved, "attack")
        self.now = self.env.load_midway_state(state["game"])
        self.carry = _copied({name: value.to(self.device) for name, value in state["carry"].items()})
        self.totals = _copied(state["totals"])
        self.seen = state["seen"].to(self.device)
        self.memory.write({name: value.to(self.device) for name, value in state["attack"].items()})
