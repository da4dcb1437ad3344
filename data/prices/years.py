"""The checked rows of all price files, year by year: what must hold between rows, and the actions that rows give.

One year of all files is small (1.3 million rows of 5,000 tickers) and holds every row of a ticker and session,
whatever the order of the files; so nothing more than a year is ever in memory. What waits lies in a spool. A bar is
known at its session's close, an action when announced if the file says so, else at the open of its ex-date.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from data.calendar import Sessions
from data.errors import InputError
from data.intake import refuse_conflicts
from data.spool import Spool

PRICES = ["open", "high", "low", "close"]
ACTION_VALUES = ["adj_close", "dividend", "split"]
KEY = ["ticker", "session"]
HELD = 1_000_000  # rows that are cut up by year at once

_WAITING = pa.schema(
    [("file", pa.int32()), ("ticker", pa.int32()), ("session", pa.timestamp("s"))]
    + [(name, pa.float64()) for name in (*PRICES, "volume", *ACTION_VALUES)]
    + [("announced_at", pa.timestamp("us"))]
)
_BAR = [*KEY, *PRICES, "volume"]

# Vendors round adjusted closes to 4-6 decimals; below this share of the price a step is rounding, not cash.
SMALLEST_DIVIDEND = 2e-4

Ints = npt.NDArray[np.int64]


class Years:
    """Rows by year, on their way from files to the lake. Tickers and files are numbers here, for speed."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._files: list[Path] = []
        self._codes: dict[str, int] = {}
        self._held: list[pd.DataFrame] = []
        self._waiting: dict[int, list[int]] = {}
        self._settled: list[int] = []

    @property
    def tickers(self) -> list[str]:
        """All there are, in the order in which they came."""
        return list(self._codes)

    def new_file(self, path: Path) -> int:
        """The number of a file whose rows come next."""
        self._files.append(path)
        return len(self._files) - 1

    def add(self, rows: pd.DataFrame) -> None:
        """Usable rows of one file: file, ticker (a category), session, prices, volume, and what else it has."""
        codes = np.array([self._codes.setdefault(name, len(self._codes)) for name in rows["ticker"].cat.categories])
        self._held.append(rows.assign(ticker=codes.astype(np.int32)[rows["ticker"].cat.codes]))
        if sum(map(len, self._held)) >= HELD:
            self._cut()

    def _cut(self) -> None:
        """What is held, by year into the spool."""
        rows = pd.concat(self._held, ignore_index=True)
        self._held = []
        year = rows["session"].to_numpy(dtype="datetime64[Y]").astype(np.int16)
        columns = [
            pa.array(rows[field.name].to_numpy(), field.type) if field.name in rows else pa.nulls(len(rows), field.type)
            for field in _WAITING
        ]
        table = pa.Table.from_arrays(columns, schema=_WAITING).take(np.argsort(year, kind="stable"))
        years, counts = np.unique(year, return_counts=True)
        for each, start, count in zip(years.tolist(), np.cumsum(counts) - counts, counts, strict=True):
            self._waiting.setdefault(each, []).append(self._spool.append(table.slice(start, count)))

    def settle(self, exchange: Sessions, basis: str, own_dividends: list[bool]) -> tuple[list[int], list[pd.DataFrame]]:
        """Check all years, and keep their bars for `bars`: repeats of each file, and its actions, one a key.

        `own_dividends` says which files give dividends themselves. Raises InputError where rows of one ticker and
        session differ: within a file in anything, between files in a price or the volume.
        """
        if self._held:
            self._cut()
        names = pd.Index(self.tickers, dtype="str")
        repeats = np.zeros(len(self._files), dtype=np.int64)
        before, parts = None, []
        for year in sorted(self._waiting):
            rows = self._year(year, names)
            once = _once(rows, names, self._files)
            repeats += np.bincount(rows["file"], minlength=len(repeats)) - np.bincount(
                once["file"], minlength=len(repeats)
            )
            cash, before = _dividends(once, before, basis, np.array(own_dividends))
            parts.append(_actions(once, cash, basis, exchange, names))
            bars = once[_BAR][~once.duplicated(KEY)] if len(self._files) > 1 else once[_BAR]
            self._settled.append(self._spool.append(pa.Table.from_pandas(bars, preserve_index=False)))
        actions = pd.concat(parts, ignore_index=True)
        turn = actions.groupby(["ticker", "ex_date", "kind"], sort=False).cumcount()
        ordered = actions.sort_values("file", kind="stable")  # as if each file were stored by itself, one after another
        return repeats.tolist(), [part.drop(columns="file") for _, part in ordered.groupby(turn)]

    def bars(self, exchange: Sessions, basis: str) -> Iterator[pd.DataFrame]:
        """The bars of each year, once each, sorted by ticker and session."""
        names = pa.array(self.tickers, pa.string())
        for number in self._settled:
            table = self._spool[number]
            bars: pd.DataFrame = table.set_column(0, "ticker", pc.take(names, table["ticker"])).to_pandas()
            at = exchange.closes[exchange.index(bars["session"].to_numpy())]
            yield bars.assign(basis=basis, source="file", available_at=at)

    def _year(self, year: int, names: "pd.Index[str]") -> pd.DataFrame:
        """All rows of one year by ticker's name, session and file."""
        table = pa.concat_tables(self._spool[number] for number in self._waiting[year])
        rank = np.empty(len(names), dtype=np.int64)
        rank[np.argsort(names.to_numpy(dtype=object))] = np.arange(len(names))
        day = table["session"].cast(pa.int64()).to_numpy() // 86_400
        line = (rank[table["ticker"].to_numpy()] * 366 + day - day.min()) * len(self._files) + table["file"].to_numpy()
        if (np.diff(line) <= 0).any():
            table = table.take(np.argsort(line, kind="stable"))
        frame: pd.DataFrame = table.to_pandas()
        return frame


