"""The alias table: which company a name meant, and when. A fixed, versioned set of rows; it links nothing itself.

A row without `valid_from` is today's knowledge: names that have since changed or gone are not in such a
table, and links made through it are marked as hindsight. Dates are days at 00:00 UTC, half-open.
"""

import csv
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

from data.errors import InputError
from data.intake import ODD_TICKER
from data.linking.names import core, is_fund

COLUMNS = ("name", "ticker", "valid_from", "valid_to")
_FORMS = (
    "a CSV with the columns name, ticker and, where known, valid_from and valid_to (such as 2022-06-09), or SEC's "
    "company_tickers.json"
)


@dataclass(frozen=True)
class Alias:
    """`name` meant `ticker` from `valid_from` until the day before `valid_to`; None is open."""

    name: str
    ticker: str
    valid_from: date | None = None
    valid_to: date | None = None

    @property
    def dated(self) -> bool:
        """Whether either end is known."""
        return self.valid_from is not None or self.valid_to is not None

    @property
    def hindsight(self) -> bool:
        """Whether it is unknown since when the name has meant this ticker."""
        return self.valid_from is None

    def overlaps(self, other: "Alias") -> bool:
        """Whether there is a day on which both hold; a dated row goes before an undated one, which then yields."""
        return (
            self.dated == other.dated
            and (self.valid_from or date.min) < (other.valid_to or date.max)
            and (other.valid_from or date.min) < (self.valid_to or date.max)
        )


@dataclass(frozen=True)
class AliasTable:
    """Rows in a fixed order, whatever order they were given in, and every symbol the sources list.

    A dated row tells since when, so an undated one of the same name (`names.core`) and ticker goes. An undated
    one of another ticker stays for the days that no dated row covers. `symbols` also holds share classes that
    no name points to.
    """

    rows: tuple[Alias, ...]
    symbols: frozenset[str]

    @staticmethod
    def of(rows: Iterable[Alias], symbols: Iterable[str] = (), origin: str = "the alias table") -> "AliasTable":
        """A table of `rows`. InputError where a name would mean two tickers on one day, or a row holds nothing."""
        named: dict[str, set[Alias]] = defaultdict(set)
        for row in rows:
            _check(row, origin)
            named[core(row.name)].add(row)
        kept = [row for same in named.values() for row in _settled(same, origin)]
        return AliasTable(
            rows=tuple(sorted(kept, key=_order)),
            symbols=frozenset(symbols) | {row.ticker for row in kept},
        )

    @staticmethod
    def read(path: Path) -> "AliasTable":
        """The table in a file: SEC's company_tickers.json, or a CSV of `COLUMNS`. InputError where it is neither."""
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"{path}: expected {_FORMS}; it cannot be read as UTF-8 text ({error}). Check the path, or save it as "
                "UTF-8."
            ) from error
        if text.lstrip()[:1] in ("{", "["):
            return _from_sec(text, path)
        return AliasTable.of(_from_csv(text, path), origin=str(path))

    @staticmethod
    def known() -> "AliasTable":
        """Names of well-known companies that no registered name yields (Google, Exxon), dated where that is certain.

        Written by hand from common knowledge and no more than a start; merge one's own table after it.
        """
        return AliasTable.read(Path(__file__).with_name("known.csv"))

    @staticmethod
    def merge(*tables: "AliasTable") -> "AliasTable":
        """All tables as one. Where two give a name different tickers on one day, the later table's row holds."""
        named: dict[str, list[Alias]] = defaultdict(list)
        for table in tables:
            fresh: dict[str, list[Alias]] = defaultdict(list)
            for row in table.rows:
                fresh[core(row.name)].append(row)
            for name, rows in fresh.items():
                named[name] = [old for old in named[name] if not any(map(old.overlaps, rows))] + rows
        return AliasTable.of(
            (row for rows in named.values() for row in rows),
            (symbol for table in tables for symbol in table.symbols),
        )

    @cached_property
    def version(self) -> str:
        """16 hexadecimal digits that stand for the content: equal for equal tables, however they were made."""
        content = [[row.name, row.ticker, str(row.valid_from), str(row.valid_to)] for row in self.rows]
        text = json.dumps([content, sorted(self.symbols)], ensure_ascii=True)
        return blake2b(text.encode(), digest_size=8).hexdigest()

    def __len__(self) -> int:
        return len(self.rows)


def _order(row: Alias) -> tuple[str, str, date, date]:
    return row.name, row.ticker, row.valid_from or date.min, row.valid_to or date.max


