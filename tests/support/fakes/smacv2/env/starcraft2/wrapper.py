"""Stand-in for the smacv2 package: the methods, return types and oddities that ``envs/adapters/smacv2.py`` relies on.

The battle is a caricature: every attack takes 1 of an enemy's 3 health, agent ``i`` dies after ``3 + 2 i`` steps.
At the limit ``step`` says ``terminated=True``; a map called "crash" loses the connection at its second step.
"""

import random

import numpy as np

LIMIT = 6


class Sampler:
    """Draws from an unseeded generator of its own, as the package's samplers do; may hold another one."""

    def __init__(self, inner=None):
        self.rng = np.random.default_rng()
        if inner is not None:
            self.inner = inner

    def generate(self):
        more = self.inner.generate()["start_positions"]["item"] if hasattr(self, "inner") else 0.0
        return {"start_positions": {"item": (self.rng.uniform() + more) / 2, "id": 0}}


class StarCraftCapabilityEnvWrapper:
    n_fov_actions = 0

    def __init__(
        self,
        map_name,
        capability_config,
        seed=None,
        continuing_episode=False,
        obs_own_pos=False,
        fully_observable=False,
    ):
        for key in capability_config.keys() - {"n_units", "n_enemies"}:
            capability_config[key]["n_units"] = capability_config["n_units"]  # the package writes into it, too
        self.n_agents, self.n_enemies = capability_config["n_units"], capability_config["n_enemies"]
        self.map_name, self.game_seed, self.continuing = map_name, seed, continuing_episode
        self.env_key_to_distribution_map = {"start_positions": Sampler(Sampler())}
        self.n_actions = 6 + self.n_enemies

    def get_env_info(self):
        return {
            "state_shape": self.n_agents + self.n_enemies + 1, "obs_shape": self.get_obs_size(), "cap_shape": 0,
            "n_actions": self.n_actions, "n_agents": self.n_agents, "episode_limit": LIMIT,
        }  # fmt: skip

    def get_obs_move_feats_size(self):
        return 4

    def get_obs_enemy_feats_size(self):
        return self.n_enemies, 2

    def get_obs_ally_feats_size(self):
        return self.n_agents - 1, 3

    def get_obs_own_feats_size(self):
        return 2

    def get_obs_size(self):
        return 4 + 2 * self.n_enemies + 3 * (self.n_agents - 1) + 2

    def get_obs_feature_names(self):
        return [f"obs {k}" for k in range(self.get_obs_size())]

    def get_state_feature_names(self):
        return ["too", "few"]

    def reset(self):
        self.t, self.health = 0, np.full(self.n_enemies, 3)
        self.start = self.env_key_to_distribution_map["start_positions"].generate()["start_positions"]["item"]
        return self.get_obs(), self.get_state()

    def dead(self, agent):
        return self.t >= 3 + 2 * agent

    def get_obs(self):
        agents = list(range(self.n_agents))
        random.shuffle(agents)  # the package draws from the global generator here
        size = self.get_obs_size()
        return [np.full(size, 0.0 if self.dead(i) else self.start) for i in range(self.n_agents)]

    def get_state(self):
        allies = [0.0 if self.dead(i) else 1.0 for i in range(self.n_agents)]
        return np.array([*allies, *(self.health / 3), self.start], dtype=np.float32)

    def get_avail_agent_actions(self, agent):
        if self.dead(agent):
            return [1] + [0] * (self.n_actions - 1)
        return [0, 1, 1, 0, 0, 1] + [int(health > 0) for health in self.health]

    def step(self, actions):
        for agent, action in enumerate(actions):
            assert isinstance(action, int) and self.get_avail_agent_actions(agent)[action] == 1
        if self.map_name == "crash" and self.t == 1:
            return 0, True, {}
        for action in actions:
            if action >= 6:
                self.health[action - 6] = max(0, self.health[action - 6] - 1)
        self.t += 1
        won = not self.health.any()
        lost = all(self.dead(i) for i in range(self.n_agents))
        info = {"battle_won": won, "dead_allies": 0, "dead_enemies": int((self.health == 0).sum())}
        timeout = self.t >= LIMIT and not won and not lost
        if timeout and self.continuing:
            info["episode_limit"] = True
        return float(won), won or lost or timeout, info

    def close(self):
        return None
