"""Faults of level: what one bar's step from the last says, given the ticker's own past.

A real move has a cause that people trade on: its volume rises and its range is wide. A fault has none: the level
shifts, at the open, in a session that is otherwise like the days before. So a step is a fault where it is large for
the ticker (in units of its volatility, and beyond the largest move of the last ten days, which a stormy market
raises) and the session is quiet. A fall of half on ten times the usual volume is a crash and no split.
"""

from dataclasses import dataclass

import numpy as np

from data.quality.history import Bars, Bools, Floats, Found, Ints

SMALLEST_STEP = 0.06  # log; below it a quiet step is an ordinary day
SIGMAS = 7.0
LARGE_STEP = 0.25  # log 5:4 and more: hardly ever without a cause, so less quiet sessions count too
BLIND_STEP = 0.6  # where the volume of the move is not known: an index, or a session is missing
IMPOSSIBLE_STEP = np.log(30)  # no listed share was seen to do this in one session, whatever its volume
AT_OPEN = 0.8  # share of the step that is there at the open

# (times the last ten days' largest, times the usual volume, times the usual range) for steps below and from LARGE_STEP
QUIET, QUIET_LARGE = (2.0, 1.6, 1.8), (1.5, 3.0, 2.5)

UNITS = (2, 3)  # powers of ten: pence for pounds, fils for dinars
UNIT_TOLERANCE = 0.45  # log: the own move of that day comes on top
SPIKE = 0.15
SPIKE_SIGMAS = 6.0  # less than for a step: that it is back at once is evidence, too
SPIKE_SURGE = 2.5
SPIKE_BACK_AT_OPEN = 0.5  # share of the way back; a real fall is made up for in the course of the day
EXTREME = 0.15
EXTREME_SIGMAS = 15.0
EXTREME_SURGE = 1.8
IMPOSSIBLE_EXTREME = np.log(3)
RECYCLED_GAP = 60  # sessions without a bar: a quarter
SMALLEST_SPLIT = 0.2
SPLITS = [
    (5, 4),
    (4, 3),
    (3, 2),
    (5, 3),
    (2, 1),
    (5, 2),
    *((new, 1) for new in (*range(3, 11), 12, 15, 20, 25, 30, 40, 50)),
]
RATIOS = np.log([new / old for new, old in SPLITS])
RATIO_TOLERANCE = (0.05, 0.10)  # log: at least, at most; between them three days' volatility
LARGE_DIVIDEND = 0.06


@dataclass(frozen=True)
class _Steps:
    """The bars that a large enough step leads into, and what was usual before each."""

    at: Ints
    total: Floats
    size: Floats
    sigma: Floats  # for as many sessions as the step spans
    beyond: Floats  # times the largest of the last ten days (the second largest, for a large step)
    surge: Floats
    spread: Floats

    @classmethod
    def of(cls, bars: Bars) -> "_Steps":
        large = np.abs(bars.total) >= SMALLEST_STEP
        at = np.flatnonzero(large & ~bars.first)
        total = bars.total[at]
        size = np.abs(total)
        largest, second = bars.recent(at)
        with np.errstate(divide="ignore"):
            beyond = size / np.where(size >= LARGE_STEP, second, largest)
        sigma = bars.sigma(at) * np.sqrt(bars.gap[at])
        return cls(at, total, size, sigma, beyond, bars.surge(at), bars.spread(at))


def step_faults(bars: Bars) -> Found:
    """Every fault of level, each step under the first code that fits."""
    steps = _Steps.of(bars)
    unshown = _unshown_splits(bars)
    free = ~np.isin(steps.at, unshown)
    recycled = free & _recycled(bars, steps)
    free &= ~recycled
    unit = free & (_decades(steps.total) != 0)
    free &= ~unit
    wrong, powers = _unit_errors(bars, steps.at[unit], _decades(steps.total[unit]))
    unpaid = np.setdiff1d(_unshown_dividends(bars), np.concatenate([unshown, wrong]))
    free &= ~np.isin(steps.at, unpaid) & ~(np.isin(steps.at, wrong) & (bars.dividend[steps.at] > 0))
    spike = free & _spikes(bars, steps)
    free &= ~spike & ~np.isin(steps.at, steps.at[spike] + 1)
    return [
        ("split-without-step", unshown, [f"{_text(bars, at)}, split {bars.split[at]:g}" for at in unshown]),
        ("recycled-ticker", steps.at[recycled], _texts(bars, steps.at[recycled])),
        (
            "unit-error",
            wrong,
            [
                f"close {bars.close[at]:g}, 10^{power:d} times the usual"
                for at, power in zip(wrong, powers, strict=True)
            ],
        ),
        ("dividend-without-step", unpaid, [f"{_text(bars, at)}, dividend {bars.dividend[at]:g}" for at in unpaid]),
        ("spike", steps.at[spike], _texts(bars, steps.at[spike])),
        *_shifts(bars, steps, free & _quiet(bars, steps)),
        _stray_extremes(bars),
    ]


def _recycled(bars: Bars, steps: _Steps) -> Bools:
    return np.asarray((bars.gap[steps.at] >= RECYCLED_GAP) & (steps.size >= np.maximum(np.log(2), 2 * steps.sigma)))


