"""The rules of a step: the cooks use what they face, one after the other; then both walk simultaneously; then the soups
cook.

After Carroll et al. 2019 ("On the Utility of Learning about Humans for Human-AI Coordination"), as implemented in the
``overcooked-ai`` package: same order, same events, same notion of which events are useful.
"""

from __future__ import annotations

import numpy as np

from envs.kernels.compiled import Record, rule
from envs.kernels.lanes import Outputs
from envs.overcooked.layout import COUNTER, DISHES, FLOOR, ONIONS, POT, SERVE, TOMATOES
from envs.overcooked.records import (
    CATASTROPHIC,
    DELIVERY,
    DISH,
    DROP,
    FULL,
    IDLE,
    INTERACT,
    NOTHING,
    ONION,
    OPTIMAL,
    PICKUP,
    POTTING,
    SOUP,
    STAY,
    TOMATO,
    USELESS,
    VIABLE,
    Kitchens,
    Rules,
)


@rule
def is_ready(rules: Rules, soup: Record) -> bool:
    return soup.item == SOUP and soup.ticks >= rules.cook_time


@rule
def count_pots(rules: Rules, kitchens: Kitchens, b: int) -> tuple[int, int]:
    """Count the pots that take nothing more, and the pots that will need a dish: partly filled, cooking or ready."""
    full = wanted = 0
    for pot in rules.pots:
        soup = kitchens.things[b, pot]
        ingredients = soup.onions + soup.tomatoes
        if soup.item == SOUP:
            full += soup.ticks != IDLE or ingredients == FULL
            wanted += soup.ticks != IDLE or ingredients < FULL
    return full, wanted


@rule
def dish_is_useful(rules: Rules, kitchens: Kitchens, wanted: int, b: int) -> bool:
    """Return whether the players hold fewer dishes than there are soups that need one, and none is on a counter
    (otherwise dropping one would pay)."""
    dishes = 0
    for i in range(2):
        dishes += kitchens.players[b, i].held == DISH
    for shelf in rules.shelves:
        if kitchens.things[b, shelf].item == DISH:
            return False
    return dishes < wanted


@rule
def note_pickup(
    rules: Rules, kitchens: Kitchens, out: Outputs, item: int, full: int, wanted: int, i: int, b: int
) -> None:
    """Record a pickup before it happens. An ingredient is useful if a pot has room or the other player holds a
    dish."""
    out.events[b, i, PICKUP[item]] = True
    mate = kitchens.players[b, 1 - i]
    if item == DISH:
        out.events[b, i, PICKUP[item] + 1] = dish_is_useful(rules, kitchens, wanted, b)
    elif item != SOUP:
        out.events[b, i, PICKUP[item] + 1] = full < rules.pots.shape[0] or mate.held == DISH


@rule
def note_drop(rules: Rules, kitchens: Kitchens, out: Outputs, item: int, full: int, i: int, b: int) -> None:
    """Record a drop. It is useful if something else is needed now and the other player does not have it."""
    out.events[b, i, DROP[item]] = True
    mate = kitchens.players[b, 1 - i]
    if item == DISH:
        out.events[b, i, DROP[item] + 1] = full == 0 and mate.held != ONION
    elif item != SOUP:
        out.events[b, i, DROP[item] + 1] = full == rules.pots.shape[0] and mate.held != DISH


@rule
def note_potting(rules: Rules, out: Outputs, item: int, onions: int, tomatoes: int, i: int, b: int) -> None:
    """Record one more ingredient in a soup of ``onions`` and ``tomatoes``, classified by the most that the soup could
    pay before and can still pay now."""
    tomato = item == TOMATO
    before, now = rules.best[onions, tomatoes], rules.best[onions + 1 - tomato, tomatoes + tomato]
    out.events[b, i, POTTING[item]] = True
    out.events[b, i, OPTIMAL + tomato] = before == now
    out.events[b, i, VIABLE + tomato] = now > 0.0
    out.events[b, i, CATASTROPHIC + tomato] = before > 0.0 and now == 0.0
    out.events[b, i, USELESS + tomato] = before == 0.0


@rule
def bonuses_of(rules: Rules, ingredients: int) -> float:
    """Return the bonuses that a soup has earned once it is out of the pot: for its ingredients and for itself."""
    return rules.soup_bonus + rules.potting_bonus * ingredients


@rule
def use_counter(
    rules: Rules, kitchens: Kitchens, out: Outputs, tile: int, full: int, wanted: int, i: int, b: int
) -> bool:
    """Put down what is held, or pick up what lies there. Return whether anything changed. Unless ``parked_soup_pays``,
    a soup's bonuses are taken back when it is put down, and paid to whoever picks it up."""
    me, thing = kitchens.players[b, i], kitchens.things[b, tile]
    if me.held != NOTHING and thing.item == NOTHING:
        note_drop(rules, kitchens, out, me.held, full, i, b)
        if me.held == SOUP and not rules.parked_soup_pays:
            kitchens.shaped[b, i] -= bonuses_of(rules, me.onions + me.tomatoes)
        thing.item, thing.onions, thing.tomatoes = me.held, me.onions, me.tomatoes
        thing.ticks = rules.cook_time if me.held == SOUP else IDLE
        thing.since = 2 * kitchens.lanes[b].t + i
        me.held = me.onions = me.tomatoes = 0
        return True
    if me.held == NOTHING and thing.item != NOTHING:
        note_pickup(rules, kitchens, out, thing.item, full, wanted, i, b)
        if thing.item == SOUP and not rules.parked_soup_pays:
            kitchens.shaped[b, i] += bonuses_of(rules, thing.onions + thing.tomatoes)
        take(me, thing)
        return True
    return False


