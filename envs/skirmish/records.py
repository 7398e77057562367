"""The records that the kernels read and write: one unit, one lane, one battle's rules.

Records instead of one array per field: a rule reads ``unit.health``, and a call passes one pointer.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# A unit's order.
STOP, MOVE, ATTACK, HEAL, ATTACK_MOVE = 0, 1, 2, 3, 4
# A unit's pose: what it does in this loop. It decides who makes room for whom.
IDLE, MOVING, FIGHTING = 0, 1, 2

UNIT = np.dtype(
    [(name, np.float64) for name in (
        "x", "y", "health", "shield", "energy",
        "cooldown",  # loops until the weapon is ready
        "windup",  # loops until the started attack is released; 0: none
        "impact",  # loops until the pending hit lands (missile, second blow) or the beam ends its sweep; 0: none
        "recovery",  # loops until it may move on its own after an attack
        "speed",  # map units per loop, of units that accelerate
        "goal_x", "goal_y",  # where it was ordered to go
        "aim_x", "aim_y",  # centre of the line that a beam sweeps
        "facing_x", "facing_y",  # where an agent with a field of view looks
        "heading_x", "heading_y",  # where the body points
        "attack_probability",  # chance that an agent's order to attack or heal is given
        "health_level",  # an agent with less than this share of its health is killed
        "before")]  # health + shield when the step began, 0 if it was dead
    + [("burns", np.int64)]  # pending hits of beams: one byte for each of the next 8 loops, the lowest for the next
    + [(name, np.int32) for name in (
        "type", "order",
        "target",  # unit under attack or being healed, -1: none
        "struck",  # unit that the pending hit will strike
        "burner",  # Colossus whose beam touched it last
        "quiet",  # loops since it was last damaged
        "pose",
        "mark",  # scratch space of the search for a way around bodies
        "turn",  # side on which it last went around an obstacle: +1 left, -1 right
        "scripted")],  # 1: chooses targets on its own, as the enemy does
    align=True,
)  # fmt: skip

LANE = np.dtype([("rng", np.uint64), ("max_reward", np.float64), ("t", np.int32), ("finished", np.int32)], align=True)

RULES = np.dtype(
    [(name, np.int32) for name in (
        "n_agents", "n_enemies", "n_units", "n_actions",
        "first_target",  # first action that names a target; the actions before it move or look
        "episode_limit", "type_bits", "shield_ally", "shield_enemy",
        "medivacs",  # map types on which Medivacs heal, and a team of only Medivacs has lost
        "obs_last_action", "obs_pathing_grid", "obs_terrain_height", "obs_timestep", "obs_own_pos",
        "conic", "compat_conic",  # field of view: on, with the published code's angle test
        "epo", "compat_epo_wipe", "action_mask",  # sight.py
        "attack_probabilities", "health_levels",  # agents have them, and see their own
        "obs_ally_attack", "obs_ally_level", "obs_ally_types",  # agents see those of others
        "compat_health_check",  # health levels are compared with the health at the beginning of the step
        "state_last_action", "state_timestep", "obs_as_state",
        "reward_mode", "abs_reward", "timeout_is_terminal", "order_points",
        "absent_agents", "healer_priority",
        "friends_block",  # fighting friends are in the way
        "delayed_beams",  # beams deal their damage some time after they touch
        "hunt",  # the enemy is ordered to attack the nearest agent: HUNT_ONCE at the start, HUNT_ON whenever it is idle
        "routed",  # walls can stand in the way
        "bursts",  # there may be units that burst when they die
        "enemy_types")]  # offset of the enemy's types after the agents' in the unit table
    + [(name, np.float64) for name in (
        "reward_scale",  # 0: rewards are not scaled; otherwise the return of a flawless win
        "cone",  # half the angle of the field of view, radians
        "attack_low", "attack_high", "level_low", "level_high",  # ranges of the agents' capabilities
        "enemy_mask",  # chance that an agent is shown only the position of an enemy
        "prob_obs_enemy", "surrounded", "spawn_jitter", "ally_health", "order_ax", "order_ay", "order_bx", "order_by")],
    align=True,
)  # fmt: skip

TEAM = np.dtype([("up_to", np.float64), ("type", np.int32), ("excepted", np.int32)], align=True)

DENSE, DENSE_SIGNED, DEATH, WIN_LOSS = 0, 1, 2, 3
REWARD_MODES = {"dense": DENSE, "dense_signed": DENSE_SIGNED, "death": DEATH, "win_loss": WIN_LOSS}


NO_HUNT, HUNT_ONCE, HUNT_ON = 0, 1, 2


class Ground(NamedTuple):
    """The ground that units walk on."""

    walkable: np.ndarray  # uint8 [32, 32], indexed [y, x]
    routes: np.ndarray  # int16 [1024, 1024]: see paths.py


class World(NamedTuple):
    """What does not change during a run; shared by all lanes. Flat, because numba's parallel loops need it so."""

    rules: np.ndarray  # RULES [1]
    types: np.ndarray  # TYPE [number of unit types]
    walkable: np.ndarray
    routes: np.ndarray
    height: np.ndarray  # f32 [32, 32]
    template: np.ndarray  # UNIT [N]: the line-up at reset, before random teams and positions
    team: np.ndarray  # TEAM [types]: what random teams are drawn from; empty: the line-up is fixed
    lattice: (
        np.ndarray
    )  # int64 [places, 2]: offsets (column, row) around a point, in the order in which units take them
    listed: np.ndarray  # int32 [enemies]: for each slot that agents see and target, which enemy in order of creation


class Lanes(NamedTuple):
    """The games in progress. N = agents, then enemies."""

    units: np.ndarray  # UNIT [B, N]
    lanes: np.ndarray  # LANE [B]
    last_action: np.ndarray  # int32 [B, n]; -1 before the first step
    owner: np.ndarray  # int32 [B, enemies]: the agent that sighted an enemy first (EPO), -1: none
    seen: np.ndarray  # uint8 [B, enemies, n]: whether it is shown to an agent (EPO)
    visit: np.ndarray  # int32 [B, n]: the order in which agents look (EPO)
    hidden: np.ndarray  # uint8 [B, enemies, n]: whether its health, shield and type are hidden from an agent


class Outputs(NamedTuple):
    """What a step returns; the tensors that the caller sees share this memory."""

    obs: np.ndarray  # f32 [B, n, O]
    state: np.ndarray  # f32 [B, S]
    avail: np.ndarray  # bool [B, n, A]
    alive: np.ndarray  # bool [B, n]
    reward: np.ndarray  # f32 [B]
    terminated: np.ndarray  # bool [B]
    truncated: np.ndarray  # bool [B]
    won: np.ndarray  # bool [B]
    dead_allies: np.ndarray  # int32 [B]
    dead_enemies: np.ndarray  # int32 [B]
