"""Google Research Football (Kurach et al. 2020), its engine driven without the package's Gym environment."""

from envs.adapters.football.game import Football

__all__ = ["Football"]
