"""Runs and matrices made by hand for tests of reports, and a strict reader of the page that comes of them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from marl.core.config import plain
from marl.run.compose import compose

Points = Sequence[tuple[int, float]]  # (environment step, win rate) of each test
ELEMENTS = (
    "html head meta title style body header h1 h2 h3 h4 p code nav strong ol ul li a noscript main section div table "
    "thead tbody tr th td details summary dl dt dd pre span label input script figure figcaption img button output "
    "select option footer"
).split()  # all that the page is made of


def make_run(
    runs: Path, team: str = "qmix-none", seed: int = 0, points: Points = ((0, 0.0), (1000, 0.5)), *,
    study: str = "study", task: str = "toy-corridor", total: int = 1000, config: dict[str, Any] | None = None,
    meta: dict[str, Any] | None = None,
) -> Path:  # fmt: skip
    """Make a run of ``total`` steps that was tested at ``points``; its return is ten times its win rate."""
    path = f"{study}/{task}/{team}/seed{seed}"
    folder = runs / path
    folder.mkdir(parents=True)
    given = {"name": study, "seed": seed, "run_path": path, "train": {"total_steps": total, "n_envs": 8}}
    (folder / "config.json").write_text(json.dumps({**given, **(config or {})}))
    about = {"commit": "c0ffee", "command": f"train seed={seed}", "machine": "a made-up machine", **(meta or {})}
    (folder / "meta.json").write_text(json.dumps(about))
    rows = [{"env_steps": step, "eval/win_rate": rate, "eval/return": 10 * rate} for step, rate in points]
    (folder / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if points[-1][0] >= total:
        (folder / "DONE").write_text(json.dumps({"env_steps": points[-1][0]}))
    return folder


def options(below: Path | None, /, **changed: Any) -> DictConfig:
    """Return the options of a report on everything ``below`` a folder, without films and statistics."""
    cfg = compose("episodes=0", "statistics=false", config="report")
    cfg.runs = None if below is None else [f"{below}/**"]
    for key, value in changed.items():
        cfg[key] = plain(value)
    return cfg


def interval(mean: float, half: float = 0.1) -> dict[str, Any]:
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": 3}


def attacked(win_rate: float, hits: float = 0.0) -> dict[str, Any]:
    return {
        "possible": True, "win_rate": interval(win_rate), "return": {**interval(10 * win_rate), "std": 1.0},
        "length": 5.0, "attacked_steps": hits, "attacked_actions": 2 * hits, "drop": interval(0.9 - win_rate),
    }  # fmt: skip


def robustness_document() -> dict[str, Any]:
    """Return a matrix of two teams and three columns, as ``scripts.robustness`` writes it."""
    impossible = {"possible": False, "why": "no gradient: tables have none"}
    rows = [
        {"level": "method", "task": "toy-corridor", "agent": "A", "seeds": [0, 1, 2], "source": None, "worst": "fgsm",
         "every": {**interval(0.2), "columns": ["natural", "random", "fgsm"], "by_luck": [0.7, 0.9]},
         "every_by_luck": {"possible": True, **interval(0.8), "replays": 2, "alike": False},
         "cells": {"natural": attacked(0.9), "random": attacked(0.7, 2.0), "fgsm": attacked(0.3, 4.0)}},
        {"level": "run", "task": "toy-corridor", "agent": "A", "seeds": [0], "source": {}, "worst": None,
         "every": None, "every_by_luck": None, "cells": {}},
        {"level": "method", "task": "toy-corridor", "agent": "B", "seeds": [0, 1, 2], "source": None,
         "worst": "random", "every": None, "every_by_luck": None,
         "cells": {"natural": attacked(0.8), "random": attacked(0.6, 2.0), "fgsm": impossible}},
    ]  # fmt: skip
    points = [{"budget": k, "win_rate": interval(0.9 - k / 10), "attacked_steps": k, "attacked_actions": k}
              for k in (0, 2, 4)]  # fmt: skip
    curves = {
        "budgets": [0, 2, 4], "metric": "win_rate", "columns": ["random"],
        "rows": [{"level": "method", "task": "toy-corridor", "agent": name, "seeds": [0, 1, 2],
                  "curves": {"random": {"area": interval(0.7), "points": points}}} for name in "AB"],
    }  # fmt: skip
    return {
        "name": "tried", "episodes": 50, "metric": "win_rate", "baseline": "natural", "versus": None, "complete": False,
        "columns": {"natural": {}, "random": {}, "fgsm": {}}, "seed": 7, "commit": "beef", "commits": ["c0ffee"],
        "command": "python -m scripts.robustness", "physics": {"toy-corridor": 1}, "rows": rows, "curves": curves,
    }  # fmt: skip


def crossplay_document() -> dict[str, Any]:
    """Return a matrix of two seeds of a method and a partner, as ``scripts.crossplay`` writes it."""

    def pair(mean: float) -> dict[str, Any]:
        return {"mean": mean, "std": 1.0, "episodes": 20, "seats": [mean - 1, mean + 1]}

    held = {"mean": interval(4.0), "worst": None, "worst_seat": interval(3.0), "br_prox": None, "br_prox_iqm": None}
    method = {
        "method": "SP", "seeds": [0, 1], "self_play": {**interval(9.0), "std": 1.0},
        "cross_play": {**interval(2.0), "std": 1.0}, "ratio": interval(0.2),
        "worst_pair": {**interval(2.0), "who": "seeds 0 and 1"}, "with": {}, "populations": {"people": held},
        "held_out": interval(4.0),
    }  # fmt: skip
    partner = {"population": "people", "name": "Kim", "source": {}, "limit": None, "limit_trained": False}
    return {
        "game": "toy-corridor", "episodes": 20, "metric": "return", "complete": True, "methods": [method],
        "rows": [{"method": "SP", "seed": seed, "source": {}} for seed in (0, 1)], "partners": [partner],
        "matrix": [[pair(9.0), pair(2.0), pair(4.0)], [pair(2.0), pair(9.0), {"why": "it cannot: no seat"}]],
    }  # fmt: skip


class Page(HTMLParser):
    """A page as a browser reads it: its elements, the text that a reader sees, and what it would load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.shown: list[str] = []
        self.within: list[str] = []
        self.styles = ""
        self.feed(html)
        self.text = " ".join(" ".join(self.shown).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.within.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.within and self.within.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        inside = self.within[-1] if self.within else ""
        if inside == "style":
            self.styles += data
        elif inside != "script":
            self.shown.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


def faults(html: str) -> list[str]:
    """Return what a page has that it must not: elements and handlers that are not its own, and what it would load."""
    page = Page(html)
    found = [f"element {tag}" for tag, _ in page.elements if tag not in ELEMENTS]
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            if name.startswith("on"):
                found.append(f"handler {name} of {tag}")
            if name in ("src", "href", "data", "action", "poster", "srcset") and not re.match("data:|#", value or ""):
                found.append(f"{name}={value} of {tag}")
    found += [f"style loads {what}" for what in re.findall(r"url\(|@import", page.styles)]
    return found
