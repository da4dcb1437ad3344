"""Versioned rows as flat arrays, and packed: one line a ticker, observed bars side by side.

`known` is the index of the first decision a row may inform (see `data/asof.py`), so "was it known
when session s was decided" is a comparison of two indices, and a row is late where `known` lies
after its own session.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.calendar import Sessions
from data.features import PackedBars

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BAR_VALUES = ["open", "high", "low", "close", "volume"]


@dataclass(frozen=True)
class Rows:
    """One entry a stored row: index of ticker and session, first decision that knew it, its values [n, V]."""

    ticker: Ints
    session: Ints
    known: Ints
    version: Ints
    values: Array

    def take(self, which: Any) -> "Rows":
        """The rows of a mask or of indices, in that order."""
        return Rows(self.ticker[which], self.session[which], self.known[which], self.version[which], self.values[which])

    @property
    def late(self) -> npt.NDArray[np.bool_]:
        """Rows that their own session's decision did not know."""
        return self.known > self.session

    def as_known(self, since: int, tickers: Ints) -> "Rows":
        """Newest version of each row of `tickers` known in time, or late but by decision `since`."""
        in_time = self.known <= np.maximum(self.session, since)
        rows = self.take(in_time & np.isin(self.ticker, tickers))
        rows = rows.take(np.lexsort((rows.version, rows.session, rows.ticker)))
        last = np.ones(len(rows.ticker), dtype=bool)
        last[:-1] = (np.diff(rows.ticker) != 0) | (np.diff(rows.session) != 0)
        return rows.take(last)


def bar_rows(bars: pd.DataFrame, tickers: tuple[str, ...], sessions: Sessions) -> Rows:
    """Bars of `tickers` on `sessions`; values are open, high, low, close, volume, day."""
    labels = bars["session"].to_numpy(dtype="datetime64[D]")
    values = np.column_stack([bars[BAR_VALUES].to_numpy(dtype=np.float64), labels.astype(np.int64)])
    return _rows(bars, tickers, sessions, sessions.index(labels), values)


def action_rows(actions: pd.DataFrame, kind: str, tickers: tuple[str, ...], sessions: Sessions) -> Rows:
    """Actions of one kind; an ex-date on which the exchange is closed counts on the next session."""
    of_kind = actions[(actions["kind"] == kind).to_numpy(dtype=bool)]
    labels = of_kind["ex_date"].to_numpy(dtype="datetime64[D]")
    at = np.searchsorted(sessions.labels, labels)
    inside = (labels >= sessions.labels[0]) & (at < len(sessions))
    values = of_kind[["value"]].to_numpy(dtype=np.float64)
    return _rows(of_kind, tickers, sessions, np.where(inside, at, -1), values)


def positions(rows: Rows) -> Ints:
    """0, 1, 2, ... over each ticker's rows, which are sorted."""
    starts = np.flatnonzero(np.diff(rows.ticker, prepend=-1))
    counts = np.diff(np.append(starts, len(rows.ticker)))
    return np.arange(len(rows.ticker)) - np.repeat(starts, counts)


def pack(bars: Rows, splits: Rows, dividends: Rows, tickers: Ints) -> PackedBars:
    """Sorted bars of `tickers` (sorted indices) side by side, NaN behind each ticker's last."""
    position = positions(bars)
    shape = (len(tickers), int(position.max()) + 1)
    local = np.searchsorted(tickers, bars.ticker)
    packed = np.full((bars.values.shape[1], *shape), np.nan)
    packed[:, local, position] = bars.values.T
    split, dividend = np.ones(shape), np.zeros(shape)
    split_bar, dividend_bar = _first_bar(splits, bars, position), _first_bar(dividends, bars, position)
    cash = _per_new_share(dividends, dividend_bar, splits, split_bar)
    _apply(np.multiply, split, splits.values[:, 0], split_bar, local, position)
    _apply(np.add, dividend, cash, dividend_bar, local, position)
    opens, highs, lows, closes, volume, day = packed
    return PackedBars(opens, highs, lows, closes, volume, split, dividend, day)


def _apply(combine: np.ufunc, onto: Array, values: Array, bar: Ints, local: Ints, position: Ints) -> None:
    there = bar >= 0
    combine.at(onto, (local[bar[there]], position[bar[there]]), values[there])


def _per_new_share(dividends: Rows, dividend_bar: Ints, splits: Rows, split_bar: Ints) -> Array:
    """Cash per share as of each dividend's bar: a split between the two, in a gap without bars, thins it."""
    cash = dividends.values[:, 0].copy()
    for at in np.flatnonzero(np.isin(dividend_bar, split_bar[split_bar >= 0])):
        after = (split_bar == dividend_bar[at]) & (splits.session > dividends.session[at])
        cash[at] /= splits.values[after, 0].prod()
    return cash


def _first_bar(actions: Rows, bars: Rows, position: Ints) -> Ints:
    """Index of the ticker's first bar at or after each action; -1 where there is none, or nothing before it."""
    stride = int(max(bars.session.max(initial=0), actions.session.max(initial=0))) + 1
    at = np.searchsorted(bars.ticker * stride + bars.session, actions.ticker * stride + actions.session)
    same = bars.ticker[np.minimum(at, len(bars.ticker) - 1)] == actions.ticker
    there = (at < len(bars.ticker)) & same
    return np.where(there & (position[np.minimum(at, len(bars.ticker) - 1)] > 0), at, -1)


def _rows(frame: pd.DataFrame, tickers: tuple[str, ...], sessions: Sessions, at: Ints, values: Array) -> Rows:
    ticker = pd.Index(tickers).get_indexer(pd.Index(frame["ticker"]))
    known = sessions.first_informed(naive_utc(frame["available_at"]))
    version = frame["version"].to_numpy(dtype=np.int64)
    rows = Rows(ticker.astype(np.int64), at.astype(np.int64), known, version, values)
    return rows.take((ticker >= 0) & (at >= 0))


def naive_utc(stamps: "pd.Series[Any]") -> npt.NDArray[np.datetime64]:
    """tz-aware stamps as UTC `datetime64[us]`."""
    naive: npt.NDArray[np.datetime64] = stamps.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy("datetime64[us]")
    return naive
