"""What the lake holds: `tapewire headlines` and `tapewire bars`. Reads, never writes."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from data.errors import LakeError
from data.lake import Lake
from data.news.clusters import cluster
from data.packing import naive_utc

Record = dict[str, Any]  # one row, JSON-ready
LINK_COLUMNS = {"tickers": "ticker", "link_rule": "rule", "confidence": "confidence"}  # ours -> the lake's


def headlines(lake: Lake, as_of: np.datetime64 | None, limit: int | None) -> Iterator[Record]:
    """Current headlines known at `as_of`, oldest first, with the tickers known to be theirs by then.

    `link_rule` and `confidence` go with `tickers`, one for each. `cluster` is the id of the first of
    the near-duplicates it belongs to, its own where it is the first. `limit` keeps the newest that
    many; None keeps all.
    """
    rows = lake.current("headlines", as_of).sort_values(["available_at", "id"], ignore_index=True)
    links = lake.current("links", as_of).groupby("id")
    linked = {name: rows["id"].map(links[column].agg(list)) for name, column in LINK_COLUMNS.items()}
    first = cluster(rows["title"].tolist(), naive_utc(rows["available_at"]), rows["id"].tolist())
    rows = rows.assign(cluster=rows["id"].to_numpy()[first], **linked)
    columns = ["id", "version", "title", "summary", "source", "url", "published_at", "published_raw", "precision"]
    columns += ["first_seen_at", "available_at", "recorded_at", "origin", *LINK_COLUMNS, "cluster"]
    for record in _records(_newest(rows, limit)[columns]):
        yield {**record, **{name: record[name] or [] for name in LINK_COLUMNS}}


def bars(lake: Lake, ticker: str, as_of: np.datetime64 | None, limit: int | None) -> Iterator[Record]:
    """Current bars of one ticker known at `as_of`, oldest first. Raises LakeError where it has none at all."""
    rows = lake.current("bars", as_of)
    rows = rows[rows["ticker"] == ticker]
    if rows.empty:
        known = "" if as_of is None else " known by then"
        raise LakeError(f"{ticker}: expected bars of it in {lake.folder}, found none{known}.")
    rows = rows.assign(session=rows["session"].dt.strftime("%Y-%m-%d"))
    yield from _records(_newest(rows, limit))


def _newest(rows: pd.DataFrame, limit: int | None) -> pd.DataFrame:
    return rows if limit is None else rows.tail(limit)


def _records(rows: pd.DataFrame) -> Iterator[Record]:
    for record in rows.to_dict("records"):
        yield {str(name): _plain(value) for name, value in record.items()}


def _plain(value: Any) -> Any:
    """Instants as ISO 8601 with their offset, what is missing as None."""
    if isinstance(value, list):
        return value
    if pd.isna(value):
        return None
    return value.isoformat() if isinstance(value, pd.Timestamp) else value
