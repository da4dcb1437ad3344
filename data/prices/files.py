"""Daily bars of a user's CSV, Parquet or JSON lines file: read in batches and checked row by row. No network.

`basis` says what the file's prices are: `raw` (as traded; its splits and dividends are applied when
returns are computed), `split` (already split-adjusted: a split column is not applied again) or
`total` (splits and dividends adjusted: neither is applied). An adjusted close beside a `split` file
gives the dividends. What rows say together, such as one bar twice, is looked at in `years.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from data.calendar import EARLIEST, Sessions, sessions, zone_of
from data.errors import InputError
from data.intake import MOST_UNREADABLE, ODD_TICKER, UNREADABLE, Quarantine, clean_tickers
from data.news.dates import read_stamps
from data.prices.years import ACTION_VALUES, PRICES, Years
from data.quality import has_decimal_commas, row_codes
from data.tabular import choose_columns, read_batches

Basis = Literal["raw", "split", "total"]
Mask = npt.NDArray[np.bool_]

REQUIRED = ("date", *PRICES, "volume")
OPTIONAL = ("ticker", *ACTION_VALUES, "announced_at")
ALIASES = {
    "date": ("session", "datetime", "timestamp"),
    "ticker": ("symbol",),
    "adj_close": ("adjclose", "adjusted_close"),
    "dividend": ("dividends",),
    "split": ("splits", "stock_splits"),
}
NEVER = np.datetime64("9999-01-01", "us")


@dataclass(frozen=True)
class PriceTerms:
    """How price files are read: `mapping` ours -> theirs, `ticker` of files without that column, `now` in UTC."""

    mapping: dict[str, str]
    calendar: str
    basis: Basis
    ticker: str | None
    now: np.datetime64

    @property
    def exchange(self) -> Sessions:
        """The calendar's sessions."""
        return sessions(self.calendar)


@dataclass
class PriceFile:
    """One file on its way: rows read, rows left out by reason, and which of our columns it has."""

    path: Path
    read: int = 0
    quarantine: Quarantine = field(default_factory=Quarantine)
    columns: tuple[str, ...] = ()
    unreadable: int = 0
    example: str = ""  # the first stamp that could not be read, for the message

    def refuse_untrusted(self) -> None:
        """InputError where more than 1% of the stamps could not be read, or no row was usable."""
        if self.unreadable > MOST_UNREADABLE * self.read:
            raise InputError(
                f"{self.path}: expected stamps such as 2015-12-30 or 2015-12-30T16:05:00-05:00; {self.unreadable} of "
                f"{self.read} ({self.unreadable / self.read:.0%}) are not: {self.example}. Write dates as YYYY-MM-DD. "
                "Nothing was imported."
            )
        if sum(self.quarantine.skipped.values()) == self.read:
            reasons = ", ".join(f"{reason}: {rows}" for reason, rows in self.quarantine.skipped.items())
            raise InputError(f"{self.path}: expected usable rows, found none ({reasons}). Nothing was imported.")


def read_prices(path: Path, terms: PriceTerms, years: Years) -> PriceFile:
    """Put the usable rows of a file into `years`.

    Raises InputError for a file that cannot be trusted; rows that cannot (see `data/quality`) are quarantined and
    counted.
    """
    file = PriceFile(path)

    def choose(names: list[str]) -> dict[str, str]:
        found = choose_columns(names, REQUIRED, OPTIONAL, ALIASES, terms.mapping, path)
        refuse_ticker(path, "ticker" in found, terms.ticker)
        file.columns = tuple(found)
        return found

    number = years.new_file(path)
    for table in read_batches(path, choose):
        years.add(_usable(table, terms, file).assign(file=np.int32(number)))
        file.read += table.num_rows
    file.refuse_untrusted()
    return file


def refuse_ticker(path: Path, has: bool, ticker: str | None) -> None:
    """InputError where a file's tickers are said twice, or not at all."""
    if has and ticker is not None:
        raise InputError(f"{path}: has a ticker column, so --ticker {ticker} is not needed; leave it out.")
    if not has and ticker is None:
        raise InputError(f"{path}: expected a ticker column, found none. Say which ticker it is with --ticker NAME.")


def _usable(table: pa.Table, terms: PriceTerms, file: PriceFile) -> pd.DataFrame:
    """The rows of `table` without a fault, as the columns of `Years`; those with one are counted in `file`."""
    rows, faults = price_rows(table, terms, file.path)
    bad = np.zeros(len(rows), dtype=bool)
    for reason, where in faults:
        new = where & ~bad
        if reason in UNREADABLE and new.any():
            if not file.unreadable:
                at = int(np.argmax(new))
                file.example = f"row {file.read + at + 1} holds {str(table['date'][at].as_py())[:100]!r} ({reason})"
            file.unreadable += int(new.sum())
        file.quarantine.add(reason, new.sum())
        bad |= new
    return rows[~bad] if bad.any() else rows


