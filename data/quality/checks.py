"""Every fault of a frame of bars, as flags. Reads no file and no lake: see `pipelines/quality.py`."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.calendar import Sessions
from data.quality.adjusted import adjustment_faults
from data.quality.codes import CODES
from data.quality.history import Bars, Bools, Floats, Ints
from data.quality.rows import PRICES, row_codes
from data.quality.steps import step_faults
from data.quality.trading import frozen_faults, idle_faults, missing_sessions

FLAGS = ["ticker", "session", "code", "severity", "detail"]
NUMBERS = (*PRICES, "volume")
BLOCK_BARS = 1 << 18  # about fifty tickers of twenty years: what is computed for them stays small

Days = npt.NDArray[np.datetime64]


def check(bars: pd.DataFrame, actions: pd.DataFrame, exchange: Sessions, now: np.datetime64) -> pd.DataFrame:
    """The faults of `bars` at the instant `now` (UTC), sorted by ticker, session and code; empty where there is none.

    `bars` has ticker, session, open, high, low, close and volume; `basis` (raw where it is not there: see
    `data/prices/files.py`) says which of the `actions` (ticker, ex_date, kind, value) its prices leave to be applied,
    and with `adj_close`, where it is there, what its source applied is checked too. All tickers are of one
    `exchange`. The flags have the columns `FLAGS`, one row a ticker, session and code. Pure; the order of rows does
    not matter.
    """
    codes, names = _numbered(bars["ticker"])
    days = bars["session"].to_numpy().astype("datetime64[D]")
    order = _sorted_places(codes, days)
    ordered = codes[order]
    known = _Actions.of(actions, names, exchange)
    parts = [known.faults()]
    for start, end in _blocks(ordered):
        places = order[start:end]
        block = _Block(bars.iloc[places], ordered[start:end], days[places], exchange)
        parts += block.faults(known, now)
    return _flags(pd.concat(parts, ignore_index=True), names)


def _numbered(tickers: "pd.Series[str]") -> tuple[Ints, "pd.Index[str]"]:
    """Each row's place among the sorted tickers, -1 where it has none."""
    if not isinstance(tickers.dtype, pd.CategoricalDtype):
        codes, names = pd.factorize(tickers, sort=True)
        return codes, pd.Index(names)
    names = tickers.cat.categories
    order = names.argsort()
    rank = np.full(len(names) + 1, -1)  # the last is that of the code -1
    rank[order] = np.arange(len(names))
    return rank[tickers.cat.codes], names[order]


def _flags(found: pd.DataFrame, names: "pd.Index[str]") -> pd.DataFrame:
    severities = {name: code.severity for name, code in CODES.items()}
    flags = found.drop_duplicates(["ticker", "session", "code"]).sort_values(["ticker", "session", "code"])
    flags = flags.assign(
        ticker=names.take(flags["ticker"].to_numpy(dtype=np.int64)).astype("str"),
        session=flags["session"].astype("datetime64[s]"),
        code=flags["code"].astype("str"),
        severity=flags["code"].map(severities).astype("str"),
    )
    return flags[FLAGS].reset_index(drop=True)


def _sorted_places(codes: Ints, days: Days) -> Ints:
    """Rows by ticker and day, without those that have no ticker; what is in order is not sorted again."""
    keys = (codes.astype(np.int64) << 32) + np.where(np.isnat(days), 0, days.astype(np.int64))
    order = np.arange(len(keys)) if (keys[1:] >= keys[:-1]).all() else np.argsort(keys, kind="stable")
    return order[codes[order] >= 0]


def _blocks(ordered: Ints) -> Iterator[tuple[int, int]]:
    """Where whole tickers begin and end, about `BLOCK_BARS` at a time."""
    start = 0
    while start < len(ordered):
        last = ordered[min(start + BLOCK_BARS, len(ordered)) - 1]
        end = int(np.searchsorted(ordered, last, side="right"))
        yield start, end
        start = end


