"""Headlines and their links into the lake. A changed title is a new version with its own stamp."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from data.asof import Instants
from data.lake import Lake, revisions

# Titles and when each was known, to rows of: row, ticker, rule, confidence, hindsight.
FindTickers = Callable[[Sequence[str], Instants], pd.DataFrame]

GIVEN = ("dataset", "feed")  # rules of links that a source states itself


@dataclass(frozen=True)
class Stored:
    """New rows in the lake."""

    headlines: int
    links: int


def store_backfill(lake: Lake, rows: pd.DataFrame, recorded_at: np.datetime64, find: FindTickers) -> Stored:
    """Add rows of a historic file (see `HeadlineFile.rows`); what is stored already is left as it is.

    A title that differs from the stored one was first seen now: its version is available from
    `recorded_at`. Headlines for which the file names no ticker are given to `find`.
    """
    nowhere = pd.Series(np.datetime64("NaT", "us"), index=rows.index)
    stamped = rows.assign(first_seen_at=nowhere, recorded_at=recorded_at, origin="backfill")
    return _store(lake, stamped, GIVEN[0], find)


def store_live(lake: Lake, rows: pd.DataFrame, seen_at: np.datetime64, find: FindTickers) -> Stored:
    """Add rows that feeds gave (see `data.news.wire`), first seen at `seen_at` and never available before."""
    stamped = rows.assign(first_seen_at=seen_at, available_at=seen_at, recorded_at=seen_at, origin="live")
    return _store(lake, stamped, GIVEN[1], find)


def _store(lake: Lake, stamped: pd.DataFrame, rule: str, find: FindTickers) -> Stored:
    """Links are committed before headlines: a killed run leaves at most links to nothing; its re-run completes it."""
    incoming = stamped.drop_duplicates("id", ignore_index=True)
    changed = revisions(lake.current_among("headlines", incoming["id"], ["title"]), incoming, "headlines", ["title"])
    edited = changed["version"] > 1
    seen_now = np.maximum(changed["available_at"].to_numpy(), changed["recorded_at"].to_numpy())
    changed["available_at"] = changed["available_at"].where(~edited, seen_now)
    given = stamped[stamped["ticker"].notna()].assign(rule=rule, confidence=1.0, hindsight=False)
    links = pd.concat([given, _found(changed[~_among(changed["id"], given["id"])], find)], ignore_index=True)
    stored = lake.merge("links", _utc(links.drop_duplicates(["id", "ticker"], ignore_index=True)))
    return Stored(lake.merge("headlines", _utc(changed)), stored)


def store_links(lake: Lake, recorded_at: np.datetime64, find: FindTickers) -> int:
    """Give every stored version of a headline that nobody labelled to `find`; the number of links added.

    A link is known when the version that shows it was; one that is stored already stays as it is.
    """
    links = lake.frame("links", ["id", "rule"])
    labelled = links.loc[links["rule"].isin(GIVEN), "id"]
    rows = lake.frame("headlines", ["id", "version", "title", "available_at"])
    rows = rows[~_among(rows["id"], labelled)].sort_values(["id", "version"], ignore_index=True)
    rows["available_at"] = rows["available_at"].dt.tz_localize(None)
    found = _found(rows.assign(recorded_at=recorded_at, origin="backfill"), find)
    return lake.merge("links", _utc(found.drop_duplicates(["id", "ticker"], ignore_index=True)))


def _found(headlines: pd.DataFrame, find: FindTickers) -> pd.DataFrame:
    """The links that `find` sees in titles; known when the title was."""
    found = find(headlines["title"].tolist(), headlines["available_at"].to_numpy())
    base = headlines.drop(columns="ticker", errors="ignore").iloc[found["row"].to_numpy()].reset_index(drop=True)
    return base.join(found.drop(columns="row").reset_index(drop=True))


def _among(ids: pd.Series, others: pd.Series) -> "pd.Series[bool]":
    """`isin`, which for pandas' own strings is 30 times slower than for Python's."""
    return ids.astype(object).isin(others.astype(object))


def _utc(rows: pd.DataFrame) -> pd.DataFrame:
    naive = rows.select_dtypes("datetime").columns
    return rows.assign(**{name: rows[name].dt.tz_localize("UTC") for name in naive})
