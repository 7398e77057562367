"""How a battle begins: random teams and positions (SMACv2), the lattice on which units are placed, the agents' ranks.

``units`` is one lane's UNIT [N], agents first.
"""

from __future__ import annotations

import numpy as np

from envs.kernels.compiled import Record, forget_stale, rule
from envs.kernels.rng import below, uniform
from envs.skirmish.bodies import collide
from envs.skirmish.observe import can_walk
from envs.skirmish.records import World
from envs.skirmish.units import FLIES
from marl.core.caching import njit

START_ENERGY = 50.0
SAME_PLACE = 1e-6
BORDER = 0.01
CENTRE, EXTENT = 16.0, 32.0
WEST_EDGE = 15.0  # mirrored teams keep one unit from the middle
INNER = 2.0  # surrounding groups stand at least this far from the centre on either axis, at most in the corner


@rule
def is_free(types: np.ndarray, walkable: np.ndarray, units: np.ndarray, first: int, i: int, x: float, y: float) -> bool:
    """Return whether unit ``i`` may stand at (x, y): walkable, and clear of those of the units ``first`` .. i - 1
    with which it collides."""
    kind = types[units[i].type]
    if kind.plane != FLIES and not can_walk(walkable, x, y):
        return False
    for j in range(first, i):
        other = units[j]
        body = types[other.type]
        gap, dx, dy = kind.radius + body.radius - SAME_PLACE, other.x - x, other.y - y
        if dx * dx + dy * dy < gap * gap and collide(kind, body):
            return False
    return True


@rule
def settle(types: np.ndarray, walkable: np.ndarray, lattice: np.ndarray, units: np.ndarray, first: int, i: int) -> None:
    """Move unit ``i`` from the point where the game creates it to the first free place of the lattice around it."""
    unit = units[i]
    pitch = 2.0 * types[unit.type].radius
    for k in range(lattice.shape[0]):
        x, y = unit.x + lattice[k, 0] * pitch, unit.y + lattice[k, 1] * pitch
        if is_free(types, walkable, units, first, i, x, y):
            unit.x = x
            unit.y = y
            return


@rule
def comes_first(types: np.ndarray, one: Record, two: Record) -> bool:
    """Return whether ``one`` ranks before ``two``: by type, then from west to east, then from south to north."""
    if types[one.type].rank != types[two.type].rank:
        return types[one.type].rank < types[two.type].rank
    if abs(one.x - two.x) > SAME_PLACE:
        return one.x < two.x
    return one.y < two.y


@rule
def rank_agents(types: np.ndarray, units: np.ndarray, n: int) -> None:
    """Sort the first ``n`` units, of which only type and place are set."""
    for i in range(1, n):
        j = i
        while j > 0 and comes_first(types, units[j], units[j - 1]):
            one, two = units[j], units[j - 1]
            one.type, two.type = two.type, one.type
            one.x, two.x = two.x, one.x
            one.y, two.y = two.y, one.y
            j -= 1


@njit(cache=True)
def line_up(types: np.ndarray, walkable: np.ndarray, lattice: np.ndarray, units: np.ndarray, n: int) -> None:
    """Spread fixed teams around the points where they are created, each side separately, and rank the ``n`` agents."""
    for i in range(units.shape[0]):
        settle(types, walkable, lattice, units, 0 if i < n else n, i)
    rank_agents(types, units, n)


@rule
def draw_types(team: np.ndarray, units: np.ndarray, first: int, last: int, lane: Record) -> None:
    """Draw independent types for the units ``first`` .. last - 1; redraw while all of them are of the excepted type."""
    usable = first >= last
    while not usable:
        for i in range(first, last):
            u, k = uniform(lane), 0
            while k < team.shape[0] - 1 and u >= team[k].up_to:
                k += 1
            units[i].type = team[k].type
            usable = usable or team[k].excepted == 0


@rule
def place_mirrored(rules: Record, units: np.ndarray, lane: Record) -> None:
    """Place agents anywhere in the west and each enemy opposite an agent; surplus enemies go anywhere in the east."""
    n = rules.n_agents
    for i in range(n):
        units[i].x = WEST_EDGE * uniform(lane)
        units[i].y = EXTENT * uniform(lane)
    for i in range(n, rules.n_units):
        if i - n < n:
            units[i].x = EXTENT - units[i - n].x
            units[i].y = units[i - n].y
        else:
            units[i].x = CENTRE + (EXTENT - CENTRE) * uniform(lane)
            units[i].y = EXTENT * uniform(lane)


