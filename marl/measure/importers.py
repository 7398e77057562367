"""Teams trained elsewhere: agents (and QMIX mixers) saved by PyMARL and its descendants, as policies of this framework.

PyMARL's recurrent agent is ``fc2(GRUCell(relu(fc1(x))))`` with x = [observation | last action | agent id], parameters
shared, saved as a plain state dict ("agent.th"); its QMIX mixer ("mixer.th") has the layout of ``QMix``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from marl.core.types import ConfigError, EnvSpec
from marl.learn.agents import RecurrentAgent
from marl.learn.mixers import VDN, Mixer, QMix
from marl.learn.policy import EpsilonGreedy

AGENT_NAMES = {
    "fc1.weight": "fc_in.weight",
    "fc1.bias": "fc_in.bias",
    "rnn.weight_ih": "gru.0.weight_ih_l0",
    "rnn.weight_hh": "gru.0.weight_hh_l0",
    "rnn.bias_ih": "gru.0.bias_ih_l0",
    "rnn.bias_hh": "gru.0.bias_hh_l0",
    "fc2.weight": "fc_out.weight",
    "fc2.bias": "fc_out.bias",
}
MIXER_NAMES = {"hyper_w_1": "hyper_w1", "hyper_b_1": "hyper_b1", "hyper_w_final": "hyper_w2", "V": "value"}


def mixer_beside(agent: Path) -> str | None:
    """Return ``<name>_mixer.th`` in the folder of the agent ``<name>.th``, if it is there."""
    mixer = agent.with_name(f"{agent.stem}_mixer{agent.suffix}")
    return str(mixer) if mixer.is_file() else None


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return a plain state dict of tensors; raise ConfigError where the file holds none."""
    if not path.is_file():
        raise ConfigError(f"policy.path={path} does not exist")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different type for every kind of damage
        raise ConfigError(f"policy.path={path} is not a state dict of tensors") from error
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ConfigError(f"policy.path={path} is not a state dict of tensors")
    return dict(weights)


def input_options(width: int, spec: EnvSpec) -> tuple[bool, bool]:
    """Return (last_action, agent_id) that make the input ``width`` wide; raise ConfigError where no combination
    does."""
    for last_action in (True, False):
        for agent_id in (True, False):
            if width == spec.obs_dim + last_action * spec.n_actions + agent_id * spec.n_agents:
                return last_action, agent_id
    raise ConfigError(
        f"the agent's input has {width} features; this environment gives {spec.obs_dim} (observation), "
        f"with {spec.n_actions} more for the last action and {spec.n_agents} for the agent's number"
    )


def load_agent(path: Path, spec: EnvSpec) -> RecurrentAgent:
    """Return the recurrent agent in ``path``; which inputs it takes follows from its width."""
    weights = read_weights(path)
    if set(weights) != set(AGENT_NAMES):
        raise ConfigError(f"{path} holds {', '.join(sorted(weights))}; expected {', '.join(sorted(AGENT_NAMES))}")
    hidden_dim, width = weights["fc1.weight"].shape
    n_actions = weights["fc2.weight"].shape[0]
    if n_actions != spec.n_actions:
        raise ConfigError(f"the agent in {path} has {n_actions} actions; this environment has {spec.n_actions}")
    last_action, agent_id = input_options(width, spec)
    agent = RecurrentAgent(
        spec, hidden_dim=hidden_dim, share_parameters=True, last_action=last_action, agent_id=agent_id
    )
    agent.load_state_dict({AGENT_NAMES[name]: value for name, value in weights.items()})
    return agent


def load_mixer(path: Path, spec: EnvSpec) -> QMix:
    """Return the QMIX mixer in ``path``."""
    weights = read_weights(path)
    if "hyper_w_1.0.weight" not in weights or "hyper_b_1.weight" not in weights:
        raise ConfigError(f"{path} is not a QMIX mixer with two-layer hypernetworks")
    hypernet_dim, state_dim = weights["hyper_w_1.0.weight"].shape
    if state_dim != spec.state_dim:
        raise ConfigError(
            f"the mixer in {path} reads {state_dim} state features; this environment has {spec.state_dim}"
        )
    mixer = QMix(spec, embed_dim=weights["hyper_b_1.weight"].shape[0], hypernet_dim=hypernet_dim)
    named = {}
    for name, value in weights.items():
        head, _, rest = name.partition(".")
        named[f"{MIXER_NAMES.get(head, head)}.{rest}"] = value
    mixer.load_state_dict(named)
    return mixer


def load_pymarl(spec: EnvSpec, device: torch.device | str, *, path: str, mixer: str | None) -> EpsilonGreedy:
    """Return the greedy team in ``path``, with its mixer where one is given (a plain sum stands in otherwise)."""
    mix: Mixer = VDN(spec) if mixer is None else load_mixer(Path(mixer), spec)
    agent = load_agent(Path(path), spec).to(device).requires_grad_(False)
    return EpsilonGreedy(agent, mix.to(device).requires_grad_(False), 0.0, "intended")
