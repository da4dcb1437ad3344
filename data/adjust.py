"""Adjustment: total returns from bars as traded and the splits and dividends that were known. Nothing is stored.

Bars come packed: one row a ticker, its observed bars side by side from the left, NaN behind the last. Which bars and
actions those are, as of which decision, is settled before (`data/packing.py`, `data/panel.py`), so that a later split
or a restatement changes no return of an earlier decision. Returns are CRSP's: into an ex-date the cash is added and
the shares are multiplied; logarithms are natural.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

Array = npt.NDArray[np.float64]

UNIT_DECAY = 0.94  # RiskMetrics' daily decay
SMALLEST_UNIT = 1e-4


@dataclass(frozen=True)
class PackedBars:
    """Observed bars, [tickers, bars]; `split` is new shares per old on that bar (1 where none).

    `dividend` is cash per share after the split, `day` the session as days since 1970 (float).
    """

    open: Array
    high: Array
    low: Array
    close: Array
    volume: Array
    split: Array
    dividend: Array
    day: Array


@dataclass(frozen=True)
class Returns:
    """Log total returns into each bar, and the volatility unit as known at it; [tickers, bars]."""

    total: Array
    overnight: Array
    intraday: Array
    unit: Array


def returns(bars: PackedBars) -> Returns:
    """Returns since the previous bar; 0 at the first. `unit` is EWMA volatility, floored."""
    before = previous(bars.close)
    total = np.log((bars.close + bars.dividend) * bars.split / before)
    overnight = np.log((bars.open + bars.dividend) * bars.split / before)
    for first in (total, overnight):
        first[:, 0] = 0.0
    unit = np.maximum(np.sqrt(average(total**2, UNIT_DECAY)), SMALLEST_UNIT)
    return Returns(total, overnight, np.log(bars.close / bars.open), unit)


def adjusted_closes(bars: PackedBars, moves: Returns) -> tuple[Array, Array]:
    """Closes on the share basis of each ticker's last bar, [tickers, bars]: for splits alone, and for dividends too.

    The second falls by what was paid since: its ratios are total returns. NaN behind a ticker's last bar.
    """
    later = np.cumprod(bars.split[:, ::-1], axis=1)[:, ::-1] / bars.split
    last = np.maximum((~np.isnan(bars.close)).sum(axis=1, keepdims=True) - 1, 0)
    level = np.cumsum(moves.total, axis=1)
    since = level - np.take_along_axis(level, last, axis=1)
    return bars.close / later, np.take_along_axis(bars.close, last, axis=1) * np.exp(since)


def previous(values: Array) -> Array:
    """Each bar's predecessor; the first is its own."""
    return np.concatenate([values[:, :1], values[:, :-1]], axis=1)


def average(values: Array, decay: float) -> Array:
    """Exponential mean whose weights add up to 1 from the first bar on."""
    weight = _decayed(np.ones((1, values.shape[1])), decay)
    return np.asarray(_decayed(values, decay) / weight)


def _decayed(values: Array, decay: float) -> Array:
    return np.asarray(lfilter([1 - decay], [1, -decay], values, axis=1))
