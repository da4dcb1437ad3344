"""Features of daily bars, each a function of a ticker's past alone. No clock here: see `data/panel.py`.

Bars come packed: one row a ticker, its observed bars side by side from the left, NaN behind the last.
Every operation runs left to right, so a column never depends on a later one, and a missing session
is a longer step between two bars instead of a made-up bar. Prices enter only through ratios with
splits and dividends applied, so levels and later splits change nothing. Returns are natural
logarithms; most features are in units of the ticker's own trailing volatility (`unit`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

Array = npt.NDArray[np.float64]

WARM_UP = 20  # bars before a row counts: the longest span any feature looks back over
UNIT_DECAY = 0.94  # RiskMetrics' daily decay
SMALLEST_UNIT = 1e-4

FEATURES = (
    "return",
    "overnight",
    "intraday",
    "range",
    "close_location",
    "gap",
    "days_since_bar",
    "volume_z",
    "momentum_5",
    "momentum_10",
    "momentum_20",
    "volatility",
    "volatility_ratio",
    "rsi",
    "macd",
    "macd_histogram",
    "bollinger_b",
    "atr",
    "ma_ratio_5",
    "ma_ratio_20",
    "weekday_sin",
    "weekday_cos",
    "market_return",
    "relative_return",
)
CROSS_SECTIONAL = 2  # the last two compare a ticker with the market: filled in by the panel


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
    before = _previous(bars.close)
    total = np.log((bars.close + bars.dividend) * bars.split / before)
    overnight = np.log((bars.open + bars.dividend) * bars.split / before)
    for first in (total, overnight):
        first[:, 0] = 0.0
    squares = np.where(np.isnan(total), np.nan, total**2)
    weight = _decayed(np.ones_like(total), UNIT_DECAY)
    unit = np.maximum(np.sqrt(_decayed(squares, UNIT_DECAY) / weight), SMALLEST_UNIT)
    return Returns(total, overnight, np.log(bars.close / bars.open), unit)


def features(bars: PackedBars, moves: Returns) -> Array:
    """[tickers, bars, F - CROSS_SECTIONAL] in the order of FEATURES; rows before WARM_UP are not meant to be used."""
    unit = moves.unit
    level = np.cumsum(moves.total, axis=1)  # log total-return index
    before = _previous(bars.close) / bars.split - bars.dividend
    with np.errstate(invalid="ignore"):  # cash above the price has no logarithm: the panel names it and refuses
        high, low = np.log(np.fmax(bars.high, before)), np.log(np.fmin(bars.low, before))
    spread = np.log(bars.high / bars.low)
    fast, slow = _ema(level, 12), _ema(level, 26)
    macd = (fast - slow) / unit
    deviation = level - _mean(level, 20)
    weekday = 2 * np.pi * ((bars.day + 3) % 7) / 7  # 1970-01-01 was a Thursday
    columns = [
        moves.total / unit,
        moves.overnight / unit,
        moves.intraday / unit,
        spread / unit,
        np.log(bars.close**2 / (bars.high * bars.low)) / np.maximum(spread, SMALLEST_UNIT),
        _gap(bars, before) / unit,
        np.log(np.fmax(bars.day - _previous(bars.day), 1.0)),
        _zscore(np.log1p(bars.volume * bars.close), 20),
        *(_sum(moves.total, span) / (unit * np.sqrt(span)) for span in (5, 10, 20)),
        np.log(unit),
        np.log(np.maximum(np.sqrt(_mean(moves.total**2, 5)), SMALLEST_UNIT) / unit),
        _rsi(moves.total, 14),
        macd,
        macd - _ema(macd, 9),
        deviation / np.maximum(2 * _std(level, 20), SMALLEST_UNIT),
        _ema(high - low, 27) / unit,  # Wilder's smoothing over 14 is an EMA of span 27
        (level - _mean(level, 5)) / unit,
        deviation / unit,
        np.sin(weekday),
        np.cos(weekday),
    ]
    return np.stack(columns, axis=2)


def _gap(bars: PackedBars, before: Array) -> Array:
    """How far the open lies outside the previous bar's range; 0 inside it."""
    scale = before / _previous(bars.close)  # onto today's share basis
    with np.errstate(invalid="ignore"):
        above = np.log(bars.open / (_previous(bars.high) * scale))
        below = np.log(bars.open / (_previous(bars.low) * scale))
    return np.maximum(above, 0.0) + np.minimum(below, 0.0)


def _rsi(moves: Array, span: int) -> Array:
    """Wilder's relative strength, centred: -0.5 all losses, 0.5 all gains."""
    gain = _ema(np.maximum(moves, 0.0), 2 * span - 1)
    loss = _ema(np.maximum(-moves, 0.0), 2 * span - 1)
    return gain / np.maximum(gain + loss, 1e-12) - 0.5


def _previous(values: Array) -> Array:
    return np.concatenate([values[:, :1], values[:, :-1]], axis=1)


def _decayed(values: Array, decay: float) -> Array:
    return np.asarray(lfilter([1 - decay], [1, -decay], values, axis=1))


def _ema(values: Array, span: int) -> Array:
    """Exponential mean whose weights add up to 1 from the first bar on."""
    decay = 1 - 2 / (span + 1)
    return _decayed(values, decay) / _decayed(np.ones_like(values), decay)


def _sum(values: Array, span: int) -> Array:
    total = np.cumsum(values, axis=1)
    total[:, span:] -= total[:, :-span].copy()
    return total


def _mean(values: Array, span: int) -> Array:
    seen = np.minimum(np.arange(1, values.shape[1] + 1), span)
    return _sum(values, span) / seen


def _std(values: Array, span: int) -> Array:
    centred = values - values[:, :1]
    return np.sqrt(np.maximum(_mean(centred**2, span) - _mean(centred, span) ** 2, 0.0))


def _zscore(values: Array, span: int) -> Array:
    spread: Callable[[Array, int], Array] = _std
    return (values - _mean(values, span)) / np.maximum(spread(values, span), 0.05)
