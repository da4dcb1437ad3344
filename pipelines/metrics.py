"""How good forecasts were, with error bars from a bootstrap over whole days.

Labels of one day are not independent (the market moves them together), so days are resampled, never
rows. All variants of an ablation share the same resampled days, which is what makes their
differences paired. A metric of several seeds is the mean over the seeds, of each draw.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from data.types import QUANTILES
from fusion.head import Distribution

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

METRICS = ("rank_ic", "accuracy", "mcc", "auc", "brier", "pinball")
DRAWS = 2000
FEWEST_TICKERS = 5  # a rank correlation over fewer says nothing
AUC_BINS = 2048

Draws = Floats  # [1 + DRAWS]: the value on the days as they were, then on each resampling of them


@dataclass(frozen=True)
class Interval:
    """A point estimate with its 95% interval; all None where the metric has no meaning."""

    mean: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, draws: Draws) -> "Interval":
        """The first draw is the estimate, the others give the interval."""
        if not np.isfinite(draws[0]):
            return cls(None, None, None)
        low, high = np.nanpercentile(draws[1:], [2.5, 97.5])
        return cls(float(draws[0]), float(low), float(high))

    def as_dict(self) -> dict[str, float | None]:
        """JSON-ready."""
        return {"mean": self.mean, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Days:
    """Resampling weights [1 + DRAWS, D]: how often each day counts; the first row counts each once."""

    day: Ints  # [M], each row's day as 0 .. D-1
    weights: Floats

    @property
    def count(self) -> int:
        """How many distinct days there are, D."""
        return int(self.weights.shape[1])

    @classmethod
    def draw(cls, sessions: Ints, seed: int = 0) -> "Days":
        """Weights for the distinct `sessions` [M] of the rows."""
        distinct, day = np.unique(sessions, return_inverse=True)
        count = len(distinct)
        drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=DRAWS)
        return cls(day, np.vstack([np.ones(count), drawn]))

    def sums(self, values: Floats) -> Floats:
        """Sum of `values` [M] or [M, K] over each draw's days: [1 + DRAWS] or [1 + DRAWS, K]."""
        daily = np.zeros((self.count, *values.shape[1:]))
        np.add.at(daily, self.day, values)
        summed: Floats = self.weights @ daily
        return summed

    def means(self, values: Floats) -> Floats:
        """Mean over the rows of each draw."""
        summed: Floats = self.sums(values) / self.sums(np.ones(len(values)))
        return summed


def evaluate_draws(forecast: Distribution, realised: Floats, days: Days) -> dict[str, Draws]:
    """Every metric of METRICS on rows [M]: as they were, and on each resampling of their days."""
    up = realised > 0
    prob = forecast.prob_up
    return {
        "rank_ic": rank_ic(forecast.mean, realised, days),
        "accuracy": days.means(((prob > 0.5) == up).astype(float)),
        "mcc": _mcc(prob > 0.5, up, days),
        "auc": _auc(prob, up, days),
        "brier": days.means((prob - up) ** 2),
        "pinball": days.means(pinball(forecast.quantiles(QUANTILES), realised)),
    }


def average(of_seeds: Sequence[Mapping[str, Draws]]) -> dict[str, Draws]:
    """Mean over seeds, draw by draw."""
    return {name: np.mean([draws[name] for draws in of_seeds], axis=0) for name in METRICS}


def difference(first: Mapping[str, Draws], second: Mapping[str, Draws]) -> dict[str, Draws]:
    """Paired difference, draw by draw: both saw the same days."""
    return {name: first[name] - second[name] for name in METRICS}


def intervals(draws: Mapping[str, Draws]) -> dict[str, Interval]:
    """An estimate with its 95% interval for each metric."""
    return {name: Interval.of(draws[name]) for name in METRICS}


def rank_ic(score: Floats, realised: Floats, days: Days) -> Draws:
    """Mean over days of the Spearman correlation across tickers; NaN where no day has enough of them.

    A day on which all scores tie counts as 0: no ranking was made.
    """
    daily = daily_rank_ic(score, realised, days.day)
    counted = np.isfinite(daily)
    if not counted.any():
        return np.full(len(days.weights), np.nan)
    with np.errstate(invalid="ignore"):
        mean: Draws = days.weights[:, counted] @ daily[counted] / days.weights[:, counted].sum(axis=1)
    return mean


def daily_rank_ic(score: Floats, realised: Floats, day: Ints) -> Floats:
    """The Spearman correlation [D] across the tickers of each day; NaN for fewer than FEWEST_TICKERS.

    `day` [M] is each row's day as 0 .. D-1, none of which is without rows.
    """
    rows_of = np.split(np.argsort(day, kind="stable"), np.cumsum(np.bincount(day))[:-1]) if len(day) else []
    each = [_spearman(score[rows], realised[rows]) if len(rows) >= FEWEST_TICKERS else np.nan for rows in rows_of]
    return np.array(each, dtype=np.float64)


def _spearman(first: Floats, second: Floats) -> float:
    ranks = [rankdata(values) - (len(values) + 1) / 2 for values in (first, second)]
    norm = np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum())
    return float((ranks[0] * ranks[1]).sum() / norm) if norm > 0 else 0.0


def _mcc(called: npt.NDArray[np.bool_], up: npt.NDArray[np.bool_], days: Days) -> Draws:
    """Matthews correlation; 0 where one side was never called or never happened."""
    cells: list[Callable[[], npt.NDArray[np.bool_]]] = [
        lambda: called & up,
        lambda: ~called & ~up,
        lambda: called & ~up,
        lambda: ~called & up,
    ]
    tp, tn, fp, fn = days.sums(np.column_stack([cell() for cell in cells]).astype(float)).T
    norm = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    mcc: Draws = np.where(norm > 0, (tp * tn - fp * fn) / np.maximum(norm, 1), 0.0)
    return mcc


def _auc(prob: Floats, up: npt.NDArray[np.bool_], days: Days) -> Draws:
    """Area under the ROC curve over pooled rows, by histograms of the probabilities' quantile bins.

    Exact up to ties within one of 2048 bins, and cheap for every resampling; NaN without both classes.
    """
    edges = np.unique(np.quantile(prob, np.linspace(0, 1, AUC_BINS + 1)[1:-1]))
    bins = np.searchsorted(edges, prob, side="right")
    histogram = np.zeros((2, days.count, len(edges) + 1))
    np.add.at(histogram, (up.astype(int), days.day, bins), 1.0)
    down, above = (days.weights @ part for part in histogram)
    below = np.cumsum(down, axis=1) - down / 2
    pairs = down.sum(axis=1) * above.sum(axis=1)
    with np.errstate(invalid="ignore"):
        auc: Draws = (above * below).sum(axis=1) / pairs
    return auc


def pinball(quantiles: Floats, realised: Floats) -> Floats:
    """Mean pinball loss over the levels of QUANTILES, per row, in log return."""
    levels = np.asarray(QUANTILES)
    error = realised[:, None] - quantiles
    loss: Floats = np.maximum(levels * error, (levels - 1) * error).mean(axis=1)
    return loss
