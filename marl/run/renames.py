"""Names and units of earlier versions, so that their run folders still open.

``folders.read_config`` applies ``current`` to every stored configuration, also on resume. A class that moves gets a
line here.
"""

from __future__ import annotations

import math
import re
from typing import Any

TARGETS = {  # module of a ``_target_`` then -> now; the class keeps its name
    "algos.central": "algos.shared.central",
    "algos.fim_cog": "algos.fim.cog",
    "algos.fox_aware": "algos.fox.aware",
    "algos.fox_nets": "algos.fox.nets",
    "algos.influence": "algos.shared.influence",
    "algos.s2q_learner": "algos.s2q.learner",
    "algos.sbc_e3t": "algos.sbc.e3t",
    "algos.sbc_mep": "algos.sbc.mep",
    "algos.sbc_population": "algos.sbc.population",
    "algos.sbc_rewards": "algos.sbc.rewards",
    "algos.sbc_roles": "algos.sbc.roles",
    "algos.sbc_sets": "algos.sbc.sets",
    "algos.sbc_table": "algos.sbc.table",
    "attacks.ega_learner": "attacks.ega.learner",
    "attacks.ega_population": "attacks.ega.population",
    "attacks.ibal_curriculum": "attacks.ibal.curriculum",
    "attacks.ibal_estimators": "attacks.ibal.estimators",
    "attacks.wolfpack_planner": "attacks.wolfpack.planner",
    "envs.foraging": "envs.grid.foraging",
    "envs.gym": "envs.adapters.gym",
    "envs.mds": "envs.grid.mds",
    "envs.pettingzoo": "envs.adapters.pettingzoo",
    "envs.posts": "envs.toys.posts",
    "envs.pushbox": "envs.grid.pushbox",
    "envs.shift": "envs.toys.shift",
    "envs.smacv2": "envs.adapters.smacv2",
    "envs.spread": "envs.grid.spread",
    "envs.staghunt": "envs.grid.staghunt",
    "envs.toy": "envs.toys.games",
    "envs.walkers": "envs.grid.walkers",
    "marl.agents": "marl.learn.agents",
    "marl.algorithm": "marl.learn.algorithm",
    "marl.importers": "marl.measure.importers",
    "marl.learner": "marl.learn.learner",
    "marl.mixers": "marl.learn.mixers",
    "marl.policy": "marl.learn.policy",
    "marl.scripted": "marl.learn.scripted",
}
ADDED = {
    "replay": {"sampler": {"_target_": "marl.learn.replay.Uniform"}},
    "checkpoint": {"at_start": False},
    "train": {"env": {}},
}  # keys that older runs lack
BEST_RESPONSE = "algos.sbc.population.BestResponse"
KITCHEN = "envs.overcooked.Overcooked"  # the state features of its cooks were called "player 0 x" and so on
OPTIONS: dict[str, dict[str, Any]] = {  # added to a class since, with the values that keep its earlier behaviour
    "algos.laies.LAIES": {"clip_on": "influence"},
    "algos.sbc.mep.Diverse": {"relative": False},
    BEST_RESPONSE: {"random_partner": False},
    "algos.sbc.rewards.HiddenReward": {"paid_for": "all"},
    "attacks.ega.EGA": {"after_freeze": "every_turn"},
    KITCHEN: {"random_start": 0.0, "parked_soup_pays": True},
    **{f"envs.adapters.{path}": {"timeout": 300} for path in ("gym.Gym", "pettingzoo.PettingZoo", "smacv2.SMACv2")},
}


# Options that change nothing at these values and were added to a game later: a stored configuration without them
# describes the same game.
NEUTRAL: dict[str, dict[str, Any]] = {
    "envs.skirmish.Skirmish": {"ally_sight": 1.0, "enemy_health": 1.0, "enemy_speed": 1.0, "enemy_sight": 1.0},
}