def _once(rows: pd.DataFrame, names: "pd.Index[str]", files: list[Path]) -> pd.DataFrame:
    """Sorted rows without those that a file repeats."""
    ticker, session = rows["ticker"].to_numpy(), rows["session"].to_numpy()
    again = (ticker[1:] == ticker[:-1]) & (session[1:] == session[:-1])
    if not again.any():
        return rows
    among = np.append(again, False) | np.append(False, again)
    several = rows[among]
    several = several.assign(ticker=names[several["ticker"]])
    repeated = several.duplicated()
    once = several[~repeated]
    for number, part in once.groupby("file"):
        _refuse_disagreement(part, files[int(str(number))])
    refuse_conflicts([once], KEY, [*PRICES, "volume"])
    kept: pd.DataFrame = rows.drop(index=several.index[repeated])
    return kept


def _refuse_disagreement(rows: pd.DataFrame, path: Path) -> None:
    twice = rows[rows.duplicated(KEY, keep=False)]
    if twice.empty:
        return
    first, second = twice.sort_values(KEY).iloc[:2].to_dict("records")
    differing = next(
        name for name in first if first[name] != second[name] and pd.notna([first[name], second[name]]).any()
    )
    raise InputError(
        f"{path}: expected one row per ticker and session; {len(twice)} rows of {first['session']:%Y} disagree, such "
        f"as {first['ticker']} on {first['session']:%Y-%m-%d}: {differing} {first[differing]} and "
        f"{second[differing]}. Keep the right one. Nothing was imported."
    )


def _dividends(
    rows: pd.DataFrame, before: pd.DataFrame | None, basis: str, own: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64], pd.DataFrame | None]:
    """Cash per share on each row, 0 for none; and what the next year's first rows need of this one's last."""
    if basis == "total":
        return np.zeros(len(rows)), None
    cash = np.nan_to_num(rows["dividend"].to_numpy())
    if basis == "raw" or rows["adj_close"].isna().all():
        return cash, before
    implied, before = _implied_dividends(rows, before)
    return np.where(own[rows["file"].to_numpy()], cash, implied), before


def _implied_dividends(rows: pd.DataFrame, before: pd.DataFrame | None) -> tuple[npt.NDArray[np.float64], pd.DataFrame]:
    """Cash per share on each ex-date, from the steps of adj_close / close (CRSP's factor, as Yahoo uses it).

    `before` holds the last row of each file and ticker of earlier years.
    """
    needed = rows[["file", "ticker", "close", "adj_close"]]
    whole = needed if before is None else pd.concat([before, needed], ignore_index=True)
    order = np.lexsort((whole["ticker"], whole["file"]))  # stable: sessions stay in order
    file, ticker, close, adjusted = (whole[name].to_numpy()[order] for name in needed.columns)
    follows = (file[1:] == file[:-1]) & (ticker[1:] == ticker[:-1])
    factor = adjusted / close
    step = 1 - factor[:-1] / factor[1:]
    cash = np.zeros(len(whole))
    cash[order[1:]] = np.where(follows & (step > SMALLEST_DIVIDEND), step * close[:-1], 0.0)
    return cash[len(whole) - len(rows) :], whole.iloc[order[np.append(~follows, True)]]


def _actions(
    rows: pd.DataFrame, cash: npt.NDArray[np.float64], basis: str, exchange: Sessions, names: "pd.Index[str]"
) -> pd.DataFrame:
    """Dividends and splits as one row each, with their file."""
    ratio = np.nan_to_num(rows["split"].to_numpy()) if basis == "raw" else np.zeros(len(rows))
    parts = []
    for kind, value, there in (("split", ratio, (ratio > 0) & (ratio != 1)), ("dividend", cash, cash > 0)):
        part = rows.loc[there, ["file", "ticker", "session", "announced_at"]]
        parts.append(part.assign(kind=kind, value=value[there]))
    actions = pd.concat(parts, ignore_index=True).rename(columns={"session": "ex_date"})
    opens = exchange.opens[exchange.index(actions["ex_date"].to_numpy())]
    announced = actions["announced_at"].to_numpy(dtype="datetime64[us]")
    # An announcement stamped after the ex-date is a late file's, not the market's.
    known_at = np.where(np.isnat(announced), opens, np.fmin(announced, opens))
    actions = actions.assign(ticker=names[actions["ticker"]], source="file", available_at=known_at)
    return actions[["file", "ticker", "ex_date", "kind", "value", "source", "available_at"]]