@dataclass(frozen=True)
class _Block:
    """The rows of some tickers, ascending by ticker and session."""

    rows: pd.DataFrame
    ticker: Ints
    day: Days
    exchange: Sessions

    def faults(self, known: "_Actions", now: np.datetime64) -> list[pd.DataFrame]:
        """Frames of ticker (its number), session, code and detail."""
        codes = row_codes(self.rows, self.exchange, now)
        again, conflicting = self._duplicates()
        session = self.exchange.index(self.day)
        faulty = np.flatnonzero((codes != "").to_numpy())
        frames = [
            self._frame(faulty, codes.iloc[faulty].to_numpy(dtype=object)),
            self._frame(np.flatnonzero(again & ~conflicting), "duplicate"),
            self._frame(np.flatnonzero(conflicting), "conflicting-duplicate"),
        ]
        places = np.flatnonzero((codes.cat.codes == 0).to_numpy() & ~again & ~conflicting)
        recycled = []
        # A step is judged between prices that were made by trades: each look leaves out what the last one has found.
        bars = self._bars(places, session, known)
        for look in (adjustment_faults, idle_faults, frozen_faults, step_faults):
            found = look(bars)
            frames += [self._frame(places[at], code, details) for code, at, details in found]
            recycled += [places[at] for code, at, _ in found if code == "recycled-ticker"]
            if look in (idle_faults, frozen_faults) and any(len(at) for _, at, _ in found):
                places = np.delete(places, np.concatenate([at for _, at, _ in found]))
                bars = self._bars(places, session, known)
        return [*frames, self._missing(session, self.exchange.last_closed(now), np.concatenate(recycled))]

    def _duplicates(self) -> tuple[Bools, Bools]:
        """Rows that follow one of the same ticker and session, and all rows of those that do not agree."""
        new = np.ones(len(self.rows), dtype=bool)
        new[1:] = (self.ticker[1:] != self.ticker[:-1]) | (self.day[1:] != self.day[:-1])
        if new.all():
            return ~new, ~new
        group = np.cumsum(new) - 1
        first = np.flatnonzero(new)[group]
        differs = np.zeros(len(self.rows), dtype=bool)
        for name in self._numbers():
            values = _floats(self.rows, name)
            differs |= (values != values[first]) & ~(np.isnan(values) & np.isnan(values[first]))
        torn = np.zeros(int(group[-1]) + 1, dtype=bool)
        torn[group[differs]] = True
        return ~new, torn[group]

    def _numbers(self) -> tuple[str, ...]:
        return (*NUMBERS, "adj_close") if "adj_close" in self.rows else NUMBERS

    def _bars(self, places: Ints, session: Ints, known: "_Actions") -> Bars:
        ticker, rows = self.ticker[places].astype(np.int64), self.rows.iloc[places]
        basis = rows["basis"].to_numpy() if "basis" in rows else np.full(len(rows), "raw")
        split, dividend = known.on(ticker, session[places])
        adjusted = _floats(rows, "adj_close") if "adj_close" in rows else np.full(len(rows), np.nan)
        return Bars(
            ticker=ticker,
            session=session[places],
            start=np.searchsorted(ticker, ticker, side="left"),
            **{name: _floats(rows, name) for name in NUMBERS},
            adj_close=np.where(adjusted > 0, adjusted, np.nan),
            split=np.where(basis == "raw", split, 1.0),
            dividend=np.where(basis == "total", 0.0, dividend),
        )

    def _missing(self, session: Ints, closed: int, recycled: Ints) -> pd.DataFrame:
        """Sessions without a row. A gap after which another company begins is one fault, not one a session, and
        nothing is missing before a bar of a session that has not closed.
        """
        there = (session >= 0) & (session <= closed)
        ticker, absent = missing_sessions(self.ticker[there], session[there])
        for row in recycled:
            earlier = session[there & (self.ticker == self.ticker[row]) & (session < session[row])]
            gap = (ticker == self.ticker[row]) & (absent > earlier.max()) & (absent < session[row])
            ticker, absent = ticker[~gap], absent[~gap]
        days = self.exchange.labels[absent]
        return pd.DataFrame({"ticker": ticker, "session": days, "code": "missing-session", "detail": ""})

    def _frame(self, at: Ints, code: "str | npt.NDArray[np.object_]", details: list[str] | None = None) -> pd.DataFrame:
        if details is None:
            numbers = zip(*(_floats(self.rows.iloc[at], name) for name in NUMBERS), strict=True)
            details = ["open {:g}, high {:g}, low {:g}, close {:g}, volume {:g}".format(*row) for row in numbers]
        parts = {"ticker": self.ticker[at], "session": self.day[at], "code": code, "detail": details}
        return pd.DataFrame(parts, index=range(len(at)))


@dataclass(frozen=True)
class _Actions:
    """Splits and dividends, by the number of their ticker and the exchange's next session."""

    ticker: Ints
    session: Ints
    ex_date: Days
    split: Bools
    value: Floats
    sound: Bools

    @classmethod
    def of(cls, actions: pd.DataFrame, names: "pd.Index[str]", exchange: Sessions) -> "_Actions":
        ticker = names.get_indexer(pd.Index(actions["ticker"]))
        days = actions["ex_date"].to_numpy().astype("datetime64[D]")
        session = exchange.first_from(days)
        value = _floats(actions, "value")
        sound = (value > 0) & np.isfinite(value)
        order = np.flatnonzero(ticker >= 0)
        order = order[np.lexsort((session[order], ticker[order]))]
        split = (actions["kind"] == "split").to_numpy(dtype=bool)
        on_session = exchange.index(days) >= 0
        return cls(ticker[order], session[order], days[order], split[order], value[order], (sound & on_session)[order])

    def on(self, ticker: Ints, session: Ints) -> tuple[Floats, Floats]:
        """The split and the dividend of each bar (ascending); one of a session without a bar counts on the next."""
        split, dividend = np.ones(len(ticker)), np.zeros(len(ticker))
        usable = (self.value > 0) & np.isfinite(self.value)
        own, when = self.ticker[usable], self.session[usable]
        value, is_split = self.value[usable], self.split[usable]
        at = np.searchsorted((ticker << 32) + session, (own << 32) + when)
        there = at < len(ticker)
        there[there] = ticker[at[there]] == own[there]
        np.multiply.at(split, at[there & is_split], value[there & is_split])
        np.add.at(dividend, at[there & ~is_split], value[there & ~is_split])
        return split, dividend

    def faults(self) -> pd.DataFrame:
        """The actions that cannot be right."""
        odd = ~self.sound
        kinds = np.where(self.split[odd], "split", "dividend")
        details = [f"{kind} {value:g}" for kind, value in zip(kinds, self.value[odd], strict=True)]
        parts = {"ticker": self.ticker[odd], "session": self.ex_date[odd], "code": "odd-action", "detail": details}
        return pd.DataFrame(parts)


def _floats(rows: pd.DataFrame, name: str) -> Floats:
    return np.asarray(rows[name].to_numpy(dtype=np.float64, na_value=np.nan))
