"""What the figures of a comparison allow to be said: which depth, and which kind. A rule, no opinion.

Depth: of each kind and share of the data, the shallowest whose gain on the validation fold is not shown to be below
that of the best there. Kinds: on the test fold, each at the depth so chosen, against the first kind named. What is
judged is the gain in likelihood, which training also fits.

Of many cells one is always the best, by luck if nothing else. So all that is said of a fold is one test, on the largest
of its differences: were all cells as good as each other, 95 comparisons of 100 would show no difference at all (White
2000, A Reality Check for Data Snooping; Hansen, Lunde and Nason 2011, The Model Confidence Set: their range statistic,
once).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import permutations
from typing import Any

import numpy as np

from pipelines.compare.grid import Cell
from pipelines.metrics import Draws, Interval

Pair = tuple[Cell, Cell]  # of one share
Place = tuple[str, Fraction]  # a kind at a share

LEVEL = 0.95


@dataclass(frozen=True)
class Depth:
    """The depth advised for one kind at one share.

    `gaps` has, for every depth, the best depth's gain less its own, on validation: an interval above 0 shows a loss.
    """

    advised: int
    best: int
    gaps: dict[int, Interval]

    @property
    def worse(self) -> list[int]:
        """The depths shown to be worse than the best; with none, no difference is shown."""
        return [layers for layers, gap in self.gaps.items() if _shows_loss(gap)]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        gaps = {str(layers): gap.as_dict() for layers, gap in self.gaps.items()}
        return {"advised": self.advised, "best": self.best, "shown_worse": self.worse, "gaps": gaps}


@dataclass(frozen=True)
class Match:
    """One kind less the reference kind on the test fold, each at its advised depth."""

    kind: str
    reference: str
    differences: dict[str, Interval]

    @property
    def better(self) -> str | None:
        """The kind that the interval of the gain shows to be better; None where it shows no difference."""
        gain = self.differences["gain"]
        if gain.low is None or gain.high is None or gain.low <= 0 <= gain.high:
            return None
        return self.kind if gain.low > 0 else self.reference

    @property
    def verdict(self) -> str:
        """`better` in words."""
        return f"{self.better} is better" if self.better else "no difference shown"

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        differences = {name: value.as_dict() for name, value in self.differences.items()}
        return {"kind": self.kind, "reference": self.reference, **differences, "verdict": self.verdict}


def choose_depths(gains: Mapping[Cell, Draws]) -> dict[Place, Depth]:
    """The rule above, from each cell's gain on the validation fold, draw by draw."""
    pairs = [(one, other) for one, other in permutations(gains, 2) if one[::2] == other[::2]]
    apart = compare_cells(gains, pairs)
    places = dict.fromkeys((kind, share) for kind, _, share in gains)
    return {place: _choose([cell for cell in gains if cell[::2] == place], gains, apart) for place in places}


def match_kinds(
    cells: Mapping[Place, Cell], reference: str, measures: Mapping[str, Mapping[Cell, Draws]]
) -> dict[Place, Match]:
    """Every other kind at every share against the reference, from each measure's draws on the test fold.

    `cells` are those that stand for their kind, all shares of all kinds.
    """
    pairs = {place: (cell, cells[reference, place[1]]) for place, cell in cells.items() if place[0] != reference}
    apart = {name: compare_cells(draws, list(pairs.values())) for name, draws in measures.items()}
    return {
        place: Match(place[0], reference, {name: of[pair] for name, of in apart.items()})
        for place, pair in pairs.items()
    }


def compare_cells(draws: Mapping[Cell, Draws], pairs: Sequence[Pair]) -> dict[Pair, Interval]:
    """The first less the second of each pair, with intervals that all hold at once in 95 of 100 comparisons.

    At one share all are equally wide: as wide as the largest of all differences, each centred at its estimate and in
    units of how far its share's cells vary apart, goes in 95 of 100 draws. The unit is common to a share because the
    few fits of one cell tell too little of how far they vary. A pair with a draw that has no meaning has no interval.
    """
    differences = {pair: draws[pair[0]] - draws[pair[1]] for pair in pairs}
    units = {share: _spread([of for cell, of in draws.items() if cell[2] == share]) for _, _, share in draws}
    told = {pair: units[pair[0][2]] for pair, each in differences.items() if np.isfinite(each).all()}
    strayed = [np.abs(differences[pair][1:] - differences[pair][0]) / unit for pair, unit in told.items() if unit > 0]
    reach = float(np.quantile(np.max(strayed, axis=0), LEVEL)) if strayed else 0.0
    return {pair: _interval(float(each[0]), reach, told.get(pair)) for pair, each in differences.items()}


def _choose(cells: Sequence[Cell], gains: Mapping[Cell, Draws], apart: Mapping[Pair, Interval]) -> Depth:
    """Among the depths of one kind at one share."""
    cells = sorted(cells)
    best = max(cells, key=lambda cell: float(gains[cell][0]))
    gaps = {cell[1]: Interval(0.0, 0.0, 0.0) if cell == best else apart[best, cell] for cell in cells}
    return Depth(next(layers for layers, gap in gaps.items() if not _shows_loss(gap)), best[1], gaps)


def _spread(draws: Sequence[Draws]) -> float:
    """How far cells vary over the draws, apart from what moves them all alike: the root of their mean variance."""
    own = np.stack(draws)[:, 1:]
    return float(np.sqrt((own - own.mean(axis=0)).var(axis=1).mean()))


def _interval(estimate: float, reach: float, unit: float | None) -> Interval:
    if unit is None:
        return Interval(None, None, None)
    return Interval(estimate, estimate - reach * unit, estimate + reach * unit)


def _shows_loss(gap: Interval) -> bool:
    return gap.low is not None and gap.low > 0
