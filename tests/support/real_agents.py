"""Agents that were trained in StarCraft II itself, acting greedily in the embedded battle.

How often they win, without any training here, measures how close the battle is to the game. Run
``python -m tests.support.real_agents [map ...] [--episodes N] [--values] [--set OPTION=VALUE ...]`` from the
repository's root; ``--set`` changes options of the environment, to see how much they matter.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from envs.skirmish import Skirmish

POLICIES = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "sc2_policies"
MAPS = ("3m", "8m", "2s3z", "MMM")
Weights = dict[str, Tensor]


def load(name: str) -> Weights:
    """Load the state dict of agent or mixer ``name`` (``qmix_3m``)."""
    return torch.load(POLICIES / f"{name}.th", map_location="cpu", weights_only=True)


def linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def agent_values(weights: Weights, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Return values [B*n, A] and memory [B*n, 64] of the recurrent agent for input [B*n, O + A + n]."""
    x = F.relu(linear(weights, "fc1", x))
    inputs = F.linear(x, weights["rnn.weight_ih"], weights["rnn.bias_ih"]).chunk(3, 1)
    memory = F.linear(h, weights["rnn.weight_hh"], weights["rnn.bias_hh"]).chunk(3, 1)
    reset, update = torch.sigmoid(inputs[0] + memory[0]), torch.sigmoid(inputs[1] + memory[1])
    fresh = torch.tanh(inputs[2] + reset * memory[2])
    h = (1 - update) * fresh + update * h
    return linear(weights, "fc2", h), h


def mix(weights: Weights, q: Tensor, state: Tensor) -> Tensor:
    """Return the joint value [B] of the agents' values [B, n] in ``state`` [B, S] (QMIX)."""
    B, n = q.shape

    def hyper(name: str) -> Tensor:
        return linear(weights, f"{name}.2", F.relu(linear(weights, f"{name}.0", state)))

    first = hyper("hyper_w_1").abs().view(B, n, -1)
    bias = linear(weights, "hyper_b_1", state)
    hidden = F.elu(torch.einsum("bn,bnh->bh", q, first) + bias)
    return (hidden * hyper("hyper_w_final").abs()).sum(1) + hyper("V").squeeze(1)


@torch.no_grad()
def play(name: str, episodes: int, seed: int = 0, **options: Any) -> dict[str, Tensor]:
    """Play ``episodes`` episodes of map ``name`` at once.

    Return won bool [B], length [B], return [B], and the joint values [B, T] and rewards [B, T] (nan after the end).
    """
    env = Skirmish(name, episodes, seed=seed, **options)
    agent, mixer = load(f"qmix_{name}"), load(f"qmix_{name}_mixer")
    B, n, A = episodes, env.spec.n_agents, env.spec.n_actions
    obs = env.reset()
    h, last = torch.zeros(B * n, 64), torch.zeros(B, n, A)
    ids = torch.eye(n).expand(B, n, n)
    running, won, length = torch.ones(B, dtype=torch.bool), torch.zeros(B, dtype=torch.bool), torch.zeros(B)
    values, rewards = [], []
    while running.any():
        x = torch.cat([obs.obs, last, ids], 2).flatten(0, 1)
        q, h = agent_values(agent, x, h)
        best = q.view(B, n, A).masked_fill(~obs.avail, -1e9).max(2)
        values.append(torch.where(running, mix(mixer, best.values, obs.state), torch.nan))
        step = env.step(best.indices)
        rewards.append(torch.where(running, step.reward, torch.nan))
        length += running
        won |= running & step.info["won"]
        running = running & ~(step.terminated | step.truncated)
        last, obs = F.one_hot(best.indices, A).float(), step.next
    reward = torch.stack(rewards, 1)
    return {"won": won, "length": length, "return": reward.nansum(1), "value": torch.stack(values, 1), "reward": reward}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("maps", nargs="*", default=MAPS)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], metavar="OPTION=VALUE", help="such as spawn_jitter=0")
    parser.add_argument("--values", action="store_true", help="also print Q_tot before contact and its consistency")
    given = parser.parse_args()
    options = {name: yaml.safe_load(value) for name, value in (pair.split("=", 1) for pair in given.set)}
    for name in given.maps:
        played = play(name, given.episodes, given.seed, **options)
        won = played["won"].float().mean()
        print(f"{name:6s} won {won:.3f} of {given.episodes}  return {played['return'].mean():.2f}  "
              f"length {played['length'].mean():.1f}")  # fmt: skip
        if given.values:
            value, reward = played["value"], played["reward"]
            gap = reward[:, :-1] + 0.99 * value[:, 1:] - value[:, :-1]
            print("       Q_tot " + " ".join(f"{v:.1f}" for v in value.nanmean(0)[:14]))
            print("       error " + " ".join(f"{v:+.2f}" for v in gap.nanmean(0)[:14]))


if __name__ == "__main__":
    main()
