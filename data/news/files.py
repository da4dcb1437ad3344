"""Historic headlines from a user's file: read, dated, keyed. Storing them is `data/news/store.py`.

A backfilled headline is available at `published_at + lag`; one that names only a day counts as known
at the close of the first session after that day.
"""

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd

from data.calendar import sessions
from data.errors import InputError
from data.intake import ODD_TICKER, Quarantine, clean_tickers, refuse_all_bad, refuse_unreadable
from data.news.dates import read_stamps
from data.tabular import read_table

REQUIRED = ("published_at", "title")
OPTIONAL = ("ticker", "id", "source", "url", "precision")
ALIASES = {
    "published_at": ("published", "created_at", "timestamp", "datetime", "date"),
    "title": ("headline", "text"),
    "ticker": ("symbol", "stock"),
}


@dataclass(frozen=True)
class HeadlineFile:
    """One file's usable rows, one a headline and ticker: the columns of `headlines` plus `ticker`."""

    rows: pd.DataFrame
    read: int
    quarantine: Quarantine


def read_headlines(
    path: Path,
    mapping: dict[str, str],
    calendar: str,
    zone: str | None,
    lag: np.timedelta64,
    now: np.datetime64,
) -> HeadlineFile:
    """The headlines of a CSV or Parquet file, each with the instant it became available.

    `zone` (IANA) is that of stamps without one. `now` bounds what counts as the future. Raises
    InputError for a file that cannot be trusted; rows that cannot are quarantined and counted.
    """
    raw = read_table(path, REQUIRED, OPTIONAL, ALIASES, mapping)
    quarantine = Quarantine()
    stamps = read_stamps(raw["published_at"], zone, now)
    refuse_unreadable(stamps["problem"], raw["published_at"], path, "Give --tz ZONE where stamps carry no zone.")
    rows = _rows(raw, stamps)
    rows["available_at"] = _available_at(rows, calendar, lag)
    rows = quarantine.drop(rows, _problems(rows, stamps["problem"]))
    refuse_all_bad(rows, quarantine, path)
    _refuse_disagreement(rows, path)
    once = rows.drop_duplicates(["id", "ticker"], ignore_index=True)
    quarantine.add("duplicate row", len(rows) - len(once))
    return HeadlineFile(once, len(raw), quarantine)


def _rows(raw: pd.DataFrame, stamps: pd.DataFrame) -> pd.DataFrame:
    def text(name: str) -> pd.Series:
        column = raw[name] if name in raw else pd.Series(pd.NA, index=raw.index)
        return column.astype("string").str.strip()

    day = stamps["day"]
    if "precision" in raw:
        # A file may say that its midnights are times; one without a zone still cannot be placed.
        timed = raw["precision"].notna() & text("precision").ne("day").fillna(False) & stamps["at"].notna()
        day = text("precision").eq("day").fillna(False) | (day & ~timed)
    rows = pd.DataFrame(
        {
            "title": text("title").str.replace(r"\s+", " ", regex=True),
            "source": text("source"),
            "url": text("url"),
            "published_at": stamps["at"].where(~day, stamps["date"]),
            "published_raw": raw["published_at"].astype("string"),
            "precision": np.where(day, "day", "second"),
            "ticker": clean_tickers(text("ticker")),
        }
    )
    rows["id"] = _ids(rows, text("id"))
    return rows


def _ids(rows: pd.DataFrame, given: pd.Series) -> list[str]:
    """A stable id: the file's own within its source, else of title, source, address and stamp."""
    source, title, url = (rows[name].fillna("") for name in ("source", "title", "url"))
    stamp = rows["published_at"].astype("int64").astype(str)
    own = "id\x1f" + source + "\x1f" + given.fillna("")
    made = "text\x1f" + source + "\x1f" + title + "\x1f" + url + "\x1f" + stamp
    return [blake2b(key.encode(), digest_size=12).hexdigest() for key in own.where(given.notna(), made)]


def _available_at(rows: pd.DataFrame, calendar: str, lag: np.timedelta64) -> pd.Series:
    published = rows["published_at"].to_numpy()
    closes = sessions(calendar).close_after(published)
    known_at = np.where(rows["precision"] == "day", closes, published)
    return pd.Series(known_at + lag, index=rows.index)


def _problems(rows: pd.DataFrame, stamp: pd.Series) -> pd.Series:
    problem = stamp.copy()
    problem[(problem == "") & rows["available_at"].isna()] = "stamp outside the calendar"
    problem[(problem == "") & (rows["title"].isna() | (rows["title"] == ""))] = "empty title"
    odd = rows["ticker"].notna() & ~rows["ticker"].str.match(ODD_TICKER).fillna(False)
    problem[(problem == "") & odd] = "odd ticker"
    return problem


def _refuse_disagreement(rows: pd.DataFrame, path: Path) -> None:
    facts = rows.drop_duplicates(["id", "title", "published_at"])
    twice = facts[facts.duplicated("id", keep=False)].sort_values("id")
    if twice.empty:
        return
    first, second = twice.iloc[0], twice.iloc[1]
    raise InputError(
        f"{path}: expected rows of one item to agree; {twice['id'].nunique()} items do not, such as "
        f"{first['title'][:60]!r} ({first['published_raw']}) and {second['title'][:60]!r} "
        f"({second['published_raw']}) under one id. Keep one of each. Nothing was imported."
    )
