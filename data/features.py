"""Features of daily bars, each a function of a ticker's past alone. No clock here: see `data/panel.py`.

Bars come packed (see `data/adjust.py`). Every operation runs left to right, so a column never depends on a later one,
and a missing session is a longer step between two bars instead of a made-up bar. Prices enter only through ratios with
splits and dividends applied, so levels and later splits change nothing. Returns are natural logarithms; most features
are in units of the ticker's own trailing volatility (`unit`).
"""

import numpy as np

from data.adjust import SMALLEST_UNIT, Array, PackedBars, Returns, average, previous

WARM_UP = 20  # bars before a row counts: the longest span any feature looks back over

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


def features(bars: PackedBars, moves: Returns) -> list[Array]:
    """[tickers, bars] for each of FEATURES but the cross-sectional; before WARM_UP they are not meant to be used."""
    unit = moves.unit
    level = np.cumsum(moves.total, axis=1)  # log total-return index
    levels = np.cumsum(level, axis=1)
    before = previous(bars.close) / bars.split - bars.dividend
    with np.errstate(invalid="ignore"):  # cash above the price has no logarithm: the panel names it and refuses
        high, low = np.log(np.fmax(bars.high, before)), np.log(np.fmin(bars.low, before))
        weekday = (bars.day.astype(np.int64) + 3) % 7  # 1970-01-01 was a Thursday; behind the last bar any will do
    spread = np.log(bars.high / bars.low)
    fast, slow = _ema(level, 12), _ema(level, 26)
    macd = (fast - slow) / unit
    deviation = level - _mean(levels, 20)
    angle = 2 * np.pi * np.arange(7.0) / 7
    return [
        moves.total / unit,
        moves.overnight / unit,
        moves.intraday / unit,
        spread / unit,
        np.log(bars.close**2 / (bars.high * bars.low)) / np.maximum(spread, SMALLEST_UNIT),
        _gap(bars, before) / unit,
        np.log(np.fmax(bars.day - previous(bars.day), 1.0)),
        _zscore(np.log1p(bars.volume * bars.close), 20),
        *(_sum(level, span) / (unit * np.sqrt(span)) for span in (5, 10, 20)),
        np.log(unit),
        np.log(np.maximum(np.sqrt(_mean(np.cumsum(moves.total**2, axis=1), 5)), SMALLEST_UNIT) / unit),
        _rsi(moves.total, 14),
        macd,
        macd - _ema(macd, 9),
        deviation / np.maximum(2 * _std(level, 20), SMALLEST_UNIT),
        _ema(high - low, 27) / unit,  # Wilder's smoothing over 14 is an EMA of span 27
        (level - _mean(levels, 5)) / unit,
        deviation / unit,
        np.sin(angle)[weekday],
        np.cos(angle)[weekday],
    ]


def _gap(bars: PackedBars, before: Array) -> Array:
    """How far the open lies outside the previous bar's range; 0 inside it."""
    scale = before / previous(bars.close)  # onto today's share basis
    with np.errstate(invalid="ignore"):
        above = np.log(bars.open / (previous(bars.high) * scale))
        below = np.log(bars.open / (previous(bars.low) * scale))
    return np.maximum(above, 0.0) + np.minimum(below, 0.0)


def _rsi(moves: Array, span: int) -> Array:
    """Wilder's relative strength, centred: -0.5 all losses, 0.5 all gains."""
    gain = _ema(np.maximum(moves, 0.0), 2 * span - 1)
    loss = _ema(np.maximum(-moves, 0.0), 2 * span - 1)
    return gain / np.maximum(gain + loss, 1e-12) - 0.5


def _ema(values: Array, span: int) -> Array:
    return average(values, 1 - 2 / (span + 1))


def _sum(so_far: Array, span: int) -> Array:
    """Sum of the last `span` values, from their sums so far."""
    total = so_far.copy()
    total[:, span:] -= so_far[:, :-span]
    return total


def _mean(so_far: Array, span: int) -> Array:
    """Mean of the last `span` values or as many as there are, from their sums so far."""
    seen = np.minimum(np.arange(1, so_far.shape[1] + 1), span)
    return _sum(so_far, span) / seen


def _std(values: Array, span: int) -> Array:
    centred = values - values[:, :1]
    squares, sums = np.cumsum(centred**2, axis=1), np.cumsum(centred, axis=1)
    return np.sqrt(np.maximum(_mean(squares, span) - _mean(sums, span) ** 2, 0.0))


def _zscore(values: Array, span: int) -> Array:
    return (values - _mean(np.cumsum(values, axis=1), span)) / np.maximum(_std(values, span), 0.05)
