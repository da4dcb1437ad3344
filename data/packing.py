"""Versioned rows as flat arrays, and packed: one line a ticker, observed bars side by side.

All bars lie as they came (`Tape`); those of a few tickers at a time become rows, so that what is computed from them
stays small. `known` is the index of the first decision a row may inform (see `data/asof.py`), so "was it known
when session s was decided" is a comparison of two indices, and a row is late where `known` lies
after its own session.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.adjust import PackedBars
from data.calendar import Sessions

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BAR_VALUES = ["open", "high", "low", "close", "volume"]


@dataclass(frozen=True)
class Rows:
    """One entry a stored row: index of ticker and session, first decision that knew it, its values [V, n].

    Sorted by ticker, session and version.
    """

    ticker: Ints
    session: Ints
    known: Ints
    version: Ints
    values: Array

    @classmethod
    def ordered(cls, ticker: Ints, session: Ints, known: Ints, version: Ints, values: Array) -> "Rows":
        """Rows in any order, which mostly is the right one."""
        rows = cls(ticker, session, known, version, values)
        line = ticker * (int(session.max(initial=0)) + 1) + session
        return rows if (np.diff(line) > 0).all() else rows.take(np.lexsort((version, line)))

    def take(self, which: Any) -> "Rows":
        """The rows of a mask or of ascending indices."""
        ticker, session, known, version = (
            part[which] for part in (self.ticker, self.session, self.known, self.version)
        )
        return Rows(ticker, session, known, version, self.values[:, which])

    @property
    def late(self) -> npt.NDArray[np.bool_]:
        """Rows that their own session's decision did not know."""
        return self.known > self.session

    def between(self, first: int, end: int) -> "Rows":
        """Those of tickers from `first` to `end` (excluded), numbered from 0."""
        low, high = np.searchsorted(self.ticker, [first, end])
        part = self.take(slice(low, high))
        return replace(part, ticker=part.ticker - first)

    def among(self, tickers: Ints) -> "Rows":
        """Those of some tickers, whose numbers they keep."""
        return self.take(np.isin(self.ticker, tickers))

    def as_known(self, since: int) -> "Rows":
        """The newest version of each row known in time, or late but by decision `since`."""
        in_time = self.known <= np.maximum(self.session, since)
        rows = self if in_time.all() else self.take(in_time)
        last = np.ones(len(rows.ticker), dtype=bool)
        last[:-1] = (np.diff(rows.ticker) != 0) | (np.diff(rows.session) != 0)
        return rows if last.all() else rows.take(last)


@dataclass(frozen=True)
class Tape:
    """All versions of all bars, as the lake gave them. `order` lists those of the first ticker, then of the next.

    Those of ticker n are `order[start[n]:start[n + 1]]`. `place` has the index of the session of each day from the
    first session to the last, -1 where there is none, and a last -1 for all other days.
    """

    sessions: Sessions
    place: Ints
    order: Ints
    start: Ints
    day: npt.NDArray[np.datetime64]
    version: npt.NDArray[np.int32]
    available_at: npt.NDArray[np.datetime64]
    values: tuple[Array, ...]  # open, high, low, close, volume

    @classmethod
    def of(cls, bars: pd.DataFrame, tickers: tuple[str, ...], sessions: Sessions) -> "Tape":
        """The bars of `tickers`, in their order."""
        ticker = _numbered(bars["ticker"], tickers)
        return cls(
            sessions=sessions,
            place=np.append(sessions.index(np.arange(sessions.labels[0], sessions.labels[-1] + 1)), -1),
            order=np.argsort(ticker, kind="stable"),
            start=np.cumsum(np.bincount(ticker.astype(np.int64) + 1, minlength=len(tickers) + 2)),
            day=bars["session"].to_numpy(),
            version=bars["version"].to_numpy(dtype=np.int32),
            available_at=naive_utc(bars["available_at"]),
            values=tuple(bars[name].to_numpy(dtype=np.float64) for name in BAR_VALUES),
        )

    def rows(self, first: int, end: int) -> Rows:
        """The bars of tickers `first` to `end` (excluded), numbered from 0, that fall on one of the sessions.

        Values are open, high, low, close, volume, day.
        """
        which = self.order[self.start[first] : self.start[end]]
        ticker = np.repeat(np.arange(end - first), np.diff(self.start[first : end + 1]))
        day = self.day[which].astype("datetime64[D]").astype(np.int64)
        at = self.place[np.clip(day - self.sessions.labels[0].astype(np.int64), -1, len(self.place) - 1)]
        if (at < 0).any():
            which, ticker, day, at = (part[at >= 0] for part in (which, ticker, day, at))
        values = np.empty((len(self.values) + 1, len(which)))
        for number, column in enumerate(self.values):
            values[number] = column[which]
        values[-1] = day
        known = self._known(self.available_at[which], at)
        return Rows.ordered(ticker, at, known, self.version[which].astype(np.int64), values)

    def _known(self, available_at: npt.NDArray[np.datetime64], at: Ints) -> Ints:
        """First decision that knew each; most are stamped with their own session's close, which is looked up once."""
        known = self.sessions.first_informed(self.sessions.closes)[at]
        other = available_at != self.sessions.closes[at]
        if other.any():
            known[other] = self.sessions.first_informed(available_at[other])
        return known


