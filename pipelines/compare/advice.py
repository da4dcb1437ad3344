"""What the figures of a comparison allow to be said: which depth, and which kind. A rule, no opinion.

Depth: of each kind and share of the data, the shallowest whose gain on the validation fold is not shown to be below
that of the best there: the 95% interval of their paired difference holds 0. Kinds: on the test fold, each at the depth
so chosen, against the first kind named. What is judged is the gain in likelihood, which training also fits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.compare.accuracy import MEASURES
from pipelines.metrics import Draws, Interval


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
    def verdict(self) -> str:
        """What the interval of the gain allows to be said."""
        gain = self.differences["gain"]
        if gain.low is None or gain.high is None or gain.low <= 0 <= gain.high:
            return "no difference shown"
        return f"{self.kind} is better" if gain.low > 0 else f"{self.reference} is better"

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        differences = {name: value.as_dict() for name, value in self.differences.items()}
        return {"kind": self.kind, "reference": self.reference, **differences, "verdict": self.verdict}


def choose_depth(gains: Mapping[int, Draws]) -> Depth:
    """The rule above, from each depth's gain on the validation fold, draw by draw."""
    best = max(sorted(gains), key=lambda layers: float(gains[layers][0]))
    gaps = {layers: Interval.of(gains[best] - gains[layers]) for layers in sorted(gains)}
    return Depth(next(layers for layers, gap in gaps.items() if not _shows_loss(gap)), best, gaps)


def match(kind: str, of_kind: Mapping[str, Draws], reference: str, of_reference: Mapping[str, Draws]) -> Match:
    """The paired difference of two kinds in every measure."""
    differences = {name: Interval.of(of_kind[name] - of_reference[name]) for name in MEASURES}
    return Match(kind, reference, differences)


def _shows_loss(gap: Interval) -> bool:
    return gap.low is not None and gap.low > 0
