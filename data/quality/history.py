"""A ticker's own past, which says what is usual for it: volatility, volume, range. Judges nothing itself.

Everything trails: a bar is compared with bars before it, so what is said of it does not change when later bars come.
Medians, not means, so that a fault in the past does not hide the next one.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Found: TypeAlias = list[tuple[str, Ints, list[str]]]  # code, positions in Bars, details

TO_SIGMA = 1.4826  # a normal variable's standard deviation, from the median of its absolute value
SIGMA_SPAN = 60  # bars: a quarter
SIGMA_FLOOR = 0.004
FEW = 20  # returns below which the own volatility is not yet known ...
UNKNOWN_SIGMA = 0.05  # ... and taken to be at least that of a volatile share
USUAL_SPAN = 20  # bars: a month of volumes and ranges
RECENT_SPAN = 10  # bars: how far back a stormy market is seen
IMPLIED_DIVIDEND = (2e-4, 0.25)  # steps of adj_close/close taken for a payment: above rounding, below a split


@dataclass(frozen=True)
class Bars:
    """Sound bars of some tickers, ascending by ticker and session, one array entry a bar.

    `session` counts the exchange's sessions, `start` is the position of the ticker's first bar here. `split` (new
    shares per old; 1 where none) and `dividend` (cash per share after it; 0 where none) are what the prices leave
    to be applied on that bar. `adj_close` is NaN where the source gives none.
    """

    ticker: Ints
    session: Ints
    start: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    adj_close: Floats
    split: Floats
    dividend: Floats

    def __len__(self) -> int:
        return len(self.close)

    @cached_property
    def idle(self) -> Bools:
        """Where nothing was traded. A ticker that never has volume, such as an index, is not idle."""
        trades = np.zeros(int(self.ticker.max(initial=-1)) + 1, dtype=bool)
        trades[self.ticker[self.volume > 0]] = True
        return np.asarray((self.volume == 0) & trades[self.ticker])

    @cached_property
    def first(self) -> Bools:
        """Where a ticker begins: there is no step into its first bar."""
        return np.asarray(self.start == np.arange(len(self)))

    @cached_property
    def gap(self) -> Ints:
        """Sessions since the bar before; 1 where none is missing, and at a first bar."""
        step = np.diff(self.session, prepend=0)
        step[self.first] = 1
        return step

    @cached_property
    def total(self) -> Floats:
        """Log return into each bar with splits and dividends applied; 0 at a first bar."""
        known = np.log((self.close + self.dividend) * self.split / self._before)
        return np.where(self.first, 0.0, known + self._implied)

    @cached_property
    def opening(self) -> Floats:
        """The part of `total` that had happened at the open."""
        known = np.log((self.open + self.dividend) * self.split / self._before)
        return np.where(self.first, 0.0, known + self._implied)

    @cached_property
    def price(self) -> Floats:
        """Log return of the price alone, nothing applied; 0 at a first bar."""
        return np.where(self.first, 0.0, np.log(self.close / self._before))

    @cached_property
    def range(self) -> Floats:
        """Log of high over low."""
        return np.log(self.high / self.low)

    @cached_property
    def adjustment(self) -> Floats:
        """Log step of adj_close / close into each bar: what the source applied. 0 at a first bar, NaN where unknown."""
        factor = np.log(self.adj_close / self.close)
        return np.where(self.first, 0.0, np.diff(factor, prepend=factor[:1]))

    @cached_property
    def shares(self) -> Floats:
        """Volume in shares as they were at the ticker's first bar, so that recorded splits do not show in it."""
        factor = np.cumsum(np.log(self.split))
        return np.asarray(self.volume / np.exp(factor - factor[self.start]))

    def sigma(self, at: Ints) -> Floats:
        """Daily volatility as the returns before each bar of `at` show it."""
        moves = self._trailing(np.abs(self.total), at, SIGMA_SPAN, skip_first=True)
        known = np.count_nonzero(~np.isnan(moves), axis=1)
        own = np.maximum(np.nan_to_num(TO_SIGMA * _median(moves)), SIGMA_FLOOR)
        return np.where(known < FEW, np.maximum(own, UNKNOWN_SIGMA), own)

    def recent(self, at: Ints) -> tuple[Floats, Floats]:
        """The largest and the second largest absolute return of the last ten before each bar; 0 where there is none.

        Both are high in a storm; after a single jump only the first is.
        """
        moves = self._trailing(np.abs(self.total), at, RECENT_SPAN, skip_first=True)
        ordered = np.sort(np.nan_to_num(moves), axis=1)
        return ordered[:, -1], ordered[:, -2]

    def surge(self, at: Ints) -> Floats:
        """Volume over its usual, in shares or in money, whichever is less; NaN where nothing is usual.

        A real move comes with more of both. A wrong price leaves the shares as they are, a split the money.
        """
        usual = _median(self._trailing(self.shares, at, USUAL_SPAN))
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = self.shares[at] / usual
        return np.asarray(shares * np.minimum(1.0, np.exp(self.total[at])))

    def spread(self, at: Ints) -> Floats:
        """Range over its usual."""
        usual = np.nan_to_num(_median(self._trailing(self.range, at, USUAL_SPAN)))
        return np.asarray(self.range[at] / np.maximum(usual, self.sigma(at) / 2))

    def tick(self, at: Ints) -> Floats:
        """The smallest move of the close among the last twenty bars, as a share of it; 0 where none has moved."""
        moves = self._trailing(np.abs(self.price), at, USUAL_SPAN, skip_first=True)
        smallest = np.fmin.reduce(np.where(moves > 0, moves, np.nan), axis=1, initial=np.inf)
        return np.where(np.isinf(smallest), 0.0, smallest)

    def noise(self, at: Ints) -> Floats:
        """The usual size of `adjustment`: 0 but for the rounding of its two prices."""
        steps = self._trailing(np.abs(self.adjustment), at, USUAL_SPAN, skip_first=True)
        return np.nan_to_num(_median(steps))

    @cached_property
    def _before(self) -> Floats:
        return np.concatenate([self.close[:1], self.close[:-1]])

    @cached_property
    def _implied(self) -> Floats:
        """What a source's own adjusted close applies on days for which no action is known."""
        least, most = IMPLIED_DIVIDEND
        with np.errstate(invalid="ignore"):
            paid = (self.adjustment > least) & (self.adjustment < most)
        return np.where(paid & (self.split == 1) & (self.dividend == 0), self.adjustment, 0.0)

    def _trailing(self, values: Floats, at: Ints, span: int, skip_first: bool = False) -> Floats:
        """[len(at), span]: the values before each bar, NaN before the ticker's first (its second: `skip_first`)."""
        places = at[:, None] - np.arange(span, 0, -1)
        window: Floats = values[np.maximum(places, 0)]
        window[places < (self.start[at] + skip_first)[:, None]] = np.nan
        return window


def _median(rows: Floats) -> Floats:
    """Median of each row's numbers; NaN, without a warning, where it has none."""
    ordered = np.sort(rows, axis=1)  # NaN goes last
    known = np.count_nonzero(~np.isnan(rows), axis=1)
    each = np.arange(len(rows))
    low, high = (np.maximum(known - 1, 0) // 2, np.minimum(known // 2, rows.shape[1] - 1))
    return np.asarray((ordered[each, low] + ordered[each, high]) / 2)
