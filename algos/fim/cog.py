"""Center-of-gravity features: state features that change, but rarely, found by their entropy, and a report on them.

Park, Lee, Han 2025, arXiv 2506.19417: the idea and the criterion H < delta. The estimator is ours (docs/fim.md).
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from algos.shared.features import feature_names, matching
from algos.shared.influence import CHANGED
from marl.core.checks import require_at_least, require_choice
from marl.core.types import ConfigError, EnvSpec
from marl.run.files import save_figure, write_atomic
from marl.show.labels import plain

STILL = 1e-8  # a feature whose changes are all smaller counts as constant
CUT_ROWS = 4096  # steps histogrammed at once, which bounds memory
Normaliser = Literal["max", "mean", "quantile"]


@dataclass
class Findings:
    """Statistics of the changes of each state feature; every tensor is [S]."""

    scale: Tensor  # normaliser of the changes
    changed: Tensor  # share of the steps with a change
    entropy: Tensor  # nats
    selected: Tensor  # bool


class NoGap(ConfigError):
    """There is no gap to cut at; ``found`` holds the statistics."""

    def __init__(self, message: str, found: Findings) -> None:
        super().__init__(message)
        self.found = found


class CenterOfGravity:
    """A selector of features with ``h_min`` < H < ``delta`` among ``candidates`` without ``exclude`` (patterns of
    ``algos.shared.features.matching``).

    H is the entropy, in nats, of a histogram with ``bins`` equal bins on [0, 1] of |s' - s| / scale. ``normaliser``
    gives the scale: the maximum, or the mean or quantile (99.9%) of the nonzero changes. ``delta`` "auto_gap" cuts at
    the largest gap of ln H, which must be at least ``least_gap``.
    """

    def __init__(
        self,
        spec: EnvSpec,
        *,
        delta: float | str,
        h_min: float,
        bins: int,
        normaliser: Normaliser,
        least_gap: float,
        candidates: list[str],
        exclude: list[str],
    ) -> None:
        if delta != "auto_gap" and (isinstance(delta, str) or not delta > h_min):
            raise ConfigError(f"cog.delta={delta} must be auto_gap or a number above h_min={h_min}")
        require_choice("cog", get_args(Normaliser), normaliser=normaliser)
        require_at_least("cog", 1, bins=bins)
        self.names, self.delta, self.h_min, self.bins = feature_names(spec), delta, h_min, bins
        self.normaliser, self.least_gap = normaliser, least_gap
        self.candidates = matching(spec, candidates, "cog.candidates") & ~matching(
            spec, exclude, "cog.exclude", must=False
        )

    def find(self, change: Tensor) -> Findings:
        """Compute findings from changes [R, S] of all state features in R steps, none across a reset. Raise NoGap."""
        change = change.abs()
        scale = self.scale_of(change)
        entropy = entropies(change, scale, self.bins)
        changed = (change > CHANGED).float().mean(0)
        try:
            return Findings(scale, changed, entropy, self.select(entropy))
        except ConfigError as error:
            raise NoGap(
                str(error), Findings(scale, changed, entropy, torch.zeros_like(entropy, dtype=torch.bool))
            ) from error

    def scale_of(self, change: Tensor) -> Tensor:
        if self.normaliser == "max":
            return change.amax(0)
        if self.normaliser == "mean":
            return change.sum(0) / (change > CHANGED).sum(0).clamp(min=1)
        below = len(change) - 1 - (0.001 * (change > CHANGED).sum(0)).long()
        return change.sort(0).values.gather(0, below[None])[0]

    def select(self, entropy: Tensor) -> Tensor:
        """Return the selected features, bool [S]. Raise ConfigError with the table where there is no gap to cut at."""
        moving = self.candidates.to(entropy.device) & (entropy > self.h_min)
        if self.delta != "auto_gap":
            return moving & (entropy < float(self.delta))
        if not moving.any():
            return moving
        logs = entropy[moving].log().sort().values
        gaps = logs.diff()
        if not len(gaps) or gaps.max() < self.least_gap:
            table = ", ".join(f"{name} {h:.3g}" for h, name in self.ranked(entropy, moving)[:40])
            raise ConfigError(
                f"cog.delta=auto_gap found no gap of at least {self.least_gap} in ln H; give cog.delta a number, "
                f"cog.candidates or cog.exclude patterns. H: {table}"
            )
        cut = logs[: int(gaps.argmax()) + 2][-2:].mean()  # midway in the gap
        return moving & (entropy.clamp(min=STILL).log() < cut)

    def ranked(self, entropy: Tensor, which: Tensor) -> list[tuple[float, str]]:
        """Return (H, name) of the features in ``which`` bool [S], lowest H first."""
        kept = zip(entropy.tolist(), self.names, which.tolist(), strict=True)
        return sorted((h, name) for h, name, keep in kept if keep)

    def report(self, found: Findings, folder: Path) -> None:
        """Write ``fim_cog.csv`` and ``fim_cog.png`` into ``folder``."""
        columns = (found.scale, found.changed, found.entropy, self.candidates, found.selected)
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["dim", "name", "scale", "changed", "entropy", "candidate", "selected"])
        table.writerows(zip(range(len(self.names)), self.names, *(c.tolist() for c in columns), strict=True))
        write_atomic(folder / "fim_cog.csv", text.getvalue())
        self.draw(found, folder / "fim_cog.png")

    def draw(self, found: Findings, path: Path) -> None:
        """Draw one bar per feature that moves, lowest entropy first, the chosen ones coloured and named."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        chosen = {name for name, keep in zip(self.names, found.selected.tolist(), strict=True) if keep}
        bars = self.ranked(found.entropy, found.entropy > self.h_min)
        figure = Figure(figsize=(6.4, 1.2 + 0.18 * min(len(bars), 100)), layout="constrained")
        FigureCanvasAgg(figure)
        axis = figure.subplots()
        colours = ["#D55E00" if name in chosen else "#BBBBBB" for _, name in bars]
        axis.barh(range(len(bars)), [h for h, _ in bars], color=colours)
        label_all = len(bars) <= 60
        shown = [y for y, (_, name) in enumerate(bars) if label_all or name in chosen]
        axis.set_yticks(shown, [plain(bars[y][1]) for y in shown], fontsize=6)
        if bars:
            axis.set_xscale("log")
            axis.tick_params(axis="x", which="both", labelsize=6)
            if self.delta != "auto_gap":
                axis.axvline(float(self.delta), color="black", linestyle="--", linewidth=0.8)
        axis.invert_yaxis()
        axis.set_xlabel("entropy of the normalised change, nats")
        still = len(self.names) - len(bars)
        axis.set_title(f"{len(chosen)} of {len(self.names)} state features chosen; {still} never vary", fontsize=8)
        save_figure(figure, path, 120)


def entropies(change: Tensor, scale: Tensor, bins: int) -> Tensor:
    """Return the entropy [S], in nats, of the histogram of change / scale; change [R, S] >= 0, scale [S]."""
    R, S = change.shape
    offset = bins * torch.arange(S, device=change.device)
    counts = torch.zeros(S * bins, device=change.device, dtype=torch.long)
    for rows in change.split(CUT_ROWS):
        x = (rows / scale.clamp(min=STILL)).clamp(max=1.0)
        index = ((x * bins).long().clamp(max=bins - 1) + offset).flatten()
        counts += torch.bincount(index, minlength=S * bins)
    p = counts.view(S, bins).double() / R
    entropy = -torch.xlogy(p, p).sum(-1).float()
    return torch.where(scale < STILL, 0.0, entropy)