def action_rows(actions: pd.DataFrame, kind: str, tickers: tuple[str, ...], sessions: Sessions) -> Rows:
    """Actions of one kind; an ex-date on which the exchange is closed counts on the next session."""
    of_kind = actions[(actions["kind"] == kind).to_numpy(dtype=bool)]
    labels = of_kind["ex_date"].to_numpy(dtype="datetime64[D]")
    at = np.searchsorted(sessions.labels, labels)
    inside = (labels >= sessions.labels[0]) & (at < len(sessions))
    ticker = _numbered(of_kind["ticker"], tickers).astype(np.int64)
    known = sessions.first_informed(naive_utc(of_kind["available_at"]))
    version, values = of_kind["version"].to_numpy(dtype=np.int64), of_kind["value"].to_numpy(dtype=np.float64)
    there = (ticker < len(tickers)) & inside
    return Rows.ordered(ticker[there], at[there], known[there], version[there], values[None, there])


def places(rows: Rows, tickers: Ints) -> tuple[Ints, Ints]:
    """Where each row is packed: the place of its ticker among `tickers`, and 0, 1, 2, ... over each ticker's rows."""
    starts = np.searchsorted(rows.ticker, tickers)
    counts = np.diff(np.append(starts, len(rows.ticker)))
    return np.repeat(np.arange(len(tickers)), counts), np.arange(len(rows.ticker)) - np.repeat(starts, counts)


def pack(bars: Rows, splits: Rows, dividends: Rows, tickers: Ints) -> PackedBars:
    """Sorted bars of `tickers` (sorted indices) side by side, NaN behind each ticker's last."""
    local, position = places(bars, tickers)
    shape = (len(tickers), int(position.max()) + 1)
    packed = np.full((len(bars.values), len(tickers) * shape[1]), np.nan)
    at = local * shape[1] + position
    for line, values in zip(packed, bars.values, strict=True):
        line[at] = values
    split, dividend = np.ones(shape), np.zeros(shape)
    split_bar, dividend_bar = _first_bar(splits, bars, position), _first_bar(dividends, bars, position)
    cash = _per_new_share(dividends, dividend_bar, splits, split_bar)
    _apply(np.multiply, split, splits.values[0], split_bar, local, position)
    _apply(np.add, dividend, cash, dividend_bar, local, position)
    opens, highs, lows, closes, volume, day = packed.reshape(-1, *shape)
    return PackedBars(opens, highs, lows, closes, volume, split, dividend, day)


def _apply(combine: np.ufunc, onto: Array, values: Array, bar: Ints, local: Ints, position: Ints) -> None:
    there = bar >= 0
    combine.at(onto, (local[bar[there]], position[bar[there]]), values[there])


def _per_new_share(dividends: Rows, dividend_bar: Ints, splits: Rows, split_bar: Ints) -> Array:
    """Cash per share as of each dividend's bar: a split between the two, in a gap without bars, thins it."""
    cash: Array = dividends.values[0].copy()
    for at in np.flatnonzero(np.isin(dividend_bar, split_bar[split_bar >= 0])):
        after = (split_bar == dividend_bar[at]) & (splits.session > dividends.session[at])
        cash[at] /= splits.values[0, after].prod()
    return cash


def _first_bar(actions: Rows, bars: Rows, position: Ints) -> Ints:
    """Index of the ticker's first bar at or after each action; -1 where there is none, or nothing before it."""
    stride = int(max(bars.session.max(initial=0), actions.session.max(initial=0))) + 1
    at = np.searchsorted(bars.ticker * stride + bars.session, actions.ticker * stride + actions.session)
    same = bars.ticker[np.minimum(at, len(bars.ticker) - 1)] == actions.ticker
    there = (at < len(bars.ticker)) & same
    return np.where(there & (position[np.minimum(at, len(bars.ticker) - 1)] > 0), at, -1)


def _numbered(names: "pd.Series[str]", tickers: tuple[str, ...]) -> npt.NDArray[np.unsignedinteger]:
    """Position of each among `tickers`, behind the last where it is none of them; in as few bytes as they need."""
    column = names.astype("category").cat
    position = pd.Index(tickers).get_indexer(pd.Index(column.categories))
    position = np.append(np.where(position < 0, len(tickers), position), len(tickers))
    return position.astype(np.min_scalar_type(len(tickers) + 1))[column.codes.to_numpy()]


def naive_utc(stamps: "pd.Series[Any]") -> npt.NDArray[np.datetime64]:
    """tz-aware stamps as UTC `datetime64[us]`."""
    naive: npt.NDArray[np.datetime64] = stamps.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy("datetime64[us]")
    return naive