def price_rows(table: pa.Table, terms: PriceTerms, path: Path) -> tuple[pd.DataFrame, Iterator[tuple[str, Mask]]]:
    """All rows, and each fault with the rows that have it; of a row's faults the first one counts.

    Raises InputError where prices are written with commas: a decimal comma cannot be told from one of thousands.
    """
    if has_decimal_commas(table):
        raise InputError(
            f"{path}: expected prices such as 1234.56, found some written with commas. Convert "
            "them. Nothing was imported.",
            code="decimal-comma",
        )
    has = table.column_names
    days, day = _distinct(table["date"])
    session, problem = _sessions(days, terms)
    tickers, ticker = _distinct(table["ticker"] if "ticker" in has else pa.chunked_array([[terms.ticker]]))
    names = clean_tickers(tickers)
    if "ticker" not in has:
        ticker = np.zeros(table.num_rows, dtype=np.int64)
    numbers = {name: _numbers(table[name]) for name in (*PRICES, "volume", *ACTION_VALUES) if name in has}
    rows = pd.DataFrame(
        {
            "ticker": pd.Categorical.from_codes(*_merged(names, ticker)),
            "session": session[day],
            **numbers,
        }
    )
    if "announced_at" in has:
        stamps, stamp = _distinct(table["announced_at"])
        announced = read_stamps(stamps, zone_of(terms.calendar), NEVER)
        # A day alone does not say when that day: the action's ex-date then decides (see `years.py`).
        rows["announced_at"] = announced["at"].mask(announced["day"]).to_numpy()[stamp]

    def faults() -> Iterator[tuple[str, Mask]]:
        for reason in dict.fromkeys(problem[problem != ""]):
            yield reason, (problem == reason)[day]
        yield "no ticker", names.isna().to_numpy(dtype=bool)[ticker]
        yield "odd ticker", ~names.str.match(ODD_TICKER).fillna(False).to_numpy(dtype=bool)[ticker]
        codes = row_codes(rows, terms.exchange, terms.now)
        for code in codes[codes != ""].unique():
            yield code, (codes == code).to_numpy()
        yield from _odd_values(table, rows)

    return rows, faults()


def _odd_values(table: pa.Table, rows: pd.DataFrame) -> Iterator[tuple[str, Mask]]:
    """Faults of the columns that tell of dividends and splits; an empty dividend or split is none."""
    if "adj_close" in rows:
        yield "unreadable adjusted close", ~np.isfinite(rows["adj_close"].to_numpy())
        yield "adjusted close not above zero", rows["adj_close"].to_numpy() <= 0
    for name in ("dividend", "split"):
        if name in rows:
            given = ~pc.is_null(table[name], nan_is_null=pa.types.is_floating(table[name].type)).to_numpy()
            values = rows[name].to_numpy()
            yield "unreadable dividend or split", given & ~(np.isfinite(values) & (values >= 0))
    if "dividend" in rows:
        yield "dividend above the close", (rows["dividend"] > rows["close"]).to_numpy()


def _sessions(days: pd.Series, terms: PriceTerms) -> tuple[npt.NDArray[np.datetime64], npt.NDArray[Any]]:
    """The session that each stamp names, NaT where there is a problem, and the problem ("" for none)."""
    zone = zone_of(terms.calendar)
    stamps = read_stamps(days, zone, terms.now, EARLIEST.to_datetime64().astype("datetime64[us]"))
    local = stamps["at"].dt.tz_localize("UTC").dt.tz_convert(zone).dt.tz_localize(None)
    session = stamps["date"].where(stamps["day"], local).dt.normalize()
    return session.to_numpy(dtype="datetime64[s]"), stamps["problem"].to_numpy(dtype=object)


def _distinct(column: pa.ChunkedArray) -> tuple[pd.Series, npt.NDArray[np.int64]]:
    """The different cells, a missing one too, and which of them each row holds: a few thousand among millions."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    try:
        coded = column.combine_chunks().dictionary_encode("encode")
    except pa.ArrowException:  # lists and the like
        codes, cells = pd.factorize(column.to_pandas().astype("string"), use_na_sentinel=False)
        return pd.Series(cells), codes
    return coded.dictionary.to_pandas(date_as_object=False), coded.indices.to_numpy().astype(np.int64)


def _merged(names: "pd.Series[str]", rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], "pd.Index[str]"]:
    """Codes and categories where several spellings give one name; -1 where there is none."""
    codes, categories = pd.factorize(names)
    return codes[rows], pd.Index(categories, dtype="str")


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """NaN where a cell is missing or no number."""
    if not (pa.types.is_boolean(column.type) or pa.types.is_temporal(column.type)):
        try:
            return np.asarray(column.cast(pa.float64(), safe=False).to_numpy())
        except pa.ArrowException:
            pass
    numbers: npt.NDArray[np.float64] = pd.to_numeric(column.to_pandas(), errors="coerce").to_numpy(np.float64)
    return numbers
