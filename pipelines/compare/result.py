"""What a comparison found, as records: the score of each cell, the cost of each size, and what follows from them."""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

from pipelines.compare.accuracy import MEASURES, PARTS
from pipelines.compare.advice import Depth, Match, Place, choose_depths, match_kinds
from pipelines.compare.cost import Cost, growth
from pipelines.compare.data import Data
from pipelines.compare.grid import Cell, Grid
from pipelines.metrics import Draws, Interval

Costs = dict[str, dict[str, dict[int, Cost]]]  # by kind, by what was varied, by its value
VARIED = ("lookback", "width")


@dataclass(frozen=True)
class Score:
    """One cell over all folds and seeds. `epochs` and `seconds` (of an epoch) are means over its fits.

    `draws` are by part and measure, over days and seeds; `of_seeds` by part, seed and measure, None for no meaning.
    """

    parameters: int
    samples: int
    epochs: float
    seconds: float
    draws: dict[str, dict[str, Draws]]
    of_seeds: dict[str, dict[int, dict[str, float | None]]]

    def interval(self, part: str, name: str) -> Interval:
        """A measure on `valid` or `test`, with its 95% interval."""
        return Interval.of(self.draws[part][name])

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        of_parts = {
            part: {
                **{name: self.interval(part, name).as_dict() for name in MEASURES},
                "per_seed": {str(seed): values for seed, values in self.of_seeds[part].items()},
            }
            for part in PARTS
        }
        counted = {"parameters": self.parameters, "samples": self.samples, "epochs": self.epochs}
        return {**counted, "seconds_per_epoch": self.seconds, **of_parts}


@dataclass(frozen=True)
class Comparison:
    """Everything that was measured, and where the page lies.

    `line` is the NLL of a forecast without skill and `days` the number of days, both by part. `command` asks for the
    same again; `machine` is what it ran on. With `on_gpu` seconds are the wall clock's, else processor time.
    """

    grid: Grid
    data: Data
    seeds: tuple[int, ...]
    costs: Costs
    scores: dict[Cell, Score]
    line: dict[str, float]
    days: dict[str, int]
    notes: list[str]
    machine: str
    on_gpu: bool
    command: str
    page: Path

    def layers(self, kind: str) -> list[int]:
        """The depths that were run of a kind."""
        return sorted({layers for of, layers, _ in self.scores if of == kind})

    @cached_property
    def depths(self) -> dict[Place, Depth]:
        """What validation says of each kind's depth at each share."""
        return choose_depths(self._draws("valid", "gain"))

    @cached_property
    def matches(self) -> dict[Place, Match]:
        """Every other kind against the first at each share, on the test fold."""
        advised = {place: (place[0], depth.advised, place[1]) for place, depth in self.depths.items()}
        return match_kinds(advised, self.grid.kinds[0], {name: self._draws("test", name) for name in MEASURES})

    def _draws(self, part: str, name: str) -> dict[Cell, Draws]:
        return {cell: score.draws[part][name] for cell, score in self.scores.items()}

    def samples(self, share: Fraction) -> int:
        """Training samples at a share, of the first kind."""
        kind = self.grid.kinds[0]
        return self.scores[kind, self.layers(kind)[0], share].samples

    @property
    def epoch_samples(self) -> int:
        """The samples of an epoch on the largest share of the data, for which costs are told."""
        return max(score.samples for score in self.scores.values())

    def growth(self, kind: str, varied: str) -> tuple[float, float]:
        """Exponents of the training time: over all sizes, and between the two largest."""
        of = self.costs[kind][varied]
        return growth(list(of), [cost.seconds for cost in of.values()])

    def as_dict(self) -> dict[str, Any]:
        """The contract of `compare --json`."""
        kinds, shares = self.grid.kinds, self.grid.shares
        return {
            "data": self.data.about,
            "days": self.days,
            "seeds": list(self.seeds),
            "no_skill_nll": self.line,
            "oracle_rank_ic": self.data.oracle,
            "accuracy": [
                {"kind": kind, "layers": layers, "share": str(share), **score.as_dict()}
                for (kind, layers, share), score in self.scores.items()
            ],
            "depth": {kind: {str(share): self.depths[kind, share].as_dict() for share in shares} for kind in kinds},
            "kinds": {str(share): [self.matches[kind, share].as_dict() for kind in kinds[1:]] for share in shares},
            "epoch_samples": self.epoch_samples,
            "cost": {
                kind: {name: {str(value): vars(cost) for value, cost in of.items()} for name, of in by.items()}
                for kind, by in self.costs.items()
            },
            "growth": {kind: {name: self._exponents(kind, name) for name in VARIED} for kind in kinds},
            "notes": self.notes,
            "machine": self.machine,
            "path": str(self.page),
        }

    def _exponents(self, kind: str, varied: str) -> dict[str, float | None]:
        if len(self.costs[kind][varied]) < 2:
            return {"fitted": None, "last": None}
        fitted, last = self.growth(kind, varied)
        return {"fitted": fitted, "last": last}
