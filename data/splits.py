"""Walk-forward folds: train, validate, test, in this order of time and never mixed.

Samples are assigned by target session, so no date is on two sides. A sample of an earlier part is
purged where its label settles after the next part's first decision, and the last `embargo` sessions
before each boundary are left out besides.
"""

from dataclasses import dataclass
from datetime import date
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from data.asof import known
from data.calendar import Sessions
from data.errors import LakeError
from data.types import Config

Ints = npt.NDArray[np.int64]


class SplitConfig(Config):
    """Either three dates (a target session before `train_end` trains, and so on) or `folds` by share.

    Where the dates are given they count and `folds` does not. `train_start` may bound training below.
    """

    train_start: date | None = None
    train_end: date | None = None
    valid_end: date | None = None
    test_end: date | None = None
    folds: int = Field(default=1, ge=1, le=50)
    valid_share: float = Field(default=0.15, gt=0, lt=0.5)
    test_share: float = Field(default=0.25, gt=0, lt=0.8)
    embargo: int = Field(default=1, ge=0, le=250)

    @model_validator(mode="after")
    def _dates_together_and_in_order(self) -> "SplitConfig":
        ends = [self.train_end, self.valid_end, self.test_end]
        given = [end for end in (self.train_start, *ends) if end is not None]
        if any(end is None for end in ends) and any(end is not None for end in ends):
            raise ValueError("expected train_end, valid_end and test_end together, or none of them")
        if any(later <= earlier for earlier, later in pairwise(given)):
            raise ValueError("expected train_start < train_end < valid_end < test_end")
        if self.valid_share + self.test_share >= 1:
            raise ValueError("expected valid_share + test_share below 1, so that something is left to train on")
        return self


@dataclass(frozen=True)
class Fold:
    """Session indices (of t, the last closed session) of each part, ascending."""

    train: Ints
    valid: Ints
    test: Ints


def make_folds(split: SplitConfig, sessions: Sessions) -> list[Fold]:
    """The folds over `sessions`, oldest first.

    Raises LakeError where a part would be empty.
    """
    if split.train_end is not None:
        ends = [split.train_end, split.valid_end, split.test_end]
        bounds = [np.searchsorted(sessions.target, np.datetime64(end, "D")) for end in ends]
        first = 0 if split.train_start is None else np.searchsorted(sessions.target, np.datetime64(split.train_start))
        cuts = [[int(first), *map(int, bounds)]]
    else:
        cuts = _cuts_by_share(split, len(sessions))
    return [_fold(edges, split.embargo, sessions) for edges in cuts]


def _cuts_by_share(split: SplitConfig, sessions: int) -> list[list[int]]:
    tested = np.linspace(sessions * (1 - split.test_share), sessions, split.folds + 1).astype(int)
    valid = max(1, int(sessions * split.valid_share))
    return [[0, int(start) - valid, int(start), int(end)] for start, end in pairwise(tested)]


def _fold(edges: list[int], embargo: int, sessions: Sessions) -> Fold:
    """The fold whose parts begin and end at `edges`: start, end of training, of validation, of the test."""
    train, valid, test = (np.arange(low, high) for low, high in pairwise(edges))
    fold = Fold(_purge(train, edges[1], embargo, sessions), _purge(valid, edges[2], embargo, sessions), test)
    for name in ("train", "valid", "test"):
        if len(getattr(fold, name)) == 0:
            raise LakeError(
                f"[split]: expected sessions to {name} on, found none: the lake's decisions run from "
                f"{sessions.labels[0]} to {sessions.labels[-1]}. Mend the dates in [split] or import more prices."
            )
    return fold


def _purge(part: Ints, end: int, embargo: int, sessions: Sessions) -> Ints:
    """The part without labels that settle after the next part's first decision, and without the embargo."""
    kept = part[part < end - embargo]
    if end >= len(sessions):
        return kept
    return kept[known(sessions.target_close[kept], sessions.decision_at[end])]