def _check(row: Alias, origin: str) -> None:
    if not core(row.name):
        raise InputError(f"{origin}: expected a name with letters or digits for {row.ticker}; found {row.name!r}.")
    if not re.match(ODD_TICKER, row.ticker):
        raise InputError(
            f"{origin}: expected a ticker such as BRK-B for {row.name!r}; found {row.ticker!r}. Correct the row."
        )
    if row.valid_from and row.valid_to and row.valid_to <= row.valid_from:
        raise InputError(
            f"{origin}: expected valid_to after valid_from (valid_to is the first day on which {row.name!r} no longer "
            f"means {row.ticker}); found {row.valid_from} to {row.valid_to}. Correct the row."
        )


def _settled(same: set[Alias], origin: str) -> Sequence[Alias]:
    """The rows of one name that hold. No day may have two tickers."""
    dated = {row.ticker for row in same if row.dated}
    rows = sorted((row for row in same if row.dated or row.ticker not in dated), key=_order)
    for place, row in enumerate(rows):
        for other in rows[place + 1 :]:
            if row.ticker != other.ticker and row.overlaps(other):
                raise InputError(
                    f"{origin}: expected a name to mean one ticker at a time; {row.name!r} is {row.ticker} "
                    f"({_span(row)}) and {other.name!r} is {other.ticker} ({_span(other)}). Give the dates at which "
                    "it changed, a fuller name to one of them, or of two share classes the one you follow."
                )
    return rows


def _span(row: Alias) -> str:
    return f"{row.valid_from or 'always'} to {row.valid_to or 'now'}"


def _from_sec(text: str, path: Path) -> AliasTable:
    """One row a company, its first-listed ticker; every ticker a symbol.

    A fund family files all its funds under one name, so such a name is nobody's; equal names of two
    companies are nobody's either.
    """
    entries = sorted(_sec_entries(text, path), key=lambda entry: entry[0])
    companies: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for _, company, ticker, name in entries:
        companies[company].append((name, ticker))
    rows = [Alias(*listed[0]) for listed in companies.values() if not _family(listed)]
    named: dict[str, list[Alias]] = defaultdict(list)
    for row in rows:
        named[core(row.name)].append(row)
    single = [same[0] for name, same in named.items() if name and len({row.ticker for row in same}) == 1]
    return AliasTable.of(single, (ticker for _, _, ticker, _ in entries), origin=str(path))


def _family(listed: list[tuple[str, str]]) -> bool:
    """Whether tickers of one filer are different funds, rather than share classes, which begin alike."""
    name, ticker = listed[0]
    return is_fund(name) and not all(other.startswith(ticker[:2]) for _, other in listed)


def _sec_entries(text: str, path: Path) -> Iterable[tuple[int, int, str, str]]:
    try:
        document: Any = json.loads(text)
        return [
            (int(rank), int(entry["cik_str"]), str(entry["ticker"]).strip().upper(), str(entry["title"]))
            for rank, entry in document.items()
        ]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(
            f'{path}: expected {_FORMS}, which looks like {{"0": {{"cik_str": 320193, "ticker": "AAPL", "title": '
            f'"Apple Inc."}}, ...}}; found JSON of another shape ({type(error).__name__}: {error}). Download it from '
            "https://www.sec.gov/files/company_tickers.json."
        ) from error


def _from_csv(text: str, path: Path) -> list[Alias]:
    reader = csv.DictReader(io.StringIO(text), restkey="", strict=True)
    try:
        columns = [str(column).strip() for column in reader.fieldnames or []]
        unknown = [column for column in columns if column not in COLUMNS]
        if unknown or not {"name", "ticker"} <= set(columns) or len(set(columns)) < len(columns):
            raise InputError(
                f"{path}: expected {_FORMS}; found the columns {', '.join(columns) or 'none'}. Rename or remove what "
                "is not among them."
            )
        reader.fieldnames = columns
        rows = [_row(cells, f"{path}, line {reader.line_num}") for cells in reader if any(cells.values())]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: expected {_FORMS}; found broken CSV ({error}).") from error
    if not rows:
        raise InputError(f"{path}: expected {_FORMS}; found no rows. Add one a name.")
    return rows


def _row(cells: dict[str, Any], where: str) -> Alias:
    if "" in cells:
        raise InputError(f"{where}: expected as many cells as columns; found more. Quote names that hold a comma.")
    alias = Alias(
        name=(cells["name"] or "").strip(),
        ticker=(cells["ticker"] or "").strip().upper(),
        valid_from=_day(cells.get("valid_from"), where),
        valid_to=_day(cells.get("valid_to"), where),
    )
    _check(alias, where)
    return alias


def _day(cell: str | None, where: str) -> date | None:
    text = (cell or "").strip()
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"{where}: expected a date such as 2022-06-09, or nothing; found {text!r}. Write the year first."
        ) from None