@rule
def place_surrounded(rules: Record, units: np.ndarray, lane: Record) -> None:
    """Place the agents in the centre and the enemy in one to four groups, each on a diagonal of its own."""
    n = rules.n_agents
    for i in range(n):
        units[i].x = CENTRE
        units[i].y = CENTRE
    groups, used, i = 1 + below(lane, 4), 0, n
    for group in range(groups):
        corner, skip = 0, below(lane, 4 - group)
        while skip > 0 or (used >> corner) & 1:
            skip -= (used >> corner) & 1 == 0
            corner += 1
        used |= 1 << corner
        share = uniform(lane)
        out = share * INNER + (1.0 - share) * CENTRE
        x, y = CENTRE + (out if corner & 1 else -out), CENTRE + (out if corner & 2 else -out)
        size = 0
        for _ in range(i, rules.n_units):
            size += uniform(lane) * (groups - group) < 1.0
        for _ in range(size):
            units[i].x = x
            units[i].y = y
            i += 1


@rule
def draw_battle(rules: Record, world: World, units: np.ndarray, lane: Record) -> None:
    """Draw SMACv2's random teams and positions: the enemy has the agents' types, and further random ones if it has more
    units."""
    n, N = rules.n_agents, rules.n_units
    draw_types(world.team, units, 0, n, lane)
    for i in range(n, min(2 * n, N)):
        units[i].type = units[i - n].type
    draw_types(world.team, units, 2 * n, N, lane)
    for i in range(n, N):
        units[i].type += rules.enemy_types
    if uniform(lane) < rules.surrounded:
        place_surrounded(rules, units, lane)
    else:
        place_mirrored(rules, units, lane)
    for i in range(N):
        settle(world.types, world.walkable, world.lattice, units, 0, i)
    rank_agents(world.types, units, n)


@rule
def within_map(coordinate: float) -> float:
    return min(max(coordinate, BORDER), EXTENT - BORDER)


@rule
def remove_some(rules: Record, units: np.ndarray, lane: Record) -> None:
    """Take ``absent_agents`` randomly chosen agents off the map."""
    left = rules.absent_agents
    for i in range(rules.n_agents):
        if uniform(lane) * (rules.n_agents - i) < left:
            units[i].health = 0.0
            units[i].shield = 0.0
            left -= 1


@rule
def between(low: float, high: float, lane: Record) -> float:
    """Draw uniformly from [low, high); equal bounds use no random number."""
    return low + (high - low) * uniform(lane) if low < high else low


@rule
def draw_capabilities(rules: Record, units: np.ndarray, lane: Record) -> None:
    """Draw each agent's SMACv2 capabilities independently."""
    for i in range(rules.n_agents):
        units[i].attack_probability = between(rules.attack_low, rules.attack_high, lane)
        units[i].health_level = between(rules.level_low, rules.level_high, lane)


@rule
def draw_hidden(rules: Record, hidden: np.ndarray, lane: Record) -> None:
    """Draw for every enemy and agent whether the agent sees only the enemy's place; ``hidden`` uint8 [enemies, n]."""
    for e in range(rules.n_enemies):
        for i in range(rules.n_agents):
            hidden[e, i] = uniform(lane) < rules.enemy_mask


@rule
def spawn(rules: Record, world: World, units: np.ndarray, lane: Record) -> None:
    """Put the teams on the map, with a little noise, at full health and without orders."""
    lane.t = 0
    lane.finished = 0
    for i in range(rules.n_units):
        units[i] = world.template[i]
    if world.team.shape[0] > 0:
        draw_battle(rules, world, units, lane)
    for i in range(rules.n_units):
        unit = units[i]
        kind = world.types[unit.type]
        unit.health = kind.health * rules.ally_health if i < rules.n_agents else kind.health
        unit.shield = kind.shield
        unit.energy = START_ENERGY if kind.heals else 0.0
        if rules.spawn_jitter > 0.0:
            unit.x += rules.spawn_jitter * (2.0 * uniform(lane) - 1.0)
            unit.y += rules.spawn_jitter * (2.0 * uniform(lane) - 1.0)
        unit.x, unit.y = within_map(unit.x), within_map(unit.y)  # the lattice may put flyers outside of it
    if rules.absent_agents > 0:
        remove_some(rules, units, lane)
    if rules.attack_probabilities or rules.health_levels:
        draw_capabilities(rules, units, lane)


forget_stale(line_up)
