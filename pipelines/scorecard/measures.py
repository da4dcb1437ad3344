"""How good forecasts were, day by day: each day counts once, and error bars are over days, never over rows.

Reads arrays, not the lake. The same functions judge a model's test fold at training (`reference.py`) and its live
nights (`card.py`), so that the two may be compared.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, stdtrit

from data.types import QUANTILES
from pipelines.metrics import Days, Interval, daily_rank_ic, pinball

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MEASURES = ("rank_ic", "hit_rate", "coverage_50", "coverage_80", "coverage_90", "pinball", "nll")
INTERVALS = {"coverage_50": (0.25, 0.75), "coverage_80": (0.1, 0.9), "coverage_90": (0.05, 0.95)}
FEWEST_NIGHTS = 20  # an interval over fewer says nothing

_DF = np.geomspace(1.0, 1e4, 4096)
_SPREAD = np.asarray(stdtrit(_DF, 0.95) / stdtrit(_DF, 0.75))  # falls as tails get thinner


@dataclass(frozen=True)
class Outcomes:
    """Forecasts beside what happened, one entry a row: day [M], log returns [M], quantiles [M, Q], P(up) [M]."""

    day: npt.NDArray[np.datetime64]
    mean: Floats
    prob_up: Floats
    quantiles: Floats
    realised: Floats

    def __len__(self) -> int:
        return len(self.day)


@dataclass(frozen=True)
class Daily:
    """The measures of each day, ascending: labels [D], rows [D], and by name in MEASURES values [D].

    `rank_ic` is NaN on a day with fewer than five tickers, `nll` where the quantiles are no Student-t's.
    """

    day: npt.NDArray[np.datetime64]
    rows: Ints
    values: dict[str, Floats]

    def __len__(self) -> int:
        return len(self.day)

    def replaced(self, days: npt.NDArray[np.datetime64], anew: "Daily") -> "Daily":
        """The same with `days` as `anew` measures them; one that it lacks is left out."""
        kept = ~np.isin(self.day, days)
        order = np.argsort(np.concatenate([self.day[kept], anew.day]))
        values = {name: np.concatenate([own[kept], anew.values[name]])[order] for name, own in self.values.items()}
        day, rows = (
            np.concatenate([own[kept], new])[order] for own, new in ((self.day, anew.day), (self.rows, anew.rows))
        )
        return Daily(day, rows, values)


@dataclass(frozen=True)
class Estimate:
    """A mean over days with its 95% interval, the standard deviation of one day, and how many days there were."""

    mean: float
    sd: float
    low: float
    high: float
    days: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return dict(vars(self))


def by_day(outcomes: Outcomes) -> Daily:
    """Every measure of each day. Empty for no rows."""
    label, day = np.unique(outcomes.day, return_inverse=True)
    rows = np.bincount(day, minlength=len(label))
    means = {name: np.bincount(day, each, len(label)) / rows for name, each in _of_rows(outcomes).items()}
    return Daily(label, rows, {"rank_ic": daily_rank_ic(outcomes.mean, outcomes.realised, day), **means})


def estimates(daily: Daily) -> dict[str, Estimate | None]:
    """Each of MEASURES over the days; None where fewer than two days have it."""
    return {name: estimate(daily.values[name]) for name in MEASURES}


def estimate(values: Floats) -> Estimate | None:
    """The mean over days [D] and its interval, from a bootstrap over them. NaN days are left out."""
    there = values[np.isfinite(values)]
    if len(there) < 2:
        return None
    drawn = Interval.of(resampled(len(there)).means(there))
    if drawn.mean is None or drawn.low is None or drawn.high is None:
        return None
    return Estimate(drawn.mean, float(np.std(there, ddof=1)), drawn.low, drawn.high, len(there))


@lru_cache(maxsize=8)
def resampled(days: int, seed: int = 0) -> Days:
    """Resamplings of so many days, one row each: those of every measure, and of every model, are the same."""
    return Days.draw(np.arange(days), seed)


def between_quantiles(outcomes: Outcomes) -> Floats:
    """Share of rows [Q + 1] that fell below the first quantile, between two neighbours, above the last.

    What a calibrated forecast gives is `expected_between()`: a PIT histogram with the quantiles as its edges.
    """
    place = (outcomes.realised[:, None] > outcomes.quantiles).sum(axis=1)
    counts = np.bincount(place, minlength=len(QUANTILES) + 1)
    return np.asarray(counts / max(len(outcomes), 1), dtype=np.float64)


def expected_between() -> Floats:
    """The shares [Q + 1] that a calibrated forecast gives."""
    return np.diff([0.0, *QUANTILES, 1.0])


def _of_rows(outcomes: Outcomes) -> dict[str, Floats]:
    found = {"hit_rate": ((outcomes.prob_up > 0.5) == (outcomes.realised > 0)).astype(np.float64)}
    for name, ends in INTERVALS.items():
        low, high = (outcomes.quantiles[:, QUANTILES.index(level)] for level in ends)
        found[name] = ((low <= outcomes.realised) & (outcomes.realised <= high)).astype(np.float64)
    found["pinball"] = pinball(outcomes.quantiles, outcomes.realised)
    found["nll"] = _nll(outcomes)
    return found


def _nll(outcomes: Outcomes) -> Floats:
    """Negative log density of each row under the Student-t that has its quantiles; NaN where there is none.

    A location-scale family of three numbers: the quantiles at 50, 75 and 95% say which, and the 5% one whether it is.
    """
    q05, q50, q75, q95 = (outcomes.quantiles[:, QUANTILES.index(level)] for level in (0.05, 0.5, 0.75, 0.95))
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = (q95 - q50) / (q75 - q50)
        symmetric = np.abs((q50 - q05) - (q95 - q50)) <= 1e-6 * (q95 - q50)
    fits = symmetric & (_SPREAD[-1] <= spread) & (spread <= _SPREAD[0])
    df = np.interp(spread, _SPREAD[::-1], _DF[::-1])
    scale = np.where(fits, (q95 - q50) / stdtrit(df, 0.95), 1.0)
    standard = (outcomes.realised - q50) / scale
    constant = gammaln((df + 1) / 2) - gammaln(df / 2) - 0.5 * np.log(df * np.pi)
    nll = (df + 1) / 2 * np.log1p(standard**2 / df) - constant + np.log(scale)
    return np.where(fits, nll, np.nan)
