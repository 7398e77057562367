"""The options of a battle other than its map. ``None`` means: as published for the map (map_table.PUBLISHED)."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, get_type_hints

from envs.skirmish.maps import Map, find_map
from envs.skirmish.records import REWARD_MODES
from marl.core.annotations import require_type
from marl.core.checks import require_at_least, require_choice, require_share, require_within
from marl.core.types import ConfigError

CREATION, REVERSED = "creation", "reversed"  # named values of ``enemy_order``
LARGEST_SEED = 2**32 - 1  # of numpy's RandomState, whose stream is the same in all versions
SCALES = ("ally_sight", "enemy_health", "enemy_speed", "enemy_sight")  # factors on values of the unit table
MOST_SCALED = 10.0
CAPABILITIES = ("attack_probability", "health_level", "enemy_mask")  # checked with what they depend on


@dataclass(frozen=True)
class Options:
    """The keyword arguments of ``Skirmish``."""

    # dense: damage, kills, win, never negative; dense_signed: own losses count half; death: only kills, losses
    # and the win; win_loss: +1 or -1 at the end
    reward: str = "dense"
    reward_scale: bool = True  # divide by max_reward / 20: a flawless win returns 20; published sparse runs scale too
    abs_reward: bool | None = None  # dense: SMAC's absolute value (regeneration pays), or SMACv2's maximum with 0
    timeout_is_terminal: bool = False
    obs_last_action: bool = False
    obs_pathing_grid: bool = False
    obs_terrain_height: bool = False
    obs_timestep_number: bool = False
    state_last_action: bool = True
    state_timestep_number: bool = False
    obs_instead_of_state: bool = False
    obs_own_pos: bool | None = None  # the agent's own position is part of its observation
    unit_ranges: bool | None = None  # sight and target range by unit type instead of 9 and 6
    enemy_type_swap: bool = True  # SMAC exchanges the enemy's type bits on stalkers_and_zealots maps
    ally_health: float = 1.0  # share of their health that agents start with
    ally_sight: float = 1.0  # factor on the range within which agents see
    enemy_health: float = 1.0  # factor on the full health of enemies
    enemy_speed: float = 1.0  # factor on the speed at which enemies walk and fly
    enemy_sight: float = 1.0  # factor on the range within which enemies notice agents, at least their weapon range
    absent_agents: int = 0  # this many agents, redrawn for every episode, are dead from the start
    spawn_jitter: float = 0.03  # map units, uniform
    healer_priority: bool = True  # the enemy shoots at Medivacs first; False: it does not single them out
    friends_block: bool = False  # movers go around fighting friends instead of passing through them
    delayed_beams: bool = True  # a Colossus's beams deal damage 0.25 s after they touch; False: at once
    # the order in which agents see and target enemies: that of creation, which the game does not always keep; reversed;
    # the seed of a permutation; or all enemies' indices, counted from 0 as created. The battle itself does not change
    enemy_order: str | int | Sequence[int] = CREATION
    terrain: str | None = None  # another map's ground
    surrounded: float = 0.5  # random teams: share of episodes that start in the centre of enemy groups, not opposite
    conic_fov: bool = False  # agents see and target within a cone, and have ``num_fov_actions`` actions to turn it
    num_fov_actions: int = 12
    compat_conic: bool = False  # the published angle test
    prob_obs_enemy: float = 1.0  # EPO: chance that an enemy sighted first by one agent is shown to another that sees it
    action_mask: bool = True  # False: every living target is available
    compat_epo_wipe: bool = False  # the published erasure of enemies before one that was never sighted
    # SMACv2's capabilities, drawn for every agent and episode: one number for all, or (low, high) of a uniform draw.
    # Chance that an agent's order to attack or heal is given, otherwise its previous order stands
    attack_probability: float | Sequence[float] | None = None
    health_level: float | Sequence[float] | None = None  # with less than this share of its health an agent is killed
    compat_health_check: bool = False  # the published kill, decided by the health at the beginning of the step
    obs_ally_attack: bool = True  # teammates' attack probability is shown
    obs_ally_level: bool = True  # teammates' health level and, where there are levels, health is shown
    obs_ally_types: bool = True  # teammates' type is shown
    enemy_mask: float | None = None  # chance, per episode, that an agent is shown only the position of an enemy


def read_options(scenario: Map, given: dict[str, Any]) -> Options:
    """Check the options for a map and resolve ``None``; raise ConfigError for impossible values."""
    known = [field.name for field in dataclasses.fields(Options)]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            raise ConfigError(f"option '{name}' is unknown; {'did you mean ' + ', '.join(near) if near else known}?")
    hints = {name: hint for name, hint in get_type_hints(Options).items() if name not in CAPABILITIES}
    require_type("", hints, **{name: value for name, value in given.items() if name in hints})
    options = Options(**given)
    unset = [name for name in ("abs_reward", "obs_own_pos", "unit_ranges") if getattr(options, name) is None]
    published: dict[str, Any] = {name: scenario.published(name) for name in unset}
    options = dataclasses.replace(options, **published)
    require_choice("", REWARD_MODES, reward=options.reward)
    require_within("", 0, 1, ends="(]", ally_health=options.ally_health)
    require_within("", 0, MOST_SCALED, ends="(]", **{name: getattr(options, name) for name in SCALES})
    require_within("", 0, 1, note="in map units", spawn_jitter=options.spawn_jitter)
    require_within("", 0, scenario.n_agents - 1, note="on this map", absent_agents=options.absent_agents)
    require_share("", prob_obs_enemy=options.prob_obs_enemy, surrounded=options.surrounded)
    require_at_least("", 2, num_fov_actions=options.num_fov_actions)
    options = dataclasses.replace(options, enemy_order=_read_order(options.enemy_order, scenario.n_enemies))
    return _read_capabilities(options)


def describe_battle(scenario: Map, options: Options) -> str:
    """Return a map and its options as text, for ``EnvSpec.floor_plan``."""
    return json.dumps({"map": scenario.name, **dataclasses.asdict(options)})


def read_battle(text: str) -> tuple[Map, Options]:
    """Return the map and the options that ``describe_battle`` has written."""
    given = json.loads(text)
    scenario = find_map(given.pop("map"))
    return scenario, read_options(scenario, given)


def _read_order(given: str | int | Sequence[int], n_enemies: int) -> str | int | Sequence[int]:
    """Return ``enemy_order``, a permutation as a list; raise ConfigError if it does not order ``n_enemies`` enemies."""
    if isinstance(given, str | int):
        if given not in (CREATION, REVERSED) and not (isinstance(given, int) and 0 <= given <= LARGEST_SEED):
            choices = f"{CREATION}, {REVERSED}, the seed of a permutation within [0, {LARGEST_SEED}] or a list"
            raise ConfigError(f"enemy_order={given} must be {choices}")
        return given
    order = list(given)
    if sorted(order) != list(range(n_enemies)):
        raise ConfigError(f"enemy_order={order} must hold each of 0 to {n_enemies - 1} once")
    return order


def _read_capabilities(options: Options) -> Options:
    """Return ``options`` with each capability as (low, high) or None; raise ConfigError for impossible values."""
    attack = _read_span("attack_probability", options.attack_probability)
    level = _read_span("health_level", options.health_level)
    if level is not None:
        require_within("", 0, options.ally_health, ends="[)", note="below ally_health", health_level=level[1])
    if level is not None and options.reward not in ("dense", "win_loss"):
        raise ConfigError(f"health_level needs reward dense or win_loss, as published, got {options.reward}")
    mask = options.enemy_mask
    if mask is not None and not _is_number(mask):
        raise ConfigError(f"enemy_mask={mask} must be a number within [0, 1], or null")
    require_share("", or_null=True, enemy_mask=mask)
    return dataclasses.replace(options, attack_probability=attack, health_level=level)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _read_span(name: str, given: Any) -> tuple[float, float] | None:
    """Return (low, high) of a number in [0, 1], which is both, or of a pair of them; None stays None."""
    if given is None:
        return None
    span = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given, given]
    if len(span) != 2 or not all(map(_is_number, span)) or not 0.0 <= span[0] <= span[1] <= 1.0:
        raise ConfigError(f"{name}={given} must be a number within [0, 1], or [low, high] of such numbers")
    return float(span[0]), float(span[1])