def _decades(total: Floats) -> Ints:
    """2 or 3 where a step is a hundred- or thousandfold, -2 or -3 where it is that part, else 0."""
    decades = np.zeros(len(total), dtype=np.int64)
    for power in UNITS:
        decades[np.abs(np.abs(total) - power * np.log(10)) <= UNIT_TOLERANCE] = power
    return decades * np.sign(total).astype(np.int64)


def _unit_errors(bars: Bars, at: Ints, decades: Ints) -> tuple[Ints, Ints]:
    """Every bar whose unit is not the one that most bars of its ticker have, and by which power of ten it is off."""
    power = np.zeros(len(bars), dtype=np.int64)
    power[at] = decades
    for ticker in np.unique(bars.ticker[at]):
        own = slice(*np.searchsorted(bars.ticker, [ticker, ticker + 1]))
        units = np.cumsum(power[own])
        values, first, counts = np.unique(units, return_index=True, return_counts=True)
        power[own] = units - values[np.lexsort((first, -counts))[0]]
    wrong = np.flatnonzero(power)
    return wrong, power[wrong]


def _spikes(bars: Bars, steps: _Steps) -> Bools:
    """One bar out and back; the last bar of a ticker cannot be one yet."""
    after = np.minimum(steps.at + 1, len(bars) - 1)
    there = (after > steps.at) & (bars.start[after] == bars.start[steps.at])
    left = np.abs(steps.total + bars.total[after])
    back = left <= np.minimum(np.maximum(0.25 * steps.size, 3 * steps.sigma), 0.3 * steps.size)
    back &= bars.opening[after] * -np.sign(steps.total) >= SPIKE_BACK_AT_OPEN * np.abs(bars.total[after])
    far = (steps.size >= SPIKE) & (steps.size >= SPIKE_SIGMAS * steps.sigma) & (steps.beyond >= 1.5)
    return np.asarray(there & back & far & ~(steps.surge >= SPIKE_SURGE))


def _quiet(bars: Bars, steps: _Steps) -> Bools:
    large = steps.size >= LARGE_STEP
    beyond, surge, spread = (np.where(large, more, less) for less, more in zip(QUIET, QUIET_LARGE, strict=True))
    at_open = bars.opening[steps.at] * np.sign(steps.total) >= AT_OPEN * steps.size
    unusual = (steps.size >= SIGMAS * steps.sigma) & (steps.beyond >= beyond)
    blind = np.isnan(steps.surge) | (bars.gap[steps.at] > 1)
    calm = (steps.spread < spread) & np.where(blind, steps.size >= BLIND_STEP, steps.surge < surge)
    return np.asarray((unusual & calm & at_open) | (steps.size >= IMPOSSIBLE_STEP))


def _shifts(bars: Bars, steps: _Steps, quiet: Bools) -> Found:
    """Quiet steps by what they look like."""
    at, total, size = steps.at[quiet], steps.total[quiet], steps.size[quiet]
    nearest = np.argmin(np.abs(size[:, None] - RATIOS), axis=1)
    least, most = RATIO_TOLERANCE
    fits = np.abs(size - RATIOS[nearest]) <= np.clip(3 * steps.sigma[quiet], least, most)
    ratio, small, down = (size >= SMALLEST_SPLIT) & fits, size < SMALLEST_SPLIT, total < 0
    codes = np.select(
        [ratio & down, small & down, (ratio | small) & ~down],
        ["unadjusted-split", "missing-dividend-adjustment", "unadjusted-reverse-split"],
        "implausible-return",
    )
    texts = np.array(_texts(bars, at), dtype=object)
    for i in np.flatnonzero(ratio):
        new, old = SPLITS[nearest[i]]
        texts[i] += f", as by {new}:{old}"
    return [(str(code), at[codes == code], texts[codes == code].tolist()) for code in np.unique(codes)]


def _unshown_splits(bars: Bars) -> Ints:
    """Bars whose recorded split the price does not show: with it applied, they jump."""
    split = np.abs(np.log(bars.split))
    return np.flatnonzero((split >= SMALLEST_SPLIT) & (np.abs(bars.price) <= 0.25 * split) & ~bars.first)


def _unshown_dividends(bars: Bars) -> Ints:
    """Bars that do not fall by a recorded dividend which is large for the ticker."""
    cash = np.log1p(bars.dividend / bars.close)
    at = np.flatnonzero((cash >= LARGE_DIVIDEND) & (bars.price > -0.3 * cash) & ~bars.first)
    return at[cash[at] >= 5 * bars.sigma(at)]


def _stray_extremes(bars: Bars) -> tuple[str, Ints, list[str]]:
    above = np.log(bars.high / np.maximum(bars.open, bars.close))
    below = np.log(np.minimum(bars.open, bars.close) / bars.low)
    reach = np.maximum(above, below)
    at = np.flatnonzero(reach >= EXTREME)
    quiet = (reach[at] >= EXTREME_SIGMAS * bars.sigma(at)) & (bars.surge(at) < EXTREME_SURGE)
    at = at[quiet | (reach[at] >= IMPOSSIBLE_EXTREME)]
    details = [f"high {bars.high[i]:g}, low {bars.low[i]:g}, close {bars.close[i]:g}" for i in at]
    return "stray-extreme", at, details


def _texts(bars: Bars, places: Ints) -> list[str]:
    return [_text(bars, at) for at in places]


def _text(bars: Bars, at: int) -> str:
    return f"close {bars.close[at]:g} after {bars.close[at - 1]:g}"
