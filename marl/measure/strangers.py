"""Teammates from another run: which team takes a row's seats where a column asks for the row's next run.

A column with ``policy_of: next_run`` has an attack with an option ``policy`` (``attack=traitor attack.plays=policy``),
which receives the team of another row of the same game: the next seed of the same method, wrapping around after the
last; where the method has no other seed, the next row of another method, again wrapping around. A team with the row's
own weights is never chosen, wherever they are stored: a packed team is the team that it was packed from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from marl.core.types import ConfigError
from marl.measure.entrants import RUN_POLICY, Entrant, Tree, same_game
from marl.measure.networks import same_team
from marl.measure.suite import Column

RULE = "the next seed of the same method, else the next row of the game; never a team with the same weights"


def next_run(entrant: Entrant, rows: Sequence[Entrant]) -> Entrant | None:
    """Return the row whose team replaces teammates of ``entrant``; None where there is no other team of its game."""
    others = [
        one for one in rows
        if one.task == entrant.task and same_game(one.env, entrant.env) and not same_team(one, entrant)
    ]  # fmt: skip
    seeds = sorted((one for one in others if one.label == entrant.label), key=lambda one: one.seed)
    if seeds:
        return next((one for one in seeds if one.seed > entrant.seed), seeds[0])
    if not others:
        return None
    place = next((k for k, one in enumerate(rows) if one is entrant), -1)
    after = [one for one in rows[place + 1 :] if any(one is other for other in others)]
    return (after or others)[0]


def policy_of(entrant: Entrant) -> Tree:
    """Return the plug-in that plays as an entrant's team, for an option ``policy``."""
    opens = entrant.opens
    if opens["policy"] is not None:
        return dict(opens["policy"])
    return {
        "_target_": RUN_POLICY, "_partial_": True, "run": opens["run"], "step": opens["checkpoint"],
        "member": opens.get("member"), "act": opens.get("act"),
    }  # fmt: skip


def seated(column: Column, entrant: Entrant, rows: Sequence[Entrant]) -> Column:
    """Return the column as ``entrant`` meets it, with the other team in its attack where it asks for one. Raise
    ConfigError where there is none."""
    if column.policy_of is None:
        return column
    found = next_run(entrant, rows)
    if found is None:
        raise ConfigError(f"no other team of {entrant.task} is among the rows, to replace one of its teammates")
    return replace(column, attack={**column.attack, "policy": policy_of(found)})


def who_sits(columns: Sequence[Column], rows: Sequence[Entrant]) -> dict[str, Any]:
    """Return, for the record, whose team took seats, by column and row; empty where no column asks for it."""
    asking = [column.name for column in columns if column.policy_of is not None]
    if not asking:
        return {}
    chosen = {one.name: other.source for one in rows if (other := next_run(one, rows)) is not None}
    return {"strangers": {"rule": RULE, "rows": {name: chosen for name in asking}}}
