"""Which tickers belonged when: an index's members or a desk's list by date, those since delisted included.

Without it a test holds only the names that are still there today, which are the ones that did well. Reads no
prices; whether a name has gone is told by its bars (`delisted`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.calendar import EARLIEST, Labels
from data.errors import InputError
from data.intake import ODD_TICKER, clean_tickers
from data.news.dates import read_stamps
from data.tabular import read_table

Mask = npt.NDArray[np.bool_]

REQUIRED = ("ticker", "from")
OPTIONAL = ("to",)
ALIASES = {
    "ticker": ("symbol",),
    "from": ("valid_from", "start", "added"),
    "to": ("valid_to", "end", "removed"),
}
NEVER = np.datetime64("9999-12-31", "D")
SILENT = 20  # sessions without a bar at the end: no halt of a going company lasts so long


@dataclass(frozen=True)
class Universe:
    """Spans of membership: `ticker[i]` belongs from day `first[i]` to the day before `until[i]`."""

    ticker: tuple[str, ...]
    first: Labels
    until: Labels

    @staticmethod
    def read(path: Path) -> "Universe":
        """A CSV or Parquet file of ticker, from and, where it has ended, to: days, the last of them outside.

        A ticker may come and go in several rows. Raises InputError where a row cannot be read, ends before it
        begins, or overlaps another of its ticker.
        """
        raw = read_table(path, REQUIRED, OPTIONAL, ALIASES, {})
        ticker = clean_tickers(raw["ticker"])
        first = _days(raw["from"], path)
        until = _days(raw["to"], path) if "to" in raw else np.full(len(raw), np.datetime64("NaT", "D"))
        until = np.where(np.isnat(until), NEVER, until)
        odd = ~ticker.str.match(ODD_TICKER).fillna(False).to_numpy(dtype=bool)
        _refuse(path, odd, ticker, "a ticker such as BRK-B")
        _refuse(path, np.isnat(first), ticker, "a day in `from`")
        _refuse(path, first >= until, ticker, "`from` before `to`")
        order = np.lexsort((first, ticker.to_numpy(dtype=object).astype(str)))
        names, first, until = ticker.to_numpy(dtype=object)[order], first[order], until[order]
        overlaps = np.append(False, (names[1:] == names[:-1]) & (first[1:] < until[:-1]))
        _refuse(path, overlaps, pd.Series(names), "spans of one ticker that do not overlap")
        return Universe(tuple(names.tolist()), first, until)

    @property
    def tickers(self) -> tuple[str, ...]:
        """Every ticker that ever belonged, sorted."""
        return tuple(sorted(set(self.ticker)))

    def members(self, tickers: Sequence[str], labels: Labels) -> Mask:
        """[tickers, labels]: who belonged on each day."""
        found = np.zeros((len(tickers), len(labels)), dtype=bool)
        place = {ticker: row for row, ticker in enumerate(tickers)}
        low, high = np.searchsorted(labels, self.first), np.searchsorted(labels, self.until)
        for ticker, begin, end in zip(self.ticker, low.tolist(), high.tolist(), strict=True):
            if ticker in place:
                found[place[ticker], begin:end] = True
        return found


def delisted(observed: Mask) -> npt.NDArray[np.int64]:
    """Rows of `observed` [tickers, sessions] that had bars and have had none for the last `SILENT` sessions."""
    gone = observed.any(axis=1) & ~observed[:, -SILENT:].any(axis=1)
    return np.flatnonzero(gone)


def _days(stamps: "pd.Series[str]", path: Path) -> Labels:
    """Days as datetime64[D], NaT where a cell is empty. InputError where one is no day."""
    given = stamps.notna() & (stamps.astype("string").str.strip() != "")
    read = read_stamps(
        stamps, "UTC", np.datetime64("9999-01-01", "us"), EARLIEST.to_datetime64().astype("datetime64[us]")
    )
    wrong = given & (~read["day"] | (read["problem"] != ""))
    _refuse(path, wrong.to_numpy(dtype=bool), stamps, "days such as 2015-12-30")
    days: Labels = read["date"].to_numpy(dtype="datetime64[D]")
    days[~given.to_numpy(dtype=bool)] = np.datetime64("NaT", "D")
    return days


def _refuse(path: Path, wrong: Mask, shown: "pd.Series[str]", expected: str) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(
            f"{path}: expected {expected}; {int(wrong.sum())} rows are not so, such as row {row + 1} "
            f"({shown.iloc[row]!r}). Mend the file: ticker, from, to (the first day outside; empty while it lasts)."
        )
