"""The newest environment steps, kept as whole episodes to identify features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from marl.core.memory import available_bytes
from marl.core.types import ConfigError, EnvSpec, EpisodeBatch, core_fields

JUDGED = ("avail", "alive", "reward")


class Memory:
    """A store of the newest collected batches, which drops the oldest once the others hold ``capacity`` steps. With
    ``judged`` it also keeps what ``algos.fim.scale`` reads.

    Raises ConfigError, with the numbers, if that many steps cannot fit into the memory that is free now.
    """

    def __init__(self, spec: EnvSpec, capacity: int, with_obs: bool, judged: bool = False) -> None:
        names = ("state", "actions", "filled", *(("obs",) if with_obs else ()), *(JUDGED if judged else ()))
        self.fields = {name: field for name, field in core_fields(spec).items() if name in names}
        per_step = 4 * (spec.state_dim + spec.n_agents * spec.obs_dim * with_obs) + 2 * spec.n_agents
        per_step += (spec.n_agents * (spec.n_actions + 1) + 4) * judged
        free = available_bytes(torch.device("cpu"))
        if capacity * per_step > free:
            raise ConfigError(
                f"fim.id_steps={capacity} needs {capacity * per_step / 2**30:.1f} GiB ({per_step} bytes per step) but "
                f"{free / 2**30:.1f} GiB are free; give fewer, or model.inputs=state"
            )
        self.capacity, self.batches = capacity, list[dict[str, Tensor]]()

    def add(self, fresh: EpisodeBatch) -> None:
        self.batches.append({name: fresh[name].to(field.dtype).cpu().clone() for name, field in self.fields.items()})
        steps = [int(batch["filled"].sum()) for batch in self.batches]
        total = sum(steps)
        while total - steps[0] >= self.capacity:
            total -= steps.pop(0)
            self.batches.pop(0)

    def episodes(self) -> EpisodeBatch:
        """Return all kept episodes, padded to the longest."""
        slots = max(batch["filled"].shape[1] for batch in self.batches)
        data = {name: torch.cat([padded(batch[name], slots) for batch in self.batches]) for name in self.fields}
        return EpisodeBatch(data, self.fields)

    def clear(self) -> None:
        self.batches = []

    def state_dict(self) -> dict[str, Any]:
        return {"batches": list(self.batches)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batches = [{name: value.cpu() for name, value in batch.items()} for batch in state["batches"]]


def padded(values: Tensor, slots: int) -> Tensor:
    """Pad values [B, T, *] with zeros at the end -> [B, slots, *]."""
    return pad(values, [*[0, 0] * (values.dim() - 2), 0, slots - values.shape[1]])