def same_rules(tree: Any) -> Any:
    """Return a game's configuration without ``NEUTRAL`` options, at any depth; ``tree`` is not changed."""
    if isinstance(tree, list | tuple):
        return [same_rules(part) for part in tree]
    if not isinstance(tree, dict):
        return tree
    idle = NEUTRAL.get(tree.get("_target_", ""), {})
    return {key: same_rules(value) for key, value in tree.items() if key not in idle or value != idle[key]}


def current(config: dict[str, Any]) -> dict[str, Any]:
    """Return a stored configuration with current names and the keys that it lacks; ``config`` is not changed."""
    renamed = _rename(config)
    for section, keys in ADDED.items():
        if section in renamed:
            renamed[section] = keys | renamed[section]
    if _makes(renamed.get("env"), KITCHEN):
        _name_cooks(renamed.get("algo", {}).get("hooks") or {})
    if "train" in renamed:
        lanes = renamed["train"]["n_envs"]
        _count_episodes(renamed.get("algo", {}), lanes)
        attack = renamed.get("attack", {})
        for one in (attack, *attack.get("attacks", {}).values()):
            _count_episodes(one.get("foresight", {}), lanes)
            _turns_in_episodes(one, lanes)
    return renamed


def _makes(tree: Any, target: str) -> bool:
    """Return whether a configuration makes an object of a class, at any depth."""
    return isinstance(tree, dict) and (tree.get("_target_") == target or any(_makes(b, target) for b in tree.values()))


def _name_cooks(hooks: dict[str, Any]) -> None:
    """Rename cooks in the state-name patterns of FIM and LAIES to what a kitchen calls them now."""
    laies, cog = hooks.get("laies") or {}, (hooks.get("fim") or {}).get("cog") or {}
    for section, key in ((laies, "external"), (cog, "candidates"), (cog, "exclude")):
        if key in section:
            section[key] = [re.sub(r"\bplayer\b", "cook", str(pattern)) for pattern in section[key]]


def _count_episodes(section: dict[str, Any], lanes: int) -> None:
    """Replace ``updates_per_collect``, for collections of ``lanes`` episodes, by the same rhythm counted in episodes;
    count the interval between target copies in episodes, not updates."""
    if "updates_per_collect" not in section:
        return
    each = lanes / section.pop("updates_per_collect")
    section["episodes_per_update"] = _whole(each)
    if "warmup_episodes" in section:  # all updates of the first collection that was large enough were made at once
        first = math.ceil(max(section["warmup_episodes"], section["batch_size"]) / lanes) * lanes
        section["warmup_episodes"] = _whole(first - lanes + each)
    learner = section.get("learner", {})
    if learner.get("target_every") is not None:
        learner["target_every"] = _whole(learner["target_every"] * each)


def _turns_in_episodes(attack: dict[str, Any], lanes: int) -> None:
    """Convert turns of EGA and related attacks, which were collections of ``lanes`` episodes, to episodes."""
    for whose in ("attacker", "team", "review"):
        if f"{whose}_turns" in attack:
            attack[f"{whose}_episodes"] = attack.pop(f"{whose}_turns") * lanes
    if "attacker_episodes" in attack and "updates" in attack:
        attack["episodes_per_update"] = _whole(lanes / attack.pop("updates"))


def _whole(number: float) -> float:
    return int(number) if number == int(number) else number


def _rename(tree: Any) -> Any:
    if isinstance(tree, dict):
        named = {key: _target(value) if key == "_target_" else _rename(value) for key, value in tree.items()}
        target = str(named.get("_target_"))
        if target == BEST_RESPONSE and "random_partner" not in named and "checkpoints" in named:
            named["checkpoints"] = [
                share or 1e-9 for share in named["checkpoints"]
            ]  # 0 meant the earliest that was kept
        return {**OPTIONS.get(target, {}), **named}
    return [_rename(value) for value in tree] if isinstance(tree, list) else tree


def _target(path: Any) -> Any:
    module, _, name = str(path).rpartition(".")
    return f"{TARGETS[module]}.{name}" if module in TARGETS else path