@rule
def take(me: Record, thing: Record) -> None:
    """Move a thing into the hand, replacing what the hand held."""
    me.held, me.onions, me.tomatoes = thing.item, thing.onions, thing.tomatoes
    thing.item = thing.onions = thing.tomatoes = 0
    thing.ticks = IDLE


@rule
def use_pot(rules: Rules, kitchens: Kitchens, out: Outputs, tile: int, i: int, b: int) -> bool:
    """Start the soup with empty hands (unless it starts on its own), take a ready one with a dish, or add an
    ingredient. Return whether anything changed."""
    me, soup = kitchens.players[b, i], kitchens.things[b, tile]
    if me.held == NOTHING and soup.item == SOUP and soup.ticks == IDLE and not rules.auto_cook:
        soup.ticks = 0
        return True
    if me.held == DISH and is_ready(rules, soup):
        out.events[b, i, PICKUP[SOUP]] = True
        kitchens.shaped[b, i] += rules.soup_bonus
        take(me, soup)
        return True
    ingredient = me.held == ONION or me.held == TOMATO
    if ingredient and soup.ticks == IDLE and soup.onions + soup.tomatoes < FULL:
        note_potting(rules, out, me.held, soup.onions, soup.tomatoes, i, b)
        kitchens.shaped[b, i] += rules.potting_bonus
        soup.item = SOUP
        soup.onions += me.held == ONION
        soup.tomatoes += me.held == TOMATO
        me.held = NOTHING
        if rules.auto_cook and soup.onions + soup.tomatoes == FULL:
            soup.ticks = 0
        return True
    return False


@rule
def use_dispenser(
    rules: Rules, kitchens: Kitchens, out: Outputs, kind: int, full: int, wanted: int, i: int, b: int
) -> bool:
    """Take an onion, a tomato or a dish into an empty hand; return whether anything changed. As in the package, a
    tomato from the dispenser is not an event."""
    me = kitchens.players[b, i]
    if me.held != NOTHING:
        return False
    item = ONION if kind == ONIONS else (DISH if kind == DISHES else TOMATO)
    if item != TOMATO:
        note_pickup(rules, kitchens, out, item, full, wanted, i, b)
    if item == DISH and out.events[b, i, PICKUP[DISH] + 1]:
        kitchens.shaped[b, i] += rules.dish_bonus
    me.held = item
    return True


@rule
def serve(rules: Rules, kitchens: Kitchens, out: Outputs, i: int, b: int) -> bool:
    """Deliver a soup, which pays if it was ordered. Return whether anything changed."""
    me = kitchens.players[b, i]
    if me.held != SOUP:
        return False
    out.reward[b] += rules.value[me.onions, me.tomatoes]
    out.events[b, i, DELIVERY] = True
    me.held = me.onions = me.tomatoes = 0
    return True


@rule
def interact(rules: Rules, kitchens: Kitchens, out: Outputs, full: int, wanted: int, i: int, b: int) -> None:
    """Let player ``i`` use what it faces. ``full`` and ``wanted`` are from before the step, as in the package."""
    me = kitchens.players[b, i]
    tile = me.at + rules.steps[me.way]
    kind, used = rules.terrain[tile], False
    if kind == COUNTER:
        used = use_counter(rules, kitchens, out, tile, full, wanted, i, b)
    elif kind == POT:
        used = use_pot(rules, kitchens, out, tile, i, b)
    elif kind == SERVE:
        used = serve(rules, kitchens, out, i, b)
    elif kind == ONIONS or kind == DISHES or kind == TOMATOES:
        used = use_dispenser(rules, kitchens, out, kind, full, wanted, i, b)
    if used:
        kitchens.station[b, i] = tile


@rule
def walk(rules: Rules, kitchens: Kitchens, actions: np.ndarray, b: int) -> None:
    """Turn both players in the direction of their move, and move them unless they would collide or swap places."""
    one, two = kitchens.players[b, 0], kitchens.players[b, 1]
    one_goes, two_goes = one.at + rules.steps[actions[b, 0]], two.at + rules.steps[actions[b, 1]]
    if rules.terrain[one_goes] != FLOOR:
        one_goes = one.at
    if rules.terrain[two_goes] != FLOOR:
        two_goes = two.at
    if actions[b, 0] < STAY:
        one.way = actions[b, 0]
    if actions[b, 1] < STAY:
        two.way = actions[b, 1]
    if one_goes != two_goes and not (one_goes == two.at and two_goes == one.at):
        one.at, two.at = one_goes, two_goes


@rule
def cook(rules: Rules, kitchens: Kitchens, b: int) -> None:
    for pot in rules.pots:
        soup = kitchens.things[b, pot]
        if soup.ticks != IDLE and soup.ticks < rules.cook_time:
            soup.ticks += 1


@rule
def play(rules: Rules, kitchens: Kitchens, out: Outputs, actions: np.ndarray, b: int) -> None:
    """Play one step of lane ``b``, first player first; write rewards, bonuses, events and used tiles."""
    for i in range(2):
        kitchens.shaped[b, i] = 0.0
        kitchens.station[b, i] = -1
    full, wanted = count_pots(rules, kitchens, b)
    for i in range(2):
        if actions[b, i] == INTERACT:
            interact(rules, kitchens, out, full, wanted, i, b)
    walk(rules, kitchens, actions, b)
    cook(rules, kitchens, b)
    for i in range(2):
        kitchens.cell[b, i] = kitchens.players[b, i].at
