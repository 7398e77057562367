"""Episodes that start mid-game, in a random state. The ``overcooked-ai`` package has such starts too
(``get_random_start_state_fn``), with other probabilities."""

from __future__ import annotations

from envs.kernels.compiled import Record, rule
from envs.kernels.rng import below, uniform
from envs.overcooked.records import FULL, ONION, SOUP, Kitchens, Rules


@rule
def drawn_soup(rules: Rules, lane: Record, size: int) -> tuple[int, int]:
    """Sample the onions and tomatoes of a soup with ``size`` ingredients, among those that the kitchen has."""
    if len(rules.ingredients) > 1:
        onions = below(lane, size + 1)
    else:
        onions = size if rules.ingredients[0] == ONION else 0
    return onions, size - onions


@rule
def begin_in_the_middle(rules: Rules, kitchens: Kitchens, b: int) -> None:
    """Put both players of lane ``b`` on random floor tiles that they can reach, facing in random directions, and sample
    uniformly what their hands and the pots hold: a hand nothing, an ingredient, a dish or a full soup; a pot none to
    three ingredients. A full pot has cooked for a random number of steps; without ``auto_cook`` half have not started.
    """
    lane = kitchens.lanes[b]
    for i in range(2):
        player = kitchens.players[b, i]
        at = below(lane, len(rules.terrain))
        while not rules.floors[i, at] or (i == 1 and at == kitchens.players[b, 0].at):
            at = below(lane, len(rules.terrain))
        player.at, player.way = at, below(lane, 4)
        kitchens.cell[b, i] = at
        player.held = below(lane, 4)
        if player.held == ONION:
            player.held = rules.ingredients[below(lane, len(rules.ingredients))]
        elif player.held == SOUP:
            player.onions, player.tomatoes = drawn_soup(rules, lane, FULL)
    for k in range(len(rules.pots)):
        pot, filled = kitchens.things[b, rules.pots[k]], below(lane, FULL + 1)
        if filled > 0:
            pot.item = SOUP
            pot.onions, pot.tomatoes = drawn_soup(rules, lane, filled)
        if filled == FULL and (rules.auto_cook or uniform(lane) < 0.5):
            pot.ticks = below(lane, rules.cook_time + 1)
