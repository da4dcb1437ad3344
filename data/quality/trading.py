"""Faults of trading: sessions without a bar, without volume, without a new price."""

import numpy as np

from data.quality.history import Bars, Bools, Floats, Found, Ints

# A run of unchanged closes is flagged where chance gives it less than once in this many bars, by the ticker's own
# share of unchanged closes before it; a share of $20 repeats its close about once in fifty sessions.
RARE = 1e-8
USUAL_UNCHANGED = (2.0, 100.0)  # unchanged closes in so many bars: what is believed before the first bar
SHORTEST_RUN = 5


def idle_faults(bars: Bars) -> Found:
    """Bars without a trade."""
    return [("zero-volume", np.flatnonzero(bars.idle), [f"close {close:g}" for close in bars.close[bars.idle]])]


def frozen_faults(bars: Bars) -> Found:
    """Repeated bars, and prices that stand still."""
    repeated = _repeated(bars)
    stale, runs = _stale(bars)
    stale &= ~repeated
    return [
        ("repeated-bar", np.flatnonzero(repeated), [f"close {close:g}" for close in bars.close[repeated]]),
        ("stale-price", np.flatnonzero(stale), [f"unchanged for {run} sessions" for run in runs[stale]]),
    ]


def missing_sessions(ticker: Ints, session: Ints) -> tuple[Ints, Ints]:
    """Ticker and session of every session between two bars of a ticker that has none.

    Both ascend, by ticker and then session (counted along the exchange's); each pair stands there once.
    """
    gap = np.diff(session)
    after = np.flatnonzero((np.diff(ticker) == 0) & (gap > 1))
    absent = gap[after] - 1
    nth = np.arange(absent.sum()) - np.repeat(np.cumsum(absent) - absent, absent)
    return np.repeat(ticker[after], absent), np.repeat(session[after], absent) + 1 + nth


def _repeated(bars: Bars) -> Bools:
    same = ~bars.first & (bars.volume > 0) & (bars.high > bars.low)  # a single trade's bar may well repeat
    for values in (bars.open, bars.high, bars.low, bars.close, bars.volume):
        same &= np.concatenate([[False], values[1:] == values[:-1]])[: len(bars)]
    return same


def _stale(bars: Bars) -> tuple[Bools, Ints]:
    """Which bars belong to a run of unchanged closes that is too long, and the length of each bar's run."""
    unchanged = (bars.price == 0) & ~bars.first
    run = np.cumsum(~unchanged)  # constant along a run
    length = np.bincount(run, weights=unchanged, minlength=1).astype(np.int64)
    begins = np.flatnonzero(unchanged & ~np.append(False, unchanged[:-1]))
    begins = begins[length[run[begins]] >= SHORTEST_RUN]
    seen = np.append(0, np.cumsum(unchanged))
    before, since = seen[begins] - seen[bars.start[begins]], begins - bars.start[begins]
    few, many = USUAL_UNCHANGED
    share = np.maximum((before + few) / (since + many), _tick_share(bars, begins))
    too_long = np.zeros(len(length), dtype=bool)
    too_long[run[begins]] = length[run[begins]] * np.log(np.minimum(share, 0.9)) <= np.log(RARE)
    return unchanged & too_long[run], length[run]


def _tick_share(bars: Bars, at: Ints) -> Floats:
    """How often a close would repeat by chance, its steps being as small as a tick is for its volatility."""
    return np.minimum(0.4 * bars.tick(at) / bars.sigma(at), 1.0)
