"""Agents trained in StarCraft II win here too, without training here (few episodes; see real_agents.py for more)."""

from __future__ import annotations

import pytest

from tests.support.real_agents import POLICIES, play


@pytest.mark.skipif(not POLICIES.exists(), reason=f"needs the agents trained in the real game, {POLICIES}")
@pytest.mark.parametrize(("name", "least"), [("3m", 0.7), ("8m", 0.85), ("2s3z", 0.85), ("MMM", 0.75)])
def test_real_agents_win(name: str, least: float) -> None:
    """The bounds are the usual rates less about four standard errors of 100 episodes."""
    assert play(name, episodes=100, seed=11)["won"].float().mean() >= least
